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

// biggerCluster is a cluster of three masters and a fourth that has no slots.
func biggerCluster(t *testing.T) (srv *servertest.Cluster, added *servertest.Server) {
	t.Helper()
	args := []string{"--cluster-allow-replica-migration", "no", "--cluster-node-timeout", "60000"}
	srv = servertest.RedisCluster(t, 0, args...)
	added, err := srv.Add(args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(srv.Meet(len(srv.Servers)-1), srv.Await()); err != nil {
		t.Fatal(err)
	}
	return srv, added
}

// fillSlot stores n keys that have the slot of {a}.
func fillSlot(t *testing.T, b l2cache.L2CacheBackend, n int) {
	t.Helper()
	var items []l2cache.Item
	for i := range n {
		items = append(items, l2cache.Item{Key: fmt.Sprint("{a}", i), TTL: time.Hour})
	}
	if err := l2cache.SetMany(t.Context(), b, items); err != nil {
		t.Fatal(err)
	}
}

// TestScanOutlivesItsServer: a loop over Scan has begun with a server which loses its slots
// and is forgotten before the loop goes on, and which then comes back.
func TestScanOutlivesItsServer(t *testing.T) {
	t.Parallel()
	srv, added := biggerCluster(t)
	m := newMover(t, srv)
	const n = 3 * pageSize
	slot := slotOf("{a}")
	home, err := m.owner(slot)
	if err != nil {
		t.Fatal(err)
	}
	for kind, b := range clusterHandles(t, srv, time.Second) {
		t.Run(kind, func(t *testing.T) {
			if kind == "new" && testing.Short() {
				t.Skip("go-redis waits for a minute")
			}
			if err := m.move(slot, added.Addr); err != nil {
				t.Fatal(err)
			}
			fillSlot(t, b, n)
			seen := map[string]bool{}
			for info, err := range l2cache.Scan(t.Context(), b, "{a}") {
				if err != nil {
					t.Fatalf("Scan after %d keys = %v", len(seen), err)
				}
				if seen[info.Key] = true; len(seen) == 1 { // of the first of several pages
					if err := m.move(slot, home); err != nil {
						t.Fatal(err)
					}
					forget(t, b, added.Addr)
				}
			}
			if len(seen) != n {
				t.Errorf("Scan of %d keys yields %d", n, len(seen))
			}
			// The slot begins to move there again: new keys are redirected with ASK.
			err := errors.Join(
				m.clients[added.Addr].Do(t.Context(), "cluster", "setslot", slot, "importing", m.ids[home]).Err(),
				m.clients[home].Do(t.Context(), "cluster", "setslot", slot, "migrating", m.ids[added.Addr]).Err())
			if err != nil {
				t.Fatal(err)
			}
			for name, op := range operations("{a}new") {
				if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
					t.Errorf("%s while the slot moves back = %v", name, err)
				}
			}
			if err := m.move(slot, added.Addr); err != nil {
				t.Fatal(err)
			}
			for name, op := range operations("{a}again") {
				if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
					t.Errorf("%s when the slot is back = %v", name, err)
				}
			}
			if err := l2cache.DeletePattern(t.Context(), b, "{a}*"); err != nil {
				t.Errorf("DeletePattern = %v", err)
			}
			if err := m.move(slot, home); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// forget has b give up the server at an address, which has no slots.
func forget(t *testing.T, b l2cache.L2CacheBackend, addr string) {
	t.Helper()
	switch servers := b.(*Cache).servers.(type) {
	case *cluster:
		n := servers.at(addr)
		pool := n.client.(*conns)
		until(t, "rest of the server", func() bool {
			n.used.Store(0)
			servers.load.begin(time.Now())
			pool.mu.Lock()
			defer pool.mu.Unlock()
			return len(pool.all) == 0
		})
	case *borrowed:
		n := servers.at(addr)
		lent := n.client.(*lent)
		lent.mu.Lock()
		client := lent.client
		lent.mu.Unlock()
		if client == nil {
			t.Fatal("the cluster client does not know the server")
		}
		if _, err := b.Get(t.Context(), "{a}0"); err != nil { // is redirected, so that the map is loaded
			t.Fatal(err)
		}
		for end := time.Now().Add(2 * time.Minute); !errors.Is(client.Ping(t.Context()).Err(), redis.ErrClosed); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("go-redis has not closed its client")
			}
		}
	}
}

// TestScanLargeSlot: a slot that moves has more keys than are asked for in one call.
func TestScanLargeSlot(t *testing.T) {
	t.Parallel()
	srv, added := biggerCluster(t)
	m := newMover(t, srv)
	slot := slotOf("{a}")
	home, err := m.owner(slot)
	if err != nil {
		t.Fatal(err)
	}
	const n = slotKeys + 1000
	for kind, b := range clusterHandles(t, srv, 10*time.Second) {
		t.Run(kind, func(t *testing.T) {
			fillSlot(t, b, n)
			seen := map[string]bool{}
			for info, err := range l2cache.Scan(t.Context(), b, "{a}") {
				if err != nil {
					t.Fatalf("Scan = %v", err)
				}
				if len(seen) == 0 { // some keys move while there is a loop, and the others after it
					if err := m.begin(slot, home, added.Addr, 2000); err != nil {
						t.Fatal(err)
					}
				}
				seen[info.Key] = true
			}
			if len(seen) != n {
				t.Errorf("Scan of %d keys in a slot that moves yields %d", n, len(seen))
			}
			if err := l2cache.DeletePattern(t.Context(), b, "{a}*"); err != nil {
				t.Errorf("DeletePattern = %v", err)
			}
			for _, addr := range []string{home, added.Addr} {
				if left := m.clients[addr].DBSize(t.Context()).Val(); left != 0 {
					t.Errorf("%d keys at %s after DeletePattern", left, addr)
				}
			}
			if err := m.move(slot, added.Addr); err != nil {
				t.Fatal(err)
			}
			if err := m.move(slot, home); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestScanUnclaimed: a slot has gone to a server that is not in the map, so that none of
// those that are asked says that it has the slot.
func TestScanUnclaimed(t *testing.T) {
	t.Parallel()
	srv, added := biggerCluster(t)
	m := newMover(t, srv)
	slot := slotOf("{a}")
	home, err := m.owner(slot)
	if err != nil {
		t.Fatal(err)
	}
	handles := clusterHandles(t, srv, 10*time.Second)
	const n = 5
	for i := range n {
		if err := handles["url"].Set(t.Context(), fmt.Sprint("{a}", i), nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.begin(slot, home, added.Addr, n); err != nil {
		t.Fatal(err)
	}
	// The old server knows, and the new one, and so the others, do not yet.
	if err := m.clients[home].Do(t.Context(), "cluster", "setslot", slot, "node", m.ids[added.Addr]).Err(); err != nil {
		t.Fatal(err)
	}
	for kind, b := range handles {
		for range 3 {
			if err := l2cache.DeletePattern(t.Context(), b, "{a}*"); !errors.Is(err, l2cache.ErrUnavailable) {
				t.Errorf("%s: DeletePattern while nobody claims a slot = %v, want %v", kind, err, l2cache.ErrUnavailable)
			}
		}
	}
	if err := m.clients[added.Addr].Do(t.Context(), "cluster", "setslot", slot, "node", m.ids[added.Addr]).Err(); err != nil {
		t.Fatal(err)
	}
	for kind, b := range handles {
		seen := 0
		for info, err := range l2cache.Scan(t.Context(), b, "{a}") {
			if err != nil {
				t.Errorf("%s: Scan after %q = %v", kind, info.Key, err)
			}
			seen++
		}
		if seen < n {
			t.Errorf("%s: Scan of %d keys yields %d", kind, n, seen)
		}
	}
}

// TestNewWithoutSlots: a cluster client's map that has no master is none.
func TestNewWithoutSlots(t *testing.T) {
	t.Parallel()
	srv := servertest.Redis(t, "--cluster-enabled", "yes")
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{srv.Addr}})
	t.Cleanup(func() { client.Close() })
	c, err := New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var scan, watch error
	for _, err := range l2cache.Scan(t.Context(), c, "") {
		scan = err
	}
	for _, err := range l2cache.Watch(t.Context(), c, "") {
		watch = err
		break
	}
	for what, err := range map[string]error{
		"Ping":          c.Ping(t.Context()),
		"Scan":          scan,
		"DeletePattern": l2cache.DeletePattern(t.Context(), c, "k*"),
		"Watch":         watch,
	} {
		if !errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("%s of a cluster without slots = %v, want %v", what, err, l2cache.ErrUnavailable)
		}
	}
}

// begin begins to move slot, with some of its keys.
func (m *mover) begin(slot int, from, to string, keys int) error {
	ctx := context.Background()
	source, target := m.clients[from], m.clients[to]
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return err
	}
	err = errors.Join(
		target.Do(ctx, "cluster", "setslot", slot, "importing", m.ids[from]).Err(),
		source.Do(ctx, "cluster", "setslot", slot, "migrating", m.ids[to]).Err(),
	)
	if err != nil {
		return err
	}
	list, err := source.ClusterGetKeysInSlot(ctx, slot, keys).Result()
	if err != nil || len(list) == 0 {
		return err
	}
	args := []any{"migrate", host, port, "", 0, 5000, "keys"}
	for _, key := range list {
		args = append(args, key)
	}
	return source.Do(ctx, args...).Err()
}

// TestHostNames: in a cluster that prefers host names, with certificates that have no IP,
// a slot moves to a server whose name only CLUSTER NODES tells.
func TestHostNames(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificatesFor(t, t.TempDir(), nil)
	ports, buses := []string{freePort(t), freePort(t)}, []string{freePort(t), freePort(t)}
	args := func(i int) []string {
		return []string{
			"--tls-port", ports[i], "--cluster-port", buses[i], "--tls-cluster", "yes", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
			"--tls-auth-clients", "no", "--cluster-announce-hostname", "localhost",
			"--cluster-preferred-endpoint-type", "hostname", "--cluster-allow-replica-migration", "no",
		}
	}
	_, admin := oneNodeCluster(t, args(0)...)
	second := servertest.Redis(t, append(args(1), "--cluster-enabled", "yes")...)
	other := newClient(t, redis.Options{Addr: second.Addr})
	if err := admin.Do(t.Context(), "cluster", "meet", "127.0.0.1", ports[1], buses[1]).Err(); err != nil {
		t.Fatal(err)
	}
	ids := []string{admin.ClusterMyID(t.Context()).Val(), other.ClusterMyID(t.Context()).Val()}
	until(t, "host name of the second server", func() bool {
		for line := range strings.Lines(admin.ClusterNodes(t.Context()).Val()) {
			if strings.HasPrefix(line, ids[1]) {
				return strings.Contains(line, ",localhost") && strings.Contains(line, " connected")
			}
		}
		return false
	})
	until(t, "state of the second server", func() bool {
		return strings.Contains(other.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	b := openURL(t, "rediss+cluster://localhost:"+ports[0]+"?tls_ca="+ca)
	w := watch(t, b, "")
	slot := slotOf("k")
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		other.Do(t.Context(), "cluster", "setslot", slot, "importing", ids[0]).Err(),
		admin.Do(t.Context(), "cluster", "setslot", slot, "migrating", ids[1]).Err(),
	); err != nil {
		t.Fatal(err)
	}
	for name, op := range operations("k") {
		if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
			t.Errorf("%s while a slot moves = %v", name, err)
		}
	}
	n, _ := w.count()
	if err := b.Set(t.Context(), "{k}2", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set of a key that is redirected = %v", err)
	}
	w.await(t, "event of a key that is redirected", func() bool { return w.told["{k}2"] > n || w.gap > n })
	found := map[string]bool{}
	for info, err := range l2cache.Scan(t.Context(), b, "{k}") {
		if err != nil {
			t.Fatalf("Scan = %v", err)
		}
		found[info.Key] = true
	}
	if !found["{k}2"] {
		t.Errorf("Scan = %v, want {k}2", found)
	}
}
