package natskv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

// A failover is a load on a bucket with three replicas, while servers fail. Each of
// its writers has a key, under which it counts: so it is known at each time what a read
// may find.
type failover struct {
	cluster map[string]*servertest.Server
	b       l2cache.L2CacheBackend // with the default op_timeout, a second

	begin time.Time
	stop  chan struct{}
	load  sync.WaitGroup

	mu      sync.Mutex
	results []result                 // guarded by mu; of those after begin
	changed map[string]time.Duration // guarded by mu; when a key was last set, since begin
	told    map[string]time.Duration // guarded by mu; when Watch last told of a key, since begin
	gap     time.Duration            // guarded by mu; when Watch last told of a gap, since begin
}

// A result is how an operation has ended.
type result struct {
	op  string
	at  time.Duration // since begin
	err error
}

const failoverStream = "KV_failover"

// newFailover makes the bucket, and connects to the server that is the leader, or to
// another one.
func newFailover(t *testing.T, toLeader bool) (f *failover, leader *servertest.Server) {
	t.Helper()
	f = &failover{
		cluster: cluster(t), stop: make(chan struct{}),
		changed: map[string]time.Duration{}, told: map[string]time.Duration{},
	}
	ctx := context.Background()
	dial := func(addr string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, "nats://"+addr+"/failover?replicas=3&dial_timeout=20s")
	}
	first, err := dial(f.cluster["n0"].Addr)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	name := ""
	nc := connect(t, f.cluster["n0"])
	await(t, "the stream has a leader", func() bool { name = askLeader(nc, failoverStream); return name != "" })
	for n, srv := range f.cluster {
		if (n == name) != toLeader {
			continue
		}
		// It learns the others' addresses from this one.
		if f.b, err = dial(srv.Addr); err != nil {
			t.Fatal(err)
		}
		break
	}
	t.Cleanup(func() { f.b.Close() })
	return f, f.cluster[name]
}

// observe returns a connection to another server than srv.
func (f *failover) observe(t *testing.T, srv *servertest.Server) *nats.Conn {
	t.Helper()
	for _, other := range f.cluster {
		if other != srv {
			return connect(t, other)
		}
	}
	return nil
}

// run begins the load, which is one and no benchmark: its goroutines pause after each
// operation.
func (f *failover) run(t *testing.T) {
	f.begin = time.Now()
	ctx, stop := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { f.watch(ctx, t) })
	t.Cleanup(func() { stop(); watch.Wait() })
	await(t, "Watch has begun", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.gap > 0
	})
	for w := range 4 {
		key := fmt.Sprint("k", w)
		var c counter
		f.load.Go(func() {
			for n := uint64(1); f.goesOn(); n++ {
				c.tries(n)
				began := time.Since(f.begin)
				err := f.b.Set(context.Background(), key, counted(n), ttlOf(n))
				c.tried(n, err)
				if err == nil {
					f.mu.Lock()
					f.changed[key] = began
					f.mu.Unlock()
				}
				f.ended(t, "Set", err)
			}
		})
		f.load.Go(func() {
			for f.goesOn() {
				least := c.stored.Load()
				e, err := f.b.GetWithTTL(context.Background(), key)
				if err == l2cache.ErrNotFound && least == 0 {
					continue
				}
				f.ended(t, "Get", err)
				if err != nil {
					continue
				}
				n := binary.BigEndian.Uint64(e.Value)
				if !c.may(n, least) || !bytes.Equal(e.Value, counted(n)) {
					t.Errorf("Get(%q) has %d bytes, and begins as the value of Set %d; want that of one from %d, which was acknowledged, to %d",
						key, len(e.Value), n, least, c.last.Load())
				}
				if longest := ttlOf(n); e.TTL > longest || e.TTL < longest-30*time.Minute {
					t.Errorf("Get(%q) has %v left with the value of Set %d, which was set for %v", key, e.TTL, n, longest)
				}
			}
		})
	}
	f.load.Go(func() {
		for f.goesOn() {
			const ttl = 50 * time.Millisecond
			err := f.b.Set(context.Background(), "ends", []byte("v"), ttl)
			end := time.Now().Add(ttl + time.Millisecond)
			f.ended(t, "Set", err)
			for found := true; found && f.goesOn(); {
				begun := time.Now()
				_, err := f.b.Get(context.Background(), "ends")
				if err == nil && begun.After(end) {
					t.Errorf("Get finds an entry %v after its end", begun.Sub(end))
				}
				found = err == nil
			}
		}
	})
}

// watch notes what a Watch tells.
func (f *failover) watch(ctx context.Context, t *testing.T) {
	for event, err := range l2cache.Watch(ctx, f.b, "k") {
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("Watch = %v, want that it goes on", err)
			}
			return
		}
		f.mu.Lock()
		if at := time.Since(f.begin); event.Gap {
			f.gap = at
		} else {
			f.told[event.Key] = at
		}
		f.mu.Unlock()
	}
}

// A counter is what is known of the value under a writer's key.
type counter struct {
	last, stored atomic.Uint64 // the number of the last Set that was called, and that returned nil
	doubtful     sync.Map      // the numbers of those that have failed: they may take effect at any time
}

func (c *counter) tries(n uint64) { c.last.Store(n) }

func (c *counter) tried(n uint64, err error) {
	if err != nil {
		c.doubtful.Store(n, true)
		return
	}
	c.stored.Store(n)
}

// may reports whether a read that began when least was stored may find n.
func (c *counter) may(n, least uint64) bool {
	_, doubtful := c.doubtful.Load(n)
	return n <= c.last.Load() && (n >= least || doubtful)
}

// counted is the value of the n-th Set, ttlOf is its TTL: an odd one's and an even one's
// are half an hour apart, or more.
func counted(n uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, n), bytes.Repeat([]byte{byte(n)}, int(n%1000))...)
}

func ttlOf(n uint64) time.Duration { return time.Duration(1+n%2) * time.Hour }

func (f *failover) goesOn() bool {
	select {
	case <-f.stop:
		return false
	case <-time.After(2 * time.Millisecond):
		return true
	}
}

func (f *failover) ended(t *testing.T, op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results = append(f.results, result{op, time.Since(f.begin), err})
	if err != nil && !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("%s = %v, want nil or %v", op, err, l2cache.ErrUnavailable)
	}
}

// leads waits until the stream has a leader that is not the server at addr, and
// returns how long after the begin that was.
func (f *failover) leads(t *testing.T, nc *nats.Conn, not string) time.Duration {
	t.Helper()
	await(t, "there is another leader", func() bool {
		leader := askLeader(nc, failoverStream)
		return leader != "" && f.cluster[leader].Addr != not
	})
	return time.Since(f.begin)
}

// end lets the load go on for a while, ends it, and checks that reads and writes have
// succeeded within a second after ready; after fault there were errors.
func (f *failover) end(t *testing.T, fault, ready time.Duration) {
	t.Helper()
	_, late := timed(func() { time.Sleep(max(0, ready+2*time.Second-time.Since(f.begin))) })
	close(f.stop)
	f.load.Wait()
	await(t, "Watch has told of the last change of each key, or of a gap after it", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for key, at := range f.changed {
			if f.told[key] < at && f.gap < at {
				return false
			}
		}
		return true
	})
	for _, op := range []string{"Set", "Get"} {
		var firstError, lastError, back time.Duration
		succeeded, failed := 0, 0
		for _, r := range f.results {
			switch {
			case r.op != op || r.at < fault:
			case r.err != nil:
				failed++
				if firstError == 0 {
					firstError = r.at
				}
				lastError = max(lastError, r.at)
			default:
				succeeded++
				if r.at >= ready && (back == 0 || r.at < back) {
					back = r.at
				}
			}
		}
		t.Logf("%s: %d failed, from %v to %v after the fault, %d succeeded; ready %v after it, the first success %v later",
			op, failed, (firstError - fault).Round(time.Millisecond), (lastError - fault).Round(time.Millisecond), succeeded,
			(ready - fault).Round(time.Millisecond), (back - ready).Round(time.Millisecond))
		if back == 0 || back > ready+time.Second+late {
			t.Errorf("%s: the first success comes %v after there is a leader again, want at most 1s (timers were late by %v)", op, back-ready, late)
		}
	}
}

// The server that leads the stream dies, or stalls, under load.
func TestLeaderFails(t *testing.T) {
	for _, test := range []struct {
		name     string
		toLeader bool
		fail     func(*servertest.Server) error
	}{
		{"killed, connected to it", true, (*servertest.Server).Kill},
		{"killed, connected to another", false, (*servertest.Server).Kill},
		{"stopped, connected to it", true, (*servertest.Server).Pause},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, leader := newFailover(t, test.toLeader)
			nc := f.observe(t, leader)
			f.run(t)
			time.Sleep(200 * time.Millisecond) // under load for a while
			fault := time.Since(f.begin)
			if err := test.fail(leader); err != nil {
				t.Fatal(err)
			}
			ready := f.leads(t, nc, leader.Addr)
			// The old leader takes part again, and must not bring anything back.
			if err := errors.Join(leader.Start(), leader.Resume()); err != nil {
				t.Fatal(err)
			}
			f.end(t, fault, ready)
		})
	}
}

// The server that the backend is connected to stalls, while another one leads: no
// election is needed, and the backend goes to another server.
func TestConnectedServerStalls(t *testing.T) {
	t.Parallel()
	f, leader := newFailover(t, false)
	f.run(t)
	await(t, "there is a load", func() bool { return f.b.Ping(context.Background()) == nil })
	connected := f.b.(*natskv.Cache).Conn().ConnectedAddr()
	fault := time.Since(f.begin)
	for _, srv := range f.cluster {
		if srv.Addr == connected && srv != leader {
			if err := srv.Pause(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// One second until a call times out, one without a sign of life.
	f.end(t, fault, fault+2*time.Second)
}

// Of three servers one is left, which can elect nobody; then one comes back.
func TestQuorumIsLost(t *testing.T) {
	t.Parallel()
	f, leader := newFailover(t, false)
	f.run(t)
	await(t, "there is a load", func() bool { return f.b.Ping(context.Background()) == nil })
	connected := f.b.(*natskv.Cache).Conn().ConnectedAddr()
	fault := time.Since(f.begin)
	var nc *nats.Conn
	for _, srv := range f.cluster {
		if srv.Addr == connected {
			nc = connect(t, srv)
		} else if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	lost := time.Since(f.begin)
	awaitErrors := func(op string, n int) {
		await(t, op+" fails", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			failed := 0
			for _, r := range f.results {
				if r.op == op && r.at > lost && r.err != nil {
					failed++
				}
			}
			return failed >= n
		})
	}
	awaitErrors("Set", 8)
	awaitErrors("Get", 8)
	f.mu.Lock()
	for _, r := range f.results {
		if r.at > lost+time.Second && r.err == nil {
			t.Errorf("%s succeeds %v after the quorum was lost", r.op, r.at-lost)
		}
	}
	f.mu.Unlock()
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	f.end(t, fault, f.leads(t, nc, ""))
}

// A backend that nobody calls leaves a leader that stalls before there is another one.
// So what the old one answers, when it goes on and still thinks that it leads, is not
// seen.
func TestStoppedLeaderIsNotAsked(t *testing.T) {
	t.Parallel()
	f, leader := newFailover(t, true)
	b := f.b
	for _, srv := range f.cluster {
		if srv == leader {
			continue
		}
		other, err := l2cache.Open(context.Background(), "nats://"+srv.Addr+"/failover?dial_timeout=20s")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		set(t, other, "k", "old", time.Hour)
		want(t, b, "k", "old")
		if err := leader.Pause(); err != nil {
			t.Fatal(err)
		}
		await(t, "there is another leader", func() bool { return other.Set(context.Background(), "k", []byte("new"), time.Hour) == nil })
		break
	}
	connected := b.(*natskv.Cache).Conn().ConnectedAddr()
	var reads sync.WaitGroup
	for range 20 {
		reads.Go(func() {
			if value, err := b.Get(context.Background(), "k"); err == nil && string(value) != "new" {
				t.Errorf("Get when the old leader goes on = %q, want \"new\" or an error", value)
			}
		})
	}
	if err := leader.Resume(); err != nil {
		t.Fatal(err)
	}
	reads.Wait()
	if connected == leader.Addr {
		t.Errorf("after an election the backend is still connected to the old leader, at %s", connected)
	}
}
