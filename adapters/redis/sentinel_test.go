package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

func sentinelURL(srv *servertest.Sentinel, options string) string {
	return "redis+sentinel://" + srv.Addrs() + "/" + servertest.RedisSentinelMaster + "?" + options
}

// TestSentinelFailover kills the master under load, and stalls the next one.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisSentinel(t, 2*time.Second)
	b := openURL(t, sentinelURL(srv, "op_timeout=3s"))
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: servertest.RedisSentinelMaster, SentinelAddrs: strings.Split(srv.Addrs(), ","), DialerRetries: 1,
	})
	t.Cleanup(func() { client.Close() })
	handles := map[string]l2cache.L2CacheBackend{"url": b, "new": newCache(t, client, &Options{OpTimeout: 3 * time.Second})}
	w := watch(t, b, "")
	for _, fault := range []struct {
		name string
		do   func(*servertest.Server) error
		undo func(*servertest.Server) error
	}{
		{"kill", (*servertest.Server).Kill, (*servertest.Server).Start},
		{"stall", (*servertest.Server).Pause, (*servertest.Server).Resume},
	} {
		t.Run(fault.name, func(t *testing.T) {
			loads := map[string]*load{}
			for kind, b := range handles {
				loads[kind] = startLoad(t, b, 3, func(int) string { return kind })
			}
			_, gaps := w.count()
			old := master(t, srv)
			if err := fault.do(old); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			ready := until(t, "failover", func() bool { return master(t, srv) != old })
			t.Logf("the sentinels named another master after %v", ready.Sub(begin).Round(time.Millisecond))
			for kind, l := range loads {
				recovered(t, kind, l, ready)
			}
			w.await(t, "Gap", func() bool { return w.gaps > gaps })
			back := time.Now()
			if err := errors.Join(fault.undo(old), srv.Await()); err != nil {
				t.Fatal(err)
			}
			// At first it takes itself for the master.
			until(t, "single master", func() bool { return masters(t, srv) == 1 })
			for kind, l := range loads {
				if _, last := l.failures(); last.After(back) {
					t.Errorf("%s: a call failed after the old master was back", kind)
				}
				t.Log(kind)
				l.report(t)
			}
			key := "after " + fault.name
			n, _ := w.count()
			if err := b.Set(t.Context(), key, nil, time.Minute); err != nil {
				t.Fatal(err)
			}
			w.await(t, "event of "+key, func() bool { return w.told[key] > n })
		})
	}
}

func masters(t *testing.T, srv *servertest.Sentinel) (n int) {
	for _, s := range srv.Servers {
		if isMaster(newClient(t, redis.Options{Addr: s.Addr})) {
			n++
		}
	}
	return n
}

// master returns the server that the sentinels name.
func master(t *testing.T, srv *servertest.Sentinel) *servertest.Server {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: srv.Sentinels[0].Addr})
	defer client.Close()
	addr, err := client.GetMasterAddrByName(t.Context(), servertest.RedisSentinelMaster).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range srv.Servers {
		if s.Addr == net.JoinHostPort(addr[0], addr[1]) {
			return s
		}
	}
	t.Fatalf("no server is at %v", addr)
	return nil
}

// TestSentinelsDisagree: the majority decides, one that is down or has stalled is done
// without, and a replica is not taken for the master.
func TestSentinelsDisagree(t *testing.T) {
	srv := servertest.RedisSentinel(t, time.Minute)
	old := srv.Servers[0]
	liar := func(t *testing.T, s *servertest.Server) {
		t.Helper()
		host, port, err := net.SplitHostPort(srv.Servers[1].Addr)
		if err != nil {
			t.Fatal(err)
		}
		client := newClient(t, redis.Options{Addr: s.Addr, Protocol: 2})
		err = errors.Join(
			client.Do(t.Context(), "sentinel", "remove", servertest.RedisSentinelMaster).Err(),
			client.Do(t.Context(), "sentinel", "monitor", servertest.RedisSentinelMaster, host, port, 3).Err())
		if err != nil {
			t.Fatal(err)
		}
	}
	works := func(t *testing.T, b l2cache.L2CacheBackend) {
		t.Helper()
		if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
			t.Errorf("Set = %v", err)
		}
		if !isAt(t, old.Addr, "k") {
			t.Error("the entry is not on the master")
		}
	}
	liar(t, srv.Sentinels[0])
	works(t, openURL(t, sentinelURL(srv, "")))

	one := fmt.Sprintf("redis+sentinel://%s/%s", srv.Sentinels[0].Addr, servertest.RedisSentinelMaster)
	if _, err := l2cache.Open(t.Context(), one); !errors.Is(err, l2cache.ErrUnavailable) || !errors.Is(err, errReplica) {
		t.Errorf("Open by a sentinel that names a replica = %v", err)
	}
	if _, err := l2cache.Open(t.Context(), "redis+sentinel://"+srv.Addrs()+"/nobody"); !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), "no sentinel knows") {
		t.Errorf("Open of an unknown master = %v", err)
	}

	srv.Sentinels[0].Kill()
	works(t, openURL(t, sentinelURL(srv, "")))
	srv.Sentinels[1].Pause()
	works(t, openURL(t, sentinelURL(srv, "")))
	srv.Sentinels[1].Resume()
	for _, s := range srv.Sentinels {
		s.Kill()
	}
	if _, err := l2cache.Open(t.Context(), sentinelURL(srv, "")); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open without sentinels = %v, want ErrUnavailable", err)
	}
}

func isAt(t *testing.T, addr, key string) bool {
	t.Helper()
	client := newClient(t, redis.Options{Addr: addr})
	n, err := client.Exists(context.Background(), key).Result()
	return err == nil && n == 1 && isMaster(client)
}

// TestSentinelTLS: sentinels and servers have TLS, and the sentinels name another master.
func TestSentinelTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t, t.TempDir())
	secure := func(port string) []string {
		return []string{
			"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
			"--tls-auth-clients", "no", "--tls-replication", "yes",
		}
	}
	ports := []string{freePort(t), freePort(t), freePort(t)}
	servers := []*servertest.Server{servertest.Redis(t, secure(ports[0])...), servertest.Redis(t, secure(ports[1])...)}
	sentinel, err := servertest.StartLoneSentinel(secure(ports[2])...)
	if err != nil {
		servertest.SkipOrFail(t, err)
	}
	t.Cleanup(func() { sentinel.Close() })
	admin := newClient(t, redis.Options{Addr: sentinel.Addr, Protocol: 2})
	monitor := func(port string) {
		t.Helper()
		if err := admin.Do(t.Context(), "sentinel", "monitor", "mymaster", "127.0.0.1", port, 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	monitor(ports[0])
	url := "rediss+sentinel://localhost:" + ports[2] + "/mymaster"
	b := openURL(t, url+"?op_timeout=4s&tls_ca="+ca)
	for name, op := range operations("k") {
		if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
			t.Errorf("%s = %v", name, err)
		}
	}
	w := watch(t, b, "")
	if err := b.Set(t.Context(), "first", nil, time.Minute); err != nil || !isAt(t, servers[0].Addr, "first") {
		t.Errorf("Set = %v, or it is not on the master", err)
	}
	_, gaps := w.count()
	if err := admin.Do(t.Context(), "sentinel", "remove", "mymaster").Err(); err != nil {
		t.Fatal(err)
	}
	monitor(ports[1])
	w.await(t, "Gap when there is another master", func() bool { return w.gaps > gaps })
	if err := b.Set(t.Context(), "second", nil, time.Minute); err != nil || !isAt(t, servers[1].Addr, "second") {
		t.Errorf("Set = %v, or it is not on the other master", err)
	}
	if _, err := l2cache.Open(t.Context(), url); !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Open by a sentinel with an unknown authority = %v, want an error about its certificate", err)
	}
}
