package natskv_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

// cluster starts three servers.
func cluster(t *testing.T) map[string]*servertest.Server {
	t.Helper()
	servers := map[string]*servertest.Server{}
	for i, srv := range servertest.NATSCluster(t) {
		servers["n"+strconv.Itoa(i)] = srv
	}
	return servers
}

func TestCluster(t *testing.T) {
	servers := cluster(t)
	ctx := context.Background()
	var hosts []string
	handles := map[string]l2cache.L2CacheBackend{}
	for name, srv := range servers {
		hosts = append(hosts, srv.Addr)
		await(t, "the cluster has a leader, and "+name+" the bucket", func() bool {
			b, err := l2cache.Open(ctx, "nats://"+srv.Addr+"/replicated?replicas=3")
			handles[name] = b
			return err == nil
		})
		defer handles[name].Close()
	}

	t.Run("read your writes", func(t *testing.T) {
		for i := range 300 {
			for writer, w := range handles {
				value := fmt.Sprint(writer, i)
				set(t, w, "k", value, time.Hour)
				for reader, r := range handles {
					if got, err := r.Get(ctx, "k"); string(got) != value || err != nil {
						t.Fatalf("after Set(%q) at %s, Get at %s = %q, %v", value, writer, reader, got, err)
					}
				}
			}
		}
	})

	t.Run("conformance", func(t *testing.T) {
		conformance.Run(t, openURL("nats://"+strings.Join(hosts, ",")+"/conformance?replicas=3&op_timeout=5s"), &conformance.Options{
			Strict:    true,
			OpTimeout: 5 * time.Second,
			Only: []string{
				"basic", "ttl/overwrite", "delete", "concurrency",
				"batch/get", "batch/set", "batch/delete", "batch/many", "batch/large", "batch/expired",
				"touch", "add/first-wins", "add/after-expiry", "add/after-delete", "add/one-winner", "add/linearizable",
				"delete-pattern/matches", "delete-pattern/many", "scan/complete", "scan/prefix", "scan/many", "scan/calls-inside",
				"watch/sees", "watch/prefix", "watch/burst",
			},
		})
	})

	t.Run("leader dies", func(t *testing.T) {
		b, err := l2cache.Open(ctx, "nats://"+strings.Join(hosts, ",")+"/replicated")
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		set(t, b, "k", "before", time.Hour)
		leader := leaderOf(t, servers, "KV_replicated")
		if err := servers[leader].Kill(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		await(t, "there is another leader", func() bool {
			got, err := b.Get(ctx, "k")
			if err == nil && string(got) != "before" || err == l2cache.ErrNotFound {
				t.Fatalf("Get after the leader has died = %q, %v; want \"before\" or an error", got, err)
			}
			return err == nil
		})
		reads := time.Since(begin)
		await(t, "writes work", func() bool { return b.Set(ctx, "k", []byte("after"), time.Hour) == nil })
		t.Logf("reads after %v, writes after %v", reads, time.Since(begin))
		want(t, b, "k", "after")
	})
}

func leaderOf(t *testing.T, servers map[string]*servertest.Server, name string) string {
	t.Helper()
	var s jetstream.Stream
	for _, srv := range servers {
		var err error
		if s, err = jetStream(t, connect(t, srv)).Stream(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		break
	}
	return s.CachedInfo().Cluster.Leader
}
