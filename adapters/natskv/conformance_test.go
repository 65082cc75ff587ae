package natskv_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	srv := servertest.NATS(t)
	addr, faults := proxied(t, srv)
	// A server that many cases share, on a busy machine, may take seconds for a write.
	conformance.Run(t, openURL("nats://"+addr+"/conformance?op_timeout=5s"), &conformance.Options{
		Strict:    true,
		OpTimeout: 5 * time.Second,
		Faults:    faults,
		Raw:       raw(t, srv, "conformance"),
	})
}

// TestConformanceOfMemory covers what differs with memory storage: after a restart
// of the server the bucket is not there.
func TestConformanceOfMemory(t *testing.T) {
	t.Parallel()
	srv := servertest.NATS(t)
	addr, faults := proxied(t, srv)
	conformance.Run(t, openURL("nats://"+addr+"/memory?storage=memory"), &conformance.Options{
		Strict: true,
		Faults: faults,
		Only:   []string{"basic", "errors/down", "errors/recovers", "faults", "durability"},
	})
}

// TestConformanceOfNew covers what differs over a connection of the caller's.
func TestConformanceOfNew(t *testing.T) {
	t.Parallel()
	srv := servertest.NATS(t)
	addr, f := proxied(t, srv)
	nc := connectTo(t, addr, nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	open := func(_ context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		c, err := natskv.New(nc, "new", &natskv.Options{OpTimeout: 5 * time.Second})
		if err != nil {
			return nil, err
		}
		return l2cache.WithPrefix(c, prefix(namespace)), nil
	}
	up := f.Up
	f.Up = func(ctx context.Context) error {
		if err := up(ctx); err != nil {
			return err
		}
		// A case that begins now finds the connection that all share, not a new one.
		for !nc.IsConnected() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		return nil
	}
	conformance.Run(t, open, &conformance.Options{
		Strict:    true,
		OpTimeout: 5 * time.Second,
		Faults:    f,
		Raw:       raw(t, srv, "new"),
		Only:      []string{"basic", "errors", "context", "concurrency", "faults", "close", "durability", "batch", "touch", "add", "delete-pattern", "scan", "watch", "capability"},
	})
	if !nc.IsConnected() {
		t.Errorf("the caller's connection is %v after the backends were closed, want it connected", nc.Status())
	}
}

func openURL(url string) conformance.OpenFunc {
	return func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, url+"&prefix="+prefix(namespace))
	}
}

// prefix is as long for each namespace: the profiles' MaxKeyLen has to be the same.
func prefix(namespace string) string { return strings.Repeat("-", 32-len(namespace)) + namespace + ":" }

// proxied puts a proxy in front of the server: it cuts replies, and the server is
// killed and stopped for real.
func proxied(t *testing.T, srv *servertest.Server) (addr string, _ *conformance.Faults) {
	p, err := conformance.NewProxy(srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	f := p.Faults()
	f.Down = func(context.Context) error { err := srv.Kill(); p.Refuse(); return err }
	f.Up = func(context.Context) error { return errors.Join(srv.Start(), p.Accept()) }
	f.Stall = func(context.Context) error { return srv.Pause() }
	f.Resume = func(context.Context) error { return srv.Resume() }
	return p.Addr(), f
}

// connect returns a connection of the test's own.
func connect(t testing.TB, srv *servertest.Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	return connectTo(t, srv.Addr, options...)
}

func connectTo(t testing.TB, addr string, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{
		nats.MaxReconnects(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default prints
	}, options...)
	nc, err := nats.Connect("nats://"+addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func jetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// raw reads and writes messages of the bucket.
func raw(t *testing.T, srv *servertest.Server, bucket string) *conformance.Raw {
	js := jetStream(t, connect(t, srv))
	stored := func(ctx context.Context, namespace, key string) (*jetstream.RawStreamMsg, error) {
		stream, err := js.Stream(ctx, "KV_"+bucket)
		if err != nil {
			return nil, err
		}
		return stream.GetLastMsgForSubject(ctx, "$KV."+bucket+"."+natskv.KeyForm(prefix(namespace)+key))
	}
	damage := func(name string, change func(old []byte) *nats.Msg) conformance.Damage {
		return conformance.Damage{Name: name, Do: func(ctx context.Context, namespace, key string) error {
			old, err := stored(ctx, namespace, key)
			if err != nil {
				return err
			}
			m := change(old.Data)
			m.Subject = old.Subject
			_, err = js.PublishMsg(ctx, m)
			return err
		}}
	}
	return &conformance.Raw{
		Stored: func(ctx context.Context, namespace, key string) (bool, error) {
			m, err := stored(ctx, namespace, key)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return false, nil
			}
			return err == nil && m.Header.Get("KV-Operation") == "", err
		},
		Damage: []conformance.Damage{
			damage("foreign put", func([]byte) *nats.Msg { return &nats.Msg{Data: []byte("written by another program altogether")} }),
			damage("foreign put of nothing", func([]byte) *nats.Msg { return &nats.Msg{} }),
			damage("foreign headers", func([]byte) *nats.Msg {
				return &nats.Msg{Header: nats.Header{"Status": {"404"}, "Content-Type": {"text/plain"}}, Data: []byte("x")}
			}),
			damage("truncated envelope", func(old []byte) *nats.Msg { return &nats.Msg{Data: old[:19]} }),
			damage("bit flip in the magic", flip(0)),
			damage("bit flip in the version", flip(2)),
			damage("bit flip in the flags", flip(3)),
			damage("bit flip in the deadline", flip(4)),
			damage("bit flip in the TTL", flip(12)),
		},
	}
}

// flip changes the highest bit of a byte.
func flip(i int) func(old []byte) *nats.Msg {
	return func(old []byte) *nats.Msg {
		old[i] ^= 0x80
		return &nats.Msg{Data: old}
	}
}
