package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/l2cache/l2cache"
)

func init() {
	l2cache.Register("redis", open)
	l2cache.Register("rediss", open)
	l2cache.Register("redis+unix", open)
}

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	o := clientOptions(p)
	durable := p.Bool("durable", false)
	if err := p.Err(); err != nil {
		return nil, err
	}
	c := newCache(redis.NewClient(o), true, p.OpTimeout, l2cache.Profile{Evicts: true, Durable: durable})
	c.owned = true
	if !p.Lazy {
		evicts, err := c.askEvicts(ctx)
		if err != nil {
			c.Close() // the error that led here is the one to report
			return nil, err
		}
		c.profile.Evicts = evicts
	}
	return c, nil
}

// clientOptions also says what go-redis would otherwise do by default: repeat
// commands and dials, and send each new connection a name, a version and a request
// for notifications.
func clientOptions(p *l2cache.Params) *redis.Options {
	o := &redis.Options{
		Network:    "tcp",
		Username:   p.User,
		Password:   p.Password.Reveal(),
		ClientName: p.String("client_name", ""),
		PoolSize:   p.Int("pool_size", 0, 1),

		// The ctx of each call, which ends with op_timeout, bounds all waiting.
		ContextTimeoutEnabled: true,
		ReadTimeout:           -1,
		WriteTimeout:          -1,
		DialTimeout:           p.DialTimeout,
		PoolTimeout:           p.OpTimeout,

		MaxRetries:    -1,
		DialerRetries: 1,

		Protocol:                 2, // 3 costs a look for notifications before each command
		PipelinePoolSize:         -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if strings.ContainsAny(o.ClientName, " \r\n") {
		p.Fault("client_name", "it has a space or a line break")
	}
	if p.User != "" && o.Password == "" {
		p.Fault("password", "it is missing; a password alone is written redis://:password@host")
	}
	var config *tls.Config
	switch p.Scheme {
	case "redis+unix":
		o.Network = "unix"
		o.Addr = p.Path
		o.DB = p.Int("db", 0, 0)
		if strings.Trim(p.Path, "/") == "" {
			p.Fault("path", "that of the socket is missing, as in redis+unix:///run/redis.sock")
		}
	case "rediss":
		config = p.TLS()
		fallthrough
	default:
		addrs := p.Addrs("6379")
		if len(addrs) > 1 {
			p.Fault("host", "there is more than one")
		}
		o.Addr = strings.Join(addrs, ",")
		if db := strings.TrimPrefix(p.Path, "/"); db != "" {
			n, err := strconv.ParseUint(db, 10, 31)
			if err != nil {
				p.Fault("path", "it is not the number of a database, as in redis://localhost/0")
			}
			o.DB = int(n)
		}
	}
	o.Dialer = dialer(config)
	return o
}

// askEvicts reports whether the server may evict, or does not tell.
func (c *Cache) askEvicts(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opTimeout)
	defer cancel()
	info, err := c.client.Info(ctx, "memory").Result()
	if redis.IsPermissionError(err) {
		return true, nil
	}
	if err != nil {
		return true, c.newError(ctx, "open", "", err)
	}
	for line := range strings.Lines(info) {
		switch strings.TrimSpace(line) {
		case "maxmemory:0", "maxmemory_policy:noeviction":
			return false, nil
		}
	}
	return true, nil
}

// dialer connects, over TLS if config is not nil. It never fails. A connection that
// could not be made is returned as one whose use fails: go-redis would print the
// failure of a dial to stderr and, after as many as the pool's size, stop dialling
// and look once a second whether the server is back.
func dialer(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}}
		if config == nil {
			conn, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return unconnected{address{network, addr}, dialError{err}}, nil
			}
			return conn, nil
		}
		conn, err := (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, network, addr)
		if err != nil {
			return unconnected{address{network, addr}, dialError{err}}, nil
		}
		return tlsConn{conn.(*tls.Conn)}, nil
	}
}

// tlsConn lets go-redis look at the socket below before it takes a connection from
// the pool. If the server has closed it there are bytes to read, at least TLS's
// alert, where nothing is due.
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

func (c unconnected) Read([]byte) (int, error)         { return 0, c.err }
func (c unconnected) Write([]byte) (int, error)        { return 0, c.err }
func (c unconnected) Close() error                     { return nil }
func (c unconnected) LocalAddr() net.Addr              { return c.addr }
func (c unconnected) RemoteAddr() net.Addr             { return c.addr }
func (c unconnected) SetDeadline(time.Time) error      { return c.err }
func (c unconnected) SetReadDeadline(time.Time) error  { return c.err }
func (c unconnected) SetWriteDeadline(time.Time) error { return c.err }

type address struct{ network, addr string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.addr }

// dialError is there to be taken off: go-redis does so with the outermost layer of
// the error of a new connection.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }
