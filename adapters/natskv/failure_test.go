package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

var operations = map[string]func(context.Context, l2cache.L2CacheBackend) error{
	"Get": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		_, err := b.Get(ctx, "k")
		return err
	},
	"GetWithTTL": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		_, err := b.GetWithTTL(ctx, "k")
		return err
	},
	"Set": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		return b.Set(ctx, "k", []byte("v"), time.Hour)
	},
	"Delete": func(ctx context.Context, b l2cache.L2CacheBackend) error { return b.Delete(ctx, "k") },
	"Ping":   func(ctx context.Context, b l2cache.L2CacheBackend) error { return b.Ping(ctx) },
	"GetMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		_, err := l2cache.GetMany(ctx, b, []string{"k", "l"})
		return err
	},
	"SetMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		return l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "k", Value: []byte("v"), TTL: time.Hour}, {Key: "l", TTL: time.Hour}})
	},
	"DeleteMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		return l2cache.DeleteMany(ctx, b, []string{"k", "l"})
	},
	"Touch": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		return l2cache.Touch(ctx, b, "k", time.Hour)
	},
	"Add": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		_, err := l2cache.Add(ctx, b, "k", []byte("v"), time.Hour)
		return err
	},
	"DeletePattern": func(ctx context.Context, b l2cache.L2CacheBackend) error { return l2cache.DeletePattern(ctx, b, "k*") },
	"Watch": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		for _, err := range l2cache.Watch(ctx, b, "k") {
			return err
		}
		return nil
	},
	"Scan": func(ctx context.Context, b l2cache.L2CacheBackend) error {
		for _, err := range l2cache.Scan(ctx, b, "k") {
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// within calls f, which is to return by d plus slack, not counting how late a timer
// wakes somebody on this machine just now.
func within(t *testing.T, what string, d, slack time.Duration, f func()) {
	t.Helper()
	if took, late := timed(f); took > d+slack+late {
		t.Errorf("%s took %v, want at most %v (timers were late by %v)", what, took, d+slack, late)
	}
}

// promptly is within for an f that can be repeated: on a busy machine it may be late
// once, but not each time.
func promptly(t *testing.T, what string, d, slack time.Duration, f func()) {
	t.Helper()
	for range 4 {
		if took, late := timed(f); took <= d+slack+late {
			return
		}
	}
	within(t, what, d, slack, f)
}

// timed returns how long f took, and how late the timers were meanwhile, in all.
func timed(f func()) (took, late time.Duration) {
	returned := make(chan struct{})
	control := make(chan time.Duration)
	go func() {
		const period = 5 * time.Millisecond
		var late time.Duration
		for {
			begin := time.Now()
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(period, cancel)
			select {
			case <-returned:
				control <- late
				return
			case <-ctx.Done():
				late += time.Since(begin) - period
			}
		}
	}()
	begin := time.Now()
	f()
	took = time.Since(begin)
	close(returned)
	return took, <-control
}

func newOver(t testing.TB, nc *nats.Conn, bucket string) l2cache.L2CacheBackend {
	t.Helper()
	c, err := natskv.New(nc, bucket, &natskv.Options{OpTimeout: opTimeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// both runs f on a backend that was opened by URL, and on one over a connection of
// the caller's; each has a server of its own.
func both(t *testing.T, f func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend)) {
	t.Run("Open", func(t *testing.T) {
		srv := servertest.NATS(t)
		f(t, srv, open(t, srv, "b"))
	})
	t.Run("New", func(t *testing.T) {
		srv := servertest.NATS(t)
		f(t, srv, newOver(t, connect(t, srv, nats.ReconnectBufSize(-1), nats.ReconnectWait(20*time.Millisecond)), "b"))
	})
}

func TestServerIsDown(t *testing.T) {
	both(t, func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
		set(t, b, "k", "v", time.Hour)
		for range 3 {
			if err := srv.Kill(); err != nil {
				t.Fatal(err)
			}
			for name, op := range operations {
				promptly(t, name+" without a server", 0, 100*time.Millisecond, func() {
					if err := op(context.Background(), b); !errors.Is(err, l2cache.ErrUnavailable) {
						t.Errorf("%s without a server = %v, want %v", name, err, l2cache.ErrUnavailable)
					}
				})
			}
			if err := srv.Start(); err != nil {
				t.Fatal(err)
			}
			within(t, "coming back", 0, 500*time.Millisecond, func() {
				await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
			})
			want(t, b, "k", "v")
		}
	})
}

// A call that waits for its reply does not have to wait when the connection breaks.
func TestServerDiesInFlight(t *testing.T) {
	both(t, func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
		set(t, b, "k", "v", time.Hour)
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for name, op := range operations {
			wg.Go(func() {
				if err := op(context.Background(), b); !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s when the server dies = %v, want %v", name, err, l2cache.ErrUnavailable)
				}
			})
		}
		time.Sleep(50 * time.Millisecond) // so that some wait for a reply; all is right if none does
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		within(t, "the end of the calls under way", 0, 100*time.Millisecond, wg.Wait)
	})
}

// fill stalls the server, and sends it more than the sockets between hold: whoever
// writes to the connection now waits, with the driver's lock.
func fill(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
	t.Helper()
	set(t, b, "k", "v", time.Hour)
	if err := srv.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Resume() })
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			if err := b.Set(ctx, "large", make([]byte, 1_000_000), time.Hour); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Set at a stalled server = %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
	wg.Wait()
}

func TestServerStalls(t *testing.T) {
	both(t, func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
		fill(t, srv, b)
		for name, op := range operations {
			promptly(t, name+" until a deadline", 50*time.Millisecond, 50*time.Millisecond, func() {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				err := op(ctx, b)
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s until a deadline = %v, want %v", name, err, context.DeadlineExceeded)
				}
			})
			promptly(t, name+" until it is cancelled", 50*time.Millisecond, 50*time.Millisecond, func() {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(50*time.Millisecond, cancel)
				err := op(ctx, b)
				if !errors.Is(err, context.Canceled) || errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s until it is cancelled = %v, want %v", name, err, context.Canceled)
				}
			})
		}
		if err := srv.Resume(); err != nil {
			t.Fatal(err)
		}
		await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
		set(t, b, "k", "after", time.Hour)
		want(t, b, "k", "after")
	})
}

func TestCloseAtAStalledServer(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("Open", func(t *testing.T) {
		srv := servertest.NATS(t)
		b := open(t, srv, "b")
		fill(t, srv, b)
		errs := make(chan error)
		for _, op := range operations {
			go func() { errs <- op(context.Background(), b) }()
		}
		within(t, "Close", 0, 100*time.Millisecond, func() { b.Close() })
		within(t, "the end of calls under way", 0, 100*time.Millisecond, func() {
			for range operations {
				if err := <-errs; !errors.Is(err, l2cache.ErrClosed) {
					t.Errorf("a call under way when the backend is closed = %v, want %v", err, l2cache.ErrClosed)
				}
			}
		})
	})
	await(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// What failed while there was no connection is not sent when there is one again, and
// what was sent is not sent again.
func TestNothingIsSentTwice(t *testing.T) {
	both(t, func(t *testing.T, srv *servertest.Server, b l2cache.L2CacheBackend) {
		set(t, b, "k", "v", time.Hour)
		last := func() uint64 { return state(t, stream(t, srv, "b")).LastSeq }
		before := last()

		// Stalled: what is on its way is applied once, when the server goes on.
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
		const stalled = 20
		var wg sync.WaitGroup
		for i := range stalled {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				// Add publishes at once, where Set reads before.
				if _, err := l2cache.Add(ctx, b, fmt.Sprint("in doubt", i), nil, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Add at a stalled server = %v, want %v", err, context.DeadlineExceeded)
				}
			})
		}
		wg.Wait()
		if err := srv.Resume(); err != nil {
			t.Fatal(err)
		}
		await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
		set(t, b, "k", "v", time.Hour)
		after := last()
		if after > before+stalled+1 {
			t.Errorf("%d writes were applied %d times", stalled+1, after-before)
		}

		// Stalled, then killed: nothing of it comes again over the next connection.
		if err := srv.Pause(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		for _, op := range operations {
			if err := op(ctx, b); err == nil {
				t.Error("a stalled server answers")
			}
		}
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := b.Set(context.Background(), "k", []byte("never sent"), time.Hour); !errors.Is(err, l2cache.ErrUnavailable) {
				t.Errorf("Set without a server = %v, want %v", err, l2cache.ErrUnavailable)
			}
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
		want(t, b, "k", "v")
		if got := last(); got != after {
			t.Errorf("the stream went from sequence %d to %d, want nothing of what failed", after, got)
		}
	})
}

// After some errors of a server the driver closes the connection for good.
func TestLostConnectionIsReplaced(t *testing.T) {
	b := open(t, server(t), "replaced")
	set(t, b, "k", "v", time.Hour)
	for range 3 {
		b.(*natskv.Cache).Conn().Close()
		within(t, "a new connection", 0, time.Second, func() {
			await(t, "the server answers", func() bool {
				err := b.Ping(context.Background())
				if err != nil && !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("Ping over a lost connection = %v, want %v", err, l2cache.ErrUnavailable)
				}
				return err == nil
			})
		})
		want(t, b, "k", "v")
	}
}

func TestMemoryIsCreatedAgain(t *testing.T) {
	srv := servertest.NATS(t)
	b := open(t, srv, "b", "storage=memory")
	set(t, b, "k", "v", time.Hour)
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
	wantMiss(t, b, "k")
	set(t, b, "k", "w", time.Hour)
	want(t, b, "k", "w")
}

func TestNewRefuses(t *testing.T) {
	srv := server(t)
	if c, err := natskv.New(nil, "b", nil); err == nil {
		t.Errorf("New(nil) = %v, want an error", c)
	}
	for _, size := range []int{0, 1, nats.DefaultReconnectBufSize} {
		nc := connect(t, srv, nats.ReconnectBufSize(size))
		if c, err := natskv.New(nc, "b", nil); err == nil || !strings.Contains(err.Error(), "ReconnectBufSize") {
			t.Errorf("New over a connection with ReconnectBufSize %d = %v, %v; want an error that names it", size, c, err)
		}
	}
	nc := connect(t, srv, nats.ReconnectBufSize(-1))
	for _, bucket := range []string{"", "a.b", "a b", "*", ">", "a/b", strings.Repeat("b", 201)} {
		if c, err := natskv.New(nc, bucket, nil); err == nil || !strings.Contains(err.Error(), "bucket") {
			t.Errorf("New(%q) = %v, %v; want an error that names the bucket", bucket, c, err)
		}
	}
	for _, o := range []natskv.Options{{OpTimeout: -1}, {MaxAge: -1}, {Replicas: -1}} {
		if c, err := natskv.New(nc, "b", &o); err == nil {
			t.Errorf("New with %+v = %v, want an error", o, c)
		}
	}
	c, err := natskv.New(connect(t, srv, nats.NoReconnect()), strings.Repeat("b", 200), nil)
	if err != nil {
		t.Fatalf("New over a connection that never reconnects = %v, want nil", err)
	}
	defer c.Close()
	set(t, c, strings.Repeat(" ", 682)+"xx", "v", time.Hour) // the longest subject
	want(t, c, strings.Repeat(" ", 682)+"xx", "v")
}

func TestNewLeavesTheConnection(t *testing.T) {
	srv := servertest.NATS(t)
	nc := connect(t, srv, nats.ReconnectBufSize(-1))
	if err := srv.Pause(); err != nil {
		t.Fatal(err)
	}
	var c *natskv.Cache
	within(t, "New at a stalled server", 0, 50*time.Millisecond, func() {
		var err error
		if c, err = natskv.New(nc, "b", nil); err != nil {
			t.Fatal(err)
		}
	})
	if err := srv.Resume(); err != nil {
		t.Fatal(err)
	}
	sent := nc.Stats().OutMsgs
	if sent != 0 {
		t.Errorf("New has sent %d messages, want none", sent)
	}
	set(t, c, "k", "v", time.Hour)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	}
	if !nc.IsConnected() || nc.NumSubscriptions() != 0 {
		t.Errorf("after Close the connection is %v with %d subscriptions, want connected, none", nc.Status(), nc.NumSubscriptions())
	}
	want(t, newOver(t, nc, "b"), "k", "v")
}

// A connection that its owner closes is a backend that is unavailable, not closed.
func TestConnectionOfTheCallerIsClosed(t *testing.T) {
	nc := connect(t, server(t), nats.ReconnectBufSize(-1))
	b := newOver(t, nc, "b")
	set(t, b, "k", "v", time.Hour)
	nc.Close()
	for range 2 {
		for name, op := range operations {
			promptly(t, name, 0, 100*time.Millisecond, func() {
				err := op(context.Background(), b)
				if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, l2cache.ErrClosed) {
					t.Errorf("%s over a closed connection = %v, want %v", name, err, l2cache.ErrUnavailable)
				}
			})
		}
	}
	within(t, "Close", 0, 100*time.Millisecond, func() { b.Close() })
	for name, op := range operations {
		if err := op(context.Background(), b); !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("%s after Close = %v, want %v", name, err, l2cache.ErrClosed)
		}
	}
}
