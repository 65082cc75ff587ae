package tiered_test

import (
	"context"
	"errors"
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
