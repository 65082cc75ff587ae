package tiered_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// What this Cache did, its own later reads see: a value that is set is one more than the
// last, and no read may get one from before the last Set or Delete that ended before it
// began. Each call of L2 takes a random time, and some fail without having done anything.
func TestOwnChangesAreSeen(t *testing.T) {
	for _, test := range []struct {
		name    string
		failing bool
		options tiered.Options[int64]
	}{
		{"L2 is there", false, tiered.Options[int64]{NoWatch: true}},
		{"L2 fails", true, tiered.Options[int64]{NoWatch: true}},
		{"negative", true, tiered.Options[int64]{NoWatch: true, NegativeTTL: 5 * time.Millisecond}},
		{"refresh ahead", true, tiered.Options[int64]{NoWatch: true, RefreshAhead: 0.3}},
		{"watch", true, tiered.Options[int64]{RefreshAhead: 0.3}},
		{"stale", true, tiered.Options[int64]{NoWatch: true, OnFailure: tiered.ServeStale, StaleFor: 20 * time.Millisecond, PromoteEvery: 2}},
		{"watch, stale", true, tiered.Options[int64]{RefreshAhead: 0.3, OnFailure: tiered.ServeStale, StaleFor: 20 * time.Millisecond}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(3) {
				synctest.Test(t, func(t *testing.T) {
					test.options.BreakerFailures = -1
					test.options.MaxL1TTL = 50 * time.Millisecond
					ownChanges(t, seed, test.failing, &test.options)
				})
			}
		})
	}
}

func ownChanges(t *testing.T, seed uint64, failing bool, o *tiered.Options[int64]) {
	ctx := t.Context()
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) // guarded by mu
	pick := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	nap := func(most time.Duration) { time.Sleep(time.Duration(pick(int(most)))) }

	l2 := newBackend()
	l2.setBefore(func(ctx context.Context, op, key string) error {
		if op == "watch" {
			return nil
		}
		nap(2 * time.Millisecond)
		if failing && pick(4) == 0 {
			return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
		}
		return nil
	})
	l2.setAfter(func(op, _ string) {
		if op != "watch" {
			nap(time.Millisecond)
		}
	})
	cache := newCache(t, l2, o)

	var wg sync.WaitGroup
	var found [4]atomic.Int32 // reads that got a value, by tier
	for k := range 2 {
		key := strconv.Itoa(k)
		var source, floor atomic.Int64 // what a loader finds, and what a read may get at least
		var done atomic.Bool
		wg.Go(func() {
			defer done.Store(true)
			for v := int64(1); v <= 120; v++ {
				source.Store(v)
				nap(300 * time.Microsecond)
				switch x := pick(10); {
				case x < 4:
					if cache.Set(ctx, key, v, time.Duration(1+pick(100))*time.Millisecond) == nil {
						floor.Store(v)
					}
				case x < 8:
					cache.Delete(ctx, key) // if it fails it is pending, which is as good
					floor.Store(v)
				default:
					cache.Touch(ctx, key, 30*time.Millisecond)
				}
				nap(3 * time.Millisecond)
			}
		})
		load := func(context.Context, string, *int64) (tiered.Loaded[int64], error) {
			v := source.Load()
			nap(3 * time.Millisecond)
			if o.NegativeTTL > 0 && pick(2) == 0 {
				return tiered.Loaded[int64]{}, l2cache.ErrNotFound
			}
			return tiered.Loaded[int64]{Value: v, TTL: 20 * time.Millisecond}, nil
		}
		for range 4 {
			wg.Go(func() {
				for !done.Load() {
					nap(800 * time.Microsecond)
					least := floor.Load()
					var r tiered.Result[int64]
					var err error
					what := "Get"
					switch pick(6) {
					case 0:
						what = "GetOrLoad"
						r, err = cache.GetOrLoad(ctx, key, load)
					case 1:
						what = "GetOrLoad with Refresh"
						r, err = cache.GetOrLoad(ctx, key, load, tiered.Refresh())
					case 2:
						what = "GetMany"
						var many map[string]tiered.Result[int64]
						many, err = cache.GetMany(ctx, []string{key, "other"})
						r = many[key]
					case 3:
						what = "Get with Refresh"
						r, err = cache.Get(ctx, key, tiered.Refresh())
					default:
						r, err = cache.Get(ctx, key)
					}
					if r.Tier != tiered.TierNone {
						found[r.Tier].Add(1)
						if r.Value < least {
							t.Errorf("seed %d: %s(%q) = %d from %v; want %d at least", seed, what, key, r.Value, r.Tier, least)
						}
					} else if err != nil && !errors.Is(err, l2cache.ErrNotFound) && !(failing && errors.Is(err, l2cache.ErrUnavailable)) {
						t.Errorf("seed %d: %s(%q): %v", seed, what, key, err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, tier := range []tiered.Tier{tiered.TierL1, tiered.TierL2, tiered.TierLoader} {
		if found[tier].Load() < 20 {
			t.Errorf("seed %d: %d reads got a value from %v; want 20 at least", seed, found[tier].Load(), tier)
		}
	}
}
