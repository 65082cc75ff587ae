package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

// A watching is a loop over Watch in a goroutine of its own.
type watching struct {
	stop  context.CancelFunc
	ended chan error // has the error that came last

	mu     sync.Mutex
	n      int            // guarded by mu; events so far
	gaps   int            // guarded by mu
	gap    int            // guarded by mu; number of the last Gap
	latest map[string]int // guarded by mu; number of the last event of a key
}

// watch returns when the first event has come.
func watch(t testing.TB, b l2cache.L2CacheBackend, prefix string) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{stop: cancel, ended: make(chan error, 1), latest: map[string]int{}}
	go func() {
		var last error
		for event, err := range l2cache.Watch(ctx, b, prefix) {
			if last = err; err != nil {
				continue
			}
			w.mu.Lock()
			w.n++
			if event.Gap {
				w.gap = w.n
				w.gaps++
			}
			w.latest[event.Key] = w.n
			w.mu.Unlock()
		}
		w.ended <- last
	}()
	t.Cleanup(cancel)
	await(t, "there is a first event", func() bool { return w.count() > 0 })
	return w
}

func (w *watching) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *watching) countGaps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gaps
}

// has reports whether there was an event of key, or a Gap, after number n.
func (w *watching) has(key string, n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest[key] > n || w.gap > n
}

// wantSeen makes a change, and waits for its event or a Gap.
func (w *watching) wantSeen(t testing.TB, key string, change func()) {
	t.Helper()
	n := w.count()
	change()
	await(t, "there is an event of "+key, func() bool { return w.has(key, n) })
}

// Of many changes, the last of each key is told, whatever happens to the connection.
func TestWatchLosesNothing(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	t.Run("run", func(t *testing.T) {
		srv := servertest.NATS(t)
		b, writer := open(t, srv, "watched"), open(t, srv, "watched")
		s := stream(t, srv, "watched")
		before := state(t, s).Consumers
		w := watch(t, b, "k")
		faults := []func() error{
			b.(*natskv.Cache).Conn().ForceReconnect,
			func() error { return errors.Join(srv.Kill(), srv.Start()) },
			func() error { return errors.Join(srv.Pause(), srv.Resume()) },
			func() error { return nil },
		}
		const writers, keys, rounds = 8, 500, 7
		last := make([]map[string]int, writers) // events that there were before the last change
		for i, fault := range faults {
			var wg sync.WaitGroup
			for wr := range writers {
				last[wr] = map[string]int{}
				wg.Go(func() {
					for round := range rounds {
						for k := range keys {
							key := fmt.Sprintf("k%d.%d", wr, k)
							for {
								last[wr][key] = w.count()
								err := error(nil)
								if (round+k)%4 == 0 {
									err = writer.Delete(context.Background(), key)
								} else {
									err = writer.Set(context.Background(), key, []byte("v"), time.Hour)
								}
								if err == nil {
									break
								}
								time.Sleep(10 * time.Millisecond) // the server is down
							}
						}
					}
				})
			}
			gaps := w.countGaps()
			if err := fault(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			for wr := range writers {
				for key, n := range last[wr] {
					await(t, fmt.Sprintf("after fault %d, there is an event of %s or a Gap after its last change", i, key), func() bool { return w.has(key, n) })
				}
			}
			t.Logf("fault %d: %d changes, %d Gaps, %d events so far", i, writers*keys*rounds, w.countGaps()-gaps, w.count())
		}
		w.stop()
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ends with %v, want %v", err, context.Canceled)
		}
		await(t, "the consumers are gone", func() bool { return state(t, s).Consumers == before })
	})
	await(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func TestWatchGoesOn(t *testing.T) {
	both(t, func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
		w := watch(t, b, "")
		s := stream(t, srv, "b")
		wantGap := func(what string, f func()) {
			t.Helper()
			gaps := w.countGaps()
			f()
			await(t, "there is a Gap after "+what, func() bool { return w.countGaps() > gaps })
			w.wantSeen(t, "k", func() { set(t, b, "k", "v", time.Hour) })
		}
		wantGap("a restart", func() {
			gaps := w.countGaps()
			if err := errors.Join(srv.Kill(), srv.Start()); err != nil {
				t.Fatal(err)
			}
			within(t, "a Gap after a restart", 0, time.Second, func() {
				await(t, "there is a Gap", func() bool { return w.countGaps() > gaps })
			})
			await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
		})
		wantGap("somebody has removed the consumer", func() {
			names := s.ConsumerNames(context.Background())
			for name := range names.Name() {
				if err := s.DeleteConsumer(context.Background(), name); err != nil {
					t.Fatal(err)
				}
			}
		})
		wantGap("somebody has removed the bucket", func() {
			if err := jetStream(t, connect(t, srv)).DeleteStream(context.Background(), "KV_b"); err != nil {
				t.Fatal(err)
			}
			await(t, "there is a bucket again", func() bool { return b.Ping(context.Background()) == nil })
		})

		// What ends it does not wait for the server.
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
		within(t, "the end of Watch at a stalled server", 0, 50*time.Millisecond, func() {
			w.stop()
			if err := <-w.ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ends with %v, want %v", err, context.Canceled)
			}
		})
		if err := srv.Resume(); err != nil {
			t.Fatal(err)
		}
	})
}

// A request for changes ends after two seconds, and another takes its place.
func TestWatchWhileNothingHappens(t *testing.T) {
	srv := servertest.NATS(t)
	b := open(t, srv, "quiet", "storage=memory")
	s := stream(t, srv, "quiet")
	w := watch(t, b, "user:")
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		consumers := 0
		list := s.ListConsumers(context.Background())
		for info := range list.Info() {
			if consumers++; info.NumWaiting > 1 {
				t.Errorf("the consumer has %d requests, want 1", info.NumWaiting)
			}
		}
		if consumers != 1 {
			t.Fatalf("there are %d consumers, want 1", consumers)
		}
	}
	w.wantSeen(t, "user:1", func() { set(t, b, "user:1", "v", time.Hour) })
	w.wantSeen(t, "user:1", func() { del(t, b, "user:1") })
}

// A Watch that begins while the cluster has no leader, who creates consumers, waits.
func TestWatchBeginsInAnElection(t *testing.T) {
	t.Parallel()
	servers := cluster(t)
	ctx := context.Background()
	elections := 0
	for name, srv := range servers {
		var other *servertest.Server
		for _, s := range servers {
			if s != srv {
				other = s
			}
		}
		nc := connect(t, other)
		var b l2cache.L2CacheBackend
		await(t, "the cluster has a leader, and a bucket", func() bool {
			var err error
			b, err = l2cache.Open(ctx, "nats://"+other.Addr+"/election?replicas=3&op_timeout=1m")
			return err == nil
		})
		defer b.Close()
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		if !askMeta(nc) { // it was the leader
			elections++
			for event, err := range l2cache.Watch(ctx, b, "k") {
				if err != nil || !event.Gap {
					t.Errorf("Watch that begins after the death of %s yields %+v, %v first, want a Gap", name, event, err)
				}
				break
			}
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the cluster has leaders", func() bool { return askMeta(nc) && askLeader(nc, "KV_election") != "" })
	}
	if elections == 0 {
		t.Error("none of three servers was the leader")
	}
}

// A bucket that is full has no room for a marker until the entry is gone.
func TestWatchOfAFullBucket(t *testing.T) {
	srv := servertest.NATS(t)
	b := open(t, srv, "full", "storage=memory")
	s := stream(t, srv, "full")
	config := s.CachedInfo().Config
	config.MaxBytes = 1 << 20
	if _, err := jetStream(t, connect(t, srv)).UpdateStream(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 1000)
	keys := 0
	for size := len(value); size > 0; {
		err := b.Set(context.Background(), fmt.Sprint("k", keys), value[:size], time.Hour)
		switch {
		case errors.Is(err, l2cache.ErrFull):
			size /= 2
		case err != nil:
			t.Fatal(err)
		default:
			keys++
		}
	}
	w := watch(t, b, "")
	w.wantSeen(t, "k0", func() { del(t, b, "k0") })
	w.wantSeen(t, "k1", func() {
		if err := l2cache.DeleteMany(context.Background(), b, []string{"k1"}); err != nil {
			t.Fatal(err)
		}
	})
	wantMiss(t, b, "k0")
	wantMiss(t, b, "k1")
}
