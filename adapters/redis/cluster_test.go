package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

// A cluster by URL. Nothing takes the place of a server that is down.
func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisCluster(t, 0, "--appendonly", "yes", "--appendfsync", "always", "--cluster-node-timeout", "60000")
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(srv.Addrs(), ",")})
	t.Cleanup(func() { client.Close() })
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, fmt.Sprintf("redis+cluster://%s?durable=true&op_timeout=%v&prefix=%s", srv.Addrs(), opTimeout, namespace))
	}
	conformance.Run(t, open, &conformance.Options{
		Strict: true, Faults: clusterFaults(srv), Raw: rawOf(client), OpTimeout: opTimeout, Only: withoutCuts(),
	})
}

// A cluster through a client that has go-redis's defaults.
func TestConformanceNewCluster(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisCluster(t, 0, "--cluster-node-timeout", "60000")
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(srv.Addrs(), ",")})
	t.Cleanup(func() { client.Close() })
	open := func(_ context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		c, err := New(client, &Options{NoEviction: true, OpTimeout: opTimeout})
		if err != nil {
			return nil, err
		}
		return l2cache.WithPrefix(c, namespace), nil
	}
	conformance.Run(t, open, &conformance.Options{
		Strict: true, Faults: clusterFaults(srv), Raw: rawOf(client), OpTimeout: opTimeout, Only: withoutCuts(),
	})
}

func clusterFaults(srv *servertest.Cluster) *conformance.Faults {
	each := func(do func(*servertest.Server) error) func(context.Context) error {
		return func(context.Context) error { return srv.Each(do) }
	}
	return &conformance.Faults{
		Down: each((*servertest.Server).Kill),
		Up: func(context.Context) error {
			return errors.Join(srv.Each((*servertest.Server).Start), srv.Await())
		},
		Stall: each((*servertest.Server).Pause), Resume: each((*servertest.Server).Resume),
	}
}

// A master that sentinels watch, by URL. It is gone for shorter than they care.
func TestConformanceSentinel(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisSentinel(t, time.Minute)
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, fmt.Sprintf("redis+sentinel://%s/%s?op_timeout=%v&prefix=%s",
			srv.Addrs(), servertest.RedisSentinelMaster, opTimeout, namespace))
	}
	conformance.Run(t, open, &conformance.Options{
		Strict: true, Faults: faults(srv.Servers[0]), Raw: behind(t, srv.Servers[0]), OpTimeout: opTimeout, Only: withoutCuts(),
	})
}

func faults(srv *servertest.Server) *conformance.Faults {
	hook := func(do func() error) func(context.Context) error {
		return func(context.Context) error { return do() }
	}
	return &conformance.Faults{
		Down: hook(srv.Kill), Up: hook(srv.Start),
		Stall: hook(srv.Pause), Resume: hook(srv.Resume),
	}
}

// withoutCuts are the cases that need no proxy: a cluster and a sentinel tell their
// clients the addresses of the servers themselves.
func withoutCuts() (ids []string) {
	for _, c := range conformance.Cases() {
		if !strings.Contains(c.Needs, "CutMidReply") {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// TestSlots wants the slots that Redis says.
func TestSlots(t *testing.T) {
	client := newClient(t, redis.Options{Addr: servertest.Redis(t, "--cluster-enabled", "yes").Addr})
	keys := []string{"", "a", "123456789", "{a}b", "x{a}", "{}a", "{", "}{", "{{a}}", "a{b}{c}", "\x00\xff", strings.Repeat("k", l2cache.MaxKeyLen)}
	for _, key := range keys {
		slot, err := client.ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if got := slotOf(key); got != int(slot) {
			t.Errorf("slotOf(%q) = %d, want %d", key, got, slot)
		}
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ addr, from, want string }{
		{"10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"},
		{":6380", "10.0.0.1:6379", "10.0.0.1:6380"},
		{"127.0.0.1:6380", "10.0.0.1:6379", "10.0.0.1:6380"},
		{"127.0.0.1:6380", "127.0.0.1:6379", "127.0.0.1:6380"},
		{"127.0.0.1:6380", "localhost:6379", "127.0.0.1:6380"},
		{"10.0.0.2:0", "10.0.0.1:6379", "10.0.0.2:6379"},
		{"::1:6380", "[::1]:6379", "[::1]:6380"},
		{"[::1]:6380", "[::1]:6379", "[::1]:6380"},
		{"::1:6380", "[2001:db8::1]:6379", "[2001:db8::1]:6380"},
		{"2001:db8::2:6380", "[2001:db8::1]:6379", "[2001:db8::2]:6380"},
		{"[2001:db8::2]:0", "[2001:db8::1]:6379", "[2001:db8::2]:6379"},
		{":6380", "[2001:db8::1]:6379", "[2001:db8::1]:6380"},
	} {
		if got := reachable(test.addr, test.from); got != test.want {
			t.Errorf("reachable(%q, %q) = %q, want %q", test.addr, test.from, got, test.want)
		}
	}
}
