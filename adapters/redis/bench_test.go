package redis

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/ratio"
)

// bench runs op for each size, number of goroutines and kind of ctx, once through
// the adapter and once through a client with go-redis's defaults, of which raw is
// the sequence of commands that the mapping needs.
func bench(b *testing.B, ours func(context.Context, l2cache.L2CacheBackend, string, []byte) error,
	raw func(context.Context, *redis.Client, string, []byte) error,
) {
	addr := server(b).Addr
	cache, err := l2cache.Open(b.Context(), "redis://"+addr)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()

	for _, size := range []int{100, 10_000} {
		value := bytes.Repeat([]byte("v"), size)
		key := fmt.Sprintf("bench-%d", size)
		if err := cache.Set(b.Context(), key, value, time.Hour); err != nil {
			b.Fatal(err)
		}
		for _, g := range []int{1, 64} {
			for _, c := range []struct {
				name string
				ctx  context.Context
			}{{"background", context.Background()}, {"cancellable", cancellable}} {
				b.Run(fmt.Sprintf("size=%d/g=%d/ctx=%s", size, g, c.name), func(b *testing.B) {
					ratio.Compare(b, g,
						ratio.Contender{Name: "raw", Do: func(int) error { return raw(c.ctx, client, key, value) }},
						ratio.Contender{Name: "l2cache", Do: func(int) error { return ours(c.ctx, cache, key, value) }})
				})
			}
		}
	}
}

func BenchmarkGetWithTTL(b *testing.B) {
	bench(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string, _ []byte) error {
		_, err := c.GetWithTTL(ctx, key)
		return err
	}, func(ctx context.Context, c *redis.Client, key string, _ []byte) error {
		pipe := c.TxPipeline()
		get := pipe.Get(ctx, key)
		pipe.PTTL(ctx, key)
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		_, err := get.Bytes()
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	bench(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string, _ []byte) error {
		_, err := c.Get(ctx, key)
		return err
	}, func(ctx context.Context, c *redis.Client, key string, _ []byte) error {
		_, err := c.Get(ctx, key).Bytes()
		return err
	})
}

func BenchmarkSet(b *testing.B) {
	bench(b, func(ctx context.Context, c l2cache.L2CacheBackend, key string, value []byte) error {
		return c.Set(ctx, key, value, time.Hour)
	}, func(ctx context.Context, c *redis.Client, key string, value []byte) error {
		return c.Set(ctx, key, value, time.Hour).Err()
	})
}

// BenchmarkGetMany reads keys by one GetMany; its raw is a GetWithTTL for each, one
// after another.
func BenchmarkGetMany(b *testing.B) {
	cache, err := l2cache.Open(b.Context(), "redis://"+server(b).Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	ctx := context.Background()
	for _, size := range []int{100, 10_000} {
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprintf("many-%d-%d", size, i))
			if err := cache.Set(ctx, keys[i], bytes.Repeat([]byte("v"), size), time.Hour); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("keys=100/size=%d", size), func(b *testing.B) {
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
					if err == nil && len(got) != len(keys) {
						err = fmt.Errorf("%d entries of %d", len(got), len(keys))
					}
					return err
				}})
		})
	}
}
