package tiered_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
	"github.com/l2cache/l2cache/tiered"
)

// until polls until done, and fails the test if that takes long.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%s: not after %v", what, time.Since(began).Round(time.Second))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// untilWatching waits until the cache hears of changes.
func untilWatching[V any](t *testing.T, cache *tiered.Cache[V]) {
	t.Helper()
	until(t, "watching", func() bool { return cache.Stats().Watching })
}

// untilInL1 reads key until L1 has it, with the value want.
func untilInL1(t *testing.T, cache *tiered.Cache[[]byte], key, want string) {
	t.Helper()
	until(t, "a hit of "+key+" in L1", func() bool {
		r, err := cache.Get(t.Context(), key)
		if err != nil || string(r.Value) != want {
			t.Fatalf("Get(%q) = %q, %v; want %q", key, r.Value, err, want)
		}
		return r.Tier == tiered.TierL1
	})
}

// Of the two caches over one backend each hears of what the other does. Nothing but that can
// have L1 let go of an entry here in less than an hour.
func TestWatchOfRealBackends(t *testing.T) {
	for _, name := range []string{"redis", "nats", "bolt"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			url := urls[name](t)
			var caches [2]*tiered.Cache[[]byte]
			var l2 l2cache.L2CacheBackend
			for i := range caches {
				if l2 == nil || !l2cache.ProfileOf(l2).Exclusive {
					var err error
					if l2, err = l2cache.Open(ctx, url); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { l2.Close() })
				}
				caches[i] = newCache(t, l2, &tiered.Options[[]byte]{MaxL1TTL: time.Hour, NegativeTTL: time.Hour})
				untilWatching(t, caches[i])
			}
			for i, cache := range caches {
				other := caches[1-i]
				key := string(rune('a' + i))
				becomes := func(want string) {
					t.Helper()
					until(t, key+" becomes "+want, func() bool {
						r, err := other.Get(ctx, key)
						if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
							t.Fatal(err)
						}
						return string(r.Value) == want
					})
				}
				nothing := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
					return tiered.Loaded[[]byte]{}, l2cache.ErrNotFound
				}
				if _, err := other.GetOrLoad(ctx, key, nothing); err != l2cache.ErrNotFound {
					t.Errorf("GetOrLoad: %v, want ErrNotFound", err)
				}
				for _, value := range []string{"v1", "v2"} {
					if err := cache.Set(ctx, key, []byte(value), time.Hour); err != nil {
						t.Fatal(err)
					}
					becomes(value)
					untilInL1(t, other, key, value)
				}
				if err := cache.Touch(ctx, key, time.Minute); err != nil {
					t.Fatal(err)
				}
				until(t, "the end that Touch has set", func() bool {
					r, err := other.Get(ctx, key)
					return err == nil && string(r.Value) == "v2" && r.TTL <= time.Minute
				})
				untilInL1(t, other, key, "v2")
				if err := cache.Delete(ctx, key); err != nil {
					t.Fatal(err)
				}
				becomes("")
			}
		})
	}
}

// A server that restarts has changes go unseen: here that it has lost its entries (Redis), or
// that one is set by a client that is back earlier (NATS). The Gap after that has L1 ask L2.
func TestRestartUnderAWatch(t *testing.T) {
	for name, test := range map[string]struct {
		start func(testing.TB, ...string) *servertest.Server
		url   func(addr string) string
		keeps bool
	}{
		"redis": {servertest.Redis, func(addr string) string { return "redis://" + addr }, false},
		"nats":  {servertest.NATS, func(addr string) string { return "nats://" + addr + "/restart" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			server := test.start(t)
			l2, err := l2cache.Open(ctx, test.url(server.Addr))
			if err != nil {
				t.Fatal(err)
			}
			defer l2.Close()
			cache := newCache(t, l2, &tiered.Options[[]byte]{MaxL1TTL: time.Hour, BreakerFailures: -1})
			untilWatching(t, cache)
			put(t, l2, "k", "old", time.Hour)
			until(t, "the news of k", func() bool { return cache.Stats().Invalidations > 0 })
			untilInL1(t, cache, "k", "old")
			gaps := cache.Stats().Gaps

			if err := server.Stop(); err != nil {
				t.Fatal(err)
			}
			if r, err := cache.Get(ctx, "k", tiered.SkipL1()); err == nil || errors.Is(err, l2cache.ErrNotFound) {
				t.Errorf("Get from a server that is down = %q, %v; want an error that is not a miss", r.Value, err)
			}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			want := []byte(nil)
			if test.keeps {
				want = []byte("new")
				until(t, "a Set after the restart", func() bool { return l2.Set(ctx, "k", want, time.Hour) == nil })
			}
			until(t, "what L2 has now", func() bool {
				r, err := cache.Get(ctx, "k")
				if r.Tier == tiered.TierL1 || err != nil && !errors.Is(err, l2cache.ErrNotFound) {
					return false
				}
				return bytes.Equal(r.Value, want)
			})
			until(t, "a gap", func() bool { return cache.Stats().Gaps > gaps })
			untilWatching(t, cache)

			// Changes are heard of again.
			put(t, l2, "k", "v1", time.Hour)
			until(t, "v1", func() bool { r, err := cache.Get(ctx, "k"); return err == nil && string(r.Value) == "v1" })
			until(t, "v1 in L1", func() bool { r, err := cache.Get(ctx, "k"); return err == nil && r.Tier == tiered.TierL1 })
			put(t, l2, "k", "v2", time.Hour)
			until(t, "v2", func() bool { r, err := cache.Get(ctx, "k"); return err == nil && string(r.Value) == "v2" })
		})
	}
}

// In a bubble no test of this package leaves a goroutine; here is the same where L2 has
// goroutines of its own. Other tests have none meanwhile: this one is not parallel.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	running := func() (stacks []string) {
		buf := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "/tiered.(*Cache[") || strings.Contains(stack, "/otter/") {
				stacks = append(stacks, stack)
			}
		}
		return stacks
	}
	for _, name := range []string{"redis", "nats", "bolt"} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			cache, err := tiered.New(open(t, name), &tiered.Options[[]byte]{RefreshAhead: 0.01, MaxL1TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			untilWatching(t, cache)
			loading := make(chan struct{})
			begun := sync.OnceFunc(func() { close(loading) })
			hang := func(ctx context.Context, _ string, _ *[]byte) (tiered.Loaded[[]byte], error) {
				begun()
				<-ctx.Done()
				return tiered.Loaded[[]byte]{}, ctx.Err()
			}
			if err := cache.Set(ctx, "ahead", []byte("v"), time.Minute); err != nil {
				t.Fatal(err)
			}
			until(t, "a load ahead", func() bool {
				if _, err := cache.GetOrLoad(ctx, "ahead", hang); err != nil {
					t.Fatal(err)
				}
				select {
				case <-loading:
					return true
				default:
					return false
				}
			})
			if len(running()) < 2 { // the watch and the load
				t.Errorf("%d goroutines before Close: the test sees too little", len(running()))
			}
			if err := cache.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "no goroutine", func() bool { return len(running()) == 0 })
		})
	}
}
