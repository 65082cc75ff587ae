package tiered

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
)

// Loaded is what a loader has found.
type Loaded[V any] struct {
	Value V
	// TTL is for how long to keep it, as in Set. Zero and less: it is returned to those
	// who wait, and not stored.
	//
	// Together with l2cache.ErrNotFound, TTL is for how long L1 remembers that there is
	// nothing; zero is Options.NegativeTTL, and less is not at all.
	TTL time.Duration
}

// A Loader gets the value of key from where it comes from. Stale is what L1 had, if
// that is there still, for a conditional request; nil if not.
//
// The error l2cache.ErrNotFound is that there is no such value: it is what the callers
// get, and L1 and L2 lose the entry that they may have, unless L2 could not be asked. Any
// other error goes to the callers as it is, and so does a panic, as a *PanicError.
//
// The ctx has the values of the caller's who began the load. It ends when nobody waits
// any more, or with Close. A loader may use the Cache, but not close it. If it
// asks, with that ctx, for what it is to load itself, it gets an error. Two loaders that ask
// for each other's keys wait until nobody waits for them.
type Loader[V any] func(ctx context.Context, key string, stale *V) (Loaded[V], error)

// A ManyLoader is a Loader of several keys in one call. A key that is not in what it
// returns was not found. If only some keys fail, the error is an l2cache.KeyErrors, and
// the map has the others; l2cache.ErrNotFound for one of them is that there is no such
// value. Any other error is that of all keys. Stale has what L1 had.
type ManyLoader[V any] func(ctx context.Context, keys []string, stale map[string]V) (map[string]Loaded[V], error)

// A PanicError is what a loader, or something else that the Cache has called in a goroutine
// of its own, has panicked with. It goes to all who wait for the load.
type PanicError struct {
	Value any
	Stack []byte // of the load's goroutine
}

// Error has the value, but not the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("tiered: panic: %v", e.Value) }

// Unwrap returns the value, if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errGoexit is what those get who wait for a loader that called runtime.Goexit: a
// t.FailNow in a test, say.
var errGoexit = errors.New("tiered: the loader's goroutine has ended")

// ownLoad is the error of a loader that would wait for its own load.
func ownLoad(key string) error {
	return &l2cache.Error{Op: "get", Backend: name, Key: key, Err: errors.New("the loader asks for what it is to load")}
}

var errNoLoader = errors.New("tiered: the loader is nil")

// GetOrLoad returns the value of key, from L1, from L2, or from load, which then is
// stored in both. All who ask for the key meanwhile wait for one load. It goes on when
// the caller that began it is cancelled, as long as anybody waits.
//
// That the loaded value could not be stored in L2 is no error: Options.Observer and
// Stats tell of it, and L1 has it, for the TTL or MaxL1TTL, whichever is less.
func (c *Cache[V]) GetOrLoad(ctx context.Context, key string, load Loader[V], opts ...Option) (Result[V], error) {
	if load == nil {
		return Result[V]{}, errNoLoader
	}
	o := c.with(opts)
	it, now := c.peek(key, o)
	if c.mayServe(ctx, it, now, o) {
		if int64(now) >= it.refreshAt.Load() {
			c.refreshAhead(ctx, []due[V]{{key, it}}, single(load), o)
		}
		return c.hit(ctx, key, it, now)
	}
	if err := c.preflight(ctx, "get", key); err != nil {
		return Result[V]{}, err
	}
	c.missed(ctx, key, o)
	return c.await(ctx, key, single(load), o)
}

// An answer is what a loader has to say about a key.
type answer[V any] struct {
	Loaded[V]
	found bool
	err   error // that this key alone has failed
}

// An asking calls a loader. A key that it leaves out was not found.
type asking[V any] func(ctx context.Context, keys []string, stale map[string]V) (map[string]answer[V], error)

func single[V any](load Loader[V]) asking[V] {
	return func(ctx context.Context, keys []string, stale map[string]V) (map[string]answer[V], error) {
		key := keys[0]
		var old *V
		if v, ok := stale[key]; ok {
			old = &v
		}
		loaded, err := load(ctx, key, old)
		if errors.Is(err, l2cache.ErrNotFound) {
			return map[string]answer[V]{key: {Loaded: loaded}}, nil
		}
		return map[string]answer[V]{key: {Loaded: loaded, found: true}}, err
	}
}

// await waits for the flight of key, and begins it if there is none.
func (c *Cache[V]) await(ctx context.Context, key string, load asking[V], o call) (Result[V], error) {
	began := c.clock.now()
	for {
		t := newTrip(ctx)
		f, created := c.flights.join(key, o.mode, t)
		if created {
			c.depart(t, []*flight[V]{f}, load, o)
		} else {
			t.cancel()
		}
		if err := c.wait(ctx, f, !created); err != nil {
			return Result[V]{}, err
		}
		// What another has asked for may have ended before this call began.
		if f.err == nil && !f.stale && !f.loose && f.item.ends <= began {
			continue
		}
		return c.outcome(ctx, f)
	}
}

// wait waits for f, which the caller has joined if it has not begun it. The error is ctx's,
// or that the cache was closed.
func (c *Cache[V]) wait(ctx context.Context, f *flight[V], joined bool) error {
	defer c.flights.leave(f)
	if joined {
		c.tell(ctx, Event{Kind: EventJoin, Key: f.key, Consumed: unknown})
	}
	if tripOf(ctx).within(f.trip) {
		return ownLoad(f.key)
	}
	select {
	case <-f.landed:
		if !c.closed.Load() {
			return nil
		}
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return l2cache.NewError(ctx, name, "get", f.key, l2cache.ErrClosed, nil)
}

// outcome is what one gets who waited for f.
func (c *Cache[V]) outcome(ctx context.Context, f *flight[V]) (Result[V], error) {
	switch {
	case f.err != nil:
		return Result[V]{}, f.err
	case f.stale:
		return c.serveStale(ctx, f.key, f.item), nil
	case f.loose:
		return Result[V]{Value: f.item.value, Tier: f.tier}, nil
	}
	return f.item.result(f.tier, c.clock.now()), nil
}

// A due is what L1 has of a key and is to be refreshed ahead.
type due[V any] struct {
	key  string
	item *item[V]
}

// refreshAhead starts one load in the background, of those keys that are due still and that
// nobody loads.
func (c *Cache[V]) refreshAhead(ctx context.Context, all []due[V], load asking[V], o call) {
	t := newTrip(ctx)
	var fs []*flight[V]
	now := c.clock.now()
	for _, d := range all {
		at := d.item.refreshAt.Load()
		// If the load fails, the next is due after a quarter of the time that is left.
		if int64(now) < at || !d.item.refreshAt.CompareAndSwap(at, int64(now+(d.item.ends-now)/4+1)) {
			continue
		}
		if f := c.flights.begin(d.key, o.mode, t); f != nil {
			f.newer = d.item.last
			fs = append(fs, f)
		}
	}
	if len(fs) == 0 {
		t.cancel()
		return
	}
	c.depart(t, fs, load, o)
}

// depart starts the goroutine of a trip, whose flights all refresh ahead, or none does.
func (c *Cache[V]) depart(t *trip, fs []*flight[V], load asking[V], o call) {
	started := c.spawn(func() {
		defer t.cancel()
		defer context.AfterFunc(c.ctx, t.cancel)()
		c.fly(t, fs, load, o)
	})
	if !started {
		c.landAll(fs, l2cache.NewError(context.Background(), name, "get", "", l2cache.ErrClosed, nil))
	}
}

// landAll lands those of fs that have not landed, with err.
func (c *Cache[V]) landAll(fs []*flight[V], err error) {
	for _, f := range fs {
		if !f.hasLanded() {
			f.err = err
			c.flights.land(f)
		}
	}
}

// fly is the goroutine of a trip.
func (c *Cache[V]) fly(t *trip, fs []*flight[V], load asking[V], o call) {
	err := errGoexit
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{r, debug.Stack()}
		}
		c.landAll(fs, err)
	}()
	refreshing := fs[0].mode&ahead != 0
	at := c.clock.now()
	for _, f := range fs {
		f.at = at
	}
	if !refreshing {
		fs = c.fromL1(fs, o)
	}
	for _, f := range fs {
		f.inL2 = !o.has(skipL2)
	}
	if !o.has(skipL2) && !o.has(refresh) {
		fs = c.fromL2(t.ctx, fs, o)
	}
	if !refreshing {
		fs = c.fromAhead(t.ctx, fs, o)
	}
	if len(fs) > 0 {
		c.fromLoader(t.ctx, fs, load, o)
	}
}

// fromL1 lands the flights whose key came into L1 after their caller had looked, and
// returns the others.
func (c *Cache[V]) fromL1(fs []*flight[V], o call) (rest []*flight[V]) {
	for _, f := range fs {
		it, now := c.peek(f.key, o)
		switch {
		case !c.isFresh(it, now) || o.has(refresh):
			rest = append(rest, f)
			continue
		case it.negative:
			f.err = l2cache.ErrNotFound
		default:
			f.item, f.tier = it, TierL1
		}
		c.flights.land(f)
	}
	return rest
}

// fromL2 lands the flights whose key L2 has, or which Options.OnFailure ends, and
// returns the others.
func (c *Cache[V]) fromL2(ctx context.Context, fs []*flight[V], o call) (rest []*flight[V]) {
	if len(fs) == 0 {
		return nil
	}
	keys := make([]string, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	got := c.readMany(ctx, "get", keys, o)
	for _, f := range fs {
		r := got[f.key]
		f.inL2 = r.err == nil || errors.Is(r.err, l2cache.ErrCorrupt)
		if r.err == nil && (f.newer == 0 || c.endsLater(r.item, f.newer)) {
			f.item, f.tier = r.item, TierL2
			c.flights.land(f)
			continue
		}
		if isFailure(r.err) {
			f.unavailable = !answered(r.err)
			if f.item = c.staleFor(f.key, r.err, o); f.item != nil {
				f.stale = true
				c.flights.land(f)
				continue
			}
		}
		if saysNothing(r.err) || isFailure(r.err) && c.options.OnFailure == Fail {
			f.err = r.err
			c.flights.land(f)
			continue
		}
		rest = append(rest, f)
	}
	return rest
}

// fromAhead lands the flights whose key is being refreshed ahead with what that brings, and
// returns the others: where it fails, too.
func (c *Cache[V]) fromAhead(ctx context.Context, fs []*flight[V], o call) (rest []*flight[V]) {
	for _, f := range fs {
		other := c.flights.ahead(f.key, o.mode)
		if other == nil {
			rest = append(rest, f)
			continue
		}
		if f.trip.within(other.trip) {
			f.err = ownLoad(f.key)
			c.flights.land(f)
			continue
		}
		select {
		case <-other.landed:
		case <-ctx.Done():
		}
		if !other.hasLanded() || other.stale || other.err != nil && !errors.Is(other.err, l2cache.ErrNotFound) {
			rest = append(rest, f)
			continue
		}
		f.item, f.tier, f.loose, f.err = other.item, other.tier, other.loose, other.err
		c.flights.land(f)
	}
	return rest
}

// fromLoader lands all flights with what the loader brings.
func (c *Cache[V]) fromLoader(ctx context.Context, fs []*flight[V], load asking[V], o call) {
	keys := make([]string, len(fs))
	stale := map[string]V{}
	for i, f := range fs {
		keys[i] = f.key
		if it := c.old(f.key, o); it != nil {
			stale[f.key] = it.value
		}
	}
	event := Event{Kind: EventLoad, Consumed: unknown}
	failed := func(f *flight[V], err error) {
		event.Outcome, event.Key, event.Err = OutcomeError, f.key, err
		c.tell(ctx, event)
		f.item, f.err = nil, err
		if old := c.old(f.key, o); old != nil && c.options.OnFailure == ServeStale {
			f.item, f.err, f.stale = old, nil, true
		}
		c.flights.land(f)
	}
	began := c.clock.now()
	allFailed := func(err error) {
		event.Duration = time.Duration(c.clock.now() - began)
		for _, f := range fs {
			failed(f, err)
		}
	}
	answers, err := callLoader(ctx, keys, stale, load, func() { allFailed(errGoexit) })
	if err != nil {
		allFailed(err)
		return
	}
	event.Duration = time.Duration(c.clock.now() - began)
	var writes []*write[V]
	for _, f := range fs {
		a := answers[f.key]
		if a.err != nil {
			failed(f, a.err)
			continue
		}
		event.Key, event.TTL, event.Err = f.key, max(a.TTL, 0), nil
		if !a.found {
			event.Outcome = OutcomeNotFound
			c.tell(ctx, event)
			c.forget(ctx, f, a.TTL, o)
			f.err = l2cache.ErrNotFound
			c.flights.land(f)
			continue
		}
		f.item, f.tier, f.loose = &item[V]{value: a.Value}, TierLoader, true
		if a.TTL <= 0 {
			event.Outcome = OutcomeNotStored
			c.tell(ctx, event)
			c.flights.land(f)
			continue
		}
		data, err := c.encode(a.Value)
		if err != nil {
			failed(f, &EncodeError{Key: f.key, Err: err})
			continue
		}
		if !c.flights.mayStore(f) {
			event.Outcome = OutcomeOvertaken
			c.tell(ctx, event)
			c.flights.land(f)
			continue
		}
		writes = append(writes, &write[V]{key: f.key, value: a.Value, data: data, ttl: a.TTL, flight: f})
	}
	c.keep(ctx, writes, event, o)
}

// keep stores what was loaded and lands its flights. What L2 does not take is in L1 at
// least, or each of the next callers would load it again. Event is that of the load.
func (c *Cache[V]) keep(ctx context.Context, writes []*write[V], event Event, o call) {
	var both, one []*write[V] // for L2 and L1, and for L1 only
	for _, w := range writes {
		if w.flight.unavailable || o.has(skipL2) {
			one = append(one, w)
		} else {
			both = append(both, w)
		}
	}
	failed := map[*write[V]]error{}
	for i, err := range c.store(ctx, both, o) {
		if err != nil {
			failed[both[i]] = err
			one = append(one, both[i])
		}
	}
	alone := o
	alone.mode |= skipL2
	c.store(ctx, one, alone)
	for _, w := range writes {
		event.Outcome, event.Key, event.TTL, event.Err = OutcomeStored, w.key, w.ttl, failed[w]
		if slices.Contains(one, w) && (w.item == nil || !o.has(skipL2)) {
			event.Outcome = OutcomeNotStored
		}
		if w.item != nil {
			w.flight.item, w.flight.loose = w.item, false
		}
		c.tell(ctx, event)
		c.flights.land(w.flight)
	}
}

// callLoader calls a loader. It makes a panic of it an error, and calls exited if it ends the
// goroutine, for then callLoader does not return.
func callLoader[V any](ctx context.Context, keys []string, stale map[string]V, load asking[V], exited func()) (answers map[string]answer[V], err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if r := recover(); r != nil {
			err = &PanicError{r, debug.Stack()}
			return
		}
		exited()
	}()
	answers, err = load(ctx, keys, stale)
	returned = true
	return answers, err
}

// encode is Codec.Encode for what was loaded: a panic is an error of that key alone.
func (c *Cache[V]) encode(value V) (data []byte, err error) {
	err = recovered(func() (err error) {
		data, err = c.options.Codec.Encode(value)
		return err
	})
	return data, err
}

// recovered returns the error of f, and makes a panic one.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{r, debug.Stack()}
		}
	}()
	return f()
}

// forget is that the loader has found nothing. The entry that L2 may have is deleted there;
// if that fails it is sent again, like that of a Delete. What L1 has from before the flight
// gives way to a negative entry, if ttl wants one.
func (c *Cache[V]) forget(ctx context.Context, f *flight[V], ttl time.Duration, o call) {
	gen := c.generations.of(f.key).Load()
	if !c.flights.mayStore(f) {
		return
	}
	if f.inL2 {
		c.remove(ctx, "delete", f.key)
		gen++ // by remove
	} else {
		c.dropIf(f.key, func(old *item[V]) bool { return old.at <= f.at })
	}
	if ttl == 0 {
		ttl = c.options.NegativeTTL
	}
	if ttl <= 0 || o.has(skipL1) {
		return
	}
	var none V
	it := c.newItem(none, 0, c.clock.now(), ttl, o.l1TTL)
	it.negative, it.keep, it.at = true, it.fresh, f.at
	c.promote(f.key, it, gen)
}
