package tiered_test

import (
	"context"
	"errors"
	"fmt"
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

func wantUnavailable(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, l2cache.ErrNotFound) {
		t.Errorf("%s: %v; want ErrUnavailable", what, err)
	}
}

func TestDeadL2IsNotAMiss(t *testing.T) {
	for _, policy := range []tiered.Failure{tiered.Load, tiered.ServeStale, tiered.Fail} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{
					NoWatch: noWatch, MaxL1TTL: 10 * time.Second, OnFailure: policy, StaleFor: time.Minute, BreakerFailures: -1,
				})
				put(t, l2, "k", "v", time.Hour)
				wantGet(t, cache, "k", "v", time.Hour, tiered.TierL2)
				l2.down()
				wantGet(t, cache, "k", "v", time.Hour, tiered.TierL1) // L1 goes on

				_, err := cache.Get(ctx, "other")
				wantUnavailable(t, "Get of what L1 never had", err)
				_, err = cache.GetMany(ctx, []string{"other", "another"})
				wantUnavailable(t, "GetMany of what L1 never had", err)
				wantUnavailable(t, "Set", cache.Set(ctx, "other", []byte("v"), time.Minute))
				wantUnavailable(t, "Touch", cache.Touch(ctx, "other", time.Minute))

				time.Sleep(10 * time.Second)
				var calls atomic.Int32
				r, err := cache.Get(ctx, "k")
				many, manyErr := cache.GetMany(ctx, []string{"k", "other"})
				l, loadErr := cache.GetOrLoad(ctx, "k", loaded("new", time.Minute, &calls))
				switch policy {
				case tiered.Load:
					wantUnavailable(t, "Get", err)
					wantUnavailable(t, "GetMany", manyErr)
					wantLoaded(t, l, loadErr, "new", tiered.TierLoader)
					wantGet(t, cache, "k", "new", time.Minute, tiered.TierL1) // or everybody would load
				case tiered.ServeStale:
					for _, r := range []tiered.Result[[]byte]{r, many["k"], l} {
						if string(r.Value) != "v" || !r.Stale || r.TTL != 0 || r.Tier != tiered.TierL1 {
							t.Errorf("got %+v, want v, stale", r)
						}
					}
					if err != nil || loadErr != nil || len(many) != 1 {
						t.Errorf("%v, %v, %v", err, loadErr, many)
					}
					wantUnavailable(t, "GetMany", manyErr)
					if s := cache.Stats(); s.Stale != 3 {
						t.Errorf("%d stale entries served, want 3", s.Stale)
					}
					// Where there is none, it loads.
					l, loadErr = cache.GetOrLoad(ctx, "none", loaded("new", time.Minute, &calls))
					wantLoaded(t, l, loadErr, "new", tiered.TierLoader)
				case tiered.Fail:
					wantUnavailable(t, "Get", err)
					wantUnavailable(t, "GetMany", manyErr)
					wantUnavailable(t, "GetOrLoad", loadErr)
					if calls.Load() != 0 {
						t.Errorf("%d loads, want 0", calls.Load())
					}
				}
			})
		})
	}
}

// Stale entries are served for StaleFor, and never come to be fresh by it.
func TestStaleHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, OnFailure: tiered.ServeStale, StaleFor: time.Minute, BreakerFailures: -1})
		put(t, l2, "k", "v", time.Second)
		wantGet(t, cache, "k", "v", time.Second, tiered.TierL2)
		time.Sleep(time.Second)
		wantGone(t, cache, "k") // L2 says so
		l2.down()
		for range 59 {
			r, err := cache.Get(t.Context(), "k")
			if err != nil || !r.Stale || r.TTL != 0 {
				t.Fatalf("Get = %+v, %v; want it stale", r, err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		_, err := cache.Get(t.Context(), "k")
		wantUnavailable(t, "Get after StaleFor", err)
	})
}

// What RefreshAhead has L1 keep in mind is not served, nor given to a loader.
func TestStaleIsNoLongerForRefreshAhead(t *testing.T) {
	for _, staleFor := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			l2 := newBackend()
			o := &tiered.Options[[]byte]{NoWatch: noWatch, RefreshAhead: 0.9, MaxL1TTL: 10 * time.Second, StaleFor: staleFor, BreakerFailures: -1}
			if staleFor > 0 {
				o.OnFailure = tiered.ServeStale
			}
			cache := newCache(t, l2, o)
			if err := cache.Set(ctx, "k", []byte("v"), time.Minute); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10*time.Second + staleFor)
			l2.down()
			r, err := cache.Get(ctx, "k")
			if err == nil {
				t.Errorf("StaleFor %v: Get = %+v", staleFor, r)
			}
			_, err = cache.GetOrLoad(ctx, "k", func(_ context.Context, _ string, stale *[]byte) (tiered.Loaded[[]byte], error) {
				if stale != nil {
					t.Errorf("StaleFor %v: the loader gets %q", staleFor, *stale)
				}
				return tiered.Loaded[[]byte]{}, nil
			})
			if err != nil {
				t.Errorf("GetOrLoad: %v", err)
			}
			if n := cache.Stats().Entries; n != 1 {
				t.Errorf("L1 has %d entries, want the one that it keeps in mind", n)
			}
		})
	}
}

func TestStaleWhenTheLoaderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch, OnFailure: tiered.ServeStale, StaleFor: time.Minute})
		if err := cache.Set(t.Context(), "k", []byte("v"), time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		boom := errors.New("boom")
		fail := func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			return tiered.Loaded[[]byte]{}, boom
		}
		r, err := cache.GetOrLoad(t.Context(), "k", fail)
		if err != nil || !r.Stale || string(r.Value) != "v" {
			t.Errorf("GetOrLoad = %+v, %v; want v, stale", r, err)
		}
		if _, err := cache.GetOrLoad(t.Context(), "none", fail); err != boom {
			t.Errorf("GetOrLoad of what L1 never had: %v, want boom", err)
		}
		// A Delete takes what is stale, too.
		if err := cache.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.GetOrLoad(t.Context(), "k", fail); err != boom {
			t.Errorf("GetOrLoad after Delete: %v, want boom", err)
		}
	})
}

// What L2 or the loader says is no more is not served when they fail after that.
func TestStaleEndsWithTheEntry(t *testing.T) {
	found := func(err error) tiered.Loader[[]byte] {
		return func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			return tiered.Loaded[[]byte]{}, err
		}
	}
	o := &tiered.Options[[]byte]{
		NoWatch: noWatch, MaxL1TTL: 10 * time.Second, StaleFor: time.Hour, OnFailure: tiered.ServeStale, BreakerFailures: -1,
	}
	t.Run("L2", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l2 := newBackend()
			cache := newCache(t, l2, o)
			for _, key := range []string{"deleted", "ended"} {
				put(t, l2, key, "v", time.Minute)
				wantGet(t, cache, key, "v", time.Minute, tiered.TierL2)
			}
			if err := l2.Delete(t.Context(), "deleted"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
			wantGone(t, cache, "deleted")
			time.Sleep(40 * time.Second)
			wantGone(t, cache, "ended")
			l2.down()
			_, err := cache.Get(t.Context(), "deleted")
			wantUnavailable(t, "Get of what was deleted", err)
			if r, err := cache.Get(t.Context(), "ended"); err != nil || !r.Stale {
				t.Errorf("Get of what has ended = %+v, %v; want it stale", r, err)
			}
		})
	})
	t.Run("loader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			cache := newCache(t, newBackend(), o)
			if err := cache.Set(ctx, "k", []byte("v"), time.Second); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			r, err := cache.GetOrLoad(ctx, "k", found(l2cache.ErrNotFound))
			wantMiss(t, "k", r, err)
			boom := errors.New("boom")
			if r, err := cache.GetOrLoad(ctx, "k", found(boom)); err != boom {
				t.Errorf("GetOrLoad = %+v, %v; want boom", r, err)
			}
		})
	})
}

// What L2 has is no value: Get says so, and GetOrLoad loads, whatever is done when L2 fails.
func TestCorrupt(t *testing.T) {
	for _, onFailure := range []tiered.Failure{tiered.Load, tiered.ServeStale, tiered.Fail} {
		t.Run(onFailure.String(), func(t *testing.T) { testCorrupt(t, onFailure) })
	}
}

func testCorrupt(t *testing.T, onFailure tiered.Failure) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[int]{NoWatch: noWatch, OnFailure: onFailure, StaleFor: time.Minute})
		if err := cache.Set(ctx, "k", 1, time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // L1 has it still, stale
		put(t, l2, "k", "not a number", time.Minute)
		if r, err := cache.Get(ctx, "k"); !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("Get = %+v, %v; want ErrCorrupt", r, err)
		}
		r, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *int) (tiered.Loaded[int], error) {
			return tiered.Loaded[int]{Value: 7, TTL: time.Minute}, nil
		})
		if err != nil || r.Value != 7 {
			t.Errorf("GetOrLoad = %+v, %v; want 7", r, err)
		}
		if value, err := l2.Get(ctx, "k"); string(value) != "7" {
			t.Errorf("L2 has %q, %v; want the loaded value", value, err)
		}
		if b := cache.Stats().Breaker; b != tiered.BreakerClosed {
			t.Errorf("the breaker is %v", b)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		var mu sync.Mutex
		var states []tiered.BreakerState
		var cache *tiered.Cache[[]byte]
		cache = newCache(t, l2, &tiered.Options[[]byte]{
			NoWatch: noWatch, BreakerFailures: 3, BreakerOpenFor: 10 * time.Second, MaxPendingDeletes: -1,
			Observer: func(_ context.Context, e tiered.Event) {
				if e.Kind == tiered.EventBreaker {
					mu.Lock()
					defer mu.Unlock()
					states = append(states, e.Breaker)
					cache.Stats() // which an observer may call
				}
			},
		})
		l2.down()
		for range 10 {
			_, err := cache.Get(ctx, "k")
			wantUnavailable(t, "Get", err)
		}
		if n := l2.count("get"); n != 3 {
			t.Errorf("L2 was asked %d times, want 3", n)
		}
		_, err := cache.Get(ctx, "k")
		if !errors.Is(err, tiered.ErrBreakerOpen) {
			t.Errorf("Get with an open breaker: %v; want ErrBreakerOpen", err)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		_, err = cache.Get(ctx, "k") // one tries
		if errors.Is(err, tiered.ErrBreakerOpen) || l2.count("get") != 4 {
			t.Errorf("after BreakerOpenFor: %v, L2 was asked %d times", err, l2.count("get"))
		}
		l2.up()
		put(t, l2, "k", "v", time.Hour)
		time.Sleep(10*time.Second + time.Millisecond)
		wantGet(t, cache, "k", "v", time.Hour-10*time.Second-time.Millisecond, tiered.TierL2)
		want := []tiered.BreakerState{
			tiered.BreakerOpen, tiered.BreakerHalfOpen, tiered.BreakerOpen, tiered.BreakerHalfOpen, tiered.BreakerClosed,
		}
		if fmt.Sprint(states) != fmt.Sprint(want) {
			t.Errorf("the breaker was %v, want %v", states, want)
		}
	})
}

// None of these says that L2 has failed.
func TestBreakerDoesNotTrip(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, cache *tiered.Cache[[]byte], l2 *backend) error{
		"miss": func(ctx context.Context, cache *tiered.Cache[[]byte], _ *backend) error {
			_, err := cache.Get(ctx, "none")
			return err
		},
		"invalid key": func(ctx context.Context, cache *tiered.Cache[[]byte], _ *backend) error {
			_, err := cache.Get(ctx, strings.Repeat("k", l2cache.MaxKeyLen+1))
			return err
		},
		"invalid TTL": func(ctx context.Context, cache *tiered.Cache[[]byte], _ *backend) error {
			return errors.Join(cache.Set(ctx, "k", nil, 0), cache.Touch(ctx, "k", -1))
		},
		"too large": func(ctx context.Context, cache *tiered.Cache[[]byte], l2 *backend) error {
			l2.setBefore(func(ctx context.Context, op, key string) error {
				return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrTooLarge, nil)
			})
			return cache.Set(ctx, "k", nil, time.Minute)
		},
		"full": func(ctx context.Context, cache *tiered.Cache[[]byte], l2 *backend) error {
			l2.setBefore(func(ctx context.Context, op, key string) error {
				return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrFull, nil)
			})
			return cache.Set(ctx, "k", nil, time.Minute)
		},
		"cancelled": func(ctx context.Context, cache *tiered.Cache[[]byte], l2 *backend) error {
			ctx, cancel := context.WithCancel(ctx)
			l2.setBefore(func(ctx context.Context, op, key string) error {
				cancel()
				return l2cache.NewError(ctx, "mem", op, key, nil, ctx.Err())
			})
			_, err := cache.Get(ctx, "k")
			if !errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
		"deadline": func(ctx context.Context, cache *tiered.Cache[[]byte], l2 *backend) error {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			l2.setBefore(func(ctx context.Context, op, key string) error {
				<-ctx.Done()
				return l2cache.NewError(ctx, "mem", op, key, nil, ctx.Err())
			})
			_, err := cache.Get(ctx, "k")
			if !errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: 1})
				for range 5 {
					if err := call(t.Context(), cache, l2); err == nil {
						t.Error("no error, or the wrong one")
					}
				}
				if b := cache.Stats().Breaker; b != tiered.BreakerClosed {
					t.Errorf("the breaker is %v", b)
				}
			})
		})
	}
}

func TestL2Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, L2Timeout: 50 * time.Millisecond, BreakerFailures: 2})
		l2.setBefore(func(ctx context.Context, op, key string) error {
			<-ctx.Done()
			return l2cache.NewError(ctx, "mem", op, key, nil, ctx.Err())
		})
		for name, get := range map[string]func(context.Context) error{
			"Get":     func(ctx context.Context) error { _, err := cache.Get(ctx, "k"); return err },
			"GetMany": func(ctx context.Context) error { _, err := cache.GetMany(ctx, []string{"a", "b"}); return err },
		} {
			began := time.Now()
			err := get(t.Context())
			wantUnavailable(t, name, err)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v is DeadlineExceeded, and the caller's ctx goes on", name, err)
			}
			if d := time.Since(began); d != 50*time.Millisecond {
				t.Errorf("%s took %v, want 50ms", name, d)
			}
		}
		if b := cache.Stats().Breaker; b != tiered.BreakerOpen {
			t.Errorf("the breaker is %v, want open", b)
		}
	})
}

func TestDeletesAreSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxPendingDeletes: 3, BreakerFailures: -1})
		for _, key := range []string{"a", "b", "c", "d"} {
			put(t, l2, key, "old", time.Hour)
			wantGet(t, cache, key, "old", time.Hour, tiered.TierL2)
		}
		l2.down()
		for _, key := range []string{"a", "b", "a", "c", "d"} {
			wantUnavailable(t, "Delete", cache.Delete(ctx, key))
		}
		s := cache.Stats()
		if s.PendingDeletes != 3 || s.DeletesDropped != 1 {
			t.Errorf("%d deletes wait, %d were dropped; want 3 and 1", s.PendingDeletes, s.DeletesDropped)
		}
		wantUnavailable(t, "Set", cache.Set(ctx, "b", []byte("in doubt"), time.Hour))
		time.Sleep(time.Minute)
		l2.up()
		if err := cache.Set(ctx, "a", []byte("new"), time.Hour); err != nil { // the delete of a is off
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		wantGet(t, cache, "a", "new", time.Hour-5*time.Second, tiered.TierL1)
		for key, want := range map[string]string{"a": "new", "b": "", "c": "", "d": "old"} {
			value, err := l2.Get(ctx, key)
			if want == "" && err != l2cache.ErrNotFound || want != "" && string(value) != want {
				t.Errorf("L2 has %q under %q, %v; want %q", value, key, err, want)
			}
		}
		s = cache.Stats()
		if s.PendingDeletes != 0 || s.DeletesResent != 2 {
			t.Errorf("%d deletes wait, %d were sent; want 0 and 2", s.PendingDeletes, s.DeletesResent)
		}
	})
}

// Nobody reads what was deleted here, not even when L2 is back before the delete.
func TestReadOfAPendingDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		for _, key := range []string{"a", "b", "c"} {
			put(t, l2, key, "old", time.Hour)
		}
		l2.down()
		for _, key := range []string{"a", "b", "c"} {
			wantUnavailable(t, "Delete", cache.Delete(ctx, key))
		}
		_, err := cache.Get(ctx, "a")
		wantUnavailable(t, "Get", err)
		l2.up()
		wantGone(t, cache, "a")
		got, err := cache.GetMany(ctx, []string{"a", "b"})
		if err != nil || len(got) != 0 {
			t.Errorf("GetMany = %v, %v; want nothing", got, err)
		}
		if err := cache.Touch(ctx, "c", time.Minute); err != l2cache.ErrNotFound {
			t.Errorf("Touch = %v, want ErrNotFound", err)
		}
	})
}

// A delete fails while the one that another has queued is being sent.
func TestDeleteFailsWhileItIsSentAgain(t *testing.T) {
	for _, limit := range []int{1, 2} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) { deleteFailsWhileItIsSentAgain(t, limit) })
	}
}

func deleteFailsWhileItIsSentAgain(t *testing.T, limit int) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1, MaxPendingDeletes: limit})
		put(t, l2, "k", "old", time.Hour)
		var calls atomic.Int32
		l2.setBefore(func(ctx context.Context, op, key string) error {
			switch calls.Add(1) {
			case 1: // the first Delete
				time.Sleep(10 * time.Millisecond)
			case 2: // the second
				time.Sleep(50 * time.Millisecond)
			default: // that of the Get
				time.Sleep(time.Second)
			}
			return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
		})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { wantUnavailable(t, "Delete", cache.Delete(ctx, "k")) })
			synctest.Wait()
		}
		time.Sleep(20 * time.Millisecond)
		_, err := cache.Get(ctx, "k")
		wantUnavailable(t, "Get", err)
		wg.Wait()
		if s := cache.Stats(); s.PendingDeletes != 1 || s.DeletesDropped != 0 {
			t.Errorf("%d deletes wait, %d were dropped; want 1 and 0", s.PendingDeletes, s.DeletesDropped)
		}
		l2.up()
		time.Sleep(10 * time.Second)
		if value, err := l2.Get(ctx, "k"); err != l2cache.ErrNotFound || cache.Stats().PendingDeletes != 0 {
			t.Errorf("L2 has %q, %v, and %d deletes wait", value, err, cache.Stats().PendingDeletes)
		}
	})
}

// Nobody reads what was deleted here while a write takes the place of the pending delete.
func TestReadDuringAWriteOfAPendingDelete(t *testing.T) {
	for name, write := range map[string]func(context.Context, *tiered.Cache[[]byte]) error{
		"Delete": func(ctx context.Context, cache *tiered.Cache[[]byte]) error { return cache.Delete(ctx, "k") },
		"Set": func(ctx context.Context, cache *tiered.Cache[[]byte]) error {
			return cache.Set(ctx, "k", []byte("new"), time.Hour)
		},
		"GetOrLoad": func(ctx context.Context, cache *tiered.Cache[[]byte]) error {
			var calls atomic.Int32
			_, err := cache.GetOrLoad(ctx, "k", loaded("new", time.Hour, &calls), tiered.Refresh(), tiered.SkipL1())
			return errors.Join(err, l2cache.ErrUnavailable) // that L2 does not take it is no error
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1})
				put(t, l2, "k", "deleted", time.Hour)
				l2.down()
				wantUnavailable(t, "Delete", cache.Delete(ctx, "k"))
				l2.setBefore(func(ctx context.Context, op, key string) error {
					if op == "get" || op == "deletemany" && key == "" {
						return nil
					}
					time.Sleep(time.Second)
					return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
				})
				var wg sync.WaitGroup
				wg.Go(func() { wantUnavailable(t, name, write(ctx, cache)) })
				synctest.Wait()
				for range 3 {
					if r, err := cache.Get(ctx, "k"); string(r.Value) == "deleted" {
						t.Errorf("Get = %q, %v", r.Value, err)
					}
					time.Sleep(400 * time.Millisecond)
				}
				wg.Wait()
				time.Sleep(time.Minute)
				wantGone(t, cache, "k")
			})
		})
	}
}

// The time between two attempts doubles, however many deletes fail in one.
func TestResendBacksOff(t *testing.T) {
	for _, keys := range []int{1, 10} {
		synctest.Test(t, func(t *testing.T) {
			l2 := newBackend()
			cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1})
			l2.down()
			for i := range keys {
				wantUnavailable(t, "Delete", cache.Delete(t.Context(), fmt.Sprint(i)))
			}
			time.Sleep(time.Minute)
			// After 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s, and then each 5 s.
			if n := l2.count("deletemany"); n != 16 {
				t.Errorf("%d keys were sent %d times in a minute, want 16", keys, n)
			}
		})
	}
}

// In an outage Touch leaves in L1 what is not in doubt.
func TestTouchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: 3, BreakerOpenFor: time.Hour})
		for _, key := range []string{"shorter", "longer", "not sent"} {
			if err := cache.Set(ctx, key, []byte("v"), 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		l2.down()
		for key, ttl := range map[string]time.Duration{"shorter": time.Second, "longer": time.Minute} {
			wantUnavailable(t, "Touch", cache.Touch(ctx, key, ttl))
		}
		wantGet(t, cache, "shorter", "v", time.Second, tiered.TierL1)
		wantGet(t, cache, "longer", "v", 10*time.Second, tiered.TierL1)
		_, err := cache.Get(ctx, "other") // the third failure
		wantUnavailable(t, "Get", err)
		if err := cache.Touch(ctx, "not sent", time.Second); !errors.Is(err, tiered.ErrBreakerOpen) {
			t.Errorf("Touch = %v, want ErrBreakerOpen", err)
		}
		wantGet(t, cache, "not sent", "v", 10*time.Second, tiered.TierL1)
	})
}

// A Set does not overtake the delete that is being sent again.
func TestSetWaitsForThePendingDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.down()
		wantUnavailable(t, "Delete", cache.Delete(ctx, "k"))
		sending := make(chan struct{})
		l2.setBefore(func(_ context.Context, op, _ string) error {
			if op == "deletemany" {
				close(sending)
				time.Sleep(time.Second)
			}
			return nil
		})
		<-sending
		began := time.Now()
		if err := cache.Set(ctx, "k", []byte("new"), time.Hour); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("Set took %v, want 1s", d)
		}
		time.Sleep(10 * time.Second)
		if value, err := l2.Get(ctx, "k"); string(value) != "new" {
			t.Errorf("L2 has %q, %v; want new", value, err)
		}
	})
}

// An answer to one key of a batch is that of L2; a refusal for what a value is says
// nothing of it.
func TestBreakerAndBatches(t *testing.T) {
	tests := []struct {
		a, b  error
		opens bool
	}{
		{l2cache.ErrTooLarge, l2cache.ErrUnavailable, true},
		{l2cache.ErrUnavailable, l2cache.ErrUnavailable, true},
		{l2cache.ErrFull, l2cache.ErrUnavailable, false},
		{l2cache.ErrTooLarge, l2cache.ErrTooLarge, false},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			l2 := newBackend()
			cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: 1})
			l2.setBefore(func(ctx context.Context, op, key string) error {
				if op != "setmany" {
					return nil
				}
				return l2cache.KeyErrors{
					"a": l2cache.NewError(ctx, "mem", op, "a", test.a, nil),
					"b": l2cache.NewError(ctx, "mem", op, "b", test.b, nil),
				}
			})
			cache.GetOrLoadMany(t.Context(), []string{"a", "b"}, func(_ context.Context, keys []string, _ map[string][]byte) (map[string]tiered.Loaded[[]byte], error) {
				return map[string]tiered.Loaded[[]byte]{"a": {TTL: time.Hour}, "b": {TTL: time.Hour}}, nil
			})
			if opened := cache.Stats().Breaker == tiered.BreakerOpen; opened != test.opens {
				t.Errorf("after a batch that failed with %v and %v the breaker is %v, want open: %v", test.a, test.b, cache.Stats().Breaker, test.opens)
			}
		})
	}
}

// A backend should say ErrUnavailable for a timeout of its own. One that does not is
// down all the same, and the caller was not in a hurry.
func TestTimeoutOfABackendThatDoesNotSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: 1})
		l2.setBefore(func(context.Context, string, string) error { return context.DeadlineExceeded })
		_, err := cache.Get(t.Context(), "k")
		wantUnavailable(t, "Get", err)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get = %v, which matches an end of the caller's ctx", err)
		}
		if got := cache.Stats().Breaker; got != tiered.BreakerOpen {
			t.Errorf("the breaker is %v, want %v", got, tiered.BreakerOpen)
		}
	})
}

// A read that ends with the delete which has to come first is a read that L2 could not
// answer.
func TestReadOfAPendingDeleteIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		var reads []string
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: -1, Observer: func(_ context.Context, e tiered.Event) {
			if e.Kind == tiered.EventRead && e.Tier == tiered.TierL2 {
				reads = append(reads, fmt.Sprintf("%v %v %v", e.Key, e.Outcome, errors.Is(e.Err, l2cache.ErrUnavailable)))
			}
		}})
		l2.down()
		wantUnavailable(t, "Delete", cache.Delete(ctx, "k"))
		_, err := cache.Get(ctx, "k")
		wantUnavailable(t, "Get", err)
		_, err = cache.GetMany(ctx, []string{"k", "other"})
		wantUnavailable(t, "GetMany", err)
		if want := []string{"k error true", "k error true", "other error true"}; !slices.Equal(reads, want) {
			t.Errorf("the reads of L2 were %q, want %q", reads, want)
		}
		if n := cache.Stats().L2Errors; n != 3 {
			t.Errorf("%d reads that L2 could not answer, want 3", n)
		}
	})
}

// What Stats says of the breaker does not wait for a call.
func TestBreakerIsHalfOpenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, BreakerFailures: 1, BreakerOpenFor: time.Second})
		l2.down()
		_, err := cache.Get(t.Context(), "k")
		wantUnavailable(t, "Get", err)
		for _, want := range []tiered.BreakerState{tiered.BreakerOpen, tiered.BreakerHalfOpen} {
			if got := cache.Stats().Breaker; got != want {
				t.Errorf("the breaker is %v, want %v", got, want)
			}
			time.Sleep(time.Second + 1)
		}
	})
}

// L2 has bytes that are no value, and the loader finds nothing: L2 loses them.
func TestCorruptAndNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[int]{NoWatch: noWatch})
		put(t, l2, "k", "not a number", time.Minute)
		_, err := cache.GetOrLoad(ctx, "k", func(context.Context, string, *int) (tiered.Loaded[int], error) {
			return tiered.Loaded[int]{}, l2cache.ErrNotFound
		})
		if err != l2cache.ErrNotFound {
			t.Errorf("GetOrLoad: %v, want ErrNotFound", err)
		}
		if value, err := l2.Get(ctx, "k"); err != l2cache.ErrNotFound {
			t.Errorf("L2 has %q, %v", value, err)
		}
	})
}
