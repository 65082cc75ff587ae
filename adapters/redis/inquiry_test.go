package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// commands returns how many of a command, "cluster|slots" say, servers have been sent.
func commands(t *testing.T, command string, servers ...*servertest.Server) (n int) {
	t.Helper()
	for _, s := range servers {
		client := redis.NewClient(&redis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true})
		info, err := client.Info(t.Context(), "commandstats").Result()
		client.Close()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			if !strings.HasPrefix(line, "cmdstat_"+command+":") {
				continue
			}
			for _, part := range regexp.MustCompile(`[:,](?:calls|rejected_calls)=(\d+)`).FindAllStringSubmatch(line, -1) {
				calls, err := strconv.Atoi(part[1])
				if err != nil {
					t.Fatal(err)
				}
				n += calls
			}
		}
	}
	return n
}

// stableCluster starts one whose servers replace nobody.
func stableCluster(t *testing.T, args ...string) *servertest.Cluster {
	t.Helper()
	return servertest.RedisCluster(t, 0, append([]string{
		"--cluster-node-timeout", "60000", "--cluster-require-full-coverage", "no",
	}, args...)...)
}

// TestClusterStalled has all servers stall: op_timeout bounds each call, and not only the
// first, after which there is doubt about the map.
func TestClusterStalled(t *testing.T) {
	t.Parallel()
	const timeout, slack = time.Second, 500 * time.Millisecond
	srv := stableCluster(t)
	handles := clusterHandles(t, srv, timeout)
	bounded := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(srv.Addrs(), ","), ContextTimeoutEnabled: true})
	t.Cleanup(func() { bounded.Close() })
	c, err := New(bounded, &Options{OpTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	handles["new with ContextTimeoutEnabled"] = c
	for _, b := range handles {
		if err := b.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := srv.Each((*servertest.Server).Pause); err != nil {
		t.Fatal(err)
	}
	defer srv.Each((*servertest.Server).Resume)
	all := slices.Collect(maps.Keys(operations("")))
	// One by one, too, as some ask for the map and some do not.
	for _, names := range [][]string{{"Get"}, {"GetWithTTL"}, {"Set"}, all} {
		var calls sync.WaitGroup
		for kind, b := range handles {
			for _, name := range names {
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					calls.Go(func() {
						best := time.Hour // of those after the first: as in prompt, the machine may be late, too
						for round := range 4 {
							control := make(chan time.Time, 1)
							time.AfterFunc(timeout, func() { control <- time.Now() })
							if err := operations("k")[name](ctx, b); !errors.Is(err, l2cache.ErrUnavailable) {
								t.Errorf("%s: %s number %d = %v, want ErrUnavailable", kind, name, round, err)
							}
							if late := time.Since(<-control); round > 0 {
								best = min(best, late)
							}
						}
						if best > slack {
							t.Errorf("%s: %s came back %v late at best, after op_timeout of %v", kind, name, best, timeout)
						}
					})
				}
			}
		}
		calls.Wait()
	}
}

// TestFailedLoads counts how often a server that has no map is asked for it, and looks how
// soon it is seen that it has one.
func TestFailedLoads(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"url", "new"} {
		t.Run(kind, func(t *testing.T) {
			srv := servertest.Redis(t, "--cluster-enabled", "yes")
			admin := newClient(t, redis.Options{Addr: srv.Addr})
			var b l2cache.L2CacheBackend
			if kind == "url" {
				b = openURL(t, "redis+cluster://"+srv.Addr+"?lazy=true")
			} else {
				client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{srv.Addr}})
				t.Cleanup(func() { client.Close() })
				c, err := New(client, nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				b = c
			}
			begin := time.Now()
			var callers sync.WaitGroup
			var mu sync.Mutex
			var last time.Time // when the last call that failed began
			calls := 0
			for range 8 {
				callers.Go(func() {
					for end := begin.Add(60 * time.Second); ; {
						called := time.Now()
						_, err := b.Get(t.Context(), "k")
						mu.Lock()
						calls++
						if err != l2cache.ErrNotFound && called.After(last) {
							last = called
						}
						mu.Unlock()
						if err == l2cache.ErrNotFound {
							return
						}
						if !errors.Is(err, l2cache.ErrUnavailable) || time.Now().After(end) {
							t.Errorf("Get without a map = %v, want ErrUnavailable", err)
							return
						}
					}
				})
			}
			until(t, "second of calls", func() bool { return time.Since(begin) > time.Second })
			n, took := commands(t, "cluster|slots", srv), time.Since(begin)
			if most := 2 + 2*int(took/setback); n == 0 || n > most {
				t.Errorf("%d CLUSTER SLOTS in %v, want at most %d", n, took, most)
			}
			if err := admin.ClusterAddSlotsRange(t.Context(), 0, slots-1).Err(); err != nil {
				t.Fatal(err)
			}
			ready := until(t, "cluster", func() bool {
				return strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
			})
			callers.Wait()
			t.Logf("%d CLUSTER SLOTS in %v; of %d calls the last that failed began %v after the server was ready", n, took, calls, last.Sub(ready))
			if last.Sub(ready) > time.Second {
				t.Errorf("a call failed that began %v after the server was ready", last.Sub(ready))
			}
		})
	}
}

// TestStalledCandidates opens by many servers that have stalled and one that has not.
func TestStalledCandidates(t *testing.T) {
	t.Parallel()
	node, _ := oneNodeCluster(t)
	hosts := node.Addr
	for range 5 {
		s := servertest.Redis(t)
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		hosts = s.Addr + "," + hosts
	}
	for range 12 { // they are asked in any order
		b := openURL(t, "redis+cluster://"+hosts+"?lazy=true&op_timeout=2s")
		begin := time.Now()
		if err := b.Set(t.Context(), "k", nil, time.Minute); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Set = %v after %v, want nil after a moment", err, time.Since(begin))
		}
	}
}

// TestBatchAsksOnce: for a batch, whose keys a dead master has, the others are asked for
// the map once and not for each key.
func TestBatchAsksOnce(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t)
	for kind, b := range clusterHandles(t, srv, 4*time.Second) {
		t.Run(kind, func(t *testing.T) {
			var items []l2cache.Item
			for i := range 900 {
				items = append(items, l2cache.Item{Key: fmt.Sprint(kind, i), TTL: time.Hour})
			}
			if err := l2cache.SetMany(t.Context(), b, items); err != nil {
				t.Fatal(err)
			}
			srv.Servers[0].Kill()
			before := commands(t, "cluster|slots", srv.Servers[1:]...)
			begin := time.Now()
			err := l2cache.SetMany(t.Context(), b, items)
			took := time.Since(begin)
			n := commands(t, "cluster|slots", srv.Servers[1:]...) - before
			var failed l2cache.KeyErrors
			if !errors.As(err, &failed) || len(failed) < 200 || len(failed) > 400 {
				t.Errorf("SetMany = %v, want errors of a third of the keys", err)
			}
			t.Logf("%d CLUSTER SLOTS in %v", n, took)
			if n > 2+int(took/mapAge) || n > 20 {
				t.Errorf("%d CLUSTER SLOTS for a batch that took %v", n, took)
			}
			if err := errors.Join(srv.Servers[0].Start(), srv.Await()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBatchKeepsWhatItHas: what a batch has of the masters that answer is not lost, though
// it takes longer than op_timeout to find out that nobody has taken the dead one's place.
func TestBatchKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	srv := stableCluster(t)
	for kind, b := range clusterHandles(t, srv, time.Second) {
		t.Run(kind, func(t *testing.T) {
			var items []l2cache.Item
			var keys []string
			for i := range 30 {
				keys = append(keys, fmt.Sprint(kind, i))
				items = append(items, l2cache.Item{Key: keys[i], TTL: time.Hour})
			}
			if err := l2cache.SetMany(t.Context(), b, items); err != nil {
				t.Fatal(err)
			}
			srv.Servers[0].Kill()
			for range 5 {
				entries, err := l2cache.GetMany(t.Context(), b, keys)
				var failed l2cache.KeyErrors
				errors.As(err, &failed)
				for _, key := range keys {
					_, ok := entries[key]
					if down := slotOf(key) < slots/3; ok == down || down != errors.Is(failed[key], l2cache.ErrUnavailable) {
						t.Errorf("GetMany: %q = %v, %v; want it to be read: %v", key, ok, failed[key], !down)
					}
				}
			}
			if err := errors.Join(srv.Servers[0].Start(), srv.Await()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSentinelsAskedOnce: for a batch that a replica refuses, the sentinels are asked once.
func TestSentinelsAskedOnce(t *testing.T) {
	t.Parallel()
	srv := servertest.RedisSentinel(t, time.Minute)
	b := openURL(t, sentinelURL(srv, "op_timeout=4s"))
	var items []l2cache.Item
	for i := range 300 {
		items = append(items, l2cache.Item{Key: fmt.Sprint(i), TTL: time.Hour})
	}
	if err := l2cache.SetMany(t.Context(), b, items); err != nil {
		t.Fatal(err)
	}
	processed := func() (n int) { // of any commands: sentinels have no statistics of each
		for _, s := range srv.Sentinels {
			client := newClient(t, redis.Options{Addr: s.Addr, Protocol: 2})
			info, err := client.Info(t.Context(), "stats").Result()
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(info) {
				if number, ok := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); ok {
					of, err := strconv.Atoi(number)
					if err != nil {
						t.Fatal(err)
					}
					n += of
				}
			}
		}
		return n
	}
	before, begin := processed(), time.Now()
	admin := newClient(t, redis.Options{Addr: srv.Servers[0].Addr})
	host, port, _ := strings.Cut(srv.Servers[1].Addr, ":")
	if err := admin.Do(t.Context(), "replicaof", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	err := l2cache.SetMany(t.Context(), b, items)
	if !redis.IsReadOnlyError(err) || !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("SetMany to a replica = %v, want READONLY", err)
	}
	n := processed() - before
	t.Logf("%d commands to %d sentinels in %v", n, len(srv.Sentinels), time.Since(begin))
	// There are two to each that is asked, and what sentinels and this test say.
	if most := len(items) / 3 * (1 + int(time.Since(begin)/time.Second)); n == 0 || n > most {
		t.Errorf("%d commands to sentinels for a batch, want at most %d", n, most)
	}

	// All that was refused since another master was named is done again.
	s := b.(*Cache).servers.(*sentinels)
	refusal := serverError([]byte("READONLY You can't write against a read only replica."))
	begun := time.Now()
	s.learn("127.0.0.1:1")
	for range 3 {
		if n, _ := s.instead(t.Context(), begun, time.Now().Add(time.Second), s.node, "", refusal); n == nil {
			t.Error("a call that was refused since another master was named is not done again")
		}
	}
}
