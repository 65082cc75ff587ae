package tiered_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/internal/ratio"
	"github.com/l2cache/l2cache/tiered"
)

// BenchmarkL1Hit reads what L1 has. Its raw is GetIfPresent of an otter cache with as
// many entries, which expire, too.
func BenchmarkL1Hit(b *testing.B) {
	ctx := b.Context()
	keys := make([]string, 1000)
	cache, err := tiered.New[int](mem.New(mem.NewStore()), &tiered.Options[int]{NoWatch: true, MaxL1TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	raw := otter.Must(&otter.Options[string, int]{MaximumSize: 10_000, ExpiryCalculator: otter.ExpiryWriting[string, int](time.Hour)})
	defer raw.StopAllGoroutines()
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
		if err := cache.Set(ctx, keys[i], i, time.Hour); err != nil {
			b.Fatal(err)
		}
		raw.Set(keys[i], i)
	}
	hit := func(name string, get func(key string) (int, bool)) ratio.Contender {
		return ratio.Contender{Name: name, Do: func(i int) error {
			if v, ok := get(keys[i%len(keys)]); !ok || v != i%len(keys) {
				return fmt.Errorf("key %d: got %v, %v", i%len(keys), v, ok)
			}
			return nil
		}}
	}
	ratio.Compare(b, 1,
		hit("raw", raw.GetIfPresent),
		hit("l2cache", func(key string) (int, bool) {
			r, err := cache.Get(ctx, key)
			return r.Value, err == nil && r.Tier == tiered.TierL1
		}))
}

// BenchmarkZipf has 64 goroutines read keys by a Zipf law from Redis, most of them from
// an L1 of some entries; %L1 is how many. Its raw is the same reads without L1.
func BenchmarkZipf(b *testing.B) {
	const keys, goroutines = 100_000, 64
	ctx := context.Background()
	l2, err := l2cache.Open(ctx, "redis://"+redisServer(b).Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer l2.Close()
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("zipf-%d", i)
	}
	for i := 0; i < keys; i += 1000 {
		items := make([]l2cache.Item, 1000)
		for j := range items {
			items[j] = l2cache.Item{Key: names[i+j], Value: make([]byte, 100), TTL: time.Hour}
		}
		if err := l2cache.SetMany(ctx, l2, items); err != nil {
			b.Fatal(err)
		}
	}
	// The law is worked out beforehand: it takes about as long as a hit.
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.2, 1, keys-1)
	order := make([]int, 1<<20)
	for i := range order {
		order[i] = int(zipf.Uint64())
	}
	for _, entries := range []int{11_000, 18_000, 60_000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			cache, err := tiered.New(l2, &tiered.Options[[]byte]{NoWatch: true, MaxEntries: entries, MaxL1TTL: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			defer cache.Close()
			var begin atomic.Int64 // of a turn's part of the order: a counter of all calls would be fought for
			reads := func(name string, get func(key string) error) ratio.Contender {
				return ratio.Contender{Name: name, Do: func(i int) error {
					if i == 0 {
						begin.Add(104_729)
					}
					return get(names[order[(int(begin.Load())+i)%len(order)]])
				}}
			}
			get := func(key string) error { _, err := cache.Get(ctx, key); return err }
			for i := range 2 * len(order) {
				if err := get(names[order[i%len(order)]]); err != nil {
					b.Fatal(err)
				}
			}
			before := cache.Stats()
			ratio.Compare(b, goroutines,
				reads("raw", func(key string) error { _, err := l2.GetWithTTL(ctx, key); return err }),
				reads("l2cache", get))
			after := cache.Stats()
			hits, misses := after.L1Hits-before.L1Hits, after.L1Misses-before.L1Misses
			b.ReportMetric(100*float64(hits)/float64(hits+misses), "%L1")
		})
	}
}

// BenchmarkPromotion reads a key that L1 does not have. Its raw is the read of L2.
func BenchmarkPromotion(b *testing.B) {
	ctx := context.Background()
	l2, err := l2cache.Open(ctx, "redis://"+redisServer(b).Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer l2.Close()
	if err := l2.Set(ctx, "promoted", make([]byte, 100), time.Hour); err != nil {
		b.Fatal(err)
	}
	cache, err := tiered.New[[]byte](l2, &tiered.Options[[]byte]{NoWatch: true})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	ratio.Compare(b, 1,
		ratio.Contender{Name: "raw", Do: func(int) error { _, err := l2.GetWithTTL(ctx, "promoted"); return err }},
		ratio.Contender{Name: "l2cache", Do: func(int) error {
			r, err := cache.Get(ctx, "promoted", tiered.Refresh())
			if err == nil && r.Tier != tiered.TierL2 {
				err = fmt.Errorf("from %v", r.Tier)
			}
			return err
		}})
}
