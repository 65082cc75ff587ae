package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// errStale is the error of a request that was not sent, not even in part, because
// the server had closed the connection.
var errStale = errors.New("memcached: the server has closed the connection")

// unstale runs f, one call of the client, until it gets a connection that is not
// stale: the client drops each one that is.
func unstale(f func() error) error {
	for {
		if err := f(); !errors.Is(err, errStale) {
			return err
		}
	}
}

// conns makes the connections of the adapter's own client, and ends them.
type conns struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error) // TCP or TLS
	life context.Context                                                      // ends the dials under way

	mu   sync.Mutex
	open map[*conn]struct{} // guarded by mu; nil once closed
}

// DialContext is the client's. The deadline of ctx, which the client sets when the
// dial begins, also bounds the first request.
func (cs *conns) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(cs.life, deadline)
	defer cancel()
	nc, err := cs.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, owner: cs}
	if err := nc.SetDeadline(deadline); err != nil {
		nc.Close()
		return nil, err
	}
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c.raw, err = nc.(syscall.Conn).SyscallConn(); err != nil {
		c.Conn.Close()
		return nil, err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		c.Conn.Close()
		return nil, net.ErrClosed
	}
	cs.open[c] = struct{}{}
	return c, nil
}

// close closes all connections, the idle ones and those in use. There are no
// others afterwards.
func (cs *conns) close() {
	cs.mu.Lock()
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// conn is a connection of the client's pool. One deadline bounds a request and its
// whole answer, where the client would move it with each item of the answer. And
// before a request it is checked that the server has not closed the connection.
//
// The client uses it from one goroutine at a time, and sets a deadline before each
// request, then writes, then reads.
type conn struct {
	net.Conn
	raw   syscall.RawConn // of the TCP connection
	owner *conns

	deadline time.Time // what the client set last
	used     bool      // there has been a request
	sending  bool      // the last call was a Write
}

// SetDeadline sets the deadline of the request that begins next.
func (c *conn) SetDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *conn) Write(b []byte) (int, error) {
	if !c.sending {
		c.sending = true
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// begin prepares for a request. The first one goes on with the dial's deadline, on
// a connection that cannot be stale yet.
func (c *conn) begin() error {
	if !c.used {
		c.used = true
		return nil
	}
	if quiet(c.raw) {
		return c.Conn.SetDeadline(c.deadline)
	}
	return errStale
}

func (c *conn) Read(b []byte) (int, error) {
	c.sending = false
	return c.Conn.Read(b)
}

func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
