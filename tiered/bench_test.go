package tiered_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
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
	hit := func(b *testing.B, get func(key string) (int, bool)) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if v, ok := get(keys[i%len(keys)]); !ok || v != i%len(keys) {
				b.Fatalf("got %v, %v", v, ok)
			}
		}
	}
	b.Run("impl=l2cache", func(b *testing.B) {
		hit(b, func(key string) (int, bool) {
			r, err := cache.Get(ctx, key)
			return r.Value, err == nil && r.Tier == tiered.TierL1
		})
	})
	b.Run("impl=raw", func(b *testing.B) { hit(b, raw.GetIfPresent) })
}

// BenchmarkZipf has 64 goroutines read keys by a Zipf law from Redis, nineteen of twenty
// from L1. Its raw is the same reads without L1.
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
	run := func(b *testing.B, get func(key string) error) {
		var wg sync.WaitGroup
		for i := range goroutines {
			n := b.N / goroutines
			if i < b.N%goroutines {
				n++
			}
			wg.Go(func() {
				for j := range n {
					if err := get(names[order[(i*len(order)/goroutines+j)%len(order)]]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	cache, err := tiered.New(l2, &tiered.Options[[]byte]{NoWatch: true, MaxEntries: zipfEntries, MaxL1TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	get := func(key string) error { _, err := cache.Get(ctx, key); return err }
	for range 500_000 {
		if err := get(names[zipf.Uint64()]); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("impl=l2cache", func(b *testing.B) {
		before := cache.Stats()
		run(b, get)
		after := cache.Stats()
		b.ReportMetric(100*float64(after.L1Hits-before.L1Hits)/float64(b.N), "%L1")
	})
	b.Run("impl=raw", func(b *testing.B) {
		run(b, func(key string) error { _, err := l2.GetWithTTL(ctx, key); return err })
	})
}

// zipfEntries in L1 are asked for by nineteen of twenty reads, once they are there.
const zipfEntries = 22_000

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
	b.Run("impl=l2cache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r, err := cache.Get(ctx, "promoted", tiered.Refresh()); err != nil || r.Tier != tiered.TierL2 {
				b.Fatalf("%+v, %v", r, err)
			}
		}
	})
	b.Run("impl=raw", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l2.GetWithTTL(ctx, "promoted"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
