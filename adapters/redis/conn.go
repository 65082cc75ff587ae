package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// conns are the connections of a handle that was opened by URL.
//
// go-redis does not look at a ctx while it reads, and tells nobody which connection
// a call is on. So each connection has a client of its own here, and a call whose
// ctx ends closes it. To wait beside a goroutine that reads takes 30 µs more, as
// much as the round trip over the loopback interface.
type conns struct {
	options redis.Options // of each client
	tls     *tls.Config   // nil: none
	turns   chan struct{} // holds one for each call under way
	closing chan struct{} // closed by close

	mu     sync.Mutex
	idle   []*conn // the one used last is taken first
	all    []*conn
	closed bool
}

func newConns(o redis.Options, config *tls.Config, size int) *conns {
	return &conns{
		options: o, tls: config,
		turns: make(chan struct{}, size), closing: make(chan struct{}),
	}
}

// errBusy is the error of a call that got no connection in its time.
var errBusy = errors.New("all connections of the pool are in use")

// pipeline returns promptly when ctx ends.
func (p *conns) pipeline(ctx context.Context, cmds []redis.Cmder) error {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return failed(cmds, errBusy)
	case <-p.closing:
		return failed(cmds, redis.ErrClosed)
	}
	c := p.take()
	defer p.put(c)
	return c.pipeline(ctx, cmds)
}

func (p *conns) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return c
	}
	c := &conn{tls: p.tls, closed: p.closed}
	o := p.options
	o.PoolSize = 1
	o.Dialer = c.dial
	c.client = redis.NewClient(&o)
	p.all = append(p.all, c)
	return c
}

func (p *conns) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

// close closes the connections that calls are on, waits for the calls, and closes
// the rest. A client that is closed under a call would say so on stderr.
func (p *conns) close() {
	close(p.closing)
	p.mu.Lock()
	p.closed = true
	all := p.all
	p.mu.Unlock()
	for _, c := range all {
		c.close()
	}
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	for _, c := range p.all {
		c.client.Close() // what it could say is that the connection is closed
	}
}

// conn is a client with one connection, or none yet, for one call at a time.
type conn struct {
	client *redis.Client
	tls    *tls.Config

	mu     sync.Mutex
	net    net.Conn // the one dialed last; nil before
	call   uint64   // number of the call that is or was the last
	ended  uint64   // number of the last call that was ended by its ctx
	closed bool
}

func (c *conn) pipeline(ctx context.Context, cmds []redis.Cmder) error {
	c.mu.Lock()
	c.call++
	call := c.call
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.end(call) })
	err := pipeline(ctx, c.client, cmds)
	if !stop() {
		// The error of a connection that was closed for ctx's sake is ctx's.
		for _, cmd := range cmds {
			if errors.Is(cmd.Err(), net.ErrClosed) {
				cmd.SetErr(ctx.Err())
			}
		}
	}
	return err
}

// end closes the connection if that call is still on it.
func (c *conn) end(call uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.call == call {
		c.ended = call
		c.closeNetLocked()
	}
}

// close closes the connection, and each that is dialed from now on.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.closeNetLocked()
}

func (c *conn) closeNetLocked() {
	if c.net != nil {
		c.net.Close()
	}
}

// dial is the client's Dialer. It never fails. A connection that could not be made
// is returned as one whose use fails: go-redis would print the failure of a dial to
// stderr and, after as many as there may be connections, look no more than once a
// second whether the server is back.
func (c *conn) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return &unconnected{address{network, addr}, err}, nil
	}
	c.mu.Lock()
	c.net = conn
	if c.closed || c.ended == c.call {
		conn.Close()
	}
	c.mu.Unlock()
	if c.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, c.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return &unconnected{address{network, addr}, err}, nil
	}
	return tlsConn{secure}, nil
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	return d.DialContext(ctx, network, addr)
}

// tlsConn lets go-redis look at the socket below before it uses a connection again.
// If the server has closed it, there is something to read, be it TLS's alert, where
// nothing is due.
type tlsConn struct{ *tls.Conn }

func (c tlsConn) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}

// unconnected is a connection that could not be made.
type unconnected struct {
	addr address
	err  error
}

// Error and Unwrap make c an error around err: of that of a new connection, go-redis
// takes off the outermost layer.
func (c *unconnected) Error() string { return c.err.Error() }
func (c *unconnected) Unwrap() error { return c.err }

func (c *unconnected) Read([]byte) (int, error)         { return 0, c }
func (c *unconnected) Write([]byte) (int, error)        { return 0, c }
func (c *unconnected) Close() error                     { return nil }
func (c *unconnected) LocalAddr() net.Addr              { return c.addr }
func (c *unconnected) RemoteAddr() net.Addr             { return c.addr }
func (c *unconnected) SetDeadline(time.Time) error      { return c }
func (c *unconnected) SetReadDeadline(time.Time) error  { return c }
func (c *unconnected) SetWriteDeadline(time.Time) error { return c }

type address struct{ network, addr string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.addr }
