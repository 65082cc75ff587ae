package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

// opTimeout is long, for a busy machine can take the CPU from all for a second.
const opTimeout = 4 * time.Second

// A server that syncs each write, by URL.
func TestConformance(t *testing.T) {
	t.Parallel()
	srv := servertest.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	addr, faults := proxied(t, srv)
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, fmt.Sprintf("redis://%s?durable=true&op_timeout=%v&prefix=%s", addr, opTimeout, namespace))
	}
	conformance.Run(t, open, &conformance.Options{
		Strict: true, Faults: faults, Raw: behind(t, srv), OpTimeout: opTimeout,
	})
}

// A server that keeps nothing on disk, through a client that has go-redis's
// defaults.
func TestConformanceNew(t *testing.T) {
	t.Parallel()
	srv := servertest.Redis(t)
	addr, faults := proxied(t, srv)
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { client.Close() })
	open := func(_ context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		c, err := New(client, &Options{NoEviction: true, OpTimeout: opTimeout})
		if err != nil {
			return nil, err
		}
		return l2cache.WithPrefix(c, namespace), nil
	}
	conformance.Run(t, open, &conformance.Options{
		Strict: true, Faults: faults, Raw: behind(t, srv), OpTimeout: opTimeout,
	})
}

// proxied puts a proxy in front of the server: it cuts replies, and the server is
// killed and stopped for real.
func proxied(t *testing.T, srv *servertest.Server) (addr string, _ *conformance.Faults) {
	p, err := conformance.NewProxy(srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	f := p.Faults()
	f.Down = func(context.Context) error { err := srv.Kill(); p.Refuse(); return err }
	f.Up = func(context.Context) error { return errors.Join(srv.Start(), p.Accept()) }
	f.Stall = func(context.Context) error { return srv.Pause() }
	f.Resume = func(context.Context) error { return srv.Resume() }
	return p.Addr(), f
}

// behind reaches the server by a client of its own.
func behind(t *testing.T, srv *servertest.Server) *conformance.Raw {
	client := redis.NewClient(&redis.Options{Addr: srv.Addr})
	t.Cleanup(func() { client.Close() })
	return rawOf(client)
}

func rawOf(client redis.UniversalClient) *conformance.Raw {
	return &conformance.Raw{
		// A key that has expired is still counted until it is looked up or reclaimed.
		Stored: func(ctx context.Context, namespace, key string) (bool, error) {
			n, err := client.Exists(ctx, namespace+key).Result()
			return n > 0, err
		},
		// A string of another program is a value like ours: only the type can be wrong.
		Damage: []conformance.Damage{{
			Name: "foreign type",
			Do: func(ctx context.Context, namespace, key string) error {
				key = namespace + key
				_, err := client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
					pipe.Del(ctx, key)
					pipe.HSet(ctx, key, "field", "value")
					return nil
				})
				return err
			},
		}},
	}
}
