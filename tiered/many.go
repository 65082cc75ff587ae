package tiered

import (
	"context"
	"errors"

	"github.com/l2cache/l2cache"
)

// GetMany returns what Get would for each key, by key; a miss is not in the map. What L1
// does not have is read from L2 in one call. If some keys fail the error is an
// l2cache.KeyErrors, and the map has the others.
func (c *Cache[V]) GetMany(ctx context.Context, keys []string, opts ...Option) (map[string]Result[V], error) {
	o := c.with(opts)
	results, missing, err := c.many(ctx, keys, o, nil)
	if err != nil || len(missing) == 0 || o.has(skipL2) {
		return results, err
	}
	failed := l2cache.KeyErrors{}
	for key, r := range c.readMany(ctx, "getmany", missing, o) {
		switch {
		case r.err == nil:
			results[key] = r.item.result(TierL2, c.clock.now())
		case errors.Is(r.err, l2cache.ErrNotFound):
		default:
			if it := c.staleFor(key, r.err, o); it != nil {
				results[key] = c.serveStale(ctx, key, it)
			} else {
				failed[key] = r.err
			}
		}
	}
	return results, asError(failed)
}

// GetOrLoadMany returns what GetOrLoad would for each key, by key; one that was not found
// is not in the map. What L1 does not have is read from L2 in one call, what L2 does not
// have either is loaded in one, and stored in one. Keys that others are loading are
// waited for.
//
// If some keys fail the error is an l2cache.KeyErrors, and the map has the others.
func (c *Cache[V]) GetOrLoadMany(ctx context.Context, keys []string, load ManyLoader[V], opts ...Option) (map[string]Result[V], error) {
	if load == nil {
		return map[string]Result[V]{}, errNoLoader
	}
	o := c.with(opts)
	results, missing, err := c.many(ctx, keys, o, load)
	if err != nil || len(missing) == 0 {
		return results, err
	}
	began := c.clock.now()
	t := newTrip(ctx)
	var all, own []*flight[V]
	for _, key := range missing {
		f, created := c.flights.join(key, o.mode, t)
		all = append(all, f)
		if created {
			own = append(own, f)
		}
	}
	if len(own) > 0 {
		c.depart(t, own, several(load), o)
	} else {
		t.cancel()
	}
	failed := l2cache.KeyErrors{}
	for _, f := range all {
		var r Result[V]
		err := c.wait(ctx, f, f.trip != t)
		switch {
		case err != nil:
		case f.err == nil && !f.stale && !f.loose && f.item.ends <= began:
			r, err = c.await(ctx, f.key, several(load), o)
		default:
			r, err = c.outcome(ctx, f)
		}
		switch {
		case err == nil:
			results[f.key] = r
		case !errors.Is(err, l2cache.ErrNotFound):
			failed[f.key] = err
		}
	}
	return results, asError(failed)
}

func several[V any](load ManyLoader[V]) asking[V] {
	return func(ctx context.Context, keys []string, stale map[string]V) (map[string]answer[V], error) {
		loaded, err := load(ctx, keys, stale)
		var failed l2cache.KeyErrors
		switch {
		case errors.As(err, &failed):
		case errors.Is(err, l2cache.ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, err
		}
		answers := make(map[string]answer[V], len(loaded)+len(failed))
		for key, l := range loaded {
			answers[key] = answer[V]{Loaded: l, found: true}
		}
		for key, err := range failed {
			if errors.Is(err, l2cache.ErrNotFound) {
				answers[key] = answer[V]{Loaded: loaded[key]}
			} else if err != nil {
				answers[key] = answer[V]{err: err}
			}
		}
		return answers, nil
	}
}

func asError(failed l2cache.KeyErrors) error {
	if len(failed) == 0 {
		return nil
	}
	return failed
}

// many answers from L1 what it can, and returns the other keys, each once. A load is for
// what is to be refreshed ahead.
func (c *Cache[V]) many(ctx context.Context, keys []string, o call, load ManyLoader[V]) (results map[string]Result[V], missing []string, err error) {
	results = make(map[string]Result[V], len(keys))
	if err := l2cache.PreflightNoKey(ctx, name, "getmany", c.closed.Load()); err != nil {
		return results, nil, err
	}
	for _, key := range keys {
		if err := c.preflight(ctx, "getmany", key); err != nil {
			return results, nil, err
		}
	}
	var ahead []due[V]
	seen := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		if _, again := seen[key]; again {
			continue
		}
		seen[key] = struct{}{}
		it, now := c.peek(key, o)
		if !c.mayServe(ctx, it, now, o) {
			c.missed(ctx, key, o)
			missing = append(missing, key)
			continue
		}
		if load != nil && int64(now) >= it.refreshAt.Load() {
			ahead = append(ahead, due[V]{key, it})
		}
		if r, err := c.hit(ctx, key, it, now); err == nil {
			results[key] = r
		}
	}
	if len(ahead) > 0 {
		c.refreshAhead(ctx, ahead, several(load), o)
	}
	return results, missing, nil
}

// A readResult is an item or the error of its read.
type readResult[V any] struct {
	item *item[V]
	err  error
}

// readMany reads keys from L2, in one call, and promotes what it finds.
func (c *Cache[V]) readMany(ctx context.Context, op string, keys []string, o call) map[string]readResult[V] {
	results := make(map[string]readResult[V], len(keys))
	if len(keys) == 1 {
		it, err := c.read(ctx, op, keys[0], o)
		results[keys[0]] = readResult[V]{it, err}
		return results
	}
	ask := make([]string, 0, len(keys))
	gens := make(map[string]uint64, len(keys))
	for _, key := range keys {
		at := c.clock.now()
		if err := c.settle(ctx, op, key); err != nil {
			it, err := c.arrived(ctx, key, l2cache.Entry{}, err, arrival{op: op, at: at, call: o})
			results[key] = readResult[V]{it, err}
			continue
		}
		gens[key] = c.generations.of(key).Load()
		ask = append(ask, key)
	}
	if len(ask) == 0 {
		return results
	}
	epoch := c.epoch.Load()
	at := c.clock.now()
	var entries map[string]l2cache.Entry
	var err error
	outer := ctx
	refused := c.ask(ctx, op, "", func(ctx context.Context) error {
		entries, err = l2cache.GetMany(ctx, c.l2, ask)
		err = c.ownTimeout(outer, op, "", err)
		if len(entries) > 0 {
			return nil // one of several servers may be down: L2 is there
		}
		return err
	})
	if err == nil {
		err = refused
	}
	failed := byKey(err)
	for _, key := range ask {
		entry, ok := entries[key]
		err := failed(key)
		if err == nil && !ok {
			err = l2cache.ErrNotFound
		}
		if ok {
			err = nil
		}
		it, err := c.arrived(ctx, key, entry, err, arrival{op, at, gens[key], epoch, o})
		results[key] = readResult[V]{it, err}
	}
	return results
}
