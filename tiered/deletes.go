package tiered

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

const (
	minResendWait = 100 * time.Millisecond
	maxResendWait = 5 * time.Second
	resendAtOnce  = 100 // keys in one DeleteMany
)

// deletes are the keys whose delete has failed and is to be sent again.
type deletes struct {
	waiting atomic.Int64 // how many keys are in queued and sending

	mu      sync.Mutex
	queued  map[string]struct{}      // guarded by mu
	sending map[string]chan struct{} // guarded by mu; closed when the key has been sent
	running bool                     // guarded by mu: there is a goroutine that resends
}

func (d *deletes) countLocked() { d.waiting.Store(int64(len(d.queued) + len(d.sending))) }

// take removes key from the queue and reports whether it was there. If its delete is
// being sent, take waits for that: what the caller is about to write comes after it.
func (d *deletes) take(ctx context.Context, key string) (queued bool, err error) {
	return d.leave(ctx, key, func() {})
}

// claim is take for a caller that sends the delete itself, and calls sent then.
func (d *deletes) claim(ctx context.Context, key string) (queued bool, err error) {
	return d.leave(ctx, key, func() { d.sending[key] = make(chan struct{}) })
}

// leave takes key out of the queue, and calls f, under mu, if it was there.
func (d *deletes) leave(ctx context.Context, key string, f func()) (queued bool, err error) {
	for d.waiting.Load() > 0 {
		d.mu.Lock()
		sent, sending := d.sending[key]
		if !sending {
			if _, queued = d.queued[key]; queued {
				delete(d.queued, key)
				f()
				d.countLocked()
			}
			d.mu.Unlock()
			return queued, nil
		}
		d.mu.Unlock()
		select {
		case <-sent:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

// begin moves some keys from queued to sending. If there is none it returns nil, and
// the goroutine that resends ends.
func (d *deletes) begin() (keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key := range d.queued {
		if len(keys) == resendAtOnce {
			break
		}
		delete(d.queued, key)
		d.sending[key] = make(chan struct{})
		keys = append(keys, key)
	}
	d.running = len(keys) > 0
	return keys
}

// sent ends the sending of key, which goes back into the queue if that has failed. It
// reports whether the caller has to start the goroutine that resends.
func (d *deletes) sent(key string, failed bool) (start bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.sending[key])
	delete(d.sending, key)
	if failed {
		d.queued[key] = struct{}{}
		start, d.running = !d.running, true
	}
	d.countLocked()
	return start
}

// add queues key, and reports whether there was room, and whether the caller has to
// start the goroutine that resends.
func (d *deletes) add(key string, limit int) (ok, start bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.queued[key]; !known && len(d.queued)+len(d.sending) >= limit {
		return false, false
	}
	if d.queued == nil {
		d.queued, d.sending = map[string]struct{}{}, map[string]chan struct{}{}
	}
	d.queued[key] = struct{}{}
	d.countLocked()
	start, d.running = !d.running, true
	return true, start
}

// resendLater queues the delete of key, which has failed because of L2.
func (c *Cache[V]) resendLater(ctx context.Context, key string) {
	if c.options.MaxPendingDeletes < 0 {
		return
	}
	ok, start := c.deletes.add(key, c.options.MaxPendingDeletes)
	if !ok {
		c.tell(ctx, Event{Kind: EventResend, Outcome: OutcomeDropped, Key: key, Consumed: unknown})
	}
	if start {
		c.spawn(c.resend)
	}
}

// resend sends the queued deletes until there is none.
func (c *Cache[V]) resend() {
	for wait := minResendWait; c.pause(wait); {
		keys := c.deletes.begin()
		if keys == nil {
			return
		}
		failed := byKey(c.ask(c.ctx, "deletemany", "", func(ctx context.Context) error { return l2cache.DeleteMany(ctx, c.l2, keys) }))
		wait = minResendWait
		for _, key := range keys {
			if failed(key) != nil {
				wait = min(2*wait, maxResendWait)
			}
			c.resent(c.ctx, key, failed(key))
		}
	}
}

// resent ends the sending of key's delete.
func (c *Cache[V]) resent(ctx context.Context, key string, err error) {
	outcome := OutcomeError
	if err == nil {
		outcome = OutcomeStored
		c.drop(key) // a read that began before the delete may have promoted it
	}
	if c.deletes.sent(key, isTransient(err)) {
		c.spawn(c.resend)
	}
	c.tell(ctx, Event{Kind: EventResend, Outcome: outcome, Key: key, Err: err, Consumed: unknown})
}

// settle sends the delete of key now, if it is queued: nobody here is to read what was
// deleted here.
func (c *Cache[V]) settle(ctx context.Context, op, key string) error {
	queued, err := c.deletes.claim(ctx, key)
	if err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), op, key, nil, err)
	}
	if !queued {
		return nil
	}
	err = c.ask(ctx, op, key, func(ctx context.Context) error { return c.l2.Delete(ctx, key) })
	c.resent(ctx, key, err)
	return err
}
