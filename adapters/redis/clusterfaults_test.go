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

func clusterURL(srv *servertest.Cluster, options string) string {
	return "redis+cluster://" + srv.Addrs() + "?" + options
}

// until polls ok.
func until(t *testing.T, what string, ok func() bool) time.Time {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		if ok() {
			return time.Now()
		}
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// recovered waits until no call has failed for two seconds, and wants none to fail that
// began later than a second after ready; two through a client of go-redis's, which can
// look for a server once a second only.
func recovered(t *testing.T, kind string, l *load, ready time.Time) {
	t.Helper()
	var last time.Time
	until(t, "end of the failures", func() bool {
		_, last = l.failures()
		return time.Since(ready) > 3*time.Second && time.Since(last) > 2*time.Second
	})
	t.Logf("%s: the last call that failed began %v after the new master was ready", kind, last.Sub(ready).Round(time.Millisecond))
	most := time.Second
	if kind == "new" {
		most = 2 * time.Second
	}
	if last.Sub(ready) > most {
		t.Errorf("%s: calls fail that begin %v after the new master is ready, want %v", kind, last.Sub(ready), most)
	}
}

// TestClusterFailover kills a master under load, and later stalls another.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisCluster(t, 1, "--cluster-node-timeout", "2000")
	handles := clusterHandles(t, srv, 3*time.Second)
	w := watch(t, handles["url"], "")
	for i, fault := range []struct {
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
			if err := fault.do(srv.Servers[i]); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			replica := newClient(t, redis.Options{Addr: srv.Servers[3+i].Addr})
			ready := until(t, "failover", func() bool {
				info := replica.ClusterInfo(t.Context()).Val()
				return isMaster(replica) && strings.Contains(info, "cluster_state:ok")
			})
			t.Logf("the replica was master after %v", ready.Sub(begin).Round(time.Millisecond))
			for kind, l := range loads {
				recovered(t, kind, l, ready)
			}
			w.await(t, "Gap", func() bool { return w.gaps > gaps })
			// It comes back as a replica, and no call takes it for what it was.
			back := time.Now()
			if err := errors.Join(fault.undo(srv.Servers[i]), srv.Await()); err != nil {
				t.Fatal(err)
			}
			for kind, l := range loads {
				if _, last := l.failures(); last.After(back) {
					t.Errorf("%s: a call failed after the old master was back", kind)
				}
				t.Log(kind)
				l.report(t)
			}
		})
	}
}

// clusterHandles are a handle of each kind on a cluster.
func clusterHandles(t *testing.T, srv *servertest.Cluster, timeout time.Duration) map[string]l2cache.L2CacheBackend {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(srv.Addrs(), ",")})
	t.Cleanup(func() { client.Close() })
	c, err := New(client, &Options{OpTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return map[string]l2cache.L2CacheBackend{"url": openURL(t, clusterURL(srv, fmt.Sprint("op_timeout=", timeout))), "new": c}
}

func isMaster(client *redis.Client) bool {
	role, err := client.Do(context.Background(), "role").Slice()
	return err == nil && role[0] == "master"
}

// TestClusterReshard moves slots under load, to a server that has none at first, too, and
// wants nothing to be seen of that: no error, no old value, a
// Scan that misses no key, a Watch that misses no change.
func TestClusterReshard(t *testing.T) {
	t.Parallel()
	// Not to make a replica of a master whose last slot has gone.
	args := []string{"--cluster-allow-replica-migration", "no"}
	srv := servertest.RedisCluster(t, 0, args...)
	added, err := srv.Add(args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(srv.Meet(len(srv.Servers)-1), srv.Await()); err != nil {
		t.Fatal(err)
	}
	for kind, b := range clusterHandles(t, srv, 10*time.Second) {
		t.Run(kind, func(t *testing.T) { testReshard(t, srv, added, b) })
	}
}

func testReshard(t *testing.T, srv *servertest.Cluster, added *servertest.Server, b l2cache.L2CacheBackend) {
	const tags = 20
	tag := func(i int) string { return fmt.Sprintf("{%d}", i%tags) }
	stable := map[string]bool{}
	var items []l2cache.Item
	for i := range 2000 {
		key := fmt.Sprintf("stable%s:%d", tag(i), i)
		stable[key] = true
		items = append(items, l2cache.Item{Key: key, Value: []byte("v"), TTL: time.Hour})
	}
	if err := l2cache.SetMany(t.Context(), b, items); err != nil {
		t.Fatal(err)
	}
	w := watch(t, b, "watched")
	l := startLoad(t, b, 4, tag)
	m := newMover(t, srv)
	ctx, cancel := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() {
		defer cancel()
		for _, to := range []string{added.Addr, srv.Servers[0].Addr, added.Addr, srv.Servers[1].Addr} {
			for i := range tags {
				if err := m.move(slotOf(tag(i)), to); err != nil {
					moved <- err
					return
				}
			}
		}
		moved <- nil
	}()
	scans, changes := 0, 0
	for ; ctx.Err() == nil; scans++ {
		missing := make(map[string]bool, len(stable))
		for key := range stable {
			missing[key] = true
		}
		for info, err := range l2cache.Scan(t.Context(), b, "stable") {
			if err != nil {
				t.Fatalf("Scan = %v", err)
			}
			delete(missing, info.Key)
		}
		if len(missing) > 0 {
			t.Errorf("scan %d misses %d of %d keys", scans, len(missing), len(stable))
		}
		for i := range tags {
			key := fmt.Sprintf("watched%s:%d", tag(i), scans)
			n, _ := w.count()
			if err := b.Set(t.Context(), key, nil, time.Minute); err != nil {
				t.Errorf("Set = %v", err)
			}
			w.await(t, "event of "+key, func() bool { return w.told[key] > n || w.gap > n })
			changes++
		}
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	if err := l2cache.DeletePattern(t.Context(), b, "stable*"); err != nil {
		t.Errorf("DeletePattern = %v", err)
	}
	for info, err := range l2cache.Scan(t.Context(), b, "stable") {
		t.Errorf("Scan after DeletePattern = %+v, %v", info, err)
	}
	l.report(t)
	if l.failed+l.lost > 0 {
		t.Errorf("%d calls failed and %d read what was before, want 0", l.failed, l.lost)
	}
	t.Logf("%d slots moved with their keys, %d scans, %d changes watched", 4*tags, scans, changes)
}

// A mover moves slots between masters.
type mover struct {
	clients map[string]*redis.Client // by address
	ids     map[string]string
}

func newMover(t *testing.T, srv *servertest.Cluster) *mover {
	m := &mover{map[string]*redis.Client{}, map[string]string{}}
	for _, s := range srv.Servers {
		m.clients[s.Addr] = newClient(t, redis.Options{Addr: s.Addr})
		id, err := m.clients[s.Addr].ClusterMyID(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		m.ids[s.Addr] = id
	}
	return m
}

// owner returns the address of the master of slot.
func (m *mover) owner(slot int) (string, error) {
	for addr, client := range m.clients {
		list := redis.NewClusterSlotsCmd(context.Background(), "cluster", "slots")
		if err := client.Process(context.Background(), list); err != nil {
			return "", err
		}
		for _, r := range list.Val() {
			if r.Start <= slot && slot <= r.End && r.Nodes[0].Addr == addr { // who has it knows
				return addr, nil
			}
		}
	}
	return "", fmt.Errorf("nobody has slot %d", slot)
}

// move moves slot to the server at an address, ten keys at a time.
func (m *mover) move(slot int, to string) error {
	from, err := m.owner(slot)
	if err != nil || from == to {
		return err
	}
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
	for err == nil {
		var keys []string
		if keys, err = source.ClusterGetKeysInSlot(ctx, slot, 10).Result(); len(keys) == 0 {
			break
		}
		args := []any{"migrate", host, port, "", 0, 5000, "keys"}
		for _, key := range keys {
			args = append(args, key)
		}
		err = source.Do(ctx, args...).Err() // NOKEY if one of the keys was deleted meanwhile
	}
	for _, addr := range []string{to, from} {
		err = errors.Join(err, m.clients[addr].Do(ctx, "cluster", "setslot", slot, "node", m.ids[to]).Err())
	}
	return err
}
