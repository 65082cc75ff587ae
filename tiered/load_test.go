package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// loaded returns a loader of value that takes a second, and counts its calls.
func loaded(value string, ttl time.Duration, calls *atomic.Int32) tiered.Loader[[]byte] {
	return func(ctx context.Context, _ string, _ *[]byte) (tiered.Loaded[[]byte], error) {
		calls.Add(1)
		select {
		case <-time.After(time.Second):
			return tiered.Loaded[[]byte]{Value: []byte(value), TTL: ttl}, nil
		case <-ctx.Done():
			return tiered.Loaded[[]byte]{}, context.Cause(ctx)
		}
	}
}

func wantLoaded(t testing.TB, r tiered.Result[[]byte], err error, value string, tier tiered.Tier) {
	t.Helper()
	if err != nil || string(r.Value) != value || r.Tier != tier || r.Stale {
		t.Errorf("GetOrLoad = %q from %v, stale %v, %v; want %q from %v", r.Value, r.Tier, r.Stale, err, value, tier)
	}
}

func TestOneLoadForAThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				r, err := cache.GetOrLoad(t.Context(), "cold", loaded("v", time.Minute, &calls))
				if err != nil || string(r.Value) != "v" || r.TTL != time.Minute {
					t.Errorf("GetOrLoad = %+v, %v", r, err)
				}
			})
		}
		wg.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
		if s := cache.Stats(); s.Joined != 999 || s.Loads != 1 || l2.count("get") != 1 || l2.count("set") != 1 {
			t.Errorf("joined %d, loads %d, L2 %d Get and %d Set; want 999 and 1 of each", s.Joined, s.Loads, l2.count("get"), l2.count("set"))
		}
		entry, err := l2.GetWithTTL(t.Context(), "cold")
		if err != nil || string(entry.Value) != "v" || entry.TTL != time.Minute {
			t.Errorf("L2 has %q, %v, %v", entry.Value, entry.TTL, err)
		}
	})
}

// The same on real time, where goroutines come at every stage of the load.
func TestOneLoadForAThousandAtOnce(t *testing.T) {
	cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
	for round := range 20 {
		key := fmt.Sprint(round)
		var calls atomic.Int32
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := cache.GetOrLoad(t.Context(), key, func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
					calls.Add(1)
					return tiered.Loaded[[]byte]{Value: []byte("v"), TTL: time.Minute}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := calls.Load(); n != 1 {
			t.Fatalf("%d loads of %q, want 1", n, key)
		}
	}
}

func TestCancelledFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		load := loaded("v", time.Minute, &calls)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			if _, err := cache.GetOrLoad(ctx, "k", load); !errors.Is(err, context.Canceled) || time.Since(began) != time.Millisecond {
				t.Errorf("the cancelled caller got %v after %v", err, time.Since(began))
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				r, err := cache.GetOrLoad(t.Context(), "k", load)
				wantLoaded(t, r, err, "v", tiered.TierLoader)
			})
		}
		time.Sleep(time.Millisecond)
		cancel()
		wg.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
	})
}

// When nobody waits any more the load is cancelled, and who comes then begins another.
func TestNobodyJoinsACancelledLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
		var first, second atomic.Int32
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go cache.GetOrLoad(ctx, "k", func(ctx context.Context, key string, _ *[]byte) (tiered.Loaded[[]byte], error) {
			first.Add(1)
			<-ctx.Done()
			ended <- ctx.Err()
			time.Sleep(10 * time.Second) // and it takes its time
			return tiered.Loaded[[]byte]{Value: []byte("late"), TTL: time.Hour}, nil
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		r, err := cache.GetOrLoad(t.Context(), "k", loaded("v", time.Minute, &second))
		wantLoaded(t, r, err, "v", tiered.TierLoader)
		if err := <-ended; err != context.Canceled {
			t.Errorf("the abandoned load's ctx: %v", err)
		}
		time.Sleep(20 * time.Second)
		wantGet(t, cache, "k", "v", 40*time.Second, tiered.TierL1)
		if first.Load() != 1 || second.Load() != 1 {
			t.Errorf("%d and %d loads, want 1 and 1", first.Load(), second.Load())
		}
	})
}

type ctxKey struct{}

func TestLoaderHasTheCallersValues(t *testing.T) {
	cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "v"), time.Hour)
	defer cancel()
	_, err := cache.GetOrLoad(ctx, "k", func(ctx context.Context, key string, _ *[]byte) (tiered.Loaded[[]byte], error) {
		if v := ctx.Value(ctxKey{}); v != "v" || key != "k" {
			t.Errorf("the loader of %q has the value %v", key, v)
		}
		if _, ok := ctx.Deadline(); ok {
			t.Error("the load ends with its first caller's deadline")
		}
		return tiered.Loaded[[]byte]{}, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLoaderFails(t *testing.T) {
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		load tiered.Loader[[]byte]
		is   func(error) bool
	}{
		"error": {
			func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				time.Sleep(time.Second)
				return tiered.Loaded[[]byte]{}, boom
			},
			func(err error) bool { return err == boom },
		},
		"panic": {
			func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				time.Sleep(time.Second)
				panic(boom)
			},
			func(err error) bool {
				var p *tiered.PanicError
				return errors.As(err, &p) && p.Value == boom && len(p.Stack) > 0 && errors.Is(err, boom)
			},
		},
		"Goexit": {
			func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				time.Sleep(time.Second)
				runtime.Goexit()
				return tiered.Loaded[[]byte]{}, nil
			},
			func(err error) bool { return err != nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						if _, err := cache.GetOrLoad(t.Context(), "k", test.load); !test.is(err) {
							t.Errorf("GetOrLoad: %v", err)
						}
					})
				}
				wg.Wait()
				if s := cache.Stats(); s.LoadErrors != 1 {
					t.Errorf("%d failed loads, want 1", s.LoadErrors)
				}
				// The next one is not hurt.
				var calls atomic.Int32
				r, err := cache.GetOrLoad(t.Context(), "k", loaded("v", time.Minute, &calls))
				wantLoaded(t, r, err, "v", tiered.TierLoader)
			})
		})
	}
}

func TestNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: 10 * time.Second})
		calls := 0
		load := func(ttl time.Duration) tiered.Loader[[]byte] {
			return func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				calls++
				return tiered.Loaded[[]byte]{TTL: ttl}, fmt.Errorf("no such user: %w", l2cache.ErrNotFound)
			}
		}
		for _, test := range []struct {
			key  string
			ttl  time.Duration // from the loader
			for_ time.Duration
		}{{"default", 0, 10 * time.Second}, {"own", time.Second, time.Second}, {"none", -1, 0}} {
			calls = 0
			for range 2 {
				if r, err := cache.GetOrLoad(ctx, test.key, load(test.ttl)); err != l2cache.ErrNotFound {
					t.Errorf("GetOrLoad = %+v, %v; want ErrNotFound", r, err)
				}
				time.Sleep(max(test.for_-1, 0))
			}
			want := 1
			if test.for_ == 0 {
				want = 2
			}
			if calls != want {
				t.Errorf("%s: %d loads, want %d", test.key, calls, want)
			}
			time.Sleep(1 * time.Nanosecond)
			cache.GetOrLoad(ctx, test.key, load(test.ttl))
			if calls != want+1 {
				t.Errorf("%s: %d loads after its TTL, want %d", test.key, calls, want+1)
			}
		}
		// L2 knows nothing of it, and a Set ends it.
		if _, err := l2.Get(ctx, "own"); err != l2cache.ErrNotFound {
			t.Errorf("L2 has the negative entry: %v", err)
		}
		cache.GetOrLoad(ctx, "own", load(time.Minute))
		wantGone(t, cache, "own")
		if err := cache.Set(ctx, "own", []byte("v"), time.Minute); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "own", "v", time.Minute, tiered.TierL1)
	})
}

func TestLoadedWithoutTTLIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		for _, ttl := range []time.Duration{0, -time.Second} {
			r, err := cache.GetOrLoad(t.Context(), "k", loaded("v", ttl, &calls))
			wantLoaded(t, r, err, "v", tiered.TierLoader)
			if r.TTL != 0 {
				t.Errorf("TTL of what was not stored: %v, want 0", r.TTL)
			}
		}
		if calls.Load() != 2 || l2.count("set") != 0 || cache.Stats().LoadsNotStored != 2 {
			t.Errorf("%d loads, %d Set, %d not stored; want 2, 0, 2", calls.Load(), l2.count("set"), cache.Stats().LoadsNotStored)
		}
	})
}

func TestLoaderGetsTheStaleEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, StaleFor: time.Minute})
		var seen []string
		load := func(_ context.Context, _ string, stale *[]byte) (tiered.Loaded[[]byte], error) {
			if stale == nil {
				seen = append(seen, "none")
			} else {
				seen = append(seen, string(*stale))
			}
			return tiered.Loaded[[]byte]{Value: fmt.Appendf(nil, "v%d", len(seen)), TTL: time.Second}, nil
		}
		for _, wait := range []time.Duration{time.Second, time.Minute, 2 * time.Minute, 0} {
			if _, err := cache.GetOrLoad(t.Context(), "k", load); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
		}
		if want := []string{"none", "v1", "v2", "none"}; !slices.Equal(seen, want) {
			t.Errorf("the loads saw %q, want %q", seen, want)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		for _, value := range []string{"v1", "v2"} {
			r, err := cache.GetOrLoad(t.Context(), "k", loaded(value, time.Minute, &calls), tiered.Refresh())
			wantLoaded(t, r, err, value, tiered.TierLoader)
			wantGet(t, cache, "k", value, time.Minute, tiered.TierL1)
		}
		if l2.count("get") != 0 {
			t.Errorf("%d reads of L2, want 0", l2.count("get"))
		}
	})
}

func TestRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.8, MaxL1TTL: time.Hour})
		var calls atomic.Int32
		get := func(value string, left time.Duration) {
			t.Helper()
			r, err := cache.GetOrLoad(ctx, "k", loaded(fmt.Sprintf("v%d", calls.Load()+1), 100*time.Second, &calls))
			if err != nil || string(r.Value) != value || r.TTL != left {
				t.Errorf("GetOrLoad = %q, %v, %v; want %q, %v", r.Value, r.TTL, err, value, left)
			}
		}
		get("v1", 100*time.Second)
		time.Sleep(80*time.Second - 1)
		get("v1", 20*time.Second+1)
		synctest.Wait()
		if calls.Load() != 1 {
			t.Errorf("%d loads before four fifths of the TTL, want 1", calls.Load())
		}
		time.Sleep(1 * time.Nanosecond)
		for range 3 {
			get("v1", 20*time.Second)
		}
		time.Sleep(2 * time.Second)
		get("v2", 99*time.Second)
		if calls.Load() != 2 {
			t.Errorf("%d loads, want 2", calls.Load())
		}

		// Another process was quicker: its entry is taken.
		time.Sleep(90 * time.Second)
		put(t, l2, "k", "theirs", 100*time.Second)
		get("v2", 9*time.Second)
		synctest.Wait()
		get("theirs", 100*time.Second)
		if calls.Load() != 2 {
			t.Errorf("%d loads, want 2", calls.Load())
		}
	})
}

// A refresh that fails hurts nobody, and is not tried again with each hit.
func TestRefreshAheadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{
			NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: time.Hour, StaleFor: time.Hour, OnFailure: tiered.ServeStale,
		})
		if err := cache.Set(t.Context(), "k", []byte("v"), 100*time.Second); err != nil {
			t.Fatal(err)
		}
		calls := 0
		for range 99 {
			time.Sleep(time.Second)
			r, err := cache.GetOrLoad(t.Context(), "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				calls++
				panic("boom")
			})
			wantLoaded(t, r, err, "v", tiered.TierL1)
			synctest.Wait()
		}
		if calls < 2 || calls > 12 {
			t.Errorf("%d loads in the second half of the TTL, want a few", calls)
		}
		if n := cache.Stats().Stale; n != 0 {
			t.Errorf("%d stale entries served, want 0", n)
		}
	})
}

// What a load brings that was overtaken goes to those who waited, and nowhere else.
func TestOvertakenLoadIsNotStored(t *testing.T) {
	for name, overtake := range map[string]func(t *testing.T, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend){
		"Delete": func(t *testing.T, cache *tiered.Cache[[]byte], _ l2cache.L2CacheBackend) {
			if err := cache.Delete(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		},
		"event": func(t *testing.T, _ *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend) {
			put(t, l2, "k", "theirs", time.Minute)
			if err := l2.Delete(t.Context(), "k"); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: name != "event", NegativeTTL: time.Minute})
				synctest.Wait()
				var old, young atomic.Int32
				var wg sync.WaitGroup
				wg.Go(func() {
					r, err := cache.GetOrLoad(t.Context(), "k", loaded("old", time.Minute, &old))
					wantLoaded(t, r, err, "old", tiered.TierLoader)
				})
				time.Sleep(time.Millisecond)
				overtake(t, cache, l2)
				// Who asks from now on does not get what was loaded before.
				wg.Go(func() {
					r, err := cache.GetOrLoad(t.Context(), "k", loaded("new", 0, &young))
					wantLoaded(t, r, err, "new", tiered.TierLoader)
				})
				wg.Wait()
				wantGone(t, cache, "k")
				if _, err := l2.GetWithTTL(t.Context(), "k"); err != l2cache.ErrNotFound {
					t.Errorf("L2 has the overtaken load: %v", err)
				}
				if s := cache.Stats(); s.LoadsOvertaken != 1 {
					t.Errorf("%d loads overtaken, want 1", s.LoadsOvertaken)
				}
			})
		})
	}
}

func TestSetOvertakesALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() {
			r, err := cache.GetOrLoad(t.Context(), "k", loaded("old", time.Minute, &calls))
			wantLoaded(t, r, err, "old", tiered.TierLoader)
		})
		time.Sleep(time.Millisecond)
		if err := cache.Set(t.Context(), "k", []byte("new"), time.Minute); err != nil {
			t.Error(err)
		}
		wg.Wait()
		wantGet(t, cache, "k", "new", time.Minute-999*time.Millisecond, tiered.TierL1)
		entry, err := l2.GetWithTTL(t.Context(), "k")
		if err != nil || string(entry.Value) != "new" {
			t.Errorf("L2 has %q, %v; want new", entry.Value, err)
		}
	})
}

// A Delete or Set that meets a load which is writing to L2 comes after it.
func TestDeleteWaitsForALoadThatIsStoring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.setBefore(func(_ context.Context, op, _ string) error {
			if op == "set" {
				time.Sleep(time.Second)
			}
			return nil
		})
		var calls atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() { cache.GetOrLoad(t.Context(), "k", loaded("old", time.Minute, &calls)) })
		time.Sleep(1500 * time.Millisecond)
		for range 2 {
			wg.Go(func() {
				if err := cache.Delete(t.Context(), "k"); err != nil {
					t.Error(err)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := cache.Delete(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a Delete that may wait for 1 ms: %v", err)
		}
		wg.Wait()
		wantGone(t, cache, "k")
	})
}

// A load that begins while its key is being changed neither outlives the change, nor does
// anybody join it after that.
func TestLoadDuringAChange(t *testing.T) {
	set := func(ctx context.Context, cache *tiered.Cache[[]byte]) error {
		return cache.Set(ctx, "k", []byte("set"), time.Hour)
	}
	del := func(ctx context.Context, cache *tiered.Cache[[]byte]) error { return cache.Delete(ctx, "k") }
	for _, test := range []struct {
		name   string
		change func(context.Context, *tiered.Cache[[]byte]) error
		value  string // empty: the loader finds nothing
		takes  time.Duration
		want   string // what the cache has after it; empty: nothing
	}{
		{"loaded, and Set", set, "loaded", 50 * time.Millisecond, "set"},
		{"loaded before Set ends", set, "loaded", 5 * time.Millisecond, "set"},
		{"not found, and Set", set, "", 50 * time.Millisecond, "set"},
		{"loaded, and Delete", del, "loaded", 50 * time.Millisecond, ""},
		{"loaded before Delete ends", del, "loaded", 5 * time.Millisecond, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: time.Minute})
				l2.setBefore(func(_ context.Context, op, _ string) error {
					if op == "set" || op == "delete" {
						time.Sleep(10 * time.Millisecond)
					}
					return nil
				})
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(time.Millisecond)
					r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
						time.Sleep(test.takes)
						if test.value == "" {
							return tiered.Loaded[[]byte]{}, l2cache.ErrNotFound
						}
						return tiered.Loaded[[]byte]{Value: []byte(test.value), TTL: time.Hour}, nil
					})
					if test.value == "" {
						wantMiss(t, "k", r, err)
					} else {
						wantLoaded(t, r, err, test.value, tiered.TierLoader)
					}
				})
				if err := test.change(ctx, cache); err != nil {
					t.Fatal(err)
				}
				for range 2 { // as soon as it has ended, and when the load has, too
					r, err := cache.Get(ctx, "k")
					if test.want == "" {
						wantMiss(t, "k", r, err)
					} else if err != nil || string(r.Value) != test.want {
						t.Errorf("Get = %q, %v; want %q", r.Value, err, test.want)
					}
					wg.Wait()
				}
			})
		})
	}
}

func TestNobodyJoinsAReadFromBeforeAChange(t *testing.T) {
	for name, change := range map[string]func(context.Context, *tiered.Cache[[]byte]) error{
		"Delete": func(ctx context.Context, cache *tiered.Cache[[]byte]) error { return cache.Delete(ctx, "k") },
		"Touch": func(ctx context.Context, cache *tiered.Cache[[]byte]) error {
			err := cache.Touch(ctx, "k", time.Millisecond)
			time.Sleep(20 * time.Millisecond)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
				put(t, l2, "k", "old", time.Hour)
				l2.setBefore(func(_ context.Context, op, _ string) error {
					if op == "delete" || op == "touch" {
						time.Sleep(10 * time.Millisecond)
					}
					return nil
				})
				l2.setAfter(func(op, _ string) {
					if op == "get" {
						time.Sleep(50 * time.Millisecond) // the answer is on its way
					}
				})
				var calls atomic.Int32
				load := loaded("new", time.Hour, &calls)
				var wg sync.WaitGroup
				wg.Go(func() {
					time.Sleep(time.Millisecond)
					r, err := cache.GetOrLoad(ctx, "k", load)
					wantLoaded(t, r, err, "old", tiered.TierL2)
				})
				if err := change(ctx, cache); err != nil {
					t.Fatal(err)
				}
				r, err := cache.GetOrLoad(ctx, "k", load)
				wantLoaded(t, r, err, "new", tiered.TierLoader)
				wg.Wait()
			})
		})
	}
}

// That there was nothing when the load began does not replace what was read since.
func TestNegativeAfterALaterRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: time.Minute})
		var wg sync.WaitGroup
		wg.Go(func() {
			r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				time.Sleep(time.Second)
				return tiered.Loaded[[]byte]{}, l2cache.ErrNotFound
			})
			wantMiss(t, "k", r, err)
		})
		time.Sleep(100 * time.Millisecond)
		put(t, l2, "k", "v", time.Hour)
		wantGet(t, cache, "k", "v", time.Hour, tiered.TierL2)
		wg.Wait()
		wantGet(t, cache, "k", "v", time.Hour-900*time.Millisecond, tiered.TierL1)
	})
}

// A Refresh whose loader finds nothing deletes the entry.
func TestRefreshFindsNothing(t *testing.T) {
	for name, negative := range map[string]time.Duration{"forgotten": 0, "remembered": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: negative})
				if err := cache.Set(ctx, "k", []byte("old"), time.Hour); err != nil {
					t.Fatal(err)
				}
				nothing := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
					return tiered.Loaded[[]byte]{}, l2cache.ErrNotFound
				}
				r, err := cache.GetOrLoad(ctx, "k", nothing, tiered.Refresh())
				wantMiss(t, "k", r, err)
				if value, err := l2.Get(ctx, "k"); err != l2cache.ErrNotFound {
					t.Errorf("L2 has %q, %v", value, err)
				}
				var calls atomic.Int32
				r, err = cache.GetOrLoad(ctx, "k", loaded("new", time.Hour, &calls))
				if negative > 0 {
					wantMiss(t, "k", r, err)
				} else {
					wantLoaded(t, r, err, "new", tiered.TierLoader)
				}
			})
		})
	}
}

// So does a refresh ahead.
func TestRefreshAheadFindsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5})
		if err := cache.Set(ctx, "k", []byte("old"), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			return tiered.Loaded[[]byte]{}, l2cache.ErrNotFound
		})
		wantLoaded(t, r, err, "old", tiered.TierL1)
		synctest.Wait()
		wantGone(t, cache, "k")
	})
}

// The read of L2 that a refresh ahead begins with leaves what is known of the entry.
func TestRefreshAheadKeepsTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		hits := 0
		began := time.Now()
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{
			NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: time.Hour,
			Observer: func(_ context.Context, e tiered.Event) {
				if e.Kind != tiered.EventRead || e.Tier != tiered.TierL1 {
					return
				}
				hits++
				if want := time.Since(began).Seconds() / 100; e.Consumed < want-1e-6 || e.Consumed > want+1e-6 {
					t.Errorf("after %v a hit has Consumed %v, want %v", time.Since(began), e.Consumed, want)
				}
			},
		})
		if err := cache.Set(ctx, "k", []byte("v"), 100*time.Second); err != nil {
			t.Fatal(err)
		}
		var loads []time.Duration
		for range 90 {
			time.Sleep(time.Second)
			r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
				loads = append(loads, time.Since(began))
				return tiered.Loaded[[]byte]{}, errors.New("boom")
			})
			wantLoaded(t, r, err, "v", tiered.TierL1)
			synctest.Wait()
		}
		// The next load is due after a quarter of what is left.
		want := []time.Duration{50 * time.Second, 63 * time.Second, 73 * time.Second, 80 * time.Second, 86 * time.Second, 90 * time.Second}
		if !slices.Equal(loads, want) || hits != 90 {
			t.Errorf("%d hits, loads after %v; want 90, %v", hits, loads, want)
		}
	})
}

// The loader of a refresh ahead that asks for its own key does not wait for itself.
func TestRefreshAheadAsksForItsOwnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5})
		if err := cache.Set(ctx, "k", []byte("old"), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		var calls atomic.Int32
		var ended atomic.Bool
		r, err := cache.GetOrLoad(ctx, "k", func(ctx context.Context, key string, _ *[]byte) (tiered.Loaded[[]byte], error) {
			time.Sleep(5 * time.Second) // the entry has ended
			r, err := cache.GetOrLoad(ctx, key, loaded("inner", time.Minute, &calls))
			if err == nil || errors.Is(err, context.Canceled) || calls.Load() != 0 {
				t.Errorf("GetOrLoad in the loader = %q, %v, after %d loads; want an error", r.Value, err, calls.Load())
			}
			ended.Store(true)
			return tiered.Loaded[[]byte]{}, err
		})
		wantLoaded(t, r, err, "old", tiered.TierL1)
		time.Sleep(time.Minute)
		if !ended.Load() {
			t.Error("the loader waits for itself")
		}
	})
}

// Where the TTL is longer than MaxL1TTL, L1 keeps in mind what the entry had left at first.
func TestRefreshAheadOfALongTTL(t *testing.T) {
	for name, store := range map[string]func(context.Context, *tiered.Cache[[]byte], l2cache.L2CacheBackend) error{
		"own": func(ctx context.Context, cache *tiered.Cache[[]byte], _ l2cache.L2CacheBackend) error {
			return cache.Set(ctx, "k", []byte("old"), time.Minute)
		},
		"theirs": func(ctx context.Context, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend) error {
			err := l2.Set(ctx, "k", []byte("old"), time.Minute)
			cache.Get(ctx, "k")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: time.Second})
				if err := store(ctx, cache, l2); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var first time.Duration
				for first == 0 && time.Since(began) < time.Minute {
					time.Sleep(400 * time.Millisecond)
					r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
						first = time.Since(began)
						return tiered.Loaded[[]byte]{Value: []byte("new"), TTL: time.Minute}, nil
					})
					if err != nil || string(r.Value) != "old" {
						t.Fatalf("GetOrLoad = %q, %v", r.Value, err)
					}
					synctest.Wait()
				}
				if first < 30*time.Second || first > 31*time.Second {
					t.Errorf("the first load began after %v, want 30s to 31s", first)
				}
				r, err := cache.Get(ctx, "k")
				wantLoaded(t, r, err, "new", tiered.TierL1)
			})
		})
	}
}

// An answer takes its time, each another: what L2 then says of when an entry ends is no
// other entry's end.
func TestRefreshAheadOverASlowNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		var n atomic.Int32
		delay := func() { // differs between a request and the next
			time.Sleep(time.Duration(1+n.Add(1)%3*20) * time.Millisecond)
		}
		l2.setBefore(func(context.Context, string, string) error { delay(); return nil })
		l2.setAfter(func(string, string) { delay() })
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: time.Second})
		if err := cache.Set(ctx, "k", []byte("old"), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var calls atomic.Int32
		for time.Since(began) < 8*time.Second {
			r, err := cache.GetOrLoad(ctx, "k", loaded("new", 10*time.Second, &calls))
			if err != nil || r.Stale {
				t.Errorf("GetOrLoad = %+v, %v", r, err)
			}
			if want := time.Since(began) > 5*time.Second; (calls.Load() > 0) != want && time.Since(began).Round(100*time.Millisecond) != 5*time.Second {
				t.Fatalf("after %v of 10 s there were %d loads", time.Since(began), calls.Load())
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		if calls.Load() != 1 {
			t.Errorf("%d loads, want 1", calls.Load())
		}
		r, err := cache.Get(ctx, "k")
		if err != nil || string(r.Value) != "new" {
			t.Errorf("Get = %q, %v; want new", r.Value, err)
		}
	})
}

// Who asks while a key is refreshed ahead gets what L2 has, and waits for the refresh only
// if that is nothing.
func TestGetOrLoadDuringARefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: 6 * time.Second})
		if err := cache.Set(ctx, "k", []byte("old"), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		calls := 0
		load := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			calls++
			time.Sleep(6 * time.Second)
			return tiered.Loaded[[]byte]{Value: []byte("new"), TTL: 10 * time.Second}, nil
		}
		time.Sleep(5500 * time.Millisecond)
		short := tiered.L1TTL(10 * time.Millisecond)
		r, err := cache.GetOrLoad(ctx, "k", load, short) // begins the refresh
		wantLoaded(t, r, err, "old", tiered.TierL1)
		synctest.Wait()
		for _, at := range []time.Duration{500 * time.Millisecond, 3900 * time.Millisecond} {
			time.Sleep(at)
			began := time.Now()
			r, err = cache.GetOrLoad(ctx, "k", load, short)
			wantLoaded(t, r, err, "old", tiered.TierL2)
			if d := time.Since(began); d != 0 {
				t.Errorf("GetOrLoad took %v", d)
			}
		}
		time.Sleep(100 * time.Millisecond) // the entry has ended
		began := time.Now()
		r, err = cache.GetOrLoad(ctx, "k", load)
		wantLoaded(t, r, err, "new", tiered.TierLoader)
		if d := time.Since(began); d != 1500*time.Millisecond || calls != 1 {
			t.Errorf("GetOrLoad took %v, with %d loads in all; want 1.5s and 1", d, calls)
		}
	})
}

// A load and a Refresh do not join each other: what the later of them brings stays.
func TestRefreshDuringALoad(t *testing.T) {
	for _, takes := range []time.Duration{50 * time.Millisecond, 95 * time.Millisecond, time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
				l2.setBefore(func(_ context.Context, op, _ string) error {
					if op == "set" {
						time.Sleep(20 * time.Millisecond)
					}
					return nil
				})
				load := func(value string, takes time.Duration) tiered.Loader[[]byte] {
					return func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
						time.Sleep(takes)
						return tiered.Loaded[[]byte]{Value: []byte(value), TTL: time.Hour}, nil
					}
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					r, err := cache.GetOrLoad(ctx, "k", load("old", 100*time.Millisecond))
					wantLoaded(t, r, err, "old", tiered.TierLoader)
				})
				time.Sleep(10 * time.Millisecond)
				r, err := cache.GetOrLoad(ctx, "k", load("new", takes), tiered.Refresh())
				wantLoaded(t, r, err, "new", tiered.TierLoader)
				wg.Wait()
				r, err = cache.Get(ctx, "k")
				wantLoaded(t, r, err, "new", tiered.TierL1)
				if value, err := l2.Get(ctx, "k"); string(value) != "new" {
					t.Errorf("L2 has %q, %v; want new", value, err)
				}
			})
		})
	}
}

func TestGetOrLoadMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: time.Minute})
		put(t, l2, "l1", "1", time.Minute)
		put(t, l2, "l2", "2", time.Minute)
		wantGet(t, cache, "l1", "1", time.Minute, tiered.TierL2)
		var asked [][]string
		load := func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
			asked = append(asked, slices.Sorted(slices.Values(keys)))
			return map[string]tiered.Loaded[[]byte]{
				"new":   {Value: []byte("3"), TTL: time.Second},
				"loose": {Value: []byte("4")},
			}, nil
		}
		keys := []string{"l1", "l2", "new", "loose", "none", "new"}
		got, err := cache.GetOrLoadMany(ctx, keys, load)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]tiered.Tier{"l1": tiered.TierL1, "l2": tiered.TierL2, "new": tiered.TierLoader, "loose": tiered.TierLoader}
		tiers := map[string]tiered.Tier{}
		for key, r := range got {
			tiers[key] = r.Tier
		}
		if !maps.Equal(tiers, want) {
			t.Errorf("the tiers are %v, want %v", tiers, want)
		}
		if l2.count("getmany") != 1 || l2.count("set")+l2.count("setmany") != 1+2 { // put's two
			t.Errorf("%d GetMany and %d Set of L2", l2.count("getmany"), l2.count("set")+l2.count("setmany"))
		}
		if _, err := cache.GetOrLoadMany(ctx, keys, load); err != nil {
			t.Fatal(err)
		}
		if wantAsked := [][]string{{"loose", "new", "none"}, {"loose"}}; fmt.Sprint(asked) != fmt.Sprint(wantAsked) {
			t.Errorf("the loads were of %v, want %v", asked, wantAsked)
		}
		time.Sleep(time.Second)
		wantGone(t, cache, "new")
	})
}

// Keys that others are loading are waited for; a caller that ends leaves the others
// alone.
func TestGetOrLoadManyJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		many := func(ctx context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
			calls.Add(int32(len(keys)))
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			loaded := map[string]tiered.Loaded[[]byte]{}
			for _, key := range keys {
				loaded[key] = tiered.Loaded[[]byte]{Value: []byte(key), TTL: time.Minute}
			}
			return loaded, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := cache.GetOrLoadMany(ctx, []string{"a", "b"}, many)
			if !errors.Is(err, context.Canceled) || len(got) != 0 {
				t.Errorf("the cancelled caller got %v, %v", got, err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			got, err := cache.GetOrLoadMany(t.Context(), []string{"b", "c"}, many)
			if err != nil || string(got["b"].Value) != "b" || string(got["c"].Value) != "c" {
				t.Errorf("GetOrLoadMany = %v, %v", got, err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			r, err := cache.GetOrLoad(t.Context(), "c", loaded("mine", time.Minute, &calls))
			wantLoaded(t, r, err, "c", tiered.TierLoader)
		})
		time.Sleep(time.Millisecond)
		cancel()
		wg.Wait()
		if n := calls.Load(); n != 3 {
			t.Errorf("%d keys loaded, want 3", n)
		}
		if l2.count("set")+l2.count("setmany") != 2 {
			t.Errorf("%d writes to L2, want 2", l2.count("set")+l2.count("setmany"))
		}
	})
}

// An entry that ends while callers wait for it is not given to one that came after its
// end.
func TestNobodyGetsAnEntryThatEndedBeforeTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		put(t, l2, "k", "old", time.Second)
		var calls atomic.Int32
		l2.setAfter(func(op, _ string) {
			if op == "get" {
				l2.setAfter(nil)
				time.Sleep(3 * time.Second)
			}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			r, err := cache.GetOrLoad(t.Context(), "k", loaded("new", time.Minute, &calls))
			wantLoaded(t, r, err, "old", tiered.TierL2)
		})
		time.Sleep(2 * time.Second)
		r, err := cache.GetOrLoad(t.Context(), "k", loaded("new", time.Minute, &calls))
		wantLoaded(t, r, err, "new", tiered.TierLoader)
		wg.Wait()
	})
}

// One key that L2 cannot read does not keep the others, loaded in the same call, out of
// L2.
func TestGetOrLoadManyWithAKeyThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.bad = "bad"
		got, err := cache.GetOrLoadMany(t.Context(), []string{"bad", "good"},
			func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
				loaded := map[string]tiered.Loaded[[]byte]{}
				for _, key := range keys {
					loaded[key] = tiered.Loaded[[]byte]{Value: []byte(key), TTL: time.Minute}
				}
				return loaded, nil
			})
		if err != nil || string(got["bad"].Value) != "bad" || string(got["good"].Value) != "good" {
			t.Errorf("GetOrLoadMany = %v, %v", got, err)
		}
		if _, err := l2.L2CacheBackend.Get(t.Context(), "good"); err != nil {
			t.Errorf("L2 has no good: %v", err)
		}
		if _, err := l2.L2CacheBackend.Get(t.Context(), "bad"); err != l2cache.ErrNotFound {
			t.Errorf("L2 has bad, which it could not read: %v", err)
		}
		wantGet(t, cache, "bad", "bad", time.Minute, tiered.TierL1)
		if s := cache.Stats(); s.LoadsNotStored != 1 || s.L2Errors != 1 {
			t.Errorf("%d loads not stored, %d errors of L2; want 1 and 1", s.LoadsNotStored, s.L2Errors)
		}
	})
}

func TestManyLoaderFailsForSomeKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, NegativeTTL: time.Minute})
		keys := []string{"found", "absent", "failed", "unmentioned"}
		down := errors.New("database is down")
		got, err := cache.GetOrLoadMany(ctx, keys, func(context.Context, []string, map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
			loaded := map[string]tiered.Loaded[[]byte]{"found": {Value: []byte("v"), TTL: time.Hour}}
			return loaded, l2cache.KeyErrors{"absent": l2cache.ErrNotFound, "failed": down}
		})
		failed, _ := errors.AsType[l2cache.KeyErrors](err)
		if len(failed) != 1 || failed["failed"] != down {
			t.Errorf("GetOrLoadMany = %v, %v; want an error of the key that failed alone", got, err)
		}
		if len(got) != 1 || string(got["found"].Value) != "v" {
			t.Errorf("GetOrLoadMany = %v, want the key that was found alone", got)
		}
		if r, err := cache.Get(ctx, "found"); err != nil || string(r.Value) != "v" {
			t.Errorf("Get of the key that was found = %v, %v", r, err)
		}
		// What is absent is remembered, what has failed is loaded again.
		var calls atomic.Int32
		for _, key := range keys[1:] {
			_, err := cache.GetOrLoad(ctx, key, loaded("later", time.Hour, &calls))
			if want := key != "failed"; errors.Is(err, l2cache.ErrNotFound) != want {
				t.Errorf("GetOrLoad(%q) afterwards = %v, want a miss: %v", key, err, want)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d loads afterwards, want 1", calls.Load())
		}
	})
}

// A loader that asks for what its own load is to bring, by whatever way, gets an error: it
// would wait for itself.
func TestLoaderAsksForItsOwnKey(t *testing.T) {
	type load = tiered.Loader[[]byte]
	type many = tiered.ManyLoader[[]byte]
	for name, ask := range map[string]func(cache *tiered.Cache[[]byte], ctx context.Context, inner load, innerMany many) error{
		"GetOrLoad": func(cache *tiered.Cache[[]byte], ctx context.Context, inner load, _ many) error {
			_, err := cache.GetOrLoad(ctx, "k", inner)
			return err
		},
		"GetOrLoadMany": func(cache *tiered.Cache[[]byte], ctx context.Context, _ load, innerMany many) error {
			_, err := cache.GetOrLoadMany(ctx, []string{"other", "k"}, innerMany)
			return err
		},
		"another key's load": func(cache *tiered.Cache[[]byte], ctx context.Context, inner load, _ many) error {
			_, err := cache.GetOrLoad(ctx, "other", func(ctx context.Context, _ string, _ *[]byte) (tiered.Loaded[[]byte], error) {
				r, err := cache.GetOrLoad(ctx, "k", inner)
				return tiered.Loaded[[]byte]{Value: r.Value}, err
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
				var calls atomic.Int32
				innerMany := func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
					calls.Add(int32(len(keys)))
					return nil, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var inner error
				r, err := cache.GetOrLoad(ctx, "k", func(ctx context.Context, _ string, _ *[]byte) (tiered.Loaded[[]byte], error) {
					inner = ask(cache, ctx, loaded("inner", time.Hour, &calls), innerMany)
					return tiered.Loaded[[]byte]{Value: []byte("v"), TTL: time.Hour}, nil
				})
				wantLoaded(t, r, err, "v", tiered.TierLoader)
				if inner == nil || errors.Is(inner, l2cache.ErrNotFound) || errors.Is(inner, context.Canceled) {
					t.Errorf("the loader that asked for its own key got %v", inner)
				}
				if max := int32(1); calls.Load() > max { // GetOrLoadMany's other key
					t.Errorf("%d other loads, want at most %d", calls.Load(), max)
				}
			})
		})
	}
}

// A key that is loaded and cannot be encoded is one that has failed, and the others of its
// batch are not hurt.
func TestCodecPanicsInALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, Codec: panicking{}})
		got, err := cache.GetOrLoadMany(t.Context(), []string{"good", "bad"},
			func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
				loaded := map[string]tiered.Loaded[[]byte]{}
				for _, key := range keys {
					loaded[key] = tiered.Loaded[[]byte]{Value: []byte(key), TTL: time.Minute}
				}
				return loaded, nil
			})
		failed, _ := errors.AsType[l2cache.KeyErrors](err)
		bad, _ := errors.AsType[*tiered.EncodeError](failed["bad"])
		if len(failed) != 1 || bad == nil || bad.Key != "bad" || !errors.Is(bad, errPanicking) {
			t.Errorf("GetOrLoadMany: %v; want an EncodeError of the key that cannot be encoded", err)
		}
		if string(got["good"].Value) != "good" {
			t.Errorf("GetOrLoadMany = %v, want the key that can be encoded", got)
		}
		if s := cache.Stats(); s.Loads != 2 || s.LoadErrors != 1 {
			t.Errorf("%d loads, %d failed; want 2 and 1", s.Loads, s.LoadErrors)
		}
	})
}

var errPanicking = errors.New("boom")

// panicking is a Codec that panics over the value bad.
type panicking struct{ tiered.Bytes }

func (c panicking) Encode(v []byte) ([]byte, error) {
	if string(v) == "bad" {
		panic(errPanicking)
	}
	return c.Bytes.Encode(v)
}

// With SkipL2 a load is stored if it is in L1.
func TestLoadThatSkipsL2IsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
		var calls atomic.Int32
		for _, test := range []struct {
			options   []tiered.Option
			notStored uint64
		}{
			{[]tiered.Option{tiered.SkipL2()}, 0},
			{[]tiered.Option{tiered.SkipL2(), tiered.SkipL1()}, 1},
		} {
			r, err := cache.GetOrLoad(t.Context(), "k", loaded("v", time.Hour, &calls), append(test.options, tiered.Refresh())...)
			wantLoaded(t, r, err, "v", tiered.TierLoader)
			if s := cache.Stats(); s.LoadsNotStored != test.notStored {
				t.Errorf("%d loads not stored, want %d", s.LoadsNotStored, test.notStored)
			}
		}
	})
}

// The keys of a GetOrLoadMany that are due are refreshed in one load, after one read of L2.
func TestGetOrLoadManyRefreshesAheadInOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.5, MaxL1TTL: time.Hour})
		var asked [][]string
		load := func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
			asked = append(asked, slices.Sorted(slices.Values(keys)))
			loaded := map[string]tiered.Loaded[[]byte]{}
			for _, key := range keys {
				loaded[key] = tiered.Loaded[[]byte]{Value: fmt.Appendf(nil, "v%d", len(asked)), TTL: 100 * time.Second}
			}
			return loaded, nil
		}
		keys := []string{"a", "b", "c"}
		for _, wait := range []time.Duration{60 * time.Second, time.Second} {
			got, err := cache.GetOrLoadMany(t.Context(), keys, load)
			if err != nil || len(got) != 3 || string(got["a"].Value) != "v1" {
				t.Errorf("GetOrLoadMany = %v, %v; want what was loaded first", got, err)
			}
			time.Sleep(wait)
			synctest.Wait()
		}
		if want := [][]string{keys, keys}; fmt.Sprint(asked) != fmt.Sprint(want) {
			t.Errorf("the loads were of %v, want %v", asked, want)
		}
		if n := l2.count("getmany"); n != 2 || l2.count("get") != 0 {
			t.Errorf("%d GetMany and %d Get of L2, want 2 and 0", n, l2.count("get"))
		}
		wantGet(t, cache, "b", "v2", 99*time.Second, tiered.TierL1)
	})
}

func TestNoLoader(t *testing.T) {
	cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
	if _, err := cache.GetOrLoad(t.Context(), "k", nil); err == nil || !strings.Contains(err.Error(), "the loader is nil") {
		t.Errorf("GetOrLoad without a loader = %v", err)
	}
	if got, err := cache.GetOrLoadMany(t.Context(), []string{"k"}, nil); err == nil || !strings.Contains(err.Error(), "the loader is nil") {
		t.Errorf("GetOrLoadMany without a loader = %v, %v", got, err)
	}
}
