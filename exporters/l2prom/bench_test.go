package l2prom_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/tiered"
)

// BenchmarkL1Hit reads what L1 has, observed and (raw) not.
func BenchmarkL1Hit(b *testing.B) {
	for _, impl := range []struct {
		name     string
		observer func(context.Context, tiered.Event)
	}{
		{"l2cache", l2prom.New(nil).Event},
		{"raw", nil},
		{"nothing", func(context.Context, tiered.Event) {}},
	} {
		cache, err := tiered.New(mem.New(mem.NewStore()), &tiered.Options[int]{NoWatch: true, MaxL1TTL: time.Hour, Observer: impl.observer})
		if err != nil {
			b.Fatal(err)
		}
		defer cache.Close()
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprintf("key-%d", i)
			if err := cache.Set(b.Context(), keys[i], i, time.Hour); err != nil {
				b.Fatal(err)
			}
		}
		b.Run("impl="+impl.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if r, err := cache.Get(ctx, keys[i%len(keys)]); err != nil || r.Tier != tiered.TierL1 {
					b.Fatalf("got %v, %v", r, err)
				}
			}
		})
		b.Run("parallel/impl="+impl.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if r, err := cache.Get(ctx, keys[i%len(keys)]); err != nil || r.Tier != tiered.TierL1 {
						b.Fatalf("got %v, %v", r, err)
					}
				}
			})
		})
	}
}

// BenchmarkBackendGet reads from a backend, observed and (raw) not.
func BenchmarkBackendGet(b *testing.B) {
	raw := mem.New(mem.NewStore())
	for _, impl := range []struct {
		name    string
		backend l2cache.L2CacheBackend
	}{
		{"l2cache", l2cache.Observe(raw, l2prom.New(nil).Op)},
		{"raw", raw},
	} {
		if err := raw.Set(b.Context(), "k", make([]byte, 100), time.Hour); err != nil {
			b.Fatal(err)
		}
		b.Run("impl="+impl.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := impl.backend.GetWithTTL(ctx, "k"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
