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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
	"github.com/l2cache/l2cache/internal/ratio"
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

// shuffled returns the keys of a database in random order.
func shuffled(size int) []string {
	keys := make([]string, benchEntries(size))
	for i, j := range rand.Perm(len(keys)) {
		keys[i] = benchKey(j)
	}
	return keys
}

// on returns a contender that does op on keys, one after the other.
func on(name string, keys []string, op func(key string) error) ratio.Contender {
	var next atomic.Int64
	return ratio.Contender{Name: name, Do: func(int) error { return op(keys[int(next.Add(1))%len(keys)]) }}
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
			b.Run(fmt.Sprintf("size=%d/g=%d", size, g), func(b *testing.B) {
				keys := shuffled(size)
				ratio.Compare(b, g,
					on("raw", keys, readRaw(raw, false)),
					on("raw-crc", keys, readRaw(raw, true)),
					on("l2cache", keys, func(key string) error { return op(context.Background(), c, key) }),
					on("l2cache-cancel", keys, func(key string) error { return op(cancellable, c, key) }))
			})
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
			b.Run(fmt.Sprintf("size=%d/g=%d", size, g), func(b *testing.B) {
				keys := shuffled(size)
				all := []ratio.Contender{
					on("raw", keys, put(raw.Update)),
					on("l2cache", keys, func(key string) error { return c.Set(context.Background(), key, value, time.Hour) }),
					on("l2cache-cancel", keys, func(key string) error { return c.Set(cancellable, key, value, time.Hour) }),
				}
				if g > 1 {
					all = append(all, on("raw-batch", keys, put(raw.Batch)))
				}
				ratio.Compare(b, g, all...)
			})
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
		b.Run(fmt.Sprintf("keys=%d/size=%d", n, size), func(b *testing.B) {
			ratio.Compare(b, 1,
				ratio.Contender{Name: "raw", Do: func(i int) error {
					for _, key := range batches[i%len(batches)] {
						if _, err := c.GetWithTTL(context.Background(), key); err != nil {
							return err
						}
					}
					return nil
				}},
				ratio.Contender{Name: "l2cache", Do: func(i int) error {
					_, err := l2cache.GetMany(context.Background(), c, batches[i%len(batches)])
					return err
				}})
		})
	}
}
