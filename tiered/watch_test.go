package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/tiered"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := mem.NewStore()
		var caches [2]*tiered.Cache[[]byte] // two processes
		for i := range caches {
			caches[i] = newCache(t, mem.New(store), &tiered.Options[[]byte]{MaxL1TTL: time.Hour, StaleFor: time.Hour})
		}
		synctest.Wait()
		a, b := caches[0], caches[1]
		if !a.Stats().Watching {
			t.Fatal("L2 is not watched")
		}
		if err := a.Set(ctx, "k", []byte("v1"), time.Hour); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // or b hears of that only when it has read it
		wantGet(t, b, "k", "v1", time.Hour, tiered.TierL2)
		wantGet(t, b, "k", "v1", time.Hour, tiered.TierL1)
		if err := a.Set(ctx, "k", []byte("v2"), time.Minute); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantGet(t, b, "k", "v2", time.Minute, tiered.TierL2)
		if err := a.Touch(ctx, "k", time.Second); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantGet(t, b, "k", "v2", time.Second, tiered.TierL2)
		if err := a.Delete(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantGone(t, b, "k")

		// Negative entries go, too.
		none := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			return tiered.Loaded[[]byte]{TTL: time.Hour}, l2cache.ErrNotFound
		}
		if _, err := b.GetOrLoad(ctx, "k", none); err != l2cache.ErrNotFound {
			t.Errorf("GetOrLoad: %v, want ErrNotFound", err)
		}
		if err := a.Set(ctx, "k", []byte("v3"), time.Hour); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantGet(t, b, "k", "v3", time.Hour, tiered.TierL2)
	})
}

// After a Gap nothing in L1 is fresh; it is there still for when L2 fails.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{MaxL1TTL: time.Hour, OnFailure: tiered.ServeStale, StaleFor: time.Hour})
		synctest.Wait()
		put(t, l2, "k", "v", time.Hour)
		synctest.Wait()
		wantGet(t, cache, "k", "v", time.Hour, tiered.TierL2)
		wantGet(t, cache, "k", "v", time.Hour, tiered.TierL1)
		var calls atomic.Int32
		loading := make(chan struct{})
		go func() {
			defer close(loading)
			r, err := cache.GetOrLoad(ctx, "loading", loaded("old", time.Hour, &calls))
			wantLoaded(t, r, err, "old", tiered.TierLoader)
		}()
		synctest.Wait()
		l2.gap()
		synctest.Wait()
		wantGet(t, cache, "k", "v", time.Hour, tiered.TierL2)
		wantGet(t, cache, "k", "v", time.Hour, tiered.TierL1)
		<-loading
		wantGone(t, cache, "loading") // it may have changed while it was loaded
		l2.gap()
		synctest.Wait()
		l2.down()
		r, err := cache.Get(ctx, "k")
		if err != nil || !r.Stale || string(r.Value) != "v" {
			t.Errorf("Get = %+v, %v; want v, stale", r, err)
		}
		if s := cache.Stats(); s.Gaps != 3 {
			t.Errorf("%d gaps, want 3", s.Gaps)
		}
	})
}

// A Watch that fails is begun again, and its first Gap covers the time between.
func TestWatchComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{MaxL1TTL: time.Hour})
		synctest.Wait()
		put(t, l2, "k", "old", l2cache.NoExpiry)
		synctest.Wait()
		wantGet(t, cache, "k", "old", l2cache.NoExpiry, tiered.TierL2)
		l2.down()
		l2.endWatch(l2cache.NewError(t.Context(), "mem", "watch", "", l2cache.ErrUnavailable, nil))
		synctest.Wait()
		if cache.Stats().Watching {
			t.Error("L2 is being watched, and it is down")
		}
		time.Sleep(time.Minute)
		l2.up()
		put(t, l2, "k", "new", l2cache.NoExpiry)
		time.Sleep(10 * time.Second)
		if s := cache.Stats(); !s.Watching || s.WatchErrors < 3 {
			t.Errorf("watching %v after %d errors; want true after several", s.Watching, s.WatchErrors)
		}
		wantGet(t, cache, "k", "new", l2cache.NoExpiry, tiered.TierL2)
	})
}

// A backend that is closed under the cache ends the watching for good.
func TestWatchOfAClosedBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{})
		synctest.Wait()
		if err := l2.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := cache.Stats(); s.Watching || s.WatchErrors != 0 {
			t.Errorf("watching %v, %d errors", s.Watching, s.WatchErrors)
		}
		if _, err := cache.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("Get = %v, want ErrClosed", err)
		}
	})
}

// The Gap with which the watch begins comes a moment after New.
func TestLoadBeforeTheWatchBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		l2.setBefore(func(_ context.Context, op, _ string) error {
			if op == "watch" {
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
		cache := newCache(t, l2, &tiered.Options[[]byte]{})
		var calls atomic.Int32
		load := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			calls.Add(1)
			time.Sleep(50 * time.Millisecond)
			return tiered.Loaded[[]byte]{Value: []byte("v"), TTL: time.Hour}, nil
		}
		for range 2 {
			r, err := cache.GetOrLoad(t.Context(), "k", load)
			if err != nil || string(r.Value) != "v" || r.TTL == 0 {
				t.Errorf("GetOrLoad = %+v, %v; want v, stored", r, err)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d loads, want 1", calls.Load())
		}
	})
}

// The news of an own write makes L1 ask L2 once. If that has the same entry still, the
// TTL that it was stored with is known on.
func TestOwnWriteComesBack(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprint("before Set has returned: ", early), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				var consumed []float64
				cache := newCache(t, l2, &tiered.Options[[]byte]{
					RefreshAhead: 0.5, MaxL1TTL: time.Hour, OnFailure: tiered.ServeStale, StaleFor: time.Hour,
					Observer: func(_ context.Context, e tiered.Event) {
						if e.Kind == tiered.EventRead && e.Tier == tiered.TierL1 && e.Outcome == tiered.OutcomeHit {
							consumed = append(consumed, e.Consumed)
						}
					},
				})
				synctest.Wait()
				if early {
					l2.setAfter(func(op, _ string) {
						if op == "set" {
							time.Sleep(time.Second)
						}
					})
				}
				if err := cache.Set(ctx, "k", []byte("v"), 100*time.Second); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				// Until L2 was asked nobody gets what was stored.
				l2.down()
				_, err := cache.Get(ctx, "k")
				wantUnavailable(t, "Get", err)
				wantUnavailable(t, "Touch", cache.Touch(ctx, "k", time.Second))
				_, err = cache.Get(ctx, "k")
				wantUnavailable(t, "Get", err)
				l2.up()
				time.Sleep(40 * time.Second)
				var calls atomic.Int32
				r, err := cache.GetOrLoad(ctx, "k", func(_ context.Context, _ string, stale *[]byte) (tiered.Loaded[[]byte], error) {
					t.Errorf("a load, with %v as the stale entry", stale)
					return tiered.Loaded[[]byte]{}, nil
				})
				wantLoaded(t, r, err, "v", tiered.TierL2)
				time.Sleep(20 * time.Second)
				r, err = cache.GetOrLoad(ctx, "k", loaded("new", time.Minute, &calls))
				wantLoaded(t, r, err, "v", tiered.TierL1)
				time.Sleep(2 * time.Second)
				if calls.Load() != 1 {
					t.Errorf("%d loads ahead after three fifths of the TTL, want 1", calls.Load())
				}
				if len(consumed) != 1 || consumed[0] < 0.6 || consumed[0] > 0.611 {
					t.Errorf("the hits have Consumed %v, want 0.6", consumed)
				}
			})
		})
	}
}

// What another process has stored since is taken as it is, also where one event tells of
// both writes.
func TestForeignWriteAfterAnOwnOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{MaxL1TTL: time.Hour, StaleFor: time.Hour, Observer: func(_ context.Context, e tiered.Event) {
			if e.Consumed >= 0 {
				t.Errorf("%v %v %v of what another process stored has Consumed %v", e.Kind, e.Tier, e.Outcome, e.Consumed)
			}
		}})
		synctest.Wait()
		if err := cache.Set(ctx, "k", []byte("mine"), time.Minute); err != nil {
			t.Fatal(err)
		}
		put(t, l2, "k", "theirs", time.Hour)
		synctest.Wait()
		wantGet(t, cache, "k", "theirs", time.Hour, tiered.TierL2)
		wantGet(t, cache, "k", "theirs", time.Hour, tiered.TierL1)

		if err := cache.Set(ctx, "k", []byte("mine"), time.Minute); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := l2.Delete(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantGone(t, cache, "k")
		put(t, l2, "k", "v", time.Minute+10*time.Millisecond)
		synctest.Wait()
		wantGet(t, cache, "k", "v", time.Minute+10*time.Millisecond, tiered.TierL2)
		wantGet(t, cache, "k", "v", time.Minute+10*time.Millisecond, tiered.TierL1)
	})
}

// What nobody asks for takes no room in L1.
func TestNoTraceForNobody(t *testing.T) {
	for name, test := range map[string]struct {
		o    tiered.Options[[]byte]
		want int
	}{
		"nobody":       {tiered.Options[[]byte]{}, 0},
		"RefreshAhead": {tiered.Options[[]byte]{RefreshAhead: 0.5}, 100},
		"Observer":     {tiered.Options[[]byte]{Observer: func(context.Context, tiered.Event) {}}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := newCache(t, newBackend(), &test.o)
				synctest.Wait()
				for i := range 100 {
					if err := cache.Set(t.Context(), fmt.Sprint("k", i), []byte("v"), time.Hour); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait() // the news of them has come back
				if got := cache.Stats().Entries; got != test.want {
					t.Errorf("%d entries in L1, want %d", got, test.want)
				}
			})
		})
	}
}
