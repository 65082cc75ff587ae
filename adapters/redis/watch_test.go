package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// A watching is a loop over Watch that goes on beside a test. It keeps of each key
// when it was told last.
type watching struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu   sync.Mutex
	n    int            // events so far; guarded by mu
	gaps int            // guarded by mu
	gap  int            // number of the last Gap; guarded by mu
	told map[string]int // number of the last event of a key; guarded by mu
	last error          // guarded by mu
}

// watch begins to watch, and waits for the first event.
func watch(t *testing.T, b l2cache.L2CacheBackend, prefix string) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{cancel: cancel, ended: make(chan struct{}), told: map[string]int{}}
	go func() {
		defer close(w.ended)
		for event, err := range l2cache.Watch(ctx, b, prefix) {
			w.mu.Lock()
			w.n++
			switch {
			case err != nil:
				w.last = err
			case event.Gap:
				w.gaps++
				w.gap = w.n
			default:
				w.told[event.Key] = w.n
			}
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-w.ended
	})
	w.await(t, "the first Gap", func() bool { return w.gaps == 1 && w.n == 1 })
	return w
}

// await polls ok, under the lock.
func (w *watching) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		if ok() {
			w.mu.Unlock()
			return
		}
		n, gaps, last := w.n, w.gaps, w.last
		w.mu.Unlock()
		if time.Now().After(end) || last != nil {
			t.Fatalf("no %s after %d events, %d of them Gaps, the last error %v", what, n, gaps, last)
		}
	}
}

// count returns how many events and Gaps have come.
func (w *watching) count() (n, gaps int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.gaps
}

// TestWatchGaps has what makes a Gap happen, and a change after it.
func TestWatchGaps(t *testing.T) {
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	for name, open := range handles(srv.Addr, time.Second) {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			w := watch(t, b, "k")
			for _, test := range []struct {
				name string
				do   func() error
			}{
				{"flush", func() error { return admin.FlushAll(t.Context()).Err() }},
				{"killed connection", func() error {
					return admin.ClientKillByFilter(t.Context(), "type", "normal", "skipme", "yes").Err()
				}},
				{"restart", func() error { return errors.Join(srv.Kill(), srv.Start()) }},
				{"stalled server", func() error {
					// It has to be noticed, for the connection stays open.
					srv.Pause()
					time.Sleep(silence + 2*time.Second)
					return srv.Resume()
				}},
			} {
				_, gaps := w.count()
				if err := test.do(); err != nil {
					t.Fatal(err)
				}
				w.await(t, "Gap after a "+test.name, func() bool { return w.gaps > gaps })
				n, _ := w.count()
				if err := admin.Set(t.Context(), "k "+test.name, "", 0).Err(); err != nil {
					t.Fatal(err)
				}
				w.await(t, "event after a "+test.name, func() bool { return w.told["k "+test.name] > n })
			}
		})
	}
}

// TestWatchSilence: a link that has nothing to tell for long is not lost.
func TestWatchSilence(t *testing.T) {
	b := openURL(t, "redis://"+server(t).Addr)
	w := watch(t, b, "silence")
	time.Sleep(silence + 500*time.Millisecond) // there is a PING after silence
	if err := b.Set(t.Context(), "silence", nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	w.await(t, "event", func() bool { return w.told["silence"] > 0 })
	if n, gaps := w.count(); gaps != 1 {
		t.Errorf("%d Gaps in %d events, want the first alone", gaps, n)
	}
}

// TestWatchHundredThousand wants an event or a Gap after the last change of each key,
// while connections are lost and the server is restarted.
func TestWatchHundredThousand(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr+"?op_timeout=10s")
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	w := watch(t, b, "w")
	const writers, changes, keys = 8, 100_000, 5000
	last := make([]map[string]int, writers) // how many events had come before the last change of a key
	var done atomic.Int64
	var all sync.WaitGroup
	for i := range writers {
		last[i] = map[string]int{}
		all.Go(func() {
			for range changes / writers {
				key := fmt.Sprintf("w%d.%d", i, rand.IntN(keys/writers))
				before, _ := w.count()
				if b.Set(t.Context(), key, nil, time.Hour) == nil { // else it is in doubt
					last[i][key] = before
				}
				done.Add(1)
			}
		})
	}
	for i, at := range []int64{20_000, 40_000, 60_000, 80_000} {
		for done.Load() < at {
			runtime.Gosched()
		}
		if i%2 == 0 {
			admin.ClientKillByFilter(t.Context(), "type", "normal", "skipme", "yes")
		} else if err := errors.Join(srv.Kill(), srv.Start()); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	for i := range last {
		for key, before := range last[i] {
			w.await(t, "event of "+key+" after its last change", func() bool { return w.told[key] > before || w.gap > before })
		}
	}
	n, gaps := w.count()
	if gaps < 5 {
		t.Errorf("%d Gaps, want 5: the first, and one for each time that the connection was lost", gaps)
	}
	t.Logf("%d changes, %d events, %d Gaps", changes, n, gaps)
}

// tracking is what CLIENT LIST says of a link.
const tracking = "flags=tB"

// TestWatchEnds leaves loops in all ways, and looks for what stays behind.
func TestWatchEnds(t *testing.T) {
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	for name, open := range handles(srv.Addr, time.Second) {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			if err := b.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := goroutines()
			for range 10 {
				for _, err := range l2cache.Watch(t.Context(), b, "") {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				w := watch(t, b, "")
				if list := admin.ClientList(t.Context()).Val(); !strings.Contains(list, tracking) {
					t.Fatalf("no link beside the loop:\n%s", list)
				}
				w.cancel()
				<-w.ended
				if !errors.Is(w.last, context.Canceled) {
					t.Errorf("Watch whose ctx ended = %v", w.last)
				}
			}
			for deadline := time.Now().Add(5 * time.Second); goroutines() > before; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("goroutines after the loops:\n%s", stacks())
				}
			}
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				list, err := admin.ClientList(t.Context()).Result()
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(list, tracking) {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("links after the loops:\n%s", list)
				}
			}

			var last error
			for _, err := range l2cache.Watch(t.Context(), b, "") {
				if last = err; err == nil {
					b.Close()
				}
			}
			if !errors.Is(last, l2cache.ErrClosed) {
				t.Errorf("Watch that closes the handle = %v, want ErrClosed", last)
			}
		})
	}
}

// TestWatchRefused takes a user's permission away while it watches.
func TestWatchRefused(t *testing.T) {
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	if err := admin.Do(t.Context(), "acl", "setuser", "watcher", "on", ">secret", "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	credentials := func() (string, string) { return "watcher", "secret" }
	client := newClient(t, redis.Options{Addr: srv.Addr, CredentialsProvider: credentials})
	for name, b := range map[string]l2cache.L2CacheBackend{
		"url": openURL(t, "redis://watcher:secret@"+srv.Addr),
		"new": newCache(t, client, nil),
	} {
		if err := admin.Do(t.Context(), "acl", "setuser", "watcher", "+@all").Err(); err != nil {
			t.Fatal(err)
		}
		w := watch(t, b, "")
		if err := admin.Do(t.Context(), "acl", "setuser", "watcher", "-client|tracking").Err(); err != nil {
			t.Fatal(err)
		}
		admin.ClientKillByFilter(t.Context(), "user", "watcher")
		select {
		case <-w.ended:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: Watch goes on without permission", name)
		}
		if !redis.IsPermissionError(w.last) || !errors.Is(w.last, l2cache.ErrUnavailable) {
			t.Errorf("%s: Watch without permission = %v, want NOPERM", name, w.last)
		}
	}
}

// TestDecodeInvalidations cuts what comes over a link in all places.
func TestDecodeInvalidations(t *testing.T) {
	const pushes = "+OK\r\n>2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$3\r\nb\r\n\r\n+PONG\r\n" +
		">2\r\n$10\r\ninvalidate\r\n*3\r\n$0\r\n\r\n$1\r\nc\r\n$1\r\na\r\n"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for cut := range len(pushes) {
		var hub l2cache.Hub
		var got []string
		tracking := 0
		for event, err := range hub.Watch(ctx, name, "", nil) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, event.Key); len(got) == 4 {
				break
			}
			if !event.Gap {
				continue
			}
			i := newInvalidations(&hub, func() { tracking++ })
			for _, part := range []string{pushes[:cut], pushes[cut:]} {
				if n, err := io.WriteString(i, part); n != len(part) || err != nil {
					t.Fatalf("Write of the part at %d = %d, %v", cut, n, err)
				}
			}
		}
		if fmt.Sprintf("%q", got) != `["" "a" "b\r\n" "c"]` || tracking != 1 {
			t.Fatalf("cut at %d: events %q, tracking begun %d times; want a Gap, a, b and c, once", cut, got, tracking)
		}
	}
	for _, bad := range []string{"-NOPERM no\r\n", ":1\r\n", "+OK\r\n>3\r\n", "+OK\r\n>2\r\n$7\r\nmessage\r\n", "+OK\r\n>2\r\n$10\r\ninvalidate\r\n:1\r\n", "+OK\r\n$1\r\na\r\n"} {
		if _, err := io.WriteString(newInvalidations(new(l2cache.Hub), func() {}), bad); err == nil {
			t.Errorf("Write(%q) = nil, want an error", bad)
		}
	}
}
