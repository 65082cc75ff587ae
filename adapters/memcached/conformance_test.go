package memcached_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

// suiteTimeout is longer than the default one, for a busy machine: with -race and
// four burners of CPU on two cores, calls of the default's second fail.
const suiteTimeout = 3 * time.Second

func TestConformance(t *testing.T) {
	t.Parallel()
	server := servertest.Memcached(t)
	proxy := newProxy(t, server)
	conformance.Run(t, func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, "memcached://"+proxy.Addr()+fmt.Sprintf("?op_timeout=%v&prefix=%s", suiteTimeout, prefix(namespace)))
	}, options(t, server, proxy))
}

// TestConformanceCallersClient runs the suite on a client that the caller made.
func TestConformanceCallersClient(t *testing.T) {
	t.Parallel()
	server := servertest.Memcached(t, "-c", "8192")
	proxy := newProxy(t, server)
	client := newClient(t, proxy.Addr())
	client.MaxIdleConns = 4096 // the suite makes as many calls at a time
	o := options(t, server, proxy)
	if testing.Short() {
		o.Only = []string{"basic", "errors", "context", "faults", "close"}
	}
	conformance.Run(t, func(_ context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		cache, err := memcached.New(client, &memcached.Options{OpTimeout: suiteTimeout})
		if err != nil {
			return nil, err
		}
		return l2cache.WithPrefix(cache, prefix(namespace)), nil
	}, o)
}

func prefix(namespace string) string { return namespace + ":" }

func newProxy(t *testing.T, server *servertest.Server) *conformance.Proxy {
	p, err := conformance.NewProxy(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// options have faults of both: the proxy cuts replies, and the server is killed and
// stopped for real.
func options(t *testing.T, server *servertest.Server, proxy *conformance.Proxy) *conformance.Options {
	faults := proxy.Faults()
	faults.Down = func(context.Context) error { err := server.Kill(); proxy.Refuse(); return err }
	faults.Up = func(context.Context) error { return errors.Join(server.Start(), proxy.Accept()) }
	faults.Stall = func(context.Context) error { return server.Pause() }
	faults.Resume = func(context.Context) error { return server.Resume() }
	raw := newClient(t, server.Addr)
	// damage replaces the item under key with what change makes of it.
	damage := func(name string, change func(*memcache.Item)) conformance.Damage {
		return conformance.Damage{Name: name, Do: func(_ context.Context, namespace, key string) error {
			item, err := raw.Get(memcached.ItemKey(prefix(namespace) + key))
			if err != nil {
				return err
			}
			item.Value = slices.Clone(item.Value)
			change(item)
			return raw.Set(item)
		}}
	}
	return &conformance.Options{
		Strict: true,
		Faults: faults,
		Raw: &conformance.Raw{
			Stored: func(_ context.Context, namespace, key string) (bool, error) {
				_, err := raw.Get(memcached.ItemKey(prefix(namespace) + key))
				if errors.Is(err, memcache.ErrCacheMiss) {
					return false, nil
				}
				return err == nil, err
			},
			Damage: []conformance.Damage{
				damage("foreign writer", func(i *memcache.Item) { i.Flags, i.Value = 0, []byte("42") }),
				damage("foreign flags", func(i *memcache.Item) { i.Flags = 1 }),
				damage("our flags, other bytes", func(i *memcache.Item) { i.Value = []byte("a value that is not in an envelope") }),
				damage("truncated", func(i *memcache.Item) { i.Value = i.Value[:10] }),
				damage("empty", func(i *memcache.Item) { i.Value = nil }),
				damage("bit flip in the magic", func(i *memcache.Item) { i.Value[0] ^= 4 }),
				damage("next version", func(i *memcache.Item) { i.Value[2]++ }),
			},
		},
		OpTimeout: suiteTimeout,
	}
}
