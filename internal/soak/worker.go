package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

const (
	workers   = 8
	ownKeys   = 48              // that a worker writes
	maxWrites = 60              // to a key, which is then given up for a new one
	maxPast   = 1024            // keys that were given up
	hungAfter = 8 * time.Second // far beyond op_timeout: a busy machine is no violation
)

// A run is what goes on at one backend.
type run struct {
	name    string
	handles []atomic.Pointer[l2cache.L2CacheBackend]
	closing atomic.Bool // a handle is being closed: ErrClosed is no violation
	keys    [workers * ownKeys]atomic.Pointer[history]
	past    [maxPast]atomic.Pointer[history] // given up, and read on; nil at first

	serial                    atomic.Int64 // numbers keys
	retired                   atomic.Int64 // numbers those that were given up
	ops, doubts, faults, seen atomic.Int64 // seen: errors

	mu       sync.Mutex
	wiped    []span         // guarded by mu; when the store may have lost all
	counts   map[string]int // guarded by mu; violations by kind
	examples []string       // guarded by mu; the first few
}

func newRun(name string, handles ...l2cache.L2CacheBackend) *run {
	r := &run{name: name, handles: make([]atomic.Pointer[l2cache.L2CacheBackend], len(handles)), counts: map[string]int{}}
	for i := range handles {
		r.handles[i].Store(&handles[i])
	}
	for i := range r.keys {
		r.keys[i].Store(r.newKey())
	}
	return r
}

func (r *run) newKey() *history {
	return &history{key: fmt.Sprintf("soak:%d", r.serial.Add(1))}
}

func (r *run) report(v *violation) {
	if v == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[v.kind]++
	if len(r.examples) < 5 {
		r.examples = append(r.examples, v.kind+": "+v.text)
	}
}

func (r *run) wipes() []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.wiped)
}

// wipe notes that f may cost the store all it has.
func (r *run) wipe(f func() error) error {
	r.mu.Lock()
	i := len(r.wiped)
	r.wiped = append(r.wiped, span{from: time.Now(), to: time.Now().Add(time.Hour)})
	r.mu.Unlock()
	err := f()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wiped[i].to = time.Now()
	return err
}

// A worker makes random calls, and is the only one that writes its keys.
type worker struct {
	*run
	rand *rand.Rand
	rest map[*history]time.Time // until when keys are left alone, to expire

	slot   int                     // of the handle that the call under way uses
	handle *l2cache.L2CacheBackend // as it was when the call began
}

// work makes calls until ctx ends.
func (r *run) work(ctx context.Context, n int, seed uint64) {
	w := &worker{run: r, rand: rand.New(rand.NewPCG(seed, uint64(n))), rest: map[*history]time.Time{}}
	for ctx.Err() == nil {
		w.step(n)
		time.Sleep(time.Duration(w.rand.IntN(int(time.Millisecond)))) // leaves the cores to the servers
	}
}

// step makes one call.
func (w *worker) step(n int) {
	slot := n*ownKeys + w.rand.IntN(ownKeys)
	h := w.keys[slot].Load()
	if _, certain := h.last(); h.len() > maxWrites || !certain && w.rand.IntN(4) == 0 {
		delete(w.rest, h)
		w.keys[slot].Store(w.newKey())
		w.past[w.retired.Add(1)%maxPast].Store(h)
		return
	}
	w.slot = w.rand.IntN(len(w.handles))
	w.handle = w.handles[w.slot].Load()
	b := *w.handle
	ctx := context.Background()
	if w.rand.IntN(20) == 0 { // a caller in a hurry
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(w.rand.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	start := time.Now()
	if w.rand.IntN(3) == 0 && start.After(w.rest[h]) {
		w.write(ctx, b, h)
	} else {
		w.read(ctx, b)
	}
	w.ops.Add(1)
	if d := time.Since(start); d > hungAfter {
		w.report(&violation{"hung", fmt.Sprintf("a call came back after %v", d)})
	}
}

// ttl is mostly so short that the end is seen.
func (w *worker) ttl() time.Duration {
	switch w.rand.IntN(8) {
	case 0:
		return l2cache.NoExpiry
	case 1:
		return time.Hour
	case 2:
		return time.Duration(1 + w.rand.Int64N(int64(20*time.Millisecond)))
	}
	return time.Duration(1 + w.rand.Int64N(int64(1500*time.Millisecond)))
}

func (w *worker) write(ctx context.Context, b l2cache.L2CacheBackend, h *history) {
	last, certain := h.last()
	ttl := w.ttl()
	switch op := w.rand.IntN(12); {
	case op < 2:
		i := h.begin(0, l2cache.NoExpiry)
		w.settle(ctx, h, i, b.Delete(ctx, h.key))
		return
	case op < 4 && certain && last.value != 0:
		w.touch(ctx, b, h, last.value, ttl)
	case op < 5:
		w.add(ctx, b, h, ttl)
	default:
		number := h.next()
		i := h.begin(number, ttl)
		w.settle(ctx, h, i, b.Set(ctx, h.key, encode(h.key, number), ttl))
	}
	if ttl < 2*time.Second && w.rand.IntN(4) > 0 {
		w.rest[h] = time.Now().Add(ttl + 50*time.Millisecond)
	}
}

func (w *worker) touch(ctx context.Context, b l2cache.L2CacheBackend, h *history, number int, ttl time.Duration) {
	i, a := h.begin(number, ttl), time.Now()
	switch err := l2cache.Touch(ctx, b, h.key, ttl); {
	case errors.Is(err, errors.ErrUnsupported):
		h.drop(i)
	case err == l2cache.ErrNotFound:
		h.drop(i)
		w.report(h.miss(a, time.Now(), w.wipes()))
	default:
		w.settle(ctx, h, i, err)
	}
}

func (w *worker) add(ctx context.Context, b l2cache.L2CacheBackend, h *history, ttl time.Duration) {
	number := h.next()
	i, a := h.begin(number, ttl), time.Now()
	switch added, err := l2cache.Add(ctx, b, h.key, encode(h.key, number), ttl); {
	case errors.Is(err, errors.ErrUnsupported):
		h.drop(i)
	case err != nil:
		w.settle(ctx, h, i, err)
	case added:
		w.report(h.miss(a, time.Now(), w.wipes()))
		h.ack(i)
	default:
		h.drop(i)
		w.report(h.held(a, time.Now()))
	}
}

// settle notes how a write ended.
func (w *worker) settle(ctx context.Context, h *history, i int, err error) {
	if err == nil {
		h.ack(i)
		return
	}
	w.doubts.Add(1)
	w.check(ctx, err)
}

// pick picks a key to read: now and then one that nobody writes any more, as what has
// come back under it would stay.
func (w *worker) pick() *history {
	if w.rand.IntN(5) == 0 {
		if h := w.past[w.rand.IntN(maxPast)].Load(); h != nil {
			return h
		}
	}
	return w.keys[w.rand.IntN(len(w.keys))].Load()
}

func (w *worker) read(ctx context.Context, b l2cache.L2CacheBackend) {
	h := w.pick()
	a := time.Now()
	switch w.rand.IntN(10) {
	case 0:
		w.readMany(ctx, b)
	case 1, 2:
		value, err := b.Get(ctx, h.key)
		w.judge(ctx, h, l2cache.Entry{Value: value}, err, a, time.Now())
	default:
		entry, err := b.GetWithTTL(ctx, h.key)
		if err == nil && entry.TTL <= 0 {
			w.report(&violation{"torn", fmt.Sprintf("read of %s: TTL %d", h.key, entry.TTL)})
		}
		w.judge(ctx, h, entry, err, a, time.Now())
	}
}

func (w *worker) readMany(ctx context.Context, b l2cache.L2CacheBackend) {
	histories := map[string]*history{}
	var keys []string
	for range 1 + w.rand.IntN(20) {
		h := w.pick()
		histories[h.key] = h
		keys = append(keys, h.key)
	}
	a := time.Now()
	entries, err := l2cache.GetMany(ctx, b, keys)
	end := time.Now()
	failed, _ := errors.AsType[l2cache.KeyErrors](err)
	for key, h := range histories {
		entry, ok := entries[key]
		switch {
		case ok:
			w.judge(ctx, h, entry, nil, a, end)
		case failed[key] != nil:
			w.judge(ctx, h, entry, failed[key], a, end)
		case failed == nil && err != nil:
			w.judge(ctx, h, entry, err, a, end)
		default:
			w.judge(ctx, h, entry, l2cache.ErrNotFound, a, end)
		}
	}
}

// judge holds the outcome of a read against what is known of the key.
func (w *worker) judge(ctx context.Context, h *history, entry l2cache.Entry, err error, a, b time.Time) {
	switch {
	case err == l2cache.ErrNotFound:
		w.report(h.miss(a, b, w.wipes()))
	case err != nil:
		w.check(ctx, err)
	default:
		number, v := decode(h.key, entry.Value)
		if v == nil {
			v = h.hit(number, entry.TTL, a, b)
		}
		w.report(v)
	}
}

// check holds an error against what a call may return while servers come and go.
func (w *worker) check(ctx context.Context, err error) {
	w.seen.Add(1)
	switch {
	case errors.Is(err, l2cache.ErrUnavailable):
	case errors.Is(err, context.DeadlineExceeded) && over(ctx):
	case errors.Is(err, l2cache.ErrClosed) && (w.closing.Load() || w.handle != w.handles[w.slot].Load()):
	default:
		w.report(&violation{"wrong", fmt.Sprintf("an error that nothing explains: %v", err)})
	}
}

// over reports whether ctx's deadline has passed, which its Err can be late to say.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}
