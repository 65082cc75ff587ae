package tiered_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// A bubble ends only when all its goroutines have: each test in one shows that Close
// leaves none. Here all kinds of them are at work.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache, err := tiered.New(l2, &tiered.Options[[]byte]{RefreshAhead: 0.1, MaxL1TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hang := func(ctx context.Context, _ string, _ *[]byte) (tiered.Loaded[[]byte], error) {
			<-ctx.Done()
			return tiered.Loaded[[]byte]{}, ctx.Err()
		}
		if err := cache.Set(ctx, "ahead", []byte("v"), time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if _, err := cache.GetOrLoad(ctx, "ahead", hang); err != nil { // loads in the background
			t.Error(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := cache.GetOrLoad(ctx, "k", hang); !errors.Is(err, l2cache.ErrClosed) || errors.Is(err, context.Canceled) {
					t.Errorf("GetOrLoad during Close: %v, want ErrClosed", err)
				}
			})
		}
		wg.Go(func() {
			put(t, l2, "warm", "v", time.Hour)
			put(t, l2, "warm2", "v", time.Hour)
			if p, err := cache.Warm(ctx, &tiered.WarmOptions{Rate: 1}); !errors.Is(err, l2cache.ErrClosed) {
				t.Errorf("Warm during Close = %+v, %v; want ErrClosed", p, err)
			}
		})
		synctest.Wait()
		l2.setBefore(func(ctx context.Context, op, key string) error {
			if op == "delete" || op == "deletemany" {
				return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
			}
			return nil
		})
		wantUnavailable(t, "Delete", cache.Delete(ctx, "pending"))

		for range 2 {
			if err := cache.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
		wg.Wait()
		none := func(context.Context, []string, map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
			return nil, nil
		}
		for name, call := range map[string]func() error{
			"Get":           func() error { _, err := cache.Get(ctx, "ahead"); return err },
			"GetMany":       func() error { _, err := cache.GetMany(ctx, []string{"ahead"}); return err },
			"GetOrLoad":     func() error { _, err := cache.GetOrLoad(ctx, "ahead", hang); return err },
			"GetOrLoadMany": func() error { _, err := cache.GetOrLoadMany(ctx, []string{"ahead"}, none); return err },
			"Set":           func() error { return cache.Set(ctx, "ahead", nil, time.Minute) },
			"Delete":        func() error { return cache.Delete(ctx, "ahead") },
			"Touch":         func() error { return cache.Touch(ctx, "ahead", time.Minute) },
			"Warm":          func() error { _, err := cache.Warm(ctx, nil); return err },
		} {
			if err := call(); !errors.Is(err, l2cache.ErrClosed) {
				t.Errorf("%s after Close: %v, want ErrClosed", name, err)
			}
		}
		if s := cache.Stats(); s.Watching || s.PendingDeletes != 1 {
			t.Errorf("Stats after Close: %+v", s)
		}
		// L2 is the caller's.
		l2.up()
		if _, err := l2.Get(ctx, "warm"); err != nil {
			t.Errorf("L2 after Close: %v", err)
		}
	})
}

func TestEndedContext(t *testing.T) {
	cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
	if err := cache.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Get":     func() error { _, err := cache.Get(ctx, "k"); return err },
		"GetMany": func() error { _, err := cache.GetMany(ctx, []string{"k"}); return err },
		"GetOrLoad": func() error {
			_, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				t.Error("loaded for a caller whose ctx had ended")
				return tiered.Loaded[[]byte]{}, nil
			})
			return err
		},
		"Set":    func() error { return cache.Set(ctx, "k", []byte("new"), time.Minute) },
		"Delete": func() error { return cache.Delete(ctx, "k") },
		"Touch":  func() error { return cache.Touch(ctx, "k", time.Hour) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want Canceled", name, err)
		}
	}
	r, err := cache.Get(t.Context(), "k")
	if err != nil || string(r.Value) != "v" || r.TTL > time.Minute {
		t.Errorf("Get = %q, %v, %v; want what was there", r.Value, r.TTL, err)
	}
}

// A read that Close overtakes leaves nothing in L1, and Get looks there first.
func TestReadDuringClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		put(t, l2, "k", "v", time.Hour)
		var cache *tiered.Cache[[]byte]
		closing := false
		cache = newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, Observer: func(_ context.Context, e tiered.Event) {
			if e.Kind == tiered.EventRead && e.Tier == tiered.TierL1 && !closing {
				closing = true
				cache.Close()
			}
		}})
		if r, err := cache.Get(t.Context(), "k"); err != nil || string(r.Value) != "v" {
			t.Errorf("Get = %q, %v", r.Value, err)
		}
		if r, err := cache.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("Get after Close = %q from %v, %v; want ErrClosed", r.Value, r.Tier, err)
		}
		if n := cache.Stats().Entries; n != 0 {
			t.Errorf("L1 has %d entries after Close", n)
		}
	})
}
