package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

// A pipeliner sends commands in one pipeline, each of them once, and leaves in each
// its reply or its error. It returns the first error.
type pipeliner interface {
	pipeline(ctx context.Context, deadline time.Time, cmds []redis.Cmder) error
	// rest closes the connections that no call is on, if the client is the handle's own.
	rest()
	// close ends the pipelines under way, if the client is the handle's own.
	close()
}

// once is a command that its client sends one time only, whatever its MaxRetries,
// with the rest of its pipeline.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// shared is a client that a caller has made. Its pipelines outlast their ctx, by
// the client's own timeouts.
type shared struct{ client *redis.Client }

func (s shared) pipeline(ctx context.Context, deadline time.Time, cmds []redis.Cmder) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return pipeline(ctx, s.client, cmds)
}

func (s shared) rest()  {}
func (s shared) close() {}

// errUnsent marks a command that go-redis has not come to.
var errUnsent = errors.New("not sent")

func pipeline(ctx context.Context, client *redis.Client, cmds []redis.Cmder) error {
	err := process(ctx, client, cmds)
	if !foreign(err) {
		return err
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); foreign(err) {
			cmd.SetErr(notRedis{err})
		}
	}
	return notRedis{err}
}

// foreign reports whether err is go-redis's about a reply that is none of the protocol.
// There is no type of it.
func foreign(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "redis: can't parse ")
}

// notRedis does not quote the reply, as go-redis does: who knows what that quotes.
type notRedis struct{ err error }

func (notRedis) Error() string {
	return "the reply is not of Redis's protocol; something else may be on this port"
}
func (e notRedis) Unwrap() error { return e.err }

func process(ctx context.Context, client *redis.Client, cmds []redis.Cmder) error {
	if len(cmds) == 1 {
		return client.Process(ctx, cmds[0])
	}
	for _, cmd := range cmds {
		cmd.SetErr(errUnsent)
	}
	pipe := client.Pipeline()
	pipe.BatchProcess(ctx, cmds...)
	_, err := pipe.Exec(ctx)
	// If the server refuses AUTH or SELECT on a new connection, go-redis leaves the
	// commands without an error: they would pass for ones with an empty reply.
	for _, cmd := range cmds {
		if cmd.Err() == errUnsent {
			cmd.SetErr(err)
		}
	}
	return err
}

func failed(cmds []redis.Cmder, err error) error {
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
	return err
}

// send has one command done, once.
func (c *Cache) send(ctx context.Context, op, key string, cmd redis.Cmder) error {
	cmds := []redis.Cmder{once{cmd}}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		return c.keyed(ctx, deadline, key, cmds)
	})
	return c.newError(ctx, op, key, err)
}

// await runs do, whose I/O ends at the deadline that it gets, and returns its error.
// It returns no later than ctx and the operation timeout say: with a client that a
// caller has made, do may go on after that, and the error is batch.ErrTimeout.
func (c *Cache) await(ctx context.Context, do func(context.Context, time.Time) error) error {
	if err := ctx.Err(); err != nil { // between the parts of a call
		return err
	}
	deadline := time.Now().Add(c.opTimeout)
	if c.inline(ctx) {
		return do(ctx, deadline)
	}
	opCtx, cancel := c.beside(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(opCtx, deadline) }()
	select {
	case err := <-done:
		return err
	case <-opCtx.Done():
		return batch.ErrTimeout
	}
}

// beside returns a ctx for one who waits beside a call: it ends with ctx, with the
// operation timeout, and when c is closed.
func (c *Cache) beside(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, c.opTimeout)
	stop := context.AfterFunc(c.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// inline reports whether a call whose ctx this is can do its I/O itself, as that
// will return when the call has to.
func (c *Cache) inline(ctx context.Context) bool {
	return c.prompt || c.bounded && ctx.Done() == nil
}

// exec has cmds done by n unless c is closed, and has Close wait for them.
func (c *Cache) exec(ctx context.Context, deadline time.Time, n *node, cmds []redis.Cmder) error {
	if !c.begin() {
		return failed(cmds, l2cache.ErrClosed)
	}
	defer c.calls.Done()
	n.used.Store(time.Now().UnixNano())
	return n.client.pipeline(ctx, deadline, cmds)
}

// execRead has the commands done that build returns, which only read, and builds
// and does them once more if the connection was stale.
func (c *Cache) execRead(ctx context.Context, deadline time.Time, n *node, build func() []redis.Cmder) []redis.Cmder {
	cmds := build()
	if err := c.exec(ctx, deadline, n, cmds); stale(err) {
		cmds = build()
		c.exec(ctx, deadline, n, cmds)
	}
	return cmds
}

// stale reports whether err may come from a pooled connection that was closed. go-redis
// looks before it takes one, so this is rare: TLS of a caller's client, or a server, or
// learn, that closes it just then.
func stale(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// answered reports whether err is what the server said to a command.
func answered(err error) bool { return errors.As(err, new(redis.Error)) }

// newError is l2cache.NewError with the kinds of go-redis's and the server's
// errors, and nil for nil.
func (c *Cache) newError(ctx context.Context, op, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case c.isClosed():
		return l2cache.NewError(ctx, name, op, key, l2cache.ErrClosed, nil)
	}
	if _, _, moved := redirection(err); moved && !c.cluster {
		err = fmt.Errorf("%w; for a server that is part of a cluster, it is redis+cluster://", err)
	}
	return l2cache.NewError(ctx, name, op, key, kind(err), unquoted(err))
}

// unquoted is err without the arguments that the server quotes of a command that it
// does not know. Those of AUTH and HELLO, which can be renamed, have the password.
func unquoted(err error) error {
	var e redis.Error
	if errors.As(err, &e) {
		if text, _, quoted := strings.Cut(e.Error(), ", with args beginning with:"); quoted {
			return unknownCommand(text)
		}
	}
	return err
}

// unknownCommand is a redis.Error.
type unknownCommand string

func (e unknownCommand) Error() string { return string(e) }
func (unknownCommand) RedisError()     {}

// kind is the contract's word for err. It is nil, and NewError says ErrUnavailable,
// for what there is no other word for.
func kind(err error) error {
	switch {
	case errors.Is(err, redis.Nil):
		return l2cache.ErrNotFound
	case redis.HasErrorPrefix(err, "OOM "):
		return l2cache.ErrFull
	case redis.HasErrorPrefix(err, "WRONGTYPE "):
		return l2cache.ErrCorrupt
	case errors.Is(err, redis.ErrClosed): // by the caller who made the client
		return l2cache.ErrClosed
	}
	return nil
}
