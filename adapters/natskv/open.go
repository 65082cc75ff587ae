package natskv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

func init() {
	l2cache.Register("nats", open)
	l2cache.Register("nats+tls", open)
}

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	connection := connectOptions(p)
	o := &Options{
		OpTimeout: p.OpTimeout,
		MaxAge:    p.Duration("max_age", 0),
		Replicas:  p.Int("replicas", 1, 1),
		NoCreate:  !p.Bool("create", true),
	}
	if p.OneOf("storage", "file", "memory") == "memory" {
		o.Storage = jetstream.MemoryStorage
	}
	bucket := strings.TrimPrefix(p.Path, "/")
	c, err := newCache(bucket, o)
	if bucket == "" {
		err = errors.New("it names no bucket, as in nats://host/bucket")
	}
	if err != nil {
		p.Fault("URL", "%w", err)
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	c.repair = c.create
	c.dial = dialWith(connection, p.OpTimeout)
	if p.Lazy {
		return c, nil
	}
	c.profile.MaxTTL = 0 // the bucket need not keep what nobody has asked for
	b, err := c.check(ctx, time.Now().Add(p.DialTimeout), nil)
	if err != nil {
		err = c.fail(ctx, "open", "", err)
		c.Close()
		return nil, err
	}
	c.profile = l2cache.Profile{
		Supports:    supports,
		MaxTTL:      bucketTTL(b.config.MaxAge),
		MaxValueLen: b.maxValue,
		Durable:     b.config.Storage == jetstream.FileStorage && b.config.PersistMode == jetstream.DefaultPersistMode,
	}
	return c, nil
}

func connectOptions(p *l2cache.Params) nats.Options {
	o := nats.GetDefaultOptions()
	o.Name = "l2cache"
	for _, addr := range p.Addrs("4222") {
		o.Servers = append(o.Servers, "nats://"+addr)
	}
	credentials(p, &o)
	if p.Scheme == "nats+tls" {
		o.Secure = true
		o.TLSConfig = p.TLS()
	}
	o.Timeout = p.DialTimeout
	o.ReconnectBufSize = -1 // a call that has failed is not sent later
	o.MaxReconnect = -1     // for ever
	o.CustomReconnectDelayCB = reconnectDelay
	o.IgnoreAuthErrorAbort = true // a password can be wrong for a while
	// While nobody calls, a server that is gone without a word is noticed after three pings.
	o.PingInterval = 10 * time.Second
	o.FlusherTimeout = 10 * time.Second
	o.SkipHostLookup = true                                         // the dialer does it, and can be stopped
	o.AsyncErrorCB = func(*nats.Conn, *nats.Subscription, error) {} // the default prints
	return o
}

// reconnectDelay is the pause before all servers are tried again: 50 ms at first,
// a quarter of a second in the end, less up to a fifth so that clients spread.
func reconnectDelay(attempts int) time.Duration {
	delay := min(time.Duration(attempts)*50*time.Millisecond, 250*time.Millisecond)
	return delay - rand.N(delay/5)
}

// A dialFunc makes a connection, unless ctx ends or closing is closed before.
type dialFunc func(ctx context.Context, closing <-chan struct{}) (*link, error)

// A link is a connection that the backend has made.
type link struct {
	nc        *nats.Conn
	opTimeout time.Duration
	life      context.Context // of the sockets
	cut       context.CancelFunc
	socket    atomic.Pointer[net.Conn] // the last one
}

// hangUp closes the connection, at once even if the server stalls.
func (l *link) hangUp() {
	l.cut()      // who writes or dials has the lock that Close needs
	l.nc.Close() // nc may be nil
}

// breaker returns a function that closes the socket that there is now. The driver makes
// another one, to the next server.
func (l *link) breaker() func() {
	socket := l.socket.Load()
	return func() { (*socket).Close() }
}

func dialWith(o nats.Options, opTimeout time.Duration) dialFunc {
	return func(ctx context.Context, closing <-chan struct{}) (*link, error) {
		l := &link{opTimeout: opTimeout}
		l.life, l.cut = context.WithCancel(context.Background())
		o := o
		var refused error
		release := func() bool { return true }
		// The driver calls it with its lock held.
		o.CustomDialer = dialerFunc(func(network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{Timeout: o.Timeout}).DialContext(l.life, network, address)
			if err != nil {
				refused = err
				return nil, err
			}
			release() // the socket before this one is closed
			release = context.AfterFunc(l.life, func() { conn.Close() })
			l.socket.Store(&conn)
			return conn, nil
		})

		connected := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			select {
			case <-ctx.Done():
				l.cut()
			case <-closing:
				l.cut()
			case <-connected:
			}
		})
		var err error
		l.nc, err = o.Connect()
		close(connected)
		watch.Wait()

		switch {
		case l.life.Err() != nil:
			l.hangUp()
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, l2cache.ErrClosed
		case err == nats.ErrNoServers && refused != nil:
			err = fmt.Errorf("%w: %w", err, refused)
			fallthrough
		case err != nil:
			l.cut()
			return nil, err
		}
		return l, nil
	}
}

type dialerFunc func(network, address string) (net.Conn, error)

// Dial makes dialerFunc a nats.CustomDialer.
func (f dialerFunc) Dial(network, address string) (net.Conn, error) { return f(network, address) }
