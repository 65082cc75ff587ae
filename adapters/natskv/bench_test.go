package natskv_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

// The raw client beside each call: kv.Get for reads, kv.Put for Set, on the same
// server. A connection of its own for each, as an application would have.

func BenchmarkGet(b *testing.B) {
	forEach(b, func(b *testing.B, s *subjects, size, goroutines int) {
		s.set(b, size)
		b.Run(fmt.Sprintf("impl=l2cache/size=%d/g=%d", size, goroutines), func(b *testing.B) {
			run(b, goroutines, func(ctx context.Context) error {
				_, err := s.cache.Get(ctx, "user:42:profile")
				return err
			})
		})
		s.raw(b, size, goroutines)
	})
}

func BenchmarkGetWithTTL(b *testing.B) {
	forEach(b, func(b *testing.B, s *subjects, size, goroutines int) {
		s.set(b, size)
		b.Run(fmt.Sprintf("impl=l2cache/size=%d/g=%d", size, goroutines), func(b *testing.B) {
			run(b, goroutines, func(ctx context.Context) error {
				_, err := s.cache.GetWithTTL(ctx, "user:42:profile")
				return err
			})
		})
		s.raw(b, size, goroutines)
	})
}

// BenchmarkGetCancellable has a ctx that could end.
func BenchmarkGetCancellable(b *testing.B) {
	s := openBoth(b)
	s.set(b, 100)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.Run("impl=l2cache/size=100/g=1", func(b *testing.B) {
		run(b, 1, func(context.Context) error {
			_, err := s.cache.Get(ctx, "user:42:profile")
			return err
		})
	})
	b.Run("impl=raw/size=100/g=1", func(b *testing.B) {
		run(b, 1, func(context.Context) error {
			_, err := s.kv.Get(ctx, "user.42.profile")
			return err
		})
	})
}

func BenchmarkSet(b *testing.B) {
	forEach(b, func(b *testing.B, s *subjects, size, goroutines int) {
		value := make([]byte, size)
		b.Run(fmt.Sprintf("impl=l2cache/size=%d/g=%d", size, goroutines), func(b *testing.B) {
			run(b, goroutines, func(ctx context.Context) error {
				return s.cache.Set(ctx, "user:42:profile", value, time.Hour)
			})
		})
		b.Run(fmt.Sprintf("impl=raw/size=%d/g=%d", size, goroutines), func(b *testing.B) {
			run(b, goroutines, func(ctx context.Context) error {
				_, err := s.kv.Put(ctx, "user.42.profile", value)
				return err
			})
		})
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
	b.Run(fmt.Sprintf("impl=l2cache/keys=%d", n), func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error {
			got, err := l2cache.GetMany(ctx, cache, keys)
			if len(got) != n && err == nil {
				err = fmt.Errorf("GetMany of %d keys = %d entries", n, len(got))
			}
			return err
		})
	})
	b.Run(fmt.Sprintf("impl=raw/keys=%d", n), func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error {
			for _, key := range keys {
				if _, err := cache.GetWithTTL(ctx, key); err != nil {
					return err
				}
			}
			return nil
		})
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
	b.Run(fmt.Sprintf("impl=l2cache/keys=%d", n), func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error { return l2cache.SetMany(ctx, cache, items) })
	})
	b.Run(fmt.Sprintf("impl=raw/keys=%d", n), func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error {
			for _, item := range items {
				if err := cache.Set(ctx, item.Key, item.Value, item.TTL); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// BenchmarkReplace has file storage, where what is to be replaced is read before. Beside
// it is a write of the raw client.
func BenchmarkReplace(b *testing.B) {
	srv := server(b)
	cache := open(b, srv, "replace")
	kv, err := jetStream(b, connect(b, srv)).KeyValue(context.Background(), "replace")
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 100)
	const keys = 1000
	var items []l2cache.Item
	for i := range keys {
		items = append(items, l2cache.Item{Key: fmt.Sprint("k", i), Value: value, TTL: time.Hour})
	}
	if err := l2cache.SetMany(context.Background(), cache, items); err != nil {
		b.Fatal(err)
	}
	key := func() string { return fmt.Sprint("k", rand.IntN(keys)) }
	for _, goroutines := range []int{1, 64} {
		for impl, call := range map[string]func(context.Context) error{
			"l2cache-set":         func(ctx context.Context) error { return cache.Set(ctx, key(), value, time.Hour) },
			"l2cache-set-one-key": func(ctx context.Context) error { return cache.Set(ctx, "one", value, time.Hour) },
			"l2cache-delete":      func(ctx context.Context) error { return cache.Delete(ctx, key()) },
			"raw":                 func(ctx context.Context) error { _, err := kv.Put(ctx, "raw."+key(), value); return err },
		} {
			b.Run(fmt.Sprintf("impl=%s/g=%d", impl, goroutines), func(b *testing.B) { run(b, goroutines, call) })
		}
	}
	b.Run("impl=l2cache-set/keys=100", func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error { return l2cache.SetMany(ctx, cache, items[:100]) })
	})
	b.Run("impl=raw/keys=100", func(b *testing.B) {
		run(b, 1, func(ctx context.Context) error {
			for _, item := range items[:100] {
				if _, err := kv.Put(ctx, "raw."+item.Key, value); err != nil {
					return err
				}
			}
			return nil
		})
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

func (s *subjects) raw(b *testing.B, size, goroutines int) {
	b.Run(fmt.Sprintf("impl=raw/size=%d/g=%d", size, goroutines), func(b *testing.B) {
		run(b, goroutines, func(ctx context.Context) error {
			_, err := s.kv.Get(ctx, "user.42.profile")
			return err
		})
	})
}

func forEach(b *testing.B, f func(b *testing.B, s *subjects, size, goroutines int)) {
	s := openBoth(b)
	for _, size := range []int{100, 10_000} {
		for _, goroutines := range []int{1, 64} {
			f(b, s, size, goroutines)
		}
	}
}

// run has that many goroutines share b.N calls.
func run(b *testing.B, goroutines int, call func(context.Context) error) {
	b.ReportAllocs()
	var wg sync.WaitGroup
	for g := range goroutines {
		n := b.N / goroutines
		if g < b.N%goroutines {
			n++
		}
		wg.Go(func() {
			for range n {
				if err := call(context.Background()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
