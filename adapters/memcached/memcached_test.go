package memcached_test

import (
	"context"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var shared = servertest.Shared(servertest.StartMemcached)

func open(t testing.TB, url string) l2cache.L2CacheBackend {
	t.Helper()
	cache, err := l2cache.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	return cache
}

func newClient(t testing.TB, addrs ...string) *memcache.Client {
	client := memcache.New(addrs...)
	client.MaxIdleConns = 128
	t.Cleanup(func() { client.Close() })
	return client
}

func TestSmoke(t *testing.T) {
	c := open(t, "memcached://"+shared(t).Addr)
	ctx := t.Context()
	if err := c.Set(ctx, "a b", []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	e, err := c.GetWithTTL(ctx, "a b")
	t.Logf("%+v %v", e, err)
}
