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
	c.store, c.noCAS = servers, !p.Lazy && servers.noCAS(ctx)
	return c, nil
}
