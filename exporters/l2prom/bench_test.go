package l2prom_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/internal/ratio"
	"github.com/l2cache/l2cache/tiered"
)

// BenchmarkL1Hit reads what L1 has, observed and (raw) not.
func BenchmarkL1Hit(b *testing.B) {
	var impls []ratio.Contender
	for _, impl := range []struct {
		name     string
		observer func(context.Context, tiered.Event)
	}{
		{"raw", nil},
		{"l2cache", l2prom.New(nil).Event},
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
		ctx := b.Context()
		impls = append(impls, ratio.Contender{Name: impl.name, Do: func(i int) error {
			r, err := cache.Get(ctx, keys[i%len(keys)])
			if err == nil && r.Tier != tiered.TierL1 {
				err = fmt.Errorf("from %v", r.Tier)
			}
			return err
		}})
	}
	for _, g := range []int{1, 2} {
		b.Run(fmt.Sprintf("g=%d", g), func(b *testing.B) { ratio.Compare(b, g, impls...) })
	}
}

// BenchmarkBackendGet reads from a backend, observed and (raw) not.
func BenchmarkBackendGet(b *testing.B) {
	raw := mem.New(mem.NewStore())
	if err := raw.Set(b.Context(), "k", make([]byte, 100), time.Hour); err != nil {
		b.Fatal(err)
	}
	get := func(name string, backend l2cache.L2CacheBackend) ratio.Contender {
		ctx := b.Context()
		return ratio.Contender{Name: name, Do: func(int) error { _, err := backend.GetWithTTL(ctx, "k"); return err }}
	}
	ratio.Compare(b, 1, get("raw", raw), get("l2cache", l2cache.Observe(raw, l2prom.New(nil).Op)))
}
