package bolt_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

const benchKeys = 1024

func benchKey(i uint64) string { return fmt.Sprintf("user:%06d", i%benchKeys) }

// openBoth opens two databases of the same settings, filled with the same values:
// one behind the adapter, the other for bbolt alone.
func openBoth(b *testing.B, value []byte, noSync bool) (l2cache.L2CacheBackend, *bbolt.DB) {
	dir := b.TempDir()
	open := func(name string) *bbolt.DB {
		db, err := bbolt.Open(filepath.Join(dir, name), 0o600, &bbolt.Options{
			NoSync: true, FreelistType: bbolt.FreelistMapType,
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		return db
	}
	db, raw := open("l2cache.db"), open("raw.db")
	c, err := bolt.New(db, &bolt.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	for i := range uint64(benchKeys) {
		if err := c.Set(b.Context(), benchKey(i), value, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	err = raw.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("l2cache"))
		for i := range uint64(benchKeys) {
			if err == nil {
				err = bucket.Put([]byte(benchKey(i)), value)
			}
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	db.NoSync, raw.NoSync = noSync, noSync
	if c, err = bolt.New(db, &bolt.Options{NoSync: noSync}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c, raw
}

// spread runs op b.N times in g goroutines, with a different key each time.
func spread(b *testing.B, g int, op func(key string) error) {
	b.ReportAllocs()
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = benchKey(uint64(i))
	}
	var next atomic.Uint64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range g {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > uint64(b.N) {
					return
				}
				if err := op(keys[i%benchKeys]); err != nil {
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
				spread(b, g, func(key string) error { return op(context.Background(), c, key) })
			})
			b.Run("impl=l2cache-cancel"+name, func(b *testing.B) {
				spread(b, g, func(key string) error { return op(cancellable, c, key) })
			})
			b.Run("impl=raw"+name, func(b *testing.B) {
				spread(b, g, func(key string) error {
					var value []byte
					err := raw.View(func(tx *bbolt.Tx) error {
						value = bytes.Clone(tx.Bucket([]byte("l2cache")).Get([]byte(key)))
						return nil
					})
					if len(value) != size {
						return fmt.Errorf("value of %d bytes: %w", len(value), err)
					}
					return err
				})
			})
		}
	}
}

// The baseline is View, Get and a copy.
func BenchmarkGet(b *testing.B) {
	benchmarkRead(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string) error {
		_, err := c.Get(ctx, key)
		return err
	})
}

// The baseline is View, Get and a copy.
func BenchmarkGetWithTTL(b *testing.B) {
	benchmarkRead(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string) error {
		_, err := c.GetWithTTL(ctx, key)
		return err
	})
}

// The baselines are Update and, for goroutines that write at the same time, Batch.
func BenchmarkSet(b *testing.B) {
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, noSync := range []bool{false, true} {
		for _, size := range sizes {
			value := bytes.Repeat([]byte("x"), size)
			c, raw := openBoth(b, value, noSync)
			for _, g := range goroutines {
				name := fmt.Sprintf("/sync=%t/size=%d/g=%d", !noSync, size, g)
				b.Run("impl=l2cache"+name, func(b *testing.B) {
					spread(b, g, func(key string) error { return c.Set(context.Background(), key, value, time.Hour) })
				})
				b.Run("impl=l2cache-cancel"+name, func(b *testing.B) {
					spread(b, g, func(key string) error { return c.Set(cancellable, key, value, time.Hour) })
				})
				put := func(write func(func(*bbolt.Tx) error) error) func(string) error {
					return func(key string) error {
						return write(func(tx *bbolt.Tx) error {
							return tx.Bucket([]byte("l2cache")).Put([]byte(key), value)
						})
					}
				}
				b.Run("impl=raw"+name, func(b *testing.B) { spread(b, g, put(raw.Update)) })
				if g > 1 {
					b.Run("impl=raw-batch"+name, func(b *testing.B) { spread(b, g, put(raw.Batch)) })
				}
			}
		}
	}
}
