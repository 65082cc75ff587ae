package memcached_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/internal/ratio"
)

// contenders are what each benchmark compares: the adapter as a URL opens it, the
// same with a ctx that can end, the adapter on a caller's client, and gomemcache,
// which takes no ctx and keeps no deadline.
func contenders(b *testing.B) []contender {
	addr := shared(b).Addr
	client := newClient(b, addr)
	fromURL := open(b, "memcached://"+addr)
	callers, err := memcached.New(client, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { callers.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	return []contender{
		{"raw", rawBackend{client: client}, context.Background()},
		{"l2cache", fromURL, context.Background()},
		{"l2cache-cancel", fromURL, ctx},
		{"l2cache-new", callers, context.Background()},
	}
}

type contender struct {
	impl    string
	backend l2cache.L2CacheBackend
	ctx     context.Context
}

// rawBackend makes the calls of gomemcache that the adapter makes.
type rawBackend struct {
	l2cache.L2CacheBackend
	client *memcache.Client
}

func (r rawBackend) Set(_ context.Context, key string, value []byte, _ time.Duration) error {
	return r.client.Set(&memcache.Item{Key: key, Value: value, Expiration: 60})
}

func (r rawBackend) Get(_ context.Context, key string) ([]byte, error) {
	item, err := r.client.Get(key)
	if err != nil {
		return nil, err
	}
	return item.Value, nil
}

func (r rawBackend) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	value, err := r.Get(ctx, key)
	return l2cache.Entry{Value: value}, err
}

func bench(b *testing.B, op func(c contender, key string, value []byte) error) {
	contenders := contenders(b)
	for _, size := range []int{100, 10_000} {
		value := make([]byte, size)
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprintf("bench:%d", i)
			for _, c := range contenders[:2] { // the others read what the second has set
				if err := c.backend.Set(c.ctx, keys[i], value, time.Hour); err != nil {
					b.Fatal(err)
				}
			}
		}
		for _, g := range []int{1, 64} {
			b.Run(fmt.Sprintf("size=%d/g=%d", size, g), func(b *testing.B) {
				var all []ratio.Contender
				for _, c := range contenders {
					all = append(all, ratio.Contender{Name: c.impl, Do: func(i int) error {
						return op(c, keys[i%len(keys)], value)
					}})
				}
				ratio.Compare(b, g, all...)
			})
		}
	}
}

func BenchmarkGetWithTTL(b *testing.B) {
	bench(b, func(c contender, key string, _ []byte) error {
		_, err := c.backend.GetWithTTL(c.ctx, key)
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	bench(b, func(c contender, key string, _ []byte) error {
		_, err := c.backend.Get(c.ctx, key)
		return err
	})
}

func BenchmarkSet(b *testing.B) {
	bench(b, func(c contender, key string, value []byte) error {
		return c.backend.Set(c.ctx, key, value, time.Minute)
	})
}

// BenchmarkGetMany compares one GetMany of 100 keys with 100 calls of GetWithTTL,
// on the same backend.
func BenchmarkGetMany(b *testing.B) {
	const n = 100
	addr := shared(b).Addr
	fromURL := open(b, "memcached://"+addr)
	callers, err := memcached.New(newClient(b, addr), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { callers.Close() })
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("bench:%d", i)
		mustSet(b, fromURL, keys[i], string(make([]byte, 100)), time.Hour)
	}
	single := func(cache l2cache.L2CacheBackend) error {
		for _, key := range keys {
			if _, err := cache.GetWithTTL(context.Background(), key); err != nil {
				return err
			}
		}
		return nil
	}
	many := func(cache l2cache.L2CacheBackend) error {
		entries, err := l2cache.GetMany(context.Background(), cache, keys)
		if err == nil && len(entries) != n {
			err = fmt.Errorf("%d entries", len(entries))
		}
		return err
	}
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		ratio.Compare(b, 1, ratio.Contender{Name: "raw", Do: func(int) error { return single(fromURL) }},
			ratio.Contender{Name: "l2cache", Do: func(int) error { return many(fromURL) }})
	})
	b.Run(fmt.Sprintf("keys=%d/new", n), func(b *testing.B) {
		ratio.Compare(b, 1, ratio.Contender{Name: "raw", Do: func(int) error { return single(callers) }},
			ratio.Contender{Name: "l2cache", Do: func(int) error { return many(callers) }})
	})
}
