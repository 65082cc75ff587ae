package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/ratio"
)

// The raw client beside each call: kv.Get for reads, kv.Put for Set, on the same
// server. A connection of its own for each, as an application would have.

func BenchmarkGet(b *testing.B) {
	benchmarkRead(b, context.Background(), func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := c.Get(ctx, "user:42:profile")
		return err
	})
}

func BenchmarkGetWithTTL(b *testing.B) {
	benchmarkRead(b, context.Background(), func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := c.GetWithTTL(ctx, "user:42:profile")
		return err
	})
}

// BenchmarkGetCancellable has a ctx that could end.
func BenchmarkGetCancellable(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	benchmarkRead(b, ctx, func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := c.Get(ctx, "user:42:profile")
		return err
	})
}

func benchmarkRead(b *testing.B, ctx context.Context, read func(context.Context, l2cache.L2CacheBackend) error) {
	forEach(b, func(b *testing.B, s *subjects, size, goroutines int) {
		s.set(b, size)
		ratio.Compare(b, goroutines,
			ratio.Contender{Name: "raw", Do: func(int) error {
				_, err := s.kv.Get(ctx, "user.42.profile")
				return err
			}},
			ratio.Contender{Name: "l2cache", Do: func(int) error { return read(ctx, s.cache) }})
	})
}

func BenchmarkSet(b *testing.B) {
	ctx := context.Background()
	forEach(b, func(b *testing.B, s *subjects, size, goroutines int) {
		value := make([]byte, size)
		ratio.Compare(b, goroutines,
			ratio.Contender{Name: "raw", Do: func(int) error {
				_, err := s.kv.Put(ctx, "user.42.profile", value)
				return err
			}},
			ratio.Contender{Name: "l2cache", Do: func(int) error { return s.cache.Set(ctx, "user:42:profile", value, time.Hour) }})
	})
}

// BenchmarkGetMany compares GetMany with as many calls of GetWithTTL.
func BenchmarkGetMany(b *testing.B) {
	cache := open(b, server(b), "bench", "storage=memory")
	ctx := context.Background()
	const n = 100
	var keys []string
	var items []l2cache.Item
	for i := range n {
		keys = append(keys, fmt.Sprintf("user:%d:profile", i))
		items = append(items, l2cache.Item{Key: keys[i], Value: make([]byte, 100), TTL: time.Hour})
	}
	if err := l2cache.SetMany(ctx, cache, items); err != nil {
		b.Fatal(err)
	}
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		ratio.Compare(b, 1,
			ratio.Contender{Name: "raw", Do: func(int) error {
				for _, key := range keys {
					if _, err := cache.GetWithTTL(ctx, key); err != nil {
						return err
					}
				}
				return nil
			}},
			ratio.Contender{Name: "l2cache", Do: func(int) error {
				got, err := l2cache.GetMany(ctx, cache, keys)
				if len(got) != n && err == nil {
					err = fmt.Errorf("GetMany of %d keys = %d entries", n, len(got))
				}
				return err
			}})
	})
}

// BenchmarkSetMany compares SetMany with as many calls of Set.
func BenchmarkSetMany(b *testing.B) {
	cache := open(b, server(b), "bench", "storage=memory")
	const n = 100
	var items []l2cache.Item
	for i := range n {
		items = append(items, l2cache.Item{Key: fmt.Sprintf("user:%d:profile", i), Value: make([]byte, 100), TTL: time.Hour})
	}
	ctx := context.Background()
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		ratio.Compare(b, 1,
			ratio.Contender{Name: "raw", Do: func(int) error {
				for _, item := range items {
					if err := cache.Set(ctx, item.Key, item.Value, item.TTL); err != nil {
						return err
					}
				}
				return nil
			}},
			ratio.Contender{Name: "l2cache", Do: func(int) error { return l2cache.SetMany(ctx, cache, items) }})
	})
}

// BenchmarkReplace has file storage, where what is to be replaced is read before. The raw
// sequence is kv.Get and kv.Update; raw-put is a write that does not look.
func BenchmarkReplace(b *testing.B) {
	srv := server(b)
	cache := open(b, srv, "replace")
	kv, err := jetStream(b, connect(b, srv)).KeyValue(context.Background(), "replace")
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	value := make([]byte, 100)
	const keys = 1000
	var items []l2cache.Item
	for i := range keys {
		items = append(items, l2cache.Item{Key: fmt.Sprint("k", i), Value: value, TTL: time.Hour})
		if _, err := kv.Put(ctx, "raw."+items[i].Key, value); err != nil {
			b.Fatal(err)
		}
	}
	if err := l2cache.SetMany(ctx, cache, items); err != nil {
		b.Fatal(err)
	}
	key := func() string { return fmt.Sprint("k", rand.IntN(keys)) }
	update := func(key string) error {
		e, err := kv.Get(ctx, key)
		if err != nil {
			return err
		}
		_, err = kv.Update(ctx, key, value, e.Revision())
		if errors.Is(err, jetstream.ErrKeyExists) { // another was quicker
			err = nil
		}
		return err
	}
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprintf("g=%d", goroutines), func(b *testing.B) {
			ratio.Compare(b, goroutines,
				ratio.Contender{Name: "raw", Do: func(int) error { return update("raw." + key()) }},
				ratio.Contender{Name: "raw-put", Do: func(int) error { _, err := kv.Put(ctx, "raw."+key(), value); return err }},
				ratio.Contender{Name: "l2cache-set", Do: func(int) error { return cache.Set(ctx, key(), value, time.Hour) }},
				ratio.Contender{Name: "l2cache-set-one-key", Do: func(int) error { return cache.Set(ctx, "one", value, time.Hour) }},
				ratio.Contender{Name: "l2cache-delete", Do: func(int) error { return cache.Delete(ctx, key()) }})
		})
	}
	b.Run("keys=100", func(b *testing.B) {
		ratio.Compare(b, 1,
			ratio.Contender{Name: "raw", Do: func(int) error {
				for _, item := range items[:100] {
					if err := update("raw." + item.Key); err != nil {
						return err
					}
				}
				return nil
			}},
			ratio.Contender{Name: "l2cache-setmany", Do: func(int) error { return l2cache.SetMany(ctx, cache, items[:100]) }})
	})
}

type subjects struct {
	cache l2cache.L2CacheBackend
	kv    jetstream.KeyValue
}

func openBoth(b *testing.B) *subjects {
	srv := server(b)
	cache := open(b, srv, "bench", "storage=memory")
	kv, err := jetStream(b, connect(b, srv)).KeyValue(context.Background(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	return &subjects{cache, kv}
}

// set stores a value of that size for both.
func (s *subjects) set(b *testing.B, size int) {
	b.Helper()
	if err := s.cache.Set(context.Background(), "user:42:profile", make([]byte, size), time.Hour); err != nil {
		b.Fatal(err)
	}
	if _, err := s.kv.Put(context.Background(), "user.42.profile", make([]byte, size)); err != nil {
		b.Fatal(err)
	}
}

func forEach(b *testing.B, f func(b *testing.B, s *subjects, size, goroutines int)) {
	s := openBoth(b)
	for _, size := range []int{100, 10_000} {
		for _, goroutines := range []int{1, 64} {
			b.Run(fmt.Sprintf("size=%d/g=%d", size, goroutines), func(b *testing.B) { f(b, s, size, goroutines) })
		}
	}
}
