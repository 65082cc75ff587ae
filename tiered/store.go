package tiered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2cache/l2cache"
)

// An EncodeError is that a Codec could not encode a value. Nothing was stored.
type EncodeError struct {
	Key string
	Err error
}

// Error names the key, cut if it is long.
func (e *EncodeError) Error() string { return fmt.Sprintf("tiered: encode %.64q: %v", e.Key, e.Err) }

// Unwrap returns the Codec's error.
func (e *EncodeError) Unwrap() error { return e.Err }

// A write is an entry on its way to L2 and L1.
type write[V any] struct {
	key   string
	value V
	data  []byte
	ttl   time.Duration

	flight *flight[V] // that brings it; nil for a Set

	item    *item[V]
	gen     uint64
	claimed bool // a delete was to be sent again
	err     error
}

// store writes entries to L2, in one call, and then to L1, and returns how each has
// failed. No two calls have a key in common, which mayStore and overtake see to; so they do
// not wait for each other's claims.
func (c *Cache[V]) store(ctx context.Context, writes []*write[V], o call) (errs []error) {
	var send []*write[V]
	for _, w := range writes {
		if w.claimed, w.err = c.deletes.claim(ctx, w.key); w.err != nil {
			w.err = l2cache.NewError(ctx, c.l2.Name(), "set", w.key, nil, w.err)
			continue
		}
		w.gen = c.generations.of(w.key).Load()
		send = append(send, w)
	}
	epoch, at := c.epoch.Load(), c.clock.now()
	errs = make([]error, len(writes))
	defer func() { // if send panics, too
		for i, w := range writes {
			c.stored(w, at, epoch, o)
			errs[i] = w.err
		}
	}()
	if !o.has(skipL2) {
		c.send(ctx, send)
	}
	return errs
}

// stored does in L1 what a write asks for that was sent to L2 at an instant and in an epoch.
func (c *Cache[V]) stored(w *write[V], at instant, epoch uint64, o call) {
	if w.err != nil || o.has(skipL1) {
		c.written(w.key, w.gen, nil)
	} else {
		ttl := c.storedTTL(w.ttl)
		w.item = c.newItem(w.value, len(w.data), at, ttl, o.l1TTL)
		w.item.ttl, w.item.epoch = ttl, epoch
		if !c.written(w.key, w.gen, func(old *item[V]) *item[V] {
			if old != nil && old.at > w.item.at {
				return nil // read since, and perhaps of another process
			}
			return w.item
		}) {
			c.leave(w.key, w.item)
		}
	}
	if w.claimed {
		c.sent(w.key, w.err != nil || o.has(skipL2))
	}
}

// send writes to L2.
func (c *Cache[V]) send(ctx context.Context, writes []*write[V]) {
	for _, w := range writes {
		w.err = errInDoubt
	}
	switch len(writes) {
	case 0:
		return
	case 1:
		w := writes[0]
		w.err = c.ask(ctx, "set", w.key, func(ctx context.Context) error { return c.l2.Set(ctx, w.key, w.data, w.ttl) })
		return
	}
	items := make([]l2cache.Item, len(writes))
	for i, w := range writes {
		items[i] = l2cache.Item{Key: w.key, Value: w.data, TTL: w.ttl}
	}
	err := c.ask(ctx, "setmany", "", func(ctx context.Context) error { return l2cache.SetMany(ctx, c.l2, items) })
	failed := byKey(err)
	for _, w := range writes {
		w.err = failed(w.key)
	}
}

// byKey returns what says how each key of a batch has failed.
func byKey(err error) func(key string) error {
	var some l2cache.KeyErrors
	if errors.As(err, &some) {
		return func(key string) error { return some[key] }
	}
	return func(string) error { return err }
}
