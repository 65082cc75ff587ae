package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache/internal/batch"
)

// conns are the connections of a handle that was opened by URL.
//
// go-redis does not look at a ctx while it reads, and tells nobody which connection
// a call is on. So each connection has a client of its own here, and a call whose
// ctx ends closes it. To wait beside a goroutine that reads takes 30 µs more, as
// much as the round trip over the loopback interface.
type conns struct {
	newConn func() *conn  // knows the password, and no verb prints what a func knows
	turns   chan struct{} // holds one for each call under way
	closing chan struct{} // closed by close

	mu     sync.Mutex
	idle   []*conn // the one used last is taken first
	all    []*conn
	closed bool
}

// newConns makes up to size connections.
func newConns(newConn func() *conn, size int) *conns {
	return &conns{newConn: newConn, turns: make(chan struct{}, size), closing: make(chan struct{})}
}

// errBusy is the error of a call that got no connection in its time.
var errBusy = errors.New("all connections of the pool are in use")

// pipeline returns promptly when ctx ends.
func (p *conns) pipeline(ctx context.Context, deadline time.Time, cmds []redis.Cmder) error {
	if err := p.wait(ctx, deadline); err != nil {
		return failed(cmds, err)
	}
	defer func() { <-p.turns }()
	c := p.take()
	defer p.put(c)
	return c.pipeline(ctx, deadline, cmds)
}

// wait puts one into p.turns.
func (p *conns) wait(ctx context.Context, deadline time.Time) error {
	select {
	case p.turns <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case p.turns <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	case <-p.closing:
		return redis.ErrClosed
	}
}

func (p *conns) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return c
	}
	c := p.newConn()
	c.closed = p.closed
	p.all = append(p.all, c)
	return c
}

func (p *conns) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

// rest closes the connections that no call is on.
func (p *conns) rest() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.all = slices.DeleteFunc(p.all, func(c *conn) bool { return slices.Contains(idle, c) })
	p.mu.Unlock()
	for _, c := range idle {
		c.client.Close()
	}
}

// close closes the connections that calls are on, waits for the calls, and closes
// the rest. A client that is closed under a call would say so on stderr.
func (p *conns) close() {
	close(p.closing)
	p.mu.Lock()
	p.closed = true
	all := slices.Clone(p.all)
	p.mu.Unlock()
	for _, c := range all {
		c.close()
	}
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.all {
		c.client.Close() // what it could say is that the connection is closed
	}
}

// conn is a client with one connection, or none yet, for one call at a time.
type conn struct {
	client *redis.Client
	dialer dialer

	mu       sync.Mutex
	net      net.Conn           // the one dialed last; nil before
	dialing  context.CancelFunc // ends the dial that began last; nil before
	call     uint64             // number of the call that is or was the last
	ended    uint64             // number of the last call that was ended before its reply
	deadline time.Time          // of the call; zero if there is none
	timer    *time.Timer        // runs expire at deadline; nil before the first call
	closed   bool
}

// newConn returns a connection with the settings of o, to be dialed by dial.
func newConn(o redis.Options, dial dialer) *conn {
	c := &conn{dialer: dial}
	o.PoolSize = 1
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.dial(ctx, network, addr), nil
	}
	c.client = redis.NewClient(&o)
	return c
}

func (c *conn) pipeline(ctx context.Context, deadline time.Time, cmds []redis.Cmder) error {
	call := c.begin(deadline)
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { c.end(call) })
		defer stop()
	}
	// Not with ctx: it is c that ends what go-redis does.
	err := pipeline(context.Background(), c.client, cmds)
	if !c.finish() {
		return err
	}
	// The call was ended, which can show in any error of the network. If that was
	// for ctx's sake then this is what NewError says, whatever the error is here.
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !answered(err) {
			cmd.SetErr(batch.ErrTimeout)
		}
	}
	return cmds[0].Err()
}

func (c *conn) begin(deadline time.Time) (call uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.call++
	c.deadline = deadline
	if left := time.Until(deadline); c.timer == nil {
		c.timer = time.AfterFunc(left, c.expire)
	} else {
		c.timer.Reset(left)
	}
	return c.call
}

// finish reports whether the call was ended before its reply.
func (c *conn) finish() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.deadline = time.Time{}
	return c.ended == c.call
}

// expire ends the call at its deadline. It may come late, in another call's time.
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.endLocked()
	}
}

// end ends a call, if that is still under way.
func (c *conn) end(call uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.call == call && !c.deadline.IsZero() {
		c.endLocked()
	}
}

// close ends a call that is under way, and all that are to come.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.endLocked()
}

func (c *conn) endLocked() {
	c.ended = c.call
	if c.dialing != nil {
		c.dialing()
	}
	if c.net != nil {
		hangUp(c.net)
	}
}

// hangUp closes the connection below that of TLS, which would send an alert first, and
// wait for that.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}

// dial never fails. A connection that could not be made is returned as one whose use
// fails: go-redis would print the failure of a dial to stderr and, after as many as
// there may be connections, look once a second whether the server is back.
func (c *conn) dial(ctx context.Context, network, addr string) net.Conn {
	conn, err := c.connect(ctx, network, addr)
	if err != nil {
		return &unconnected{address{network, addr}, err}
	}
	return conn
}

func (c *conn) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.dialing = cancel
	if c.closed || c.ended == c.call {
		cancel()
	}
	c.mu.Unlock()
	conn, err := c.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.net = conn
	if c.closed || c.ended == c.call {
		hangUp(c.net)
	}
	return conn, nil
}

// A dialer makes a connection.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// newDialer returns one for TLS, if config is not nil. If config has no name of the
// server then that is the host of its address. A server without TLS may answer nothing:
// the handshake has some of the time of a dial.
func newDialer(config *tls.Config, dialTimeout time.Duration) dialer {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	if config == nil {
		return d.DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := config.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(addr) // a result of JoinHostPort
		}
		client := tls.Client(conn, config)
		handshake, cancel := context.WithTimeout(ctx, dialTimeout*3/4)
		defer cancel()
		if err := client.HandshakeContext(handshake); err != nil {
			conn.Close()
			if handshake.Err() != nil && ctx.Err() == nil {
				err = errNoTLS
			}
			return nil, &net.OpError{Op: "dial", Net: network, Addr: conn.RemoteAddr(), Err: err}
		}
		return tlsConn{client}, nil
	}
}

var errNoTLS = errors.New("no answer to a TLS handshake; if the server has no TLS on this port, it is redis:// instead of rediss://")

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
