package redis

import (
	"bytes"
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

// TestLoading: a server that reads its data is unavailable until it has.
func TestLoading(t *testing.T) {
	t.Parallel()
	srv := servertest.Redis(t, "--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--key-load-delay", "300") // µs
	b := openURL(t, "redis://"+srv.Addr)
	fill(t, b, 8000)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- srv.Start() }() // returns when it has
	loading := 0
	for end := time.Now().Add(60 * time.Second); ; {
		_, err := b.Get(t.Context(), "k1")
		if err == nil {
			break
		}
		if !errors.Is(err, l2cache.ErrUnavailable) || time.Now().After(end) {
			t.Fatalf("Get while the server loads = %v, want ErrUnavailable", err)
		}
		if redis.IsLoadingError(err) {
			loading++
		}
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if loading == 0 {
		t.Error("no call met the server while it was loading")
	}
}

// TestReadOnlyReplica: writes to a replica are refused.
func TestReadOnlyReplica(t *testing.T) {
	t.Parallel()
	host, port, err := net.SplitHostPort(servertest.Redis(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	b := openURL(t, "redis://"+servertest.Redis(t, "--replicaof", host, port).Addr)
	for _, name := range []string{"Set", "Delete", "Touch", "Add", "SetMany", "DeleteMany"} {
		if err := operations("k")[name](t.Context(), b); !errors.Is(err, l2cache.ErrUnavailable) || !redis.IsReadOnlyError(err) {
			t.Errorf("%s on a replica = %v, want READONLY", name, err)
		}
	}
}

// TestClientKill has the server close connections under load.
func TestClientKill(t *testing.T) {
	t.Parallel()
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	l := startLoad(t, openURL(t, "redis://"+srv.Addr+"?op_timeout=10s"), 4, func(int) string { return "" })
	for range 50 {
		if err := admin.ClientKillByFilter(t.Context(), "type", "normal", "skipme", "yes").Err(); err != nil {
			t.Fatal(err)
		}
		before := l.count()
		until(t, "calls after the connections were killed", func() bool { return l.count() > before+50 })
	}
	l.report(t)
	// A write on each connection may have been under way; reads are sent once more.
	if l.lost > 0 || l.failed > 50*4 {
		t.Errorf("%d calls failed, %d read what was before; want at most %d and 0", l.failed, l.lost, 50*4)
	}
}

// oneNodeCluster starts a server that is a cluster by itself.
func oneNodeCluster(t *testing.T, args ...string) (srv *servertest.Server, admin *redis.Client) {
	t.Helper()
	srv = servertest.Redis(t, append([]string{"--cluster-enabled", "yes"}, args...)...)
	admin = newClient(t, redis.Options{Addr: srv.Addr})
	if err := admin.ClusterAddSlotsRange(t.Context(), 0, slots-1).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "cluster", func() bool { return strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok") })
	return srv, admin
}

// TestClusterRefusals has a cluster refuse single keys, the user, and all writes.
func TestClusterRefusals(t *testing.T) {
	t.Parallel()
	srv, admin := oneNodeCluster(t)
	url := "redis+cluster://" + srv.Addr
	b := openURL(t, url)
	if err := b.Set(t.Context(), "ok:a", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}

	if err := admin.Do(t.Context(), "acl", "setuser", "keys", "on", ">secret", "~ok:*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	c := openURL(t, strings.Replace(url, "://", "://keys:secret@", 1)).(*Cache)
	got, err := c.GetMany(t.Context(), []string{"ok:a", "no:a", "ok:b"})
	if len(got) != 1 || string(got["ok:a"].Value) != "v" {
		t.Errorf("GetMany with a key that is not permitted = %v, want ok:a", got)
	}
	onlyNoA(t, "GetMany", err)
	onlyNoA(t, "SetMany", c.SetMany(t.Context(), []l2cache.Item{{Key: "no:a", TTL: time.Minute}, {Key: "ok:b", TTL: time.Minute}}))
	onlyNoA(t, "DeleteMany", c.DeleteMany(t.Context(), []string{"ok:b", "no:a"}))

	if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Set", "Add", "SetMany"} {
		if err := operations("new")[name](t.Context(), b); !errors.Is(err, l2cache.ErrFull) {
			t.Errorf("%s out of memory = %v, want ErrFull", name, err)
		}
	}
	if e, err := b.GetWithTTL(t.Context(), "ok:a"); string(e.Value) != "v" || e.TTL > time.Minute || err != nil {
		t.Errorf("GetWithTTL out of memory = %q, %v, %v; want v", e.Value, e.TTL, err)
	}
	if got, err := l2cache.GetMany(t.Context(), b, []string{"ok:a", "new"}); len(got) != 1 || err != nil {
		t.Errorf("GetMany out of memory = %v, %v; want ok:a", got, err)
	}
	if err := b.Delete(t.Context(), "ok:a"); err != nil {
		t.Errorf("Delete out of memory = %v", err)
	}
}

// TestClusterPart kills one of three masters: its keys are unavailable, the others work.
func TestClusterPart(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisCluster(t, 0, "--cluster-require-full-coverage", "no")
	for kind, b := range clusterHandles(t, srv, 4*time.Second) {
		t.Run(kind, func(t *testing.T) {
			var items []l2cache.Item
			var keys []string
			down := map[string]bool{}
			for i := range 300 {
				key := fmt.Sprint(kind, i)
				down[key] = slotOf(key) < slots/3 // those of the first server
				keys = append(keys, key)
				items = append(items, l2cache.Item{Key: key, Value: []byte(key), TTL: time.Hour})
			}
			if err := l2cache.SetMany(t.Context(), b, items); err != nil {
				t.Fatal(err)
			}
			srv.Servers[0].Kill()
			entries, err := l2cache.GetMany(t.Context(), b, keys)
			check := func(what string, err error) {
				t.Helper()
				var failed l2cache.KeyErrors
				if !errors.As(err, &failed) {
					t.Fatalf("%s = %v, want errors of keys", what, err)
				}
				for _, key := range keys {
					if down[key] != errors.Is(failed[key], l2cache.ErrUnavailable) || !down[key] && failed[key] != nil {
						t.Errorf("%s: %q = %v; want ErrUnavailable: %v", what, key, failed[key], down[key])
					}
				}
			}
			check("GetMany", err)
			for _, key := range keys {
				if got := string(entries[key].Value); !down[key] && got != key {
					t.Errorf("GetMany: %q = %q", key, got)
				}
			}
			check("SetMany", l2cache.SetMany(t.Context(), b, items))
			check("DeleteMany", l2cache.DeleteMany(t.Context(), b, keys))
			for name := range map[string]bool{"Ping": true, "Scan": true, "DeletePattern": true} {
				if err := operations(kind)[name](t.Context(), b); !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s without a master = %v, want ErrUnavailable", name, err)
				}
			}
			if err := errors.Join(srv.Servers[0].Start(), srv.Await()); err != nil {
				t.Fatal(err)
			}
			if err := l2cache.SetMany(t.Context(), b, items); err != nil {
				t.Errorf("SetMany when the master is back = %v", err)
			}
		})
	}
}

// TestClusterTLS: a server tells of its port with TLS who asks with TLS.
func TestClusterTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t, t.TempDir())
	port := freePort(t)
	oneNodeCluster(t, "--tls-port", port, "--cluster-port", freePort(t), "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no", "--tls-cluster", "yes")
	b := openURL(t, "rediss+cluster://localhost:"+port+"?tls_ca="+ca)
	for name, op := range operations("k") {
		if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
			t.Errorf("%s = %v", name, err)
		}
	}
}

// TestTopologyPasswords opens a cluster and a master that sentinels name with the right
// password, a wrong one and none, and looks for the password in what comes.
func TestTopologyPasswords(t *testing.T) {
	t.Parallel()
	node, admin := oneNodeCluster(t)
	sentinel := servertest.RedisSentinel(t, time.Minute)
	admins := []*redis.Client{admin, newClient(t, redis.Options{Addr: sentinel.Servers[0].Addr})}
	for _, s := range sentinel.Sentinels {
		client := newClient(t, redis.Options{Addr: s.Addr, Protocol: 2})
		if err := client.Do(t.Context(), "acl", "setuser", "default", "on", ">"+canary).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, client := range admins {
		if err := client.ConfigSet(t.Context(), "requirepass", canary).Err(); err != nil {
			t.Fatal(err)
		}
	}
	hosts := map[string]string{
		"redis+cluster":  node.Addr,
		"redis+sentinel": sentinel.Addrs() + "/" + servertest.RedisSentinelMaster,
	}
	option := map[string]string{"redis+sentinel": "&sentinel_auth=true"}
	for scheme, host := range hosts {
		url := func(password string) string {
			return strings.Replace(secretURL(host, "", password), "redis", scheme, 1) + "?prefix=x:" + option[scheme]
		}
		b := openURL(t, url(canary))
		wantNoSecret(t, "the backend", b)
		wantNoSecret(t, "the backend", b.(interface{ Unwrap() l2cache.L2CacheBackend }).Unwrap())
		if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
			t.Errorf("%s: Set = %v", scheme, err)
		}
		for _, bad := range []string{url(canary + "x"), scheme + "://" + host} {
			_, err := l2cache.Open(t.Context(), bad)
			if !errors.Is(err, l2cache.ErrUnavailable) || !redis.IsAuthError(err) {
				t.Errorf("%s: Open without the password = %v, want WRONGPASS or NOAUTH", scheme, err)
			}
			wantNoSecret(t, "the error of Open", err)
		}
	}
}

func wantNoSecret(t *testing.T, what string, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, v); strings.Contains(s, "c4n4ry") {
			t.Errorf("%s shows the password with %s: %s", what, verb, s)
		}
	}
}

// TestTopologiesAreQuiet: go-redis must not print what handles on clusters and sentinels
// have it do.
func TestTopologiesAreQuiet(t *testing.T) { // not in parallel: there is one logger
	node, _ := oneNodeCluster(t)
	sentinel := servertest.RedisSentinel(t, time.Minute)
	var l logger
	redis.SetLogger(&l)
	defer redis.SetLogger(discard{})
	for url, srv := range map[string]*servertest.Server{
		"redis+cluster://" + node.Addr + "?op_timeout=50ms&lazy=true":                      node,
		sentinelURL(sentinel, "op_timeout=50ms&lazy=true"):                                 sentinel.Servers[0],
		"redis+sentinel://" + sentinel.Servers[1].Addr + "/none?op_timeout=50ms&lazy=true": sentinel.Servers[1], // no sentinel
	} {
		b := openURL(t, url)
		use := func() {
			for name, op := range operations("k") {
				if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) && !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s = %v", name, err)
				}
			}
		}
		use()
		srv.Pause()
		use()
		srv.Resume()
		use()
		srv.Kill()
		use()
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		use()
	}
	if lines := l.lines(); lines != "" {
		t.Errorf("go-redis printed:\n%s", lines)
	}
}

// TestClusterEvicts fills a cluster that evicts: what is read is right or a miss.
func TestClusterEvicts(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t, "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru")
	value := func(key string) []byte { return bytes.Repeat([]byte(key), 1000/len(key)) }
	for kind, b := range clusterHandles(t, srv, 10*time.Second) {
		t.Run(kind, func(t *testing.T) {
			if !l2cache.ProfileOf(b).Evicts {
				t.Error("the profile does not say Evicts")
			}
			misses := 0
			for part := range 30 {
				var items []l2cache.Item
				var keys []string
				for i := range 1000 {
					key := fmt.Sprintf("%s%d.%d", kind, part, i)
					keys = append(keys, key)
					items = append(items, l2cache.Item{Key: key, Value: value(key), TTL: time.Hour})
				}
				if err := l2cache.SetMany(t.Context(), b, items); err != nil {
					t.Fatalf("SetMany = %v", err)
				}
				// Those of the part before may have been evicted.
				for i := range keys {
					keys[i] = fmt.Sprintf("%s%d.%d", kind, part/2, i)
				}
				entries, err := l2cache.GetMany(t.Context(), b, keys)
				if err != nil {
					t.Fatalf("GetMany = %v", err)
				}
				misses += len(keys) - len(entries)
				for key, e := range entries {
					if !bytes.Equal(e.Value, value(key)) || e.TTL <= 0 || e.TTL > time.Hour {
						t.Errorf("GetMany: %q = %.40q, %v; want its own value and up to 1h", key, e.Value, e.TTL)
					}
				}
			}
			for info, err := range l2cache.Scan(t.Context(), b, kind) {
				if err != nil {
					t.Fatalf("Scan = %v", err)
				}
				if info.Size != len(value(info.Key)) || info.TTL <= 0 || info.TTL > time.Hour {
					t.Errorf("Scan: %+v, want %d bytes and up to 1h", info, len(value(info.Key)))
				}
			}
			if misses == 0 {
				t.Error("nothing was evicted")
			}
			t.Logf("%d of 30000 reads were misses", misses)
		})
	}
}
