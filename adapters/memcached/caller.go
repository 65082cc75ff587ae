package memcached

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

// callers is a client that the caller of New made. It cannot be seen on which
// connection or server a call of it is, so each runs in a goroutine, that is left
// to itself when the wait for it ends early.
type callers struct {
	client    *memcache.Client
	life      context.Context
	opTimeout time.Duration
	sizes     sizes

	mu     sync.Mutex
	closed bool           // guarded by mu
	calls  sync.WaitGroup // begins under mu, and only while closed is false
}

func (c *callers) get(ctx context.Context, itemKey string) (*memcache.Item, error) {
	var item *memcache.Item // not read if the wait ended early
	err := c.wait(ctx, func() error {
		return c.idempotent(func() (err error) {
			item, err = c.client.Get(itemKey)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return item, nil
}

// getMany goes on after a failure, which may be that of one server of several. It
// cannot tell which, so that all reads fail which the answers say nothing of.
func (c *callers) getMany(ctx context.Context, reads []*read) {
	for len(reads) > 0 {
		chunk := reads[:min(c.sizes.fit(manyBytes, manyKeys), len(reads))]
		keys := keysOf(chunk)
		var items map[string]*memcache.Item // not read if the wait ended early
		var failed error                    // nor this
		err := c.wait(ctx, func() error {
			failed = c.idempotent(func() (err error) {
				items, err = c.client.GetMulti(keys)
				return err
			})
			return nil
		})
		if err != nil {
			answer(reads, nil, err)
			return
		}
		answer(chunk, items, failed)
		c.sizes.measure(chunk)
		reads = reads[len(chunk):]
	}
}

func (c *callers) write(ctx context.Context, _ string, f func(*memcache.Client) error) error {
	return c.wait(ctx, func() error { return f(c.client) })
}

func (c *callers) ping(ctx context.Context) error {
	return c.wait(ctx, func() error {
		if err := c.idempotent(c.client.Ping); err != nil {
			return err
		}
		// A client without servers has nobody to ask, and its Ping is nil. Its Get
		// is not. No entry is stored under this key.
		_, err := c.client.Get("k")
		if errors.Is(err, memcache.ErrCacheMiss) {
			return nil
		}
		return err
	})
}

// close waits for the calls that were left to themselves, for as long as the
// client's Timeout lets them run.
func (c *callers) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.calls.Wait()
}

// wait runs f in a goroutine and returns what it returns, or earlier: when ctx
// ends, after opTimeout, or at Close.
func (c *callers) wait(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	if !c.start(func() { done <- f() }) {
		return l2cache.ErrClosed
	}
	timer := time.NewTimer(c.opTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return batch.ErrTimeout
	case <-c.life.Done():
		return l2cache.ErrClosed
	}
}

func (c *callers) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.calls.Go(f)
	return true
}

// idempotent runs f, and once more if the connection was lost: after a restart of
// the server each idle connection of the client is.
func (c *callers) idempotent(f func() error) error {
	err := f()
	if dropped(err) {
		c.client.Close() // the idle connections; the client goes on with new ones
		err = f()
	}
	return err
}
