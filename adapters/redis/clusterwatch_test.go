package redis

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache/internal/servertest"
)

// TestWatchBesideADeadMaster: a Watch finds a master that is new while another is dead.
func TestWatchBesideADeadMaster(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t)
	handles := clusterHandles(t, srv, time.Second)
	watches := map[string]*watching{}
	for kind, b := range handles {
		watches[kind] = watch(t, b, "")
	}
	added, err := srv.Add("--cluster-require-full-coverage", "no")
	if err != nil {
		t.Fatal(err)
	}
	dead := srv.Servers[0]
	dead.Kill()
	m := newMover(t, &servertest.Cluster{Servers: srv.Servers[1:]})
	if err := srv.Meet(len(srv.Servers) - 1); err != nil {
		t.Fatal(err)
	}
	until(t, "cluster that knows the new server", func() bool {
		known := 0
		for addr, client := range m.clients {
			for _, other := range parseNodes(client.ClusterNodes(t.Context()).Val(), addr) {
				if m.ids[other.addr] == other.id && (len(other.slots) > 0) == (other.addr != added.Addr) {
					known++
				}
			}
		}
		return known == len(m.clients)*len(m.clients)
	})
	const key = "{a}" // not the dead one's
	if slotOf(key) < slots/3 {
		t.Fatal("the key is the dead server's")
	}
	if err := m.move(slotOf(key), added.Addr); err != nil {
		t.Fatal(err)
	}
	until(t, "state of the new master", func() bool {
		return strings.Contains(m.clients[added.Addr].ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	for kind, b := range handles {
		before := map[*watching]int{}
		for _, w := range watches {
			before[w], _ = w.count()
		}
		if err := b.Set(t.Context(), key, nil, time.Minute); err != nil {
			t.Fatalf("%s: Set = %v", kind, err)
		}
		for kind, w := range watches {
			// If the link is made later there is a Gap.
			w.await(t, kind+": event of a key of the new master", func() bool { return w.told[key] > before[w] || w.gap > before[w] })
		}
	}
}

// TestWatchesShareAPoll counts what many loops ask the servers of a cluster.
func TestWatchesShareAPoll(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t)
	for kind, b := range clusterHandles(t, srv, 4*time.Second) {
		t.Run(kind, func(t *testing.T) {
			count := func() int {
				return commands(t, "cluster|nodes", srv.Servers...) + commands(t, "cluster|slots", srv.Servers...)
			}
			for range 10 {
				watch(t, b, "")
			}
			before, begin := count(), time.Now()
			until(t, "end of three seconds", func() bool { return time.Since(begin) > 3*time.Second })
			n, took := count()-before, time.Since(begin)
			t.Logf("%d questions in %v", n, took)
			// For a caller's client there is the map, too, which that has to have.
			if most := 2 * (1 + int(took/(lookout*3/4))); n == 0 || n > most {
				t.Errorf("10 loops ask %d times in %v, want at most %d", n, took, most)
			}
		})
	}
}

// TestWatchBesideAStranger: a server joins the cluster that refuses the user.
func TestWatchBesideAStranger(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t)
	b := openURL(t, clusterURL(srv, ""))
	w := watch(t, b, "")
	if _, err := srv.Add("--requirepass", "secret", "--masterauth", "secret"); err != nil {
		t.Fatal(err)
	}
	stranger := newClient(t, redis.Options{Addr: srv.Servers[3].Addr, Password: "secret"})
	if err := srv.Meet(3); err != nil {
		t.Fatal(err)
	}
	// One refusal is that of the start of the server. The Watch has gone on after the next.
	until(t, "refusals", func() bool {
		stats := stranger.Info(t.Context(), "commandstats").Val()
		return regexp.MustCompile(`cmdstat_ping:.*rejected_calls=([4-9]|\d\d)`).MatchString(stats)
	})
	if err := b.Set(t.Context(), "k", nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.await(t, "event", func() bool { return w.told["k"] > 0 })
}
