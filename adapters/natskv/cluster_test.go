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

// TestConformanceOfCluster breaks all servers at a time: TestLeaderFails breaks one.
func TestConformanceOfCluster(t *testing.T) {
	t.Parallel()
	servers := servertest.NATSCluster(t)
	var hosts []string
	for _, srv := range servers {
		hosts = append(hosts, srv.Addr)
	}
	nc := connect(t, servers[0])
	each := func(f func(*servertest.Server) error) func(context.Context) error {
		return func(context.Context) error {
			var errs []error
			for _, srv := range servers {
				errs = append(errs, f(srv))
			}
			return errors.Join(errs...)
		}
	}
	// ready is each, and then waits for the leaders of the stream and of the cluster.
	ready := func(f func(*servertest.Server) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := each(f)(ctx); err != nil {
				return err
			}
			for ctx.Err() == nil {
				if askLeader(nc, "KV_conformance") != "" && askMeta(nc) {
					return nil
				}
			}
			return ctx.Err()
		}
	}
	conformance.Run(t, openURL("nats://"+strings.Join(hosts, ",")+"/conformance?replicas=3&op_timeout=5s"), &conformance.Options{
		Strict:    true,
		OpTimeout: 5 * time.Second,
		Faults: &conformance.Faults{
			Down:   each((*servertest.Server).Kill),
			Up:     ready((*servertest.Server).Start),
			Stall:  each((*servertest.Server).Pause),
			Resume: ready((*servertest.Server).Resume),
		},
		Raw: raw(t, servers[0], "conformance"),
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
