package tiered

import (
	"context"
	"slices"
	"sync"
)

// A flight is one key's way through L2 and the loader, and what comes of it. All who
// ask for the key meanwhile wait for it. A flight belongs to a trip, which is what one
// GetOrLoad or GetOrLoadMany begins.
type flight[V any] struct {
	key  string
	mode mode
	trip *trip
	at   instant // when its goroutine began

	newer instant // of one that refreshes ahead: when the item ends that it is to replace

	overtaken bool // guarded by flights.mu: the key has changed since
	storing   bool // guarded by flights.mu: what it brings is being written

	unavailable bool // L2 could not answer; only the trip's goroutine has it
	inL2        bool // L2 has an entry, or was not asked; only the trip's goroutine has it

	landed chan struct{} // closed when the rest is set
	item   *item[V]      // nil if there is err
	tier   Tier
	stale  bool // item is what L1 had, and L2 or the loader failed
	loose  bool // item was stored nowhere
	err    error
}

// A trip is the goroutine of some flights.
type trip struct {
	number    uint64          // guarded by flights.mu: the later it began, the higher
	ctx       context.Context // the first caller's, but that it does not end with it
	cancel    context.CancelFunc
	parent    *trip // whose loader began it; nil if none did
	waiting   int   // guarded by flights.mu: those who wait for its flights
	abandoned bool  // guarded by flights.mu: nobody waited any more, and ctx was cancelled
}

// newTrip returns a trip that the caller of ctx begins.
func newTrip(ctx context.Context) *trip {
	t := &trip{parent: tripOf(ctx)}
	t.ctx, t.cancel = context.WithCancel(context.WithValue(context.WithoutCancel(ctx), tripKey{}, t))
	return t
}

type tripKey struct{}

// tripOf returns the trip whose loader ctx was given to, or nil.
func tripOf(ctx context.Context) *trip {
	t, _ := ctx.Value(tripKey{}).(*trip)
	return t
}

// within reports whether t is outer, or was begun by outer's loader, or by one that it began.
func (t *trip) within(outer *trip) bool {
	for ; t != nil; t = t.parent {
		if t == outer {
			return true
		}
	}
	return false
}

// flights are those that have not landed.
type flights[V any] struct {
	mu       sync.Mutex
	byKey    map[string][]*flight[V] // guarded by mu
	changing map[string]int          // guarded by mu: how many changes of the key are under way
	trips    uint64                  // guarded by mu: the last trip's number
}

// join returns a flight of key for the caller to wait for, and then to leave. It is a
// new one of trip t, for the caller to see to, if there was none that is worth waiting
// for: one that was overtaken may bring what is not true any more, and one that was
// abandoned an error.
func (fs *flights[V]) join(key string, m mode, t *trip) (f *flight[V], created bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.findLocked(key, m); f != nil {
		f.trip.waiting++
		return f, false
	}
	return fs.newLocked(key, m, t), true
}

// begin returns a new flight of key that refreshes it ahead, or nil if there is one that
// does or that is to be joined.
func (fs *flights[V]) begin(key string, m mode, t *trip) *flight[V] {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.findLocked(key, m) != nil || fs.findLocked(key, m|ahead) != nil {
		return nil
	}
	return fs.newLocked(key, m|ahead, t)
}

// ahead returns the flight that refreshes key ahead, or nil.
func (fs *flights[V]) ahead(key string, m mode) *flight[V] {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.findLocked(key, m|ahead)
}

func (fs *flights[V]) findLocked(key string, m mode) *flight[V] {
	for _, f := range fs.byKey[key] {
		if f.mode == m && !f.overtaken && !f.trip.abandoned {
			return f
		}
	}
	return nil
}

func (fs *flights[V]) newLocked(key string, m mode, t *trip) *flight[V] {
	f := &flight[V]{key: key, mode: m, trip: t, landed: make(chan struct{})}
	t.waiting++
	if t.number == 0 {
		fs.trips++
		t.number = fs.trips
	}
	if fs.byKey == nil {
		fs.byKey = map[string][]*flight[V]{}
	}
	fs.byKey[key] = append(fs.byKey[key], f)
	return f
}

// leave is that a caller does not wait any more. When the last one leaves, the trip is
// abandoned.
func (fs *flights[V]) leave(f *flight[V]) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.trip.waiting--; f.trip.waiting == 0 {
		f.trip.abandoned = true
		f.trip.cancel()
	}
}

// overtake begins a change of key, which changed ends: until then no flight of key stores
// what it brings. It waits for those that do so at the moment: what the caller is about to
// write comes after it. The error is ctx's, and there is no change then.
func (fs *flights[V]) overtake(ctx context.Context, key string) error {
	fs.mu.Lock()
	if fs.changing == nil {
		fs.changing = map[string]int{}
	}
	fs.changing[key]++
	storing := fs.passLocked(key)
	fs.mu.Unlock()
	for _, landed := range storing {
		select {
		case <-landed:
		case <-ctx.Done():
			fs.changed(key)
			return ctx.Err()
		}
	}
	return nil
}

// changed ends a change of key. Flights that began during it are overtaken, too: what they
// bring may be older than the change.
func (fs *flights[V]) changed(key string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.changing[key]--; fs.changing[key] == 0 {
		delete(fs.changing, key)
	}
	fs.passLocked(key)
}

// passed marks the flights of key as overtaken.
func (fs *flights[V]) passed(key string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.passLocked(key)
}

// passLocked is passed. It returns what those that are storing close when they have.
func (fs *flights[V]) passLocked(key string) (storing []chan struct{}) {
	for _, f := range fs.byKey[key] {
		f.overtaken = true
		if f.storing {
			storing = append(storing, f.landed)
		}
	}
	return storing
}

// allPassed marks all flights as overtaken.
func (fs *flights[V]) allPassed() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, others := range fs.byKey {
		for _, f := range others {
			f.overtaken = true
		}
	}
}

// mayStore reports whether f may store what it brings. Whoever overtakes it from now on
// waits until it has landed. Of the flights of a key, which differ in mode, those of
// earlier trips are overtaken by it: it waits for what they are storing.
func (fs *flights[V]) mayStore(f *flight[V]) bool {
	for _, landed := range fs.store(f) {
		select {
		case <-landed:
		case <-f.trip.ctx.Done():
			return false
		}
	}
	return f.storing
}

// store sets f.storing, if f may store, and then returns what earlier flights that are
// storing close when they have.
func (fs *flights[V]) store(f *flight[V]) (earlier []chan struct{}) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.storing = !f.overtaken && !f.trip.abandoned && fs.changing[f.key] == 0
	if !f.storing {
		return nil
	}
	for _, other := range fs.byKey[f.key] {
		if other.trip.number >= f.trip.number {
			continue
		}
		other.overtaken = true
		if other.storing {
			earlier = append(earlier, other.landed)
		}
	}
	return earlier
}

// land ends f: what it brings is set.
func (fs *flights[V]) land(f *flight[V]) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	others := slices.DeleteFunc(fs.byKey[f.key], func(other *flight[V]) bool { return other == f })
	if len(others) == 0 {
		delete(fs.byKey, f.key)
	} else {
		fs.byKey[f.key] = others
	}
	close(f.landed)
}

// hasLanded reports whether land was called.
func (f *flight[V]) hasLanded() bool {
	select {
	case <-f.landed:
		return true
	default:
		return false
	}
}
