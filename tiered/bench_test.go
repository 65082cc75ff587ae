package tiered_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

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
