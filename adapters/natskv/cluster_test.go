package natskv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
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
	t.Parallel()
	servers := cluster(t)
	ctx := context.Background()
	handles := map[string]l2cache.L2CacheBackend{}
	for name, srv := range servers {
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
}

// A bucket that another program has made, with other settings, is taken over in place.
func TestClusterBucketOfOthers(t *testing.T) {
	t.Parallel()
	servers := servertest.NATSCluster(t)
	js := jetStream(t, connect(t, servers[0]))
	ctx := context.Background()
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "stock", Replicas: 3, TTL: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(ctx, "theirs", "v"); err != nil {
		t.Fatal(err)
	}
	b := open(t, servers[1], "stock")
	if got, err := b.Get(ctx, "theirs"); !errors.Is(err, l2cache.ErrCorrupt) {
		t.Errorf("Get of another program's value = %q, %v; want %v", got, err, l2cache.ErrCorrupt)
	}
	other := open(t, servers[2], "stock", "create=false")
	for i := range 100 {
		value := fmt.Sprint(i)
		set(t, b, "k", value, time.Hour)
		want(t, other, "k", value)
	}
	if p := l2cache.ProfileOf(b); p.MaxTTL != 24*time.Hour-time.Second || !p.Durable {
		t.Errorf("the profile is %+v, want MaxTTL one second less than the bucket's MaxAge, Durable", p)
	}
	if got, err := kv.Get(ctx, "theirs"); err != nil || string(got.Value()) != "v" {
		t.Errorf("their value is %v, %v after that, want \"v\"", got, err)
	}
}

// TestConformanceOfCluster breaks all servers at a time: TestLeaderFails breaks one.
func TestConformanceOfCluster(t *testing.T) {
	t.Parallel()
	servers := servertest.NATSCluster(t, "--no_advertise") // the client is to know the proxies only
	var hosts []string
	var faults []*conformance.Faults
	for _, srv := range servers {
		addr, f := proxied(t, srv)
		hosts, faults = append(hosts, addr), append(faults, f)
	}
	nc := connect(t, servers[0])
	each := func(do func(f *conformance.Faults) error) error {
		var errs []error
		for _, f := range faults {
			errs = append(errs, do(f))
		}
		return errors.Join(errs...)
	}
	// ready waits for the leaders of the stream and of the cluster.
	ready := func(ctx context.Context, err error) error {
		for err == nil && (askLeader(nc, "KV_conformance") == "" || !askMeta(nc)) {
			err = ctx.Err()
		}
		return err
	}
	conformance.Run(t, openURL("nats://"+strings.Join(hosts, ",")+"/conformance?replicas=3&op_timeout=5s"), &conformance.Options{
		Strict:    true,
		OpTimeout: 5 * time.Second,
		Faults: &conformance.Faults{
			Down: func(ctx context.Context) error {
				return each(func(f *conformance.Faults) error { return f.Down(ctx) })
			},
			Up: func(ctx context.Context) error {
				return ready(ctx, each(func(f *conformance.Faults) error { return f.Up(ctx) }))
			},
			Stall: func(ctx context.Context) error {
				return each(func(f *conformance.Faults) error { return f.Stall(ctx) })
			},
			Resume: func(ctx context.Context) error {
				return ready(ctx, each(func(f *conformance.Faults) error { return f.Resume(ctx) }))
			},
			CutMidReply: func(ctx context.Context, n int) error {
				return each(func(f *conformance.Faults) error { return f.CutMidReply(ctx, n) })
			},
		},
		Raw: raw(t, servers[0], "conformance"),
		// Not how keys and values are written, which does not differ.
		Only: []string{"basic", "ttl", "delete", "errors", "context", "concurrency", "faults", "close", "isolation", "durability", "batch", "touch", "add", "delete-pattern", "scan", "watch", "capability"},
	})
}

// askLeader returns the name of the stream's leader, who says so himself, or "". It
// may take 100 ms.
func askLeader(nc *nats.Conn, stream string) string {
	m, err := nc.Request("$JS.API.STREAM.INFO."+stream, nil, 100*time.Millisecond)
	var info struct {
		Error   any `json:"error"`
		Cluster struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	}
	if err != nil || json.Unmarshal(m.Data, &info) != nil || info.Error != nil {
		return ""
	}
	return info.Cluster.Leader
}

// askMeta reports whether the cluster has a leader, without whom nothing is created. It
// may take 100 ms.
func askMeta(nc *nats.Conn) bool {
	m, err := nc.Request("$JS.API.INFO", nil, 100*time.Millisecond)
	return err == nil && !bytes.Contains(m.Data, []byte(`"error":`))
}
