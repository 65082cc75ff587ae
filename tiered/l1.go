package tiered

import (
	"hash/maphash"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/l2cache/l2cache"
)

// An instant is nanoseconds since the clock's start.
type instant int64

// never is the instant at which an entry without expiry ends.
const never instant = math.MaxInt64

// after returns the instant d after t; never for NoExpiry.
func (t instant) after(d time.Duration) instant {
	if d == l2cache.NoExpiry || int64(d) > int64(never)-int64(t) {
		return never
	}
	return t + instant(d)
}

// until returns the time from now to t.
func (t instant) until(now instant) time.Duration {
	if t == never {
		return l2cache.NoExpiry
	}
	return time.Duration(t - now)
}

// A clock is the monotonic clock. Otter has it, too, so that an L1 hit reads it once.
type clock struct{ start time.Time }

// NowNano is positive: zero is special to otter.
func (c clock) NowNano() int64 { return int64(time.Since(c.start)) + 1 }

func (c clock) Tick(d time.Duration) <-chan time.Time { return time.Tick(d) }

func (c clock) now() instant { return instant(c.NowNano()) }

// An item is what L1 has of a key. It does not change, but for refreshAt.
type item[V any] struct {
	value    V
	negative bool // a loader found nothing
	trace    bool // of an item that may have changed in L2: it answers nobody

	at    instant       // when it was asked for, or stored
	ends  instant       // when the entry ends in L2, at the earliest
	last  instant       // at the latest
	ttl   time.Duration // that it was stored with; zero if not known
	limit instant       // MaxL1TTL after at
	fresh instant       // until when L1 serves it: ends or limit, or earlier by jitter
	stale instant       // until when it may stand in for an answer that fails
	keep  instant       // until when L1 has it
	epoch uint64        // see Cache.epoch
	size  int           // of the encoded value

	refreshAt atomic.Int64 // the instant from which on a GetOrLoad starts a load
}

// newItem returns the item of an entry that has ttl left at some instant since at.
func (c *Cache[V]) newItem(value V, size int, at instant, ttl, l1TTL time.Duration) *item[V] {
	it := &item[V]{
		value: value, size: size, at: at, ends: at.after(ttl), last: c.clock.now().after(ttl),
		limit: at.after(l1TTL), epoch: c.epoch.Load(),
	}
	c.bound(it)
	return it
}

// traceOf returns what is left of it when it may have changed in L2: what is known of its
// TTL, for when L2 has the same entry still.
func traceOf[V any](it *item[V]) *item[V] {
	t := &item[V]{trace: true, at: it.at, ends: it.ends, last: it.last, ttl: it.ttl, keep: it.keep}
	t.refreshAt.Store(it.refreshAt.Load())
	return t
}

// bound sets what follows from at, ends and limit.
func (c *Cache[V]) bound(it *item[V]) {
	it.fresh = min(it.ends, it.limit)
	if c.options.Jitter > 0 && it.fresh != never {
		it.fresh -= instant(c.options.Jitter * rand.Float64() * float64(it.fresh-it.at))
	}
	it.stale = it.fresh.after(c.options.StaleFor)
	it.keep = it.stale
	it.refreshAt.Store(int64(never))
	if f := c.options.RefreshAhead; f > 0 && it.ends != never {
		it.refreshAt.Store(int64(it.at + instant(f*float64(it.ends-it.at))))
		// The next promotion goes by that.
		it.keep = max(it.keep, min(it.ends, it.fresh.after(c.options.MaxL1TTL)))
	}
}

// consumed returns the fraction of the TTL that is gone.
func (it *item[V]) consumed(now instant) float64 {
	if it.ttl <= 0 || it.ends == never {
		return unknown
	}
	return min(max(1-float64(it.ends-now)/float64(it.ttl), 0), 1)
}

// entryOverhead is what an entry is taken to need in L1 besides its key and value.
const entryOverhead = 128

// weight is what an entry with a value of so many bytes counts against Options.MaxBytes.
func weight(key string, size int) int { return len(key) + size + entryOverhead }

func newL1[V any](o *Options[V], clock clock) (*otter.Cache[string, *item[V]], error) {
	l1 := &otter.Options[string, *item[V]]{
		Clock:       clock,
		MaximumSize: o.MaxEntries,
		// Otter takes zero and less for no expiry.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *item[V]]) time.Duration {
			return time.Duration(max(int64(e.Value.keep)-e.SnapshotAtNano, 1))
		}),
	}
	if o.MaxBytes > 0 {
		l1.MaximumWeight = uint64(o.MaxBytes)
		l1.Weigher = func(key string, it *item[V]) uint32 {
			return uint32(min(uint64(weight(key, it.size)), math.MaxUint32))
		}
	}
	return otter.New(l1)
}

// lookup returns what L1 has of key, or nil, and the instant of the look.
func (c *Cache[V]) lookup(key string) (*item[V], instant) {
	e, ok := c.l1.GetEntry(key)
	if !ok {
		return nil, c.clock.now()
	}
	return e.Value, instant(e.SnapshotAtNano)
}

// isFresh reports whether L1 may serve it. It is nil for a miss.
func (c *Cache[V]) isFresh(it *item[V], now instant) bool {
	return it != nil && now < it.fresh && it.epoch == c.epoch.Load()
}

// Generations make out whether a key was changed while it was read. Each change adds
// one to the key's generation, then takes the key out of L1 or replaces it there. A
// read takes the generation before it asks L2, and L1 takes what it brings only if the
// generation is the same still; L1 looks under its own lock of the key, so that a
// change comes either before the look or after the entry is in L1. Keys share
// generations: that costs a promotion now and then.
type generations struct {
	seed maphash.Seed
	n    [4096]atomic.Uint64
}

func (g *generations) of(key string) *atomic.Uint64 {
	return &g.n[maphash.String(g.seed, key)%uint64(len(g.n))]
}

// promote puts it under key, if the generation is still gen and L1 has nothing that was
// asked for later: of two reads the first may come back last.
func (c *Cache[V]) promote(key string, it *item[V], gen uint64) bool {
	return c.putIf(key, gen, func(old *item[V]) *item[V] {
		if old != nil && old.at > it.at {
			return nil
		}
		if old != nil && old.negative == it.negative && c.sameEnd(old, it) {
			it.ttl = old.ttl
			it.refreshAt.Store(old.refreshAt.Load())
		}
		return it
	})
}

// sameEnd reports whether two items may be of one entry, by their ends.
func (c *Cache[V]) sameEnd(a, b *item[V]) bool {
	return !c.endsLater(a, b.last) && !c.endsLater(b, a.last)
}

// endsLater reports whether it ends after an instant that was the end of an entry, so that it
// is of another.
func (c *Cache[V]) endsLater(it *item[V], end instant) bool {
	return it.ends > end.after(2*c.profile.Resolution)
}

// putIf replaces what L1 has under key, nil if nothing, by what f returns, unless the
// generation is another than gen, or f returns nil, or the cache was closed.
func (c *Cache[V]) putIf(key string, gen uint64, f func(old *item[V]) *item[V]) (ok bool) {
	g := c.generations.of(key)
	c.l1.Compute(key, func(old *item[V], _ bool) (*item[V], otter.ComputeOp) {
		if g.Load() != gen || c.closed.Load() {
			return nil, otter.CancelOp
		}
		it := f(old)
		if it == nil {
			return nil, otter.CancelOp
		}
		ok = true
		return it, otter.WriteOp
	})
	return ok
}

// drop takes key out of L1, and lets no read that is under way put it there.
func (c *Cache[V]) drop(key string) {
	c.generations.of(key).Add(1)
	c.l1.Invalidate(key)
}

// doubt takes key out of L1, as drop does, but leaves a trace of what this Cache has stored:
// it may be that alone which L2 tells of.
func (c *Cache[V]) doubt(key string) {
	c.generations.of(key).Add(1)
	c.l1.Compute(key, func(old *item[V], found bool) (*item[V], otter.ComputeOp) {
		switch {
		case !found || old.trace:
			return nil, otter.CancelOp
		case old.ttl == 0 || !c.tracing():
			return nil, otter.InvalidateOp
		}
		return traceOf(old), otter.WriteOp
	})
}

// leave leaves a trace of it, if L1 has nothing of key.
func (c *Cache[V]) leave(key string, it *item[V]) {
	c.l1.Compute(key, func(_ *item[V], found bool) (*item[V], otter.ComputeOp) {
		if found || !c.tracing() || c.closed.Load() {
			return nil, otter.CancelOp
		}
		return traceOf(it), otter.WriteOp
	})
}

// tracing reports whether anybody asks for what a trace has: it takes room in L1.
func (c *Cache[V]) tracing() bool { return c.options.RefreshAhead > 0 || c.options.Observer != nil }

// dropIf takes key out of L1 if f says so of what is there.
func (c *Cache[V]) dropIf(key string, f func(old *item[V]) bool) {
	c.l1.Compute(key, func(old *item[V], found bool) (*item[V], otter.ComputeOp) {
		if !found || !f(old) {
			return nil, otter.CancelOp
		}
		return nil, otter.InvalidateOp
	})
}

// written ends a change of key in L2 that began at generation gen. With f, L1 has what f
// makes of the old item from now on, if no other change of the key overlapped: L2's
// order of the two is not known, and L1 has neither then.
func (c *Cache[V]) written(key string, gen uint64, f func(old *item[V]) *item[V]) (ok bool) {
	ok = f != nil && c.generations.of(key).CompareAndSwap(gen, gen+1) && c.putIf(key, gen+1, f)
	if !ok {
		c.drop(key)
	}
	return ok
}
