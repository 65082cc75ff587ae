package memcached

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
)

// A link is a connection to a server together with a gomemcache client that has no
// other. gomemcache takes no ctx, and a client of many connections does not tell on
// which one a call is; here the call knows, and can bound and end it.
//
// One goroutine at a time uses a link.
type link struct {
	net.Conn // TCP or TLS; what the client reads and writes
	server   *server
	client   *memcache.Client

	tcp       net.Conn // under Conn
	raw       syscall.RawConn
	connected bool

	// Of the call under way.
	ctx      context.Context // here because the client's Dial cannot be given it
	deadline time.Time       // of the dial, the request and the answer together
	unwatch  func() bool     // nil if ctx cannot end
}

func newLink(s *server) *link {
	l := &link{server: s}
	l.client = memcache.NewFromSelector(s)
	l.client.DialContext = l.dial
	l.client.Timeout = s.opTimeout // not less than is left until deadline
	l.client.MaxIdleConns = 1
	return l
}

// begin prepares for a call that ends with ctx, and at deadline.
func (l *link) begin(ctx context.Context, deadline time.Time) {
	l.ctx, l.deadline = ctx, deadline
	if l.connected {
		l.watch()
	}
}

// watch has reads and writes fail at the deadline and when ctx ends.
func (l *link) watch() {
	l.tcp.SetDeadline(l.deadline) // fails on a closed connection, as the write will
	if l.ctx.Done() != nil {
		tcp := l.tcp
		l.unwatch = context.AfterFunc(l.ctx, func() { tcp.Close() })
	}
}

// end ends a call, and reports whether the link is good for another one.
func (l *link) end() bool {
	if l.unwatch != nil && !l.unwatch() {
		l.Close() // by now or soon, in any case
	}
	l.ctx, l.unwatch = nil, nil
	return l.connected
}

// dial is the client's DialContext.
func (l *link) dial(_ context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(l.ctx, l.deadline)
	defer cancel()
	defer context.AfterFunc(l.server.life, cancel)()
	conn, err := l.server.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.Conn, l.tcp = conn, conn
	if t, ok := conn.(*tls.Conn); ok {
		l.tcp = t.NetConn()
	}
	if l.raw, err = l.tcp.(syscall.Conn).SyscallConn(); err == nil && !l.server.register(l.tcp) {
		err = l2cache.ErrClosed
	}
	if err != nil {
		l.tcp.Close()
		return nil, err
	}
	l.connected = true
	l.watch()
	return l, nil
}

// SetDeadline does nothing: the client would move the deadline with each item of an
// answer.
func (l *link) SetDeadline(time.Time) error { return nil }

// Close closes the connection, as the client does after any failure. TLS sends no
// closing alert: on a stalled connection it could not, and memcached's requests and
// answers are complete without.
func (l *link) Close() error {
	l.connected = false
	l.server.unregister(l.tcp)
	return l.tcp.Close()
}
