package tiered

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/l2cache/l2cache"
)

// A Tier is where an answer came from.
type Tier int

const (
	TierNone   Tier = iota // there is no answer
	TierL1                 // this process's memory
	TierL2                 // the backend
	TierLoader             // the loader
)

var tierNames = [...]string{"none", "l1", "l2", "loader"}

// String returns "none", "l1", "l2" or "loader".
func (t Tier) String() string { return nameOf(tierNames[:], int(t)) }

// A Result is a value and where it came from.
type Result[V any] struct {
	// Value is shared with everybody else who asks for it: see the package's doc.
	Value V
	// TTL is what the entry has left in L2, as l2cache.Entry has it; l2cache.NoExpiry if
	// it does not expire. It is zero for a stale value, and for one that the loader did not
	// want to be stored. One that was loaded and that L2 did not take has the loader's TTL.
	TTL  time.Duration
	Tier Tier
	// Stale: L2 or the loader has failed, and this is what L1 had before. See
	// Options.OnFailure.
	Stale bool
}

// A Cache keeps values of type V in this process's memory and in an l2cache backend.
// Its methods may be called from any number of goroutines.
type Cache[V any] struct {
	l2       l2cache.L2CacheBackend
	profile  l2cache.Profile // of l2
	options  Options[V]
	clock    clock
	l1       *otter.Cache[string, *item[V]]
	breaker  *breaker
	counters counters

	generations generations
	epoch       atomic.Uint64 // one more for each Gap, and for Close: items of an earlier one are not fresh
	flights     flights[V]
	deletes     deletes

	ctx      context.Context // of the cache's own goroutines
	cancel   context.CancelFunc
	closed   atomic.Bool
	watching atomic.Bool
	mu       sync.Mutex     // makes spawn and Close exclude each other
	running  sync.WaitGroup // the cache's own goroutines
}

// New returns a Cache in front of l2. It does nothing with l2 but to ask for its
// profile, and to watch it where it can be watched. The error says all that is wrong
// with the options.
func New[V any](l2 l2cache.L2CacheBackend, o *Options[V]) (*Cache[V], error) {
	if l2 == nil {
		return nil, errors.New("tiered: the backend is nil")
	}
	options, err := o.validate()
	if err != nil {
		return nil, err
	}
	c := &Cache[V]{
		l2:       l2,
		profile:  l2cache.ProfileOf(l2),
		options:  options,
		clock:    clock{time.Now()},
		breaker:  newBreaker(&options),
		counters: newCounters(),
	}
	c.generations.seed = maphash.MakeSeed()
	if c.l1, err = newL1(&options, c.clock); err != nil {
		return nil, fmt.Errorf("tiered: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !options.NoWatch && c.profile.Supports.Has(l2cache.CanWatch) {
		c.spawn(c.watch)
	}
	return c, nil
}

// Close ends what runs in the background, loads too, waits for it and forgets L1. A
// loader that does not heed its ctx makes it wait, and one that calls Close itself waits
// for ever. Deletes that are still to be sent again are given up: Stats says how many.
// Afterwards every operation is l2cache.ErrClosed. It does not close L2, which other Caches may share. Closing again
// is nil.
func (c *Cache[V]) Close() error {
	c.mu.Lock()
	c.closed.Store(true)
	c.epoch.Add(1) // a hit looks at that, and not at closed
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	c.l1.InvalidateAll()
	c.l1.StopAllGoroutines()
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless the cache is closed.
func (c *Cache[V]) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	c.running.Go(f)
	return true
}

// pause waits for d and reports whether the cache is open still.
func (c *Cache[V]) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !c.closed.Load()
	case <-c.ctx.Done():
		return false
	}
}

// name is the Backend of errors that are about the Cache itself, and not about L2.
const name = "tiered"

// preflight is what every operation begins with.
func (c *Cache[V]) preflight(ctx context.Context, op, key string) error {
	if err := l2cache.Preflight(ctx, name, op, key, c.closed.Load()); err != nil {
		return err
	}
	if err := l2cache.CheckKey(key, c.profile.MaxKeyLen); err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), op, key, l2cache.ErrInvalidKey, err)
	}
	return nil
}

// Get returns the value of key, from L1 if that has it, else from L2, or
// l2cache.ErrNotFound. An L2 hit is promoted. An error of L2 is never a miss; what
// Options.OnFailure says is done about it.
//
// A negative entry in L1, that a loader found nothing, is a miss for Get, too.
func (c *Cache[V]) Get(ctx context.Context, key string, opts ...Option) (Result[V], error) {
	o := c.with(opts)
	it, now := c.peek(key, o)
	if c.mayServe(ctx, it, now, o) {
		return c.hit(ctx, key, it, now)
	}
	if err := c.preflight(ctx, "get", key); err != nil {
		return Result[V]{}, err
	}
	c.missed(ctx, key, o)
	if o.has(skipL2) {
		return Result[V]{}, l2cache.ErrNotFound
	}
	fresh, err := c.read(ctx, "get", key, o)
	if err == nil {
		return fresh.result(TierL2, c.clock.now()), nil
	}
	if old := c.staleFor(key, err, o); old != nil {
		return c.serveStale(ctx, key, old), nil
	}
	return Result[V]{}, err
}

// peek returns what L1 has of key, for a call that may ask L1.
func (c *Cache[V]) peek(key string, o call) (*item[V], instant) {
	if o.has(skipL1) {
		return nil, 0
	}
	return c.lookup(key)
}

// mayServe reports whether it answers the call.
func (c *Cache[V]) mayServe(ctx context.Context, it *item[V], now instant, o call) bool {
	return c.isFresh(it, now) && !o.has(refresh) && ctx.Err() == nil
}

// hit is the answer of a fresh item.
func (c *Cache[V]) hit(ctx context.Context, key string, it *item[V], now instant) (Result[V], error) {
	left := it.ends.until(now)
	if c.options.Observer == nil {
		c.counters.add(l1Hits)
		if left == l2cache.NoExpiry {
			c.counters.add(noExpiryHits)
		}
	} else {
		c.tell(ctx, Event{
			Kind: EventRead, Outcome: OutcomeHit, Tier: TierL1, Key: key, TTL: left, Consumed: it.consumed(now),
		})
	}
	if it.negative {
		return Result[V]{}, l2cache.ErrNotFound
	}
	return Result[V]{Value: it.value, TTL: left, Tier: TierL1}, nil
}

// missed tells of a key that L1 was asked for in vain.
func (c *Cache[V]) missed(ctx context.Context, key string, o call) {
	if !o.has(skipL1) && !o.has(refresh) {
		c.tell(ctx, Event{Kind: EventRead, Outcome: OutcomeMiss, Tier: TierL1, Key: key, Consumed: unknown})
	}
}

// result is the answer that an item from tier is at now.
func (it *item[V]) result(tier Tier, now instant) Result[V] {
	return Result[V]{Value: it.value, TTL: max(it.ends.until(now), 1), Tier: tier}
}

// staleFor returns what L1 has to serve in place of err, or nil.
func (c *Cache[V]) staleFor(key string, err error, o call) *item[V] {
	if c.options.OnFailure != ServeStale || !isFailure(err) {
		return nil
	}
	return c.old(key, o)
}

// serveStale is the answer that an item is which may not be served as fresh.
func (c *Cache[V]) serveStale(ctx context.Context, key string, it *item[V]) Result[V] {
	c.tell(ctx, Event{Kind: EventRead, Outcome: OutcomeStale, Tier: TierL1, Key: key, Consumed: unknown})
	return Result[V]{Value: it.value, Tier: TierL1, Stale: true}
}

// old returns what L1 has of key, fresh or stale, or nil.
func (c *Cache[V]) old(key string, o call) *item[V] {
	if it, now := c.peek(key, o); it != nil && !it.negative && now < it.stale {
		return it
	}
	return nil
}

// read reads key from L2 and promotes what it finds.
func (c *Cache[V]) read(ctx context.Context, op, key string, o call) (*item[V], error) {
	at := c.clock.now()
	if err := c.settle(ctx, op, key); err != nil {
		return c.arrived(ctx, key, l2cache.Entry{}, err, arrival{op: op, at: at, call: o})
	}
	gen := c.generations.of(key).Load()
	epoch := c.epoch.Load()
	at = c.clock.now()
	var entry l2cache.Entry
	err := c.ask(ctx, op, key, func(ctx context.Context) (err error) {
		entry, err = c.l2.GetWithTTL(ctx, key)
		return err
	})
	return c.arrived(ctx, key, entry, err, arrival{op, at, gen, epoch, o})
}

// An arrival is what there is to know about the read that an entry came by.
type arrival struct {
	op         string
	at         instant // before L2 was asked
	gen, epoch uint64  // as they were then
	call
}

// arrived decodes and promotes what L2 has answered, and tells of it.
func (c *Cache[V]) arrived(ctx context.Context, key string, entry l2cache.Entry, err error, a arrival) (*item[V], error) {
	event := Event{Kind: EventRead, Tier: TierL2, Key: key, Consumed: unknown, Duration: time.Duration(c.clock.now() - a.at)}
	var value V
	if err == nil {
		if value, err = c.options.Codec.Decode(entry.Value); err != nil {
			err = l2cache.NewError(ctx, c.l2.Name(), a.op, key, l2cache.ErrCorrupt, err)
		}
	}
	switch {
	case errors.Is(err, l2cache.ErrNotFound):
		event.Outcome = OutcomeMiss
		c.tell(ctx, event)
		if !a.has(skipL1) {
			c.absent(key, a)
		}
		return nil, err
	case err != nil:
		event.Outcome, event.Err = OutcomeError, err
		c.tell(ctx, event)
		return nil, err
	}
	event.Outcome, event.TTL = OutcomeHit, entry.TTL
	c.tell(ctx, event)
	it := c.newItem(value, len(entry.Value), a.at, entry.TTL, a.l1TTL)
	it.epoch = a.epoch
	if !a.has(skipL1) {
		outcome := c.promotion(key, it, a)
		c.tell(ctx, Event{Kind: EventPromotion, Outcome: outcome, Key: key, TTL: entry.TTL, Consumed: unknown})
	}
	return it, nil
}

// absent drops the stale copy of an entry that L2 does not have any more although it has
// not come to its end.
func (c *Cache[V]) absent(key string, a arrival) {
	g := c.generations.of(key)
	c.dropIf(key, func(old *item[V]) bool {
		return !old.negative && old.at <= a.at && old.ends > a.at && g.Load() == a.gen
	})
}

func (c *Cache[V]) promotion(key string, it *item[V], a arrival) Outcome {
	refreshing := a.has(refresh) // L1 may have an older one that is fresh
	switch {
	case c.options.PromoteEvery > 1 && !refreshing && rand.IntN(c.options.PromoteEvery) > 0:
		return OutcomeSkipped
	case c.clock.now() >= it.fresh:
		if refreshing {
			c.dropIf(key, func(old *item[V]) bool { return old.at <= it.at })
		}
		return OutcomeExpired
	case c.promote(key, it, a.gen):
		return OutcomeStored
	}
	return OutcomeOvertaken
}

// Set stores value under key for ttl in L2, then in L1. The TTL is l2cache's: positive,
// or l2cache.NoExpiry. If L2 fails, what the backend says about a write in doubt holds,
// and L1 has nothing of the key.
//
// Value is shared from now on: see the package's doc.
func (c *Cache[V]) Set(ctx context.Context, key string, value V, ttl time.Duration, opts ...Option) error {
	if err := c.preflight(ctx, "set", key); err != nil {
		return err
	}
	if _, err := l2cache.CheckTTL(ttl, c.profile.Resolution); err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), "set", key, nil, err)
	}
	data, err := c.options.Codec.Encode(value)
	if err != nil {
		return &EncodeError{Key: key, Err: err}
	}
	if err := c.flights.overtake(ctx, key); err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), "set", key, nil, err)
	}
	defer c.flights.changed(key)
	w := write[V]{key: key, value: value, data: data, ttl: ttl}
	return c.store(ctx, []*write[V]{&w}, c.with(opts))[0]
}

// storedTTL is the TTL that L2 gives to an entry which is set for ttl, or less.
func (c *Cache[V]) storedTTL(ttl time.Duration) time.Duration {
	if ttl != l2cache.NoExpiry {
		ttl = min(ttl, l2cache.MaxTTL)
	}
	return min(ttl, c.profile.MaxTTL)
}

// Delete removes key from L2 and from L1. That key was absent is not an error.
//
// If L2 fails, the error is returned and the delete is sent again when L2 is back
// (Options.MaxPendingDeletes), unless the key is set before that. Until then, a read of
// L2 for the key by this Cache begins with the delete.
func (c *Cache[V]) Delete(ctx context.Context, key string, opts ...Option) error {
	if err := c.preflight(ctx, "delete", key); err != nil {
		return err
	}
	if err := c.flights.overtake(ctx, key); err != nil {
		return l2cache.NewError(ctx, c.l2.Name(), "delete", key, nil, err)
	}
	defer c.flights.changed(key)
	if c.with(opts).has(skipL2) {
		c.drop(key)
		return nil
	}
	return c.remove(ctx, "delete", key)
}

// Touch gives the entry under key the TTL ttl, counted from now. It is
// l2cache.ErrNotFound if L2 has no entry, and errors.ErrUnsupported if L2 cannot do it.
// L1 keeps the entry, with the new end, for what is left of its MaxL1TTL. If L2 fails and
// may have the new end or the old one, L1 keeps the entry until the earlier of the two.
// With Watch the news of it drops the entry: see Options.NoWatch.
func (c *Cache[V]) Touch(ctx context.Context, key string, ttl time.Duration) (err error) {
	if err := c.preflight(ctx, "touch", key); err != nil {
		return err
	}
	if err := c.settle(ctx, "touch", key); err != nil {
		return err
	}
	gen := c.generations.of(key).Load()
	at := c.clock.now()
	err = errInDoubt
	defer func() { c.touchEnds(key, gen, at, c.storedTTL(ttl), err) }()
	err = c.ask(ctx, "touch", key, func(ctx context.Context) error { return l2cache.Touch(ctx, c.l2, key, ttl) })
	return err
}

// touchEnds does in L1 what follows from how a Touch of L2 has ended, that began at at.
func (c *Cache[V]) touchEnds(key string, gen uint64, at instant, ttl time.Duration, err error) {
	switch {
	case err == nil:
		c.written(key, gen, func(old *item[V]) *item[V] { return c.touched(old, at, ttl) })
	case errors.Is(err, l2cache.ErrNotFound):
		c.drop(key)
		return
	case !isTransient(err), errors.Is(err, ErrBreakerOpen):
		return // nothing has changed
	default:
		c.written(key, gen, func(old *item[V]) *item[V] { return c.inDoubt(old, at.after(ttl)) })
	}
	c.flights.passed(key) // what they have read may have the old end
}

// touched returns old with a new end, or nil if L1 may not serve it.
func (c *Cache[V]) touched(old *item[V], at instant, ttl time.Duration) *item[V] {
	if !c.isFresh(old, at) || old.negative {
		return nil
	}
	it := &item[V]{
		value: old.value, size: old.size, at: at, ends: at.after(ttl), last: c.clock.now().after(ttl), ttl: ttl,
		limit: old.limit, epoch: old.epoch,
	}
	c.bound(it)
	return it
}

// inDoubt returns old, which may end at another instant now, or nil if there is none.
func (c *Cache[V]) inDoubt(old *item[V], ends instant) *item[V] {
	if old == nil || old.negative || old.trace || old.ends <= ends {
		return old
	}
	it := &item[V]{value: old.value, size: old.size, at: old.at, ends: ends, last: old.last, limit: old.limit, epoch: old.epoch}
	c.bound(it)
	return it
}
