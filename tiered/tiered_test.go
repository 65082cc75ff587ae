package tiered_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/tiered"
)

// newCache returns a cache over l2 that the test closes.
func newCache[V any](t testing.TB, l2 l2cache.L2CacheBackend, o *tiered.Options[V]) *tiered.Cache[V] {
	t.Helper()
	cache, err := tiered.New(l2, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	return cache
}

// wantResult checks what a read of key has returned.
func wantResult[V comparable](t testing.TB, key string, got tiered.Result[V], err error, want tiered.Result[V]) {
	t.Helper()
	if err != nil || got != want {
		t.Errorf("Get(%q) = %+v, %v; want %+v", key, got, err, want)
	}
}

func wantMiss[V any](t testing.TB, key string, got tiered.Result[V], err error) {
	t.Helper()
	if !errors.Is(err, l2cache.ErrNotFound) {
		t.Errorf("Get(%q) = %+v, %v; want ErrNotFound", key, got, err)
	}
}

func TestGetSetDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := mem.New(mem.NewStore())
		cache := newCache(t, l2, &tiered.Options[string]{NoWatch: true})
		r, err := cache.Get(ctx, "k")
		wantMiss(t, "k", r, err)

		if err := cache.Set(ctx, "k", "v", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		r, err = cache.Get(ctx, "k")
		wantResult(t, "k", r, err, tiered.Result[string]{Value: "v", TTL: 10 * time.Second, Tier: tiered.TierL1})
		if entry, err := l2.GetWithTTL(ctx, "k"); err != nil || string(entry.Value) != `"v"` || entry.TTL != 10*time.Second {
			t.Errorf("L2 has %q, %v, %v", entry.Value, entry.TTL, err)
		}

		time.Sleep(4 * time.Second)
		r, err = cache.Get(ctx, "k")
		wantResult(t, "k", r, err, tiered.Result[string]{Value: "v", TTL: 6 * time.Second, Tier: tiered.TierL1})

		if err := cache.Delete(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		r, err = cache.Get(ctx, "k")
		wantMiss(t, "k", r, err)
		if _, err := l2.Get(ctx, "k"); !errors.Is(err, l2cache.ErrNotFound) {
			t.Errorf("L2 has the key still: %v", err)
		}
	})
}

func TestGetOrLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cache := newCache(t, mem.New(mem.NewStore()), &tiered.Options[int]{NoWatch: true})
		loads := 0
		load := func(_ context.Context, key string, stale *int) (tiered.Loaded[int], error) {
			loads++
			return tiered.Loaded[int]{Value: len(key), TTL: time.Second}, nil
		}
		for range 2 {
			r, err := cache.GetOrLoad(ctx, "key", load)
			if err != nil || r.Value != 3 || r.TTL != time.Second {
				t.Errorf("GetOrLoad = %+v, %v", r, err)
			}
		}
		if loads != 1 {
			t.Errorf("%d loads, want 1", loads)
		}
		time.Sleep(time.Second)
		r, err := cache.Get(ctx, "key")
		wantMiss(t, "key", r, err)
	})
}
