package tiered_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

var errBoom = errors.New("boom")

// panics reports whether f does, with errBoom.
func panics(f func()) (did bool) {
	defer func() { did = recover() == errBoom }()
	f()
	return false
}

// panicOn has the backend panic in the calls of op, after they have done what they do.
func panicOn(l2 *backend, op string) {
	l2.setAfter(func(o, _ string) {
		if o == op {
			panic(errBoom)
		}
	})
}

// A backend that panics while the delete of a key is sent, or what takes its place, leaves
// nobody waiting for that key, and the delete is sent later.
func TestBackendPanicsOverAPendingDelete(t *testing.T) {
	for name, test := range map[string]struct {
		op   string
		call func(context.Context, *tiered.Cache[[]byte])
	}{
		"Get":     {"delete", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Get(ctx, "k") }},
		"GetMany": {"delete", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.GetMany(ctx, []string{"k", "other"}) }},
		"Touch":   {"delete", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Touch(ctx, "k", time.Minute) }},
		"Delete":  {"delete", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Delete(ctx, "k") }},
		"Warm":    {"delete", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Warm(ctx, nil) }},
		"Set":     {"set", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Set(ctx, "k", []byte("set"), time.Hour) }},
		"GetOrLoad": {"set", func(ctx context.Context, c *tiered.Cache[[]byte]) {
			_, err := c.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				return tiered.Loaded[[]byte]{Value: []byte("set"), TTL: time.Hour}, nil
			}, tiered.Refresh(), tiered.SkipL1())
			if failed, ok := errors.AsType[*tiered.PanicError](err); ok {
				panic(failed.Value)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1})
				put(t, l2, "k", "deleted", time.Hour)
				l2.down()
				wantUnavailable(t, "Delete", cache.Delete(ctx, "k"))
				l2.up()
				panicOn(l2, test.op)
				if !panics(func() { test.call(ctx, cache) }) {
					t.Error("no panic of the backend's")
				}
				l2.setAfter(nil)
				began := time.Now()
				for range 2 {
					r, err := cache.Get(ctx, "k")
					wantMiss(t, "k", r, err)
				}
				if err := cache.Set(ctx, "k", []byte("new"), time.Hour); err != nil {
					t.Error(err)
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("the calls after the panic took %v", d)
				}
				time.Sleep(10 * time.Second)
				if n := cache.Stats().PendingDeletes; n != 0 {
					t.Errorf("%d deletes wait, want 0", n)
				}
				wantGet(t, cache, "k", "new", time.Hour-10*time.Second, tiered.TierL1)
			})
		})
	}
}

// In the goroutine that sends deletes again a panic is a failure like others.
func TestBackendPanicsInAResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		var failures atomic.Int32
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1, Observer: func(_ context.Context, e tiered.Event) {
			if failed, ok := errors.AsType[*tiered.PanicError](e.Err); ok && e.Kind == tiered.EventResend && failed.Value == errBoom {
				failures.Add(1)
			}
		}})
		for _, key := range []string{"a", "b"} {
			put(t, l2, key, "v", time.Hour)
		}
		l2.setBefore(func(_ context.Context, op, _ string) error {
			if op == "delete" || op == "deletemany" {
				panic(errBoom)
			}
			return nil
		})
		for _, key := range []string{"a", "b"} {
			if !panics(func() { cache.Delete(ctx, key) }) {
				t.Error("no panic of the backend's")
			}
		}
		time.Sleep(200 * time.Millisecond)
		l2.up()
		time.Sleep(10 * time.Second)
		if s := cache.Stats(); s.PendingDeletes != 0 || s.DeletesResent != 2 || failures.Load() != 2 {
			t.Errorf("%d deletes wait, %d were sent, %d have failed; want 0, 2, 2", s.PendingDeletes, s.DeletesResent, failures.Load())
		}
		for _, key := range []string{"a", "b"} {
			if _, err := l2.Get(ctx, key); err != l2cache.ErrNotFound {
				t.Errorf("L2 has %q: %v", key, err)
			}
		}
	})
}

// A write that has panicked is in doubt like one that has failed: L1 does not go on with
// what it had.
func TestBackendPanicsInAWrite(t *testing.T) {
	for name, test := range map[string]struct {
		op, want string
		call     func(context.Context, *tiered.Cache[[]byte])
	}{
		"Set":    {"set", "new", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Set(ctx, "k", []byte("new"), time.Hour) }},
		"Delete": {"delete", "", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Delete(ctx, "k") }},
		"Touch":  {"touch", "old", func(ctx context.Context, c *tiered.Cache[[]byte]) { c.Touch(ctx, "k", time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
				if err := cache.Set(ctx, "k", []byte("old"), time.Hour); err != nil {
					t.Fatal(err)
				}
				panicOn(l2, test.op)
				if !panics(func() { test.call(ctx, cache) }) {
					t.Error("no panic of the backend's")
				}
				l2.setAfter(nil)
				r, err := cache.Get(ctx, "k")
				switch test.want {
				case "":
					wantMiss(t, "k", r, err)
				case "old":
					if err != nil || r.TTL > time.Second {
						t.Errorf("Get = %q, %v, %v; want it for a second at most", r.Value, r.TTL, err)
					}
				default:
					wantGet(t, cache, "k", test.want, time.Hour, tiered.TierL1)
				}
			})
		})
	}
}

// An observer must not panic. One that does hurts the call that it is told of, and not
// those that come later.
func TestObserverPanics(t *testing.T) {
	t.Run("over a pending delete", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l2 := newBackend()
			var armed atomic.Bool
			cache := newCache(t, l2, &tiered.Options[[]byte]{
				NoWatch: noWatch, BreakerFailures: 2, BreakerOpenFor: 10 * time.Millisecond,
				Observer: func(_ context.Context, e tiered.Event) {
					if e.Kind == tiered.EventBreaker && armed.Load() {
						panic(errBoom)
					}
				},
			})
			put(t, l2, "k", "deleted", time.Hour)
			l2.down()
			wantUnavailable(t, "Delete", cache.Delete(ctx, "k"))
			armed.Store(true)
			if !panics(func() { cache.Get(ctx, "k") }) { // its delete opens the breaker
				t.Error("no panic of the observer's")
			}
			armed.Store(false)
			l2.up()
			time.Sleep(20 * time.Millisecond)
			r, err := cache.Get(ctx, "k")
			wantMiss(t, "k", r, err)
			time.Sleep(10 * time.Second)
			if n := cache.Stats().PendingDeletes; n != 0 {
				t.Errorf("%d deletes wait, want 0", n)
			}
		})
	})
	t.Run("over a join", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var armed atomic.Bool
			cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, Observer: func(_ context.Context, e tiered.Event) {
				if e.Kind == tiered.EventJoin && armed.Load() {
					panic(errBoom)
				}
			}})
			var calls atomic.Int32
			first := make(chan struct{})
			go func() {
				defer close(first)
				r, err := cache.GetOrLoad(ctx, "joined", loaded("v", time.Hour, &calls))
				wantLoaded(t, r, err, "v", tiered.TierLoader)
			}()
			synctest.Wait()
			armed.Store(true)
			var asked []string
			if !panics(func() {
				cache.GetOrLoadMany(ctx, []string{"joined", "own"}, func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
					asked = append(asked, keys...)
					return map[string]tiered.Loaded[[]byte]{"own": {Value: []byte("own"), TTL: time.Hour}}, nil
				})
			}) {
				t.Error("no panic of the observer's")
			}
			armed.Store(false)
			<-first
			r, err := cache.GetOrLoad(ctx, "own", loaded("again", time.Hour, &calls))
			wantLoaded(t, r, err, "own", tiered.TierL1)
			if !slices.Equal(asked, []string{"own"}) {
				t.Errorf("the load was of %q, want own", asked)
			}
		})
	})
}
