package redis

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

// once is a command that the client sends one time only, also as part of a
// pipeline, whatever its MaxRetries.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// inline reports whether a call may do its I/O itself: nothing but the answer or
// the operation timeout can end it, and the client sees to the latter.
func (c *Cache) inline(ctx context.Context) bool { return c.bounded && ctx.Done() == nil }

// send has cmd done, and returns no later than ctx and the operation timeout say.
// It may still be sent, or read, after that.
func (c *Cache) send(ctx context.Context, op, key string, cmd redis.Cmder) error {
	opCtx, cancel := context.WithTimeout(ctx, c.opTimeout)
	defer cancel()
	var err error
	if c.inline(ctx) {
		err = c.process(opCtx, cmd)
	} else {
		done := make(chan error, 1)
		go func() { done <- c.process(opCtx, cmd) }()
		select {
		case err = <-done:
		case <-opCtx.Done():
			err = opCtx.Err()
		case <-c.closing:
			err = l2cache.ErrClosed
		}
	}
	if err != nil {
		return c.newError(ctx, op, key, err)
	}
	return nil
}

func (c *Cache) process(ctx context.Context, cmd redis.Cmder) error {
	if !c.begin() {
		return l2cache.ErrClosed
	}
	defer c.calls.Done()
	return c.client.Process(ctx, once{cmd})
}

// kind is the contract's word for an error of go-redis; nil leaves it to
// NewError, which says ErrUnavailable for what it does not know.
func kind(err error) error {
	switch {
	case errors.Is(err, redis.Nil):
		return l2cache.ErrNotFound
	case redis.HasErrorPrefix(err, "OOM "):
		return l2cache.ErrFull
	case redis.HasErrorPrefix(err, "WRONGTYPE "):
		return l2cache.ErrCorrupt
	case errors.Is(err, redis.ErrClosed): // by the one who made it
		return l2cache.ErrClosed
	}
	return nil
}
