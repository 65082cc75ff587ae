package memcached

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/l2cache/l2cache"
)

func init() {
	l2cache.Register("memcached", open)
	l2cache.Register("memcacheds", open)
}

const (
	defaultPort     = "11211"
	defaultPoolSize = 128
	maxPoolSize     = 10_000 // of connections to a server; memcached itself takes 1,024 by default
)

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	addrs := p.Addrs(defaultPort)
	if p.User != "" || p.Password.Reveal() != "" {
		p.Fault("user", "gomemcache has no authentication")
	}
	if p.Path != "" && p.Path != "/" {
		p.Fault("path", "there is none, as in %s://localhost", p.Scheme)
	}
	maxValue := p.Int("max_value", DefaultMaxValueLen, minMaxValueLen)
	poolSize := p.Int("pool_size", defaultPoolSize, 1)
	if poolSize > maxPoolSize {
		p.Fault("pool_size", "it is more than %d", maxPoolSize)
	}
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{}
	if p.Scheme == "memcacheds" {
		dialer = &tls.Dialer{Config: p.TLS()}
	}
	var selector *Selector
	if len(addrs) > 0 {
		var err error
		if selector, err = NewSelector(addrs...); err != nil {
			p.Fault("host", "%w", err)
		}
	}
	if err := p.Err(); err != nil {
		return nil, err
	}

	c := newCache(p.OpTimeout, maxValue)
	servers := newServers(c.life, selector, dialer.DialContext, p.OpTimeout, poolSize)
	c.store = servers
	if p.Lazy {
		return c, nil
	}
	// The first connections are made here: they have all the time that there is for opening.
	deadline, _ := ctx.Deadline()
	if err := servers.pingUntil(ctx, deadline); err != nil {
		err = c.fail(ctx, "open", "", err)
		c.Close() // the error that led here is the one to report
		return nil, err
	}
	c.noCAS = servers.noCAS(ctx)
	return c, nil
}
