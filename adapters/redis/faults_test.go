package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// prompt has op begin and end a call that is to return when patience has passed, and
// wants it to in one of five attempts: no more than slack later than a timer for the
// same time, whose lateness is the machine's. A machine that is busy can still take
// the CPU from the one and not from the other.
func prompt(t *testing.T, what string, patience, slack time.Duration, op func(due time.Time) error, want ...error) {
	t.Helper()
	var best time.Duration
	for attempt := range 5 {
		due := time.Now().Add(patience)
		control := make(chan time.Time, 1)
		time.AfterFunc(patience, func() { control <- time.Now() })
		err := op(due)
		late := time.Since(<-control)
		for _, want := range want {
			if !errors.Is(err, want) {
				t.Errorf("%s = %v, want %v", what, err, want)
				return
			}
		}
		for _, other := range []error{context.Canceled, context.DeadlineExceeded, l2cache.ErrUnavailable, l2cache.ErrNotFound} {
			if errors.Is(err, other) && !slices.Contains(want, other) {
				t.Errorf("%s = %v, want it not to be %v", what, err, other)
				return
			}
		}
		if attempt == 0 || late < best {
			best = late
		}
		if best <= slack {
			return
		}
	}
	t.Errorf("%s came back %v late at best, want %v", what, best, slack)
}

// TestStalled stops the server and ends each call by deadline, by cancelling and by
// the operation timeout.
func TestStalled(t *testing.T) {
	const patience, slack = 100 * time.Millisecond, 50 * time.Millisecond
	srv := servertest.Redis(t)
	long, short := handles(srv.Addr, 10*time.Second), handles(srv.Addr, patience)
	for kind := range long {
		t.Run(kind, func(t *testing.T) {
			patient, impatient := long[kind](t), short[kind](t)
			if err := errors.Join(patient.Ping(t.Context()), impatient.Ping(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := srv.Pause(); err != nil {
				t.Fatal(err)
			}
			defer srv.Resume()
			for name, op := range operations("k") {
				prompt(t, name+" with a deadline", patience, slack, func(due time.Time) error {
					ctx, cancel := context.WithDeadline(t.Context(), due)
					defer cancel()
					return op(ctx, patient)
				}, context.DeadlineExceeded)
				prompt(t, name+" cancelled", patience, slack, func(due time.Time) error {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					defer time.AfterFunc(time.Until(due), cancel).Stop()
					return op(ctx, patient)
				}, context.Canceled)
				prompt(t, name+" by its own timeout", patience, slack, func(time.Time) error {
					return op(context.Background(), impatient)
				}, l2cache.ErrUnavailable)
				prompt(t, name+" by its own timeout, with a ctx", patience, slack, func(time.Time) error {
					return op(t.Context(), impatient)
				}, l2cache.ErrUnavailable)
			}
			srv.Resume()
			for name, op := range operations("k") {
				if err := op(t.Context(), patient); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
					t.Errorf("%s after Resume = %v", name, err)
				}
			}
		})
	}
}

// TestRefused looks how soon a handle sees that the server is down, and up again
// after more failures than it has connections.
func TestRefused(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr+"?pool_size=3")
	for round := range 2 {
		srv.Kill()
		for range 5 {
			for name, op := range operations("k") {
				prompt(t, name+" without a server", 0, 100*time.Millisecond, func(time.Time) error {
					return op(t.Context(), b)
				}, l2cache.ErrUnavailable)
			}
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		for name, op := range operations("k") {
			if err := op(t.Context(), b); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
				t.Errorf("%s after restart %d = %v", name, round, err)
			}
		}
	}
}

// TestRestartWithIdleConnections has each of many connections go stale.
func TestRestartWithIdleConnections(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr)
	var calls sync.WaitGroup
	for i := range 16 {
		calls.Go(func() {
			for range 50 {
				b.Set(t.Context(), fmt.Sprint(i), []byte("v"), time.Minute)
			}
		})
	}
	calls.Wait()
	srv.Kill()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		calls.Go(func() {
			if err := b.Set(t.Context(), fmt.Sprint(i), []byte("v"), time.Minute); err != nil {
				t.Errorf("Set after a restart = %v", err)
			}
		})
	}
	calls.Wait()
}

// TestSentOnce times writes out and counts what the server gets.
func TestSentOnce(t *testing.T) {
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	writes := map[string]string{ // the command of each
		"Set": "set", "Delete": "del", "Touch": "pexpire", "Touch NoExpiry": "persist", "Add": "set", "DeleteMany": "unlink",
	}
	for name, open := range handles(srv.Addr, 300*time.Millisecond) {
		for write, command := range writes {
			t.Run(name+"/"+write, func(t *testing.T) {
				b := open(t)
				connect(t, func() error { return operations("once")[write](t.Context(), b) })
				if err := admin.ConfigResetStat(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				srv.Pause()
				err := operations("once")[write](t.Context(), b)
				b.Close() // waits for what could send it again
				srv.Resume()
				if !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s = %v, want ErrUnavailable", write, err)
				}
				// INFO can overtake it.
				var info string
				for range 100 {
					info, err = admin.Info(t.Context(), "commandstats").Result()
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(info, "cmdstat_"+command+":") {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				if !strings.Contains(info, "cmdstat_"+command+":calls=1,") {
					t.Errorf("INFO commandstats = %s; want one %s", info, command)
				}
			})
		}
	}
}

// connect has op, whose time is short, succeed.
func connect(t *testing.T, op func() error) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		err := op()
		if err == nil || errors.Is(err, l2cache.ErrNotFound) {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestOutOfMemory: reads, by MULTI no more, go on and writes are refused.
func TestOutOfMemory(t *testing.T) {
	srv := servertest.Redis(t, "--maxmemory-policy", "noeviction")
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	for name, open := range handles(srv.Addr, time.Second) {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			if err := b.Set(t.Context(), "old", []byte("v"), time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
				t.Fatal(err)
			}
			defer admin.ConfigSet(t.Context(), "maxmemory", "0")
			for _, key := range []string{"old", "new"} {
				if err := b.Set(t.Context(), key, []byte("w"), time.Minute); !errors.Is(err, l2cache.ErrFull) {
					t.Errorf("Set(%q) = %v, want ErrFull", key, err)
				}
			}
			if added, err := l2cache.Add(t.Context(), b, "new", nil, time.Minute); added || !errors.Is(err, l2cache.ErrFull) {
				t.Errorf("Add = %v, %v; want ErrFull", added, err)
			}
			err := l2cache.SetMany(t.Context(), b, []l2cache.Item{{Key: "old", TTL: time.Minute}, {Key: "new", TTL: time.Minute}})
			var failed l2cache.KeyErrors
			if !errors.As(err, &failed) || len(failed) != 2 || !errors.Is(failed["old"], l2cache.ErrFull) || !errors.Is(failed["new"], l2cache.ErrFull) {
				t.Errorf("SetMany = %v, want ErrFull for each key", err)
			}
			if got, err := l2cache.GetMany(t.Context(), b, []string{"old", "new"}); len(got) != 1 || string(got["old"].Value) != "v" || err != nil {
				t.Errorf("GetMany = %v, %v; want old: v", got, err)
			}
			var calls sync.WaitGroup
			for range 50 {
				calls.Go(func() {
					e, err := b.GetWithTTL(t.Context(), "old")
					if string(e.Value) != "v" || e.TTL < 50*time.Second || e.TTL > time.Minute || err != nil {
						t.Errorf("GetWithTTL = %q, %v, %v; want v, 1m", e.Value, e.TTL, err)
					}
				})
				calls.Go(func() {
					if _, err := b.GetWithTTL(t.Context(), "new"); err != l2cache.ErrNotFound {
						t.Errorf("GetWithTTL of what is missing = %v, want ErrNotFound", err)
					}
				})
				calls.Go(func() {
					if v, err := b.Get(t.Context(), "old"); string(v) != "v" || err != nil {
						t.Errorf("Get = %q, %v; want v", v, err)
					}
				})
			}
			calls.Wait()
			if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := b.GetWithTTL(t.Context(), "old"); err != nil {
				t.Errorf("GetWithTTL after SCRIPT FLUSH = %v", err)
			}
			if err := b.Delete(t.Context(), "old"); err != nil {
				t.Errorf("Delete = %v", err)
			}
		})
	}
}

// TestBusyPool has calls wait for the only connection.
func TestBusyPool(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr+"?pool_size=1&op_timeout=10s")
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() {
			if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
				t.Errorf("Set = %v", err)
			}
			if _, err := b.GetWithTTL(t.Context(), "k"); err != nil {
				t.Errorf("GetWithTTL = %v", err)
			}
		})
	}
	calls.Wait()

	srv.Pause()
	defer srv.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	calls.Go(func() { b.Set(ctx, "k", []byte("v"), time.Minute) })
	defer calls.Wait()
	defer cancel()
	for c := b.(*Cache).servers.(alone).client.(*conns); len(c.turns) == 0; {
		runtime.Gosched()
	}
	prompt(t, "Ping of a busy pool", 100*time.Millisecond, 50*time.Millisecond, func(due time.Time) error {
		ctx, cancel := context.WithDeadline(t.Context(), due)
		defer cancel()
		return b.Ping(ctx)
	}, context.DeadlineExceeded)
}

// TestClose closes a handle whose calls a stalled server leaves without an answer.
func TestClose(t *testing.T) {
	srv := servertest.Redis(t)
	for name, open := range handles(srv.Addr, 3*time.Second) {
		t.Run(name, func(t *testing.T) {
			before := goroutines()
			b := open(t)
			if err := b.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			srv.Pause()
			defer srv.Resume()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var calls sync.WaitGroup
			var started atomic.Int64
			for name, op := range operations("k") {
				for range 8 {
					calls.Go(func() {
						started.Add(1)
						if err := op(ctx, b); !errors.Is(err, l2cache.ErrClosed) {
							t.Errorf("%s in flight at Close = %v, want ErrClosed", name, err)
						}
					})
				}
			}
			for started.Load() < int64(8*len(operations("k"))) {
				runtime.Gosched()
			}
			start := time.Now()
			closed := make(chan error)
			go func() { closed <- b.Close() }()
			calls.Wait()
			if took := time.Since(start); took > 2*time.Second { // they have 3
				t.Errorf("calls went on for %v after Close", took)
			}
			if err := <-closed; err != nil {
				t.Errorf("Close() = %v", err)
			}
			if err := b.Close(); err != nil {
				t.Errorf("second Close() = %v", err)
			}
			for name, op := range operations("k") {
				if err := op(t.Context(), b); !errors.Is(err, l2cache.ErrClosed) {
					t.Errorf("%s after Close = %v, want ErrClosed", name, err)
				}
			}
			// What is left is about to return.
			for deadline := time.Now().Add(5 * time.Second); goroutines() > before; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("goroutines after Close:\n%s", stacks())
				}
			}
		})
	}
}

// goroutines counts those that run this package's code or go-redis's.
func goroutines() (n int) {
	for stack := range bytes.SplitSeq(stacks(), []byte("\n\n")) {
		if bytes.Contains(stack, []byte("adapters/redis.(*")) || bytes.Contains(stack, []byte("go-redis/v9.")) {
			n++
		}
	}
	return n
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// TestQuiet: go-redis must not print what a handle opened by URL has it do.
func TestQuiet(t *testing.T) {
	var l logger
	redis.SetLogger(&l)
	defer redis.SetLogger(discard{})
	srv := servertest.Redis(t)
	for range 5 {
		b, err := l2cache.Open(t.Context(), "redis://"+srv.Addr+"?op_timeout=50ms&lazy=true")
		if err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		for _, op := range operations("k") {
			for range 8 {
				calls.Go(func() {
					for !errors.Is(op(t.Context(), b), l2cache.ErrClosed) {
					}
				})
			}
		}
		srv.Pause()
		b.Ping(t.Context())
		srv.Resume()
		b.Ping(t.Context())
		srv.Kill()
		b.Ping(t.Context())
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		b.Ping(t.Context())
		b.Close()
		calls.Wait()
	}
	if lines := l.lines(); lines != "" {
		t.Errorf("go-redis printed:\n%s", lines)
	}
}

type logger struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *logger) Printf(_ context.Context, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.b, format+"\n", args...)
}

func (l *logger) lines() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}
