package conformance

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// Benchmark measures the calls of a backend, in sub-benchmarks: Get and GetWithTTL
// (hits of 100 B, 10 kB and 100 kB; a miss; hits from many goroutines), Set, Delete,
// and the batches of 100 keys. A call that fails ends it. Of the options none is
// needed.
//
//	func BenchmarkBackend(b *testing.B) { conformance.Benchmark(b, open, nil) }
func Benchmark(b *testing.B, open OpenFunc, o *Options) {
	e, err := newEngine(b.Context(), open, o)
	if err != nil {
		b.Fatal(err)
	}
	c, err := open(b.Context(), e.namespace())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx := b.Context()
	run := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	get := func() error { _, err := c.Get(ctx, "k"); return err }
	for _, s := range []struct {
		name string
		n    int
	}{{"100B", 100}, {"10kB", 10_000}, {"100kB", 100_000}} {
		value := []byte(noise(s.n, 1))
		set := func() error { return c.Set(ctx, "k", value, time.Hour) }
		run("Set/"+s.name, s.n, set)
		if err := set(); err != nil { // -bench may have left the other one out
			b.Fatal(err)
		}
		run("Get/"+s.name, s.n, get)
		run("GetWithTTL/"+s.name, s.n, func() error { _, err := c.GetWithTTL(ctx, "k"); return err })
	}
	run("Get/miss", 0, func() error {
		if _, err := c.Get(ctx, "absent"); !errors.Is(err, l2cache.ErrNotFound) {
			return fmt.Errorf("an absent key: %w, want ErrNotFound", err)
		}
		return nil
	})
	run("Delete/absent", 0, func() error { return c.Delete(ctx, "absent") })
	if err := c.Set(ctx, "k", make([]byte, 100), time.Hour); err != nil {
		b.Fatal(err)
	}
	b.Run("Get/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := get(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	keys := make([]string, 100)
	items := make([]l2cache.Item, len(keys))
	for i := range keys {
		keys[i] = fmt.Sprint("many", i)
		items[i] = l2cache.Item{Key: keys[i], Value: make([]byte, 100), TTL: time.Hour}
	}
	setMany := func() error { return l2cache.SetMany(ctx, c, items) }
	run("SetMany/100", 100*len(keys), setMany)
	if err := setMany(); err != nil {
		b.Fatal(err)
	}
	run("GetMany/100", 100*len(keys), func() error {
		got, err := l2cache.GetMany(ctx, c, keys)
		if err == nil && len(got) != len(keys) {
			err = fmt.Errorf("%d entries, want %d", len(got), len(keys))
		}
		return err
	})
	if err := l2cache.DeleteMany(ctx, c, keys); err != nil {
		b.Fatal(err)
	}
	run("DeleteMany/100-absent", 0, func() error { return l2cache.DeleteMany(ctx, c, keys) })
}
