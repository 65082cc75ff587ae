package tiered

import (
	"context"
	"errors"
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
	queued  map[string]struct{} // guarded by mu
	sending map[string]*sending // guarded by mu; no key is in both
	running bool                // guarded by mu: there is a goroutine that resends
}

// A sending is that somebody sends the delete of a key, or what takes its place.
type sending struct {
	done  chan struct{} // closed when it has been sent
	again bool          // guarded by deletes.mu: another delete of the key has failed meanwhile
}

func (d *deletes) countLocked() { d.waiting.Store(int64(len(d.queued) + len(d.sending))) }

// claim takes the delete of key out of the queue and reports whether it was there. If so,
// the caller sends it, or what takes its place, and calls sent then; until that, whoever
// claims key waits.
func (d *deletes) claim(ctx context.Context, key string) (claimed bool, err error) {
	for d.waiting.Load() > 0 {
		d.mu.Lock()
		other := d.sending[key]
		if other == nil {
			if _, claimed = d.queued[key]; claimed {
				d.sendLocked(key)
			}
			d.mu.Unlock()
			return claimed, nil
		}
		d.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}

func (d *deletes) sendLocked(key string) {
	delete(d.queued, key)
	d.sending[key] = &sending{done: make(chan struct{})}
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
		d.sendLocked(key)
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
	s := d.sending[key]
	close(s.done)
	delete(d.sending, key)
	if failed || s.again {
		d.queued[key] = struct{}{}
		start, d.running = !d.running, true
	}
	d.countLocked()
	return start
}

// add queues key, and reports whether there was room, and whether the caller has to
// start the goroutine that resends. If the key is being sent, it is queued after that.
func (d *deletes) add(key string, limit int) (ok, start bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sending[key]; s != nil {
		s.again = true
		return true, false
	}
	if _, known := d.queued[key]; !known && len(d.queued)+len(d.sending) >= limit {
		return false, false
	}
	if d.queued == nil {
		d.queued, d.sending = map[string]struct{}{}, map[string]*sending{}
	}
	d.queued[key] = struct{}{}
	d.countLocked()
	start, d.running = !d.running, true
	return true, start
}

// errInDoubt is how a call of L2 has ended that has panicked.
var errInDoubt = errors.New("tiered: panic in a call of L2")

// remove deletes key from L2 and from L1. If that fails because of L2, the delete is queued
// before L1 lets go of the key, or a read in between would put it there again.
func (c *Cache[V]) remove(ctx context.Context, op, key string) (err error) {
	claimed, err := c.deletes.claim(ctx, key)
	if err != nil {
		err = l2cache.NewError(ctx, c.l2.Name(), op, key, nil, err)
		c.removed(ctx, key, claimed, err)
		return err
	}
	err = errInDoubt
	defer func() { c.removed(ctx, key, claimed, err) }()
	err = c.ask(ctx, op, key, func(ctx context.Context) error { return c.l2.Delete(ctx, key) })
	return err
}

// removed ends a remove.
func (c *Cache[V]) removed(ctx context.Context, key string, claimed bool, err error) {
	dropped := !claimed && isTransient(err) && !c.resendLater(key)
	c.drop(key)
	if claimed {
		c.sent(key, isTransient(err))
	}
	if dropped {
		c.tell(ctx, Event{Kind: EventResend, Outcome: OutcomeDropped, Key: key, Consumed: unknown})
	}
}

// resendLater queues the delete of key, which has failed because of L2. It reports whether
// there was room.
func (c *Cache[V]) resendLater(key string) bool {
	if c.options.MaxPendingDeletes < 0 {
		return true
	}
	ok, start := c.deletes.add(key, c.options.MaxPendingDeletes)
	if start {
		c.spawn(c.resend)
	}
	return ok
}

// resend sends the queued deletes until there is none.
func (c *Cache[V]) resend() {
	for wait := minResendWait; c.pause(wait); {
		keys := c.deletes.begin()
		if keys == nil {
			return
		}
		failed := byKey(c.ask(c.ctx, "deletemany", "", func(ctx context.Context) error {
			return recovered(func() error { return l2cache.DeleteMany(ctx, c.l2, keys) })
		}))
		next := minResendWait
		for _, key := range keys {
			err := failed(key)
			if err != nil {
				next = min(2*wait, maxResendWait)
			}
			c.resent(c.ctx, key, err)
		}
		wait = next
	}
}

// sent ends the sending of what was claimed.
func (c *Cache[V]) sent(key string, failed bool) {
	if c.deletes.sent(key, failed) {
		c.spawn(c.resend)
	}
}

// resent ends the sending of key's delete.
func (c *Cache[V]) resent(ctx context.Context, key string, err error) {
	outcome := OutcomeError
	if err == nil {
		outcome = OutcomeStored
		c.drop(key) // a read that began before the delete may have promoted it
	}
	c.sent(key, isTransient(err))
	c.tell(ctx, Event{Kind: EventResend, Outcome: outcome, Key: key, Err: err, Consumed: unknown})
}

// settle sends the delete of key now, if it is queued: nobody here is to read what was
// deleted here.
func (c *Cache[V]) settle(ctx context.Context, op, key string) (err error) {
	claimed, err := c.deletes.claim(ctx, key)
	if err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), op, key, nil, err)
	}
	if !claimed {
		return nil
	}
	err = errInDoubt
	defer func() { c.resent(ctx, key, err) }()
	err = c.ask(ctx, op, key, func(ctx context.Context) error { return c.l2.Delete(ctx, key) })
	return err
}
