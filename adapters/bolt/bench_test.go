package bolt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// benchEntries is how many entries a database has: with 100 B each 100,000, with
// 10 KB each 1,000.
func benchEntries(size int) int { return 10_000_000 / size }

func benchKey(i int) string { return fmt.Sprintf("user:%06d", i) }

// openBoth opens two copies of one database, with a value under each key: one
// behind the adapter, the other for bbolt alone.
func openBoth(b *testing.B, value []byte, noSync bool) (l2cache.L2CacheBackend, *bbolt.DB) {
	dir := b.TempDir()
	path, rawPath := filepath.Join(dir, "l2cache.db"), filepath.Join(dir, "raw.db")
	open := func(path string, noSync bool) *bbolt.DB {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: noSync, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			b.Fatal(err)
		}
		return db
	}

	db := open(path, true)
	c, err := bolt.New(db, &bolt.Options{NoSync: true, OpTimeout: opTimeout})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := g; i < benchEntries(len(value)); i += 64 {
				if err := c.Set(b.Context(), benchKey(i), value, time.Hour); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c.Close()
	if err := db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(rawPath, 0o600) }); err != nil {
		b.Fatal(err)
	}
	db.Close()

	db, raw := open(path, noSync), open(rawPath, noSync)
	if c, err = bolt.New(db, &bolt.Options{NoSync: noSync, OpTimeout: opTimeout}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		db.Close()
		raw.Close()
	})
	readAll := readRaw(raw, true) // so that all pages of both maps are in memory
	for i := range benchEntries(len(value)) {
		if _, err := c.Get(b.Context(), benchKey(i)); err != nil {
			b.Fatal(err)
		}
		if err := readAll(benchKey(i)); err != nil {
			b.Fatal(err)
		}
	}
	return c, raw
}

// spread runs op b.N times in g goroutines, on keys in random order.
func spread(b *testing.B, g, size int, op func(key string) error) {
	keys := make([]string, benchEntries(size))
	for i, j := range rand.Perm(len(keys)) {
		keys[i] = benchKey(j)
	}
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range g {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := op(keys[i%len(keys)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

var (
	sizes      = []int{100, 10_000}
	goroutines = []int{1, 64}
)

func benchmarkRead(b *testing.B, op func(context.Context, l2cache.L2CacheBackend, string) error) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, size := range sizes {
		c, raw := openBoth(b, bytes.Repeat([]byte("x"), size), false)
		for _, g := range goroutines {
			name := fmt.Sprintf("/size=%d/g=%d", size, g)
			b.Run("impl=l2cache"+name, func(b *testing.B) {
				spread(b, g, size, func(key string) error { return op(context.Background(), c, key) })
			})
			b.Run("impl=l2cache-cancel"+name, func(b *testing.B) {
				spread(b, g, size, func(key string) error { return op(cancellable, c, key) })
			})
			b.Run("impl=raw"+name, func(b *testing.B) { spread(b, g, size, readRaw(raw, false)) })
			b.Run("impl=raw-crc"+name, func(b *testing.B) { spread(b, g, size, readRaw(raw, true)) })
		}
	}
}

// readRaw is View, Get and a copy, with the checksum of the row or without.
func readRaw(db *bbolt.DB, verify bool) func(string) error {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return func(key string) (err error) {
		var value []byte
		err = db.View(func(tx *bbolt.Tx) error {
			row := tx.Bucket([]byte("l2cache")).Get(rowKey(key))
			end := len(row) - 4
			if verify && crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, row[:end]) != binary.BigEndian.Uint32(row[end:]) {
				return errors.New("checksum")
			}
			value = bytes.Clone(row)
			return nil
		})
		if value == nil {
			return fmt.Errorf("Get(%q): no row, %w", key, err)
		}
		return err
	}
}

// The baselines are View, Get and a copy, and the same with the checksum verified.
func BenchmarkGet(b *testing.B) {
	benchmarkRead(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string) error {
		_, err := c.Get(ctx, key)
		return err
	})
}

// The baselines are those of BenchmarkGet.
func BenchmarkGetWithTTL(b *testing.B) {
	benchmarkRead(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string) error {
		_, err := c.GetWithTTL(ctx, key)
		return err
	})
}

// The baselines are Update and, for goroutines that write at the same time, Batch.
// Each has to make the write durable.
func BenchmarkSet(b *testing.B) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, size := range sizes {
		value := bytes.Repeat([]byte("x"), size)
		c, raw := openBoth(b, value, false)
		put := func(write func(func(*bbolt.Tx) error) error) func(string) error {
			return func(key string) error {
				return write(func(tx *bbolt.Tx) error {
					return tx.Bucket([]byte("l2cache")).Put(rowKey(key), value)
				})
			}
		}
		for _, g := range goroutines {
			name := fmt.Sprintf("/size=%d/g=%d", size, g)
			b.Run("impl=l2cache"+name, func(b *testing.B) {
				spread(b, g, size, func(key string) error { return c.Set(context.Background(), key, value, time.Hour) })
			})
			b.Run("impl=l2cache-cancel"+name, func(b *testing.B) {
				spread(b, g, size, func(key string) error { return c.Set(cancellable, key, value, time.Hour) })
			})
			b.Run("impl=raw"+name, func(b *testing.B) { spread(b, g, size, put(raw.Update)) })
			if g > 1 {
				b.Run("impl=raw-batch"+name, func(b *testing.B) { spread(b, g, size, put(raw.Batch)) })
			}
		}
	}
}

// The baseline is one GetWithTTL after the other, on the same cache.
func BenchmarkGetMany(b *testing.B) {
	for _, size := range sizes {
		c, _ := openBoth(b, bytes.Repeat([]byte("x"), size), false)
		const n = 100
		batches := make([][]string, 100)
		for i := range batches {
			for range n {
				batches[i] = append(batches[i], benchKey(rand.IntN(benchEntries(size))))
			}
		}
		name := fmt.Sprintf("/keys=%d/size=%d", n, size)
		b.Run("impl=l2cache"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := l2cache.GetMany(context.Background(), c, batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("impl=raw"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				for _, key := range batches[i%len(batches)] {
					if _, err := c.GetWithTTL(context.Background(), key); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkPairs measures what is compared in turns of some 100 µs, in random order, so
// that a busy machine slows all of it down alike, and reports the medians of the ratios:
// of the baselines of BenchmarkGet to GetWithTTL, and of GetMany of 100 keys to 100
// GetWithTTL. Run it with -benchtime=2000x or so.
func BenchmarkPairs(b *testing.B) {
	for _, size := range sizes {
		c, raw := openBoth(b, bytes.Repeat([]byte("x"), size), false)
		key := func() string { return benchKey(rand.IntN(benchEntries(size))) }
		get := func(key string) error {
			_, err := c.GetWithTTL(context.Background(), key)
			return err
		}
		each := func(get func(string) error) func([]string) error {
			return func(keys []string) error {
				for _, key := range keys {
					if err := get(key); err != nil {
						return err
					}
				}
				return nil
			}
		}
		impls := []func(keys []string) error{
			each(readRaw(raw, false)),
			each(readRaw(raw, true)),
			each(get),
			func(keys []string) error {
				_, err := l2cache.GetMany(context.Background(), c, keys)
				return err
			},
		}
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			var ratios [3][]float64
			for b.Loop() {
				var took [4]float64
				for _, i := range rand.Perm(len(impls)) {
					keys := make([]string, 100)
					for i := range keys {
						keys[i] = key()
					}
					start := time.Now()
					if err := impls[i](keys); err != nil {
						b.Fatal(err)
					}
					took[i] = float64(time.Since(start))
				}
				ratios[0] = append(ratios[0], took[2]/took[0])
				ratios[1] = append(ratios[1], took[1]/took[0])
				ratios[2] = append(ratios[2], took[2]/took[3])
			}
			for i, unit := range []string{"get/raw", "checksum/raw", "gets/getmany"} {
				slices.Sort(ratios[i])
				b.ReportMetric(ratios[i][len(ratios[i])/2], unit)
			}
		})
	}
}
