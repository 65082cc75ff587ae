package tiered_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// put stores bytes in L2, as another process does.
func put(t testing.TB, l2 l2cache.L2CacheBackend, key, value string, ttl time.Duration) {
	t.Helper()
	if err := l2.Set(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func wantGet(t testing.TB, cache *tiered.Cache[[]byte], key, value string, ttl time.Duration, tier tiered.Tier) {
	t.Helper()
	r, err := cache.Get(t.Context(), key)
	if err != nil || string(r.Value) != value || r.TTL != ttl || r.Tier != tier || r.Stale {
		t.Errorf("Get(%q) = %q, %v from %v, stale %v, %v; want %q, %v from %v", key, r.Value, r.TTL, r.Tier, r.Stale, err, value, ttl, tier)
	}
}

func wantGone(t testing.TB, cache *tiered.Cache[[]byte], key string) {
	t.Helper()
	r, err := cache.Get(t.Context(), key)
	wantMiss(t, key, r, err)
}

const noWatch = true

func TestPromotesWithTheTTLThatIsLeft(t *testing.T) {
	for _, test := range []struct {
		name         string
		ttl, elapsed time.Duration // of the entry, and when it is first read
	}{
		{"400 ms left", 10 * time.Second, 9600 * time.Millisecond},
		{"1.5 s", 1500 * time.Millisecond, 0},
		{"1 ms left", time.Second, 999 * time.Millisecond},
		{"31 days", 31 * 24 * time.Hour, 0},
		{"100 years", l2cache.MaxTTL, time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: l2cache.NoExpiry})
				put(t, l2, "k", "v", test.ttl)
				time.Sleep(test.elapsed)
				left := test.ttl - test.elapsed
				wantGet(t, cache, "k", "v", left, tiered.TierL2)
				wantGet(t, cache, "k", "v", left, tiered.TierL1)
				if left > time.Hour {
					left = time.Hour
				}
				time.Sleep(left - 1)
				if left == test.ttl-test.elapsed {
					wantGet(t, cache, "k", "v", 1, tiered.TierL1)
					time.Sleep(1 * time.Nanosecond)
					wantGone(t, cache, "k")
				} else {
					wantGet(t, cache, "k", "v", test.ttl-test.elapsed-left+1, tiered.TierL1)
				}
			})
		})
	}
}

// The clock counts from before L2 is asked: the answer may have been long on its way.
func TestDeadlineCountsFromBeforeTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		put(t, l2, "k", "v", time.Second)
		put(t, l2, "short", "v", 100*time.Millisecond)
		l2.setAfter(func(op, _ string) { time.Sleep(300 * time.Millisecond) })
		wantGet(t, cache, "k", "v", 700*time.Millisecond, tiered.TierL2)
		wantGet(t, cache, "k", "v", 700*time.Millisecond, tiered.TierL1)
		time.Sleep(700 * time.Millisecond)
		l2.setAfter(nil)
		wantGone(t, cache, "k")

		put(t, l2, "short", "v", 100*time.Millisecond)
		l2.setAfter(func(op, _ string) { time.Sleep(100 * time.Millisecond) })
		wantGet(t, cache, "short", "v", 1, tiered.TierL2) // it was there when the call was made
		if s := cache.Stats(); s.PromotionsExpired != 1 || s.Promoted != 1 {
			t.Errorf("%d promoted, %d expired; want 1 and 1", s.Promoted, s.PromotionsExpired)
		}
		wantGone(t, cache, "short")
	})
}

func TestNoExpiryStaysNoExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: time.Minute})
		put(t, l2, "k", "v", l2cache.NoExpiry)
		for range 3 {
			wantGet(t, cache, "k", "v", l2cache.NoExpiry, tiered.TierL2)
			time.Sleep(time.Minute - 1)
			wantGet(t, cache, "k", "v", l2cache.NoExpiry, tiered.TierL1)
			time.Sleep(1 * time.Nanosecond)
		}
		if s := cache.Stats(); s.NoExpiryHits != 6 {
			t.Errorf("%d hits of entries without expiry, want 6", s.NoExpiryHits)
		}

		forever := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: l2cache.NoExpiry})
		if err := forever.Set(t.Context(), "own", []byte("v"), l2cache.NoExpiry); err != nil {
			t.Fatal(err)
		}
		wantGet(t, forever, "k", "v", l2cache.NoExpiry, tiered.TierL2)
		time.Sleep(5 * time.Hour)
		wantGet(t, forever, "k", "v", l2cache.NoExpiry, tiered.TierL1)
		wantGet(t, forever, "own", "v", l2cache.NoExpiry, tiered.TierL1)
	})
}

func TestMaxL1TTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: 10 * time.Second})
		put(t, l2, "k", "old", time.Hour)
		wantGet(t, cache, "k", "old", time.Hour, tiered.TierL2)
		put(t, l2, "k", "new", time.Hour)
		time.Sleep(10*time.Second - 1)
		wantGet(t, cache, "k", "old", time.Hour-10*time.Second+1, tiered.TierL1)
		time.Sleep(1 * time.Nanosecond)
		wantGet(t, cache, "k", "new", time.Hour-10*time.Second, tiered.TierL2)

		// Own writes, too, and less by option.
		if err := cache.Set(t.Context(), "own", []byte("v"), time.Hour, tiered.L1TTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantGet(t, cache, "own", "v", time.Hour-time.Second, tiered.TierL2)
	})
}

// A backend with a longest TTL stores less than it is told.
func TestBackendsMaxTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		l2.max = time.Minute
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: l2cache.NoExpiry})
		for _, ttl := range []time.Duration{l2cache.NoExpiry, time.Hour, time.Second} {
			if err := cache.Set(t.Context(), "k", []byte("v"), ttl); err != nil {
				t.Fatal(err)
			}
			wantGet(t, cache, "k", "v", min(ttl, time.Minute), tiered.TierL1)
		}
	})
}

func TestJitterOnlyShortens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, Jitter: 0.5})
		const n = 400
		for i := range n {
			key := fmt.Sprint(i)
			put(t, l2, key, "v", 10*time.Second)
			wantGet(t, cache, key, "v", 10*time.Second, tiered.TierL2)
		}
		time.Sleep(5*time.Second - 1)
		for i := range n {
			wantGet(t, cache, fmt.Sprint(i), "v", 5*time.Second+1, tiered.TierL1)
		}
		time.Sleep(2500*time.Millisecond + 1)
		inL1 := 0
		for i := range n {
			r, err := cache.Get(t.Context(), fmt.Sprint(i))
			if err != nil || r.TTL != 2500*time.Millisecond {
				t.Fatalf("Get = %+v, %v", r, err)
			}
			if r.Tier == tiered.TierL1 {
				inL1++
			}
		}
		// Half of them, with a standard deviation of 10.
		if inL1 < n/2-60 || inL1 > n/2+60 {
			t.Errorf("after three quarters of the TTL %d of %d are in L1, want about half", inL1, n)
		}
		time.Sleep(2500 * time.Millisecond)
		for i := range n {
			wantGone(t, cache, fmt.Sprint(i))
		}
	})
}

func TestPromoteEvery(t *testing.T) {
	l2 := newBackend()
	cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, PromoteEvery: 4})
	const n = 1000
	for i := range n {
		key := fmt.Sprint(i)
		put(t, l2, key, "v", l2cache.NoExpiry)
		wantGet(t, cache, key, "v", l2cache.NoExpiry, tiered.TierL2)
	}
	s := cache.Stats()
	// A quarter, with a standard deviation of 14.
	if s.Promoted < n/4-85 || s.Promoted > n/4+85 || s.Promoted+s.PromotionsSkipped != n {
		t.Errorf("%d promoted and %d skipped of %d, want a quarter", s.Promoted, s.PromotionsSkipped, n)
	}
}

// A read that is overtaken answers, and leaves nothing in L1.
func TestOvertakenReadIsNotPromoted(t *testing.T) {
	for name, overtake := range map[string]func(t *testing.T, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend){
		"Set": func(t *testing.T, cache *tiered.Cache[[]byte], _ l2cache.L2CacheBackend) {
			if err := cache.Set(t.Context(), "k", []byte("new"), time.Minute); err != nil {
				t.Error(err)
			}
		},
		"Set past L1": func(t *testing.T, cache *tiered.Cache[[]byte], _ l2cache.L2CacheBackend) {
			if err := cache.Set(t.Context(), "k", []byte("new"), time.Minute, tiered.SkipL1()); err != nil {
				t.Error(err)
			}
		},
		"Delete": func(t *testing.T, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend) {
			if err := cache.Delete(t.Context(), "k"); err != nil {
				t.Error(err)
			}
			put(t, l2, "k", "new", time.Minute)
		},
		"Touch": func(t *testing.T, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend) {
			if err := cache.Touch(t.Context(), "k", time.Second); err != nil {
				t.Error(err)
			}
			put(t, l2, "k", "new", time.Minute)
		},
		"event": func(t *testing.T, cache *tiered.Cache[[]byte], l2 l2cache.L2CacheBackend) {
			put(t, l2, "k", "new", time.Minute)
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l2 := newBackend()
				cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: name != "event"})
				synctest.Wait()
				put(t, l2, "k", "old", time.Minute)
				synctest.Wait()
				l2.setAfter(func(op, _ string) {
					if op == "get" {
						l2.setAfter(nil)
						overtake(t, cache, l2)
					}
				})
				wantGet(t, cache, "k", "old", time.Minute, tiered.TierL2)
				r, err := cache.Get(t.Context(), "k")
				if err != nil || string(r.Value) != "new" {
					t.Errorf("after the overtaken read: %q, %v; want new", r.Value, err)
				}
				if s := cache.Stats(); s.PromotionsOvertaken != 1 {
					t.Errorf("%d promotions overtaken, want 1", s.PromotionsOvertaken)
				}
			})
		})
	}
}

// Of two reads the one that began first may come back last.
func TestLaterReadWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		put(t, l2, "k", "old", time.Minute)
		l2.setAfter(func(op, _ string) {
			if op == "get" {
				l2.setAfter(nil)
				time.Sleep(time.Millisecond)
				put(t, l2, "k", "new", time.Minute)
				wantGet(t, cache, "k", "new", time.Minute, tiered.TierL2)
			}
		})
		wantGet(t, cache, "k", "old", time.Minute-time.Millisecond, tiered.TierL2)
		wantGet(t, cache, "k", "new", time.Minute, tiered.TierL1)
	})
}

// Of two Sets that overlap, L1 cannot know which is the last in L2.
func TestOverlappingSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.setBefore(func(_ context.Context, op, _ string) error {
			if op == "set" {
				l2.setBefore(nil)
				if err := cache.Set(t.Context(), "k", []byte("first"), time.Minute); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		if err := cache.Set(t.Context(), "k", []byte("last"), time.Minute); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "last", time.Minute, tiered.TierL2)
		wantGet(t, cache, "k", "last", time.Minute, tiered.TierL1)
	})
}

// A read that began after a Set, and came first, may have found another process's newer
// value: only L2 knows.
func TestSetDoesNotReplaceALaterRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.setAfter(func(op, _ string) {
			if op == "set" {
				l2.setAfter(nil)
				time.Sleep(time.Second)
				put(t, l2.L2CacheBackend, "k", "theirs", time.Minute)
				wantGet(t, cache, "k", "theirs", time.Minute, tiered.TierL2)
			}
		})
		if err := cache.Set(t.Context(), "k", []byte("mine"), time.Minute); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "theirs", time.Minute, tiered.TierL2)
	})
}

func TestTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: 30 * time.Second})
		if err := cache.Touch(ctx, "k", time.Minute); err != l2cache.ErrNotFound {
			t.Errorf("Touch of nothing: %v, want ErrNotFound", err)
		}
		put(t, l2, "k", "v", 10*time.Second)
		wantGet(t, cache, "k", "v", 10*time.Second, tiered.TierL2)
		time.Sleep(5 * time.Second)
		if err := cache.Touch(ctx, "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "v", time.Minute, tiered.TierL1)
		time.Sleep(25 * time.Second) // 30 s after L1 got the value
		wantGet(t, cache, "k", "v", 35*time.Second, tiered.TierL2)
		if err := cache.Touch(ctx, "k", time.Second); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "v", time.Second, tiered.TierL1)
		time.Sleep(time.Second)
		wantGone(t, cache, "k")
	})
}

func TestSkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		put(t, l2, "k", "v1", time.Minute)
		if r, err := cache.Get(ctx, "k", tiered.SkipL2()); err != l2cache.ErrNotFound {
			t.Errorf("Get past L2 = %+v, %v; want ErrNotFound", r, err)
		}
		for range 2 {
			if r, err := cache.Get(ctx, "k", tiered.SkipL1()); err != nil || r.Tier != tiered.TierL2 {
				t.Errorf("Get past L1 = %+v, %v", r, err)
			}
		}
		if n := cache.Stats().Promoted; n != 0 {
			t.Errorf("reads past L1 promoted %d entries", n)
		}
		wantGet(t, cache, "k", "v1", time.Minute, tiered.TierL2)
		put(t, l2, "k", "v2", time.Minute)
		wantGet(t, cache, "k", "v1", time.Minute, tiered.TierL1)
		if r, err := cache.Get(ctx, "k", tiered.Refresh()); err != nil || string(r.Value) != "v2" {
			t.Errorf("Get with Refresh = %q, %v; want v2", r.Value, err)
		}
		wantGet(t, cache, "k", "v2", time.Minute, tiered.TierL1)

		if err := cache.Set(ctx, "k", []byte("local"), time.Minute, tiered.SkipL2()); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "local", time.Minute, tiered.TierL1)
		if err := cache.Delete(ctx, "k", tiered.SkipL2()); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k", "v2", time.Minute, tiered.TierL2)
	})
}

func TestGetMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		put(t, l2, "a", "1", time.Minute)
		put(t, l2, "b", "2", time.Second)
		wantGet(t, cache, "a", "1", time.Minute, tiered.TierL2)
		for i, want := range []map[string]tiered.Tier{
			{"a": tiered.TierL1, "b": tiered.TierL2},
			{"a": tiered.TierL1, "b": tiered.TierL1},
		} {
			got, err := cache.GetMany(ctx, []string{"a", "b", "none", "other", "a"})
			if err != nil || len(got) != len(want) {
				t.Fatalf("GetMany = %v, %v", got, err)
			}
			for key, tier := range want {
				if got[key].Tier != tier {
					t.Errorf("%d: %q came from %v, want %v", i, key, got[key].Tier, tier)
				}
			}
			if got["b"].TTL != time.Second {
				t.Errorf("b has %v left, want 1s", got["b"].TTL)
			}
		}
		if l2.count("getmany") != 2 || l2.count("get") != 1 {
			t.Errorf("%d GetMany and %d Get of L2, want 2 and 1", l2.count("getmany"), l2.count("get"))
		}
		if _, err := cache.GetMany(ctx, []string{"a", ""}); err == nil {
			t.Error("GetMany of an empty key: no error")
		}
	})
}

func TestL1HitAllocatesNothing(t *testing.T) {
	cache := newCache(t, newBackend(), &tiered.Options[[]byte]{NoWatch: noWatch})
	ctx := t.Context()
	if err := cache.Set(ctx, "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if r, err := cache.Get(ctx, "k"); err != nil || r.Tier != tiered.TierL1 {
			t.Fatalf("Get = %+v, %v", r, err)
		}
	}); n >= 1 { // otter's maintenance allocates now and then
		t.Errorf("an L1 hit makes %v allocations, want 0", n)
	}
}

// What a read with Refresh brings replaces what L1 had, also where L1 does not keep it.
func TestRefreshLeavesNothingOlder(t *testing.T) {
	for name, test := range map[string]struct {
		options tiered.Options[[]byte]
		ttl     time.Duration // of what is in L2 now
		takes   time.Duration // the read
	}{
		"PromoteEvery":           {tiered.Options[[]byte]{PromoteEvery: 1_000_000}, time.Minute, 0},
		"over when it arrived":   {tiered.Options[[]byte]{}, time.Second, 2 * time.Second},
		"deleted":                {tiered.Options[[]byte]{}, 0, 0},
		"L1TTL is less than RTT": {tiered.Options[[]byte]{MaxL1TTL: time.Second}, time.Minute, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				l2 := newBackend()
				test.options.NoWatch = true
				cache := newCache(t, l2, &test.options)
				for _, many := range []bool{false, true} {
					if err := cache.Set(ctx, "k", []byte("old"), time.Hour); err != nil {
						t.Fatal(err)
					}
					if test.ttl > 0 {
						put(t, l2, "k", "new", test.ttl)
					} else if err := l2.Delete(ctx, "k"); err != nil {
						t.Fatal(err)
					}
					l2.setAfter(func(op, _ string) { time.Sleep(test.takes) })
					if many {
						cache.GetMany(ctx, []string{"k", "other"}, tiered.Refresh())
					} else {
						cache.Get(ctx, "k", tiered.Refresh())
					}
					l2.setAfter(nil)
					if r, err := cache.Get(ctx, "k"); string(r.Value) == "old" {
						t.Errorf("Get after Refresh = %q from %v, %v; L1 must not have that any more", r.Value, r.Tier, err)
					}
				}
			})
		})
	}
}
