package redis

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"strconv"
	"strings"

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
	c, durable := fromURL(p), p.Bool("durable", false)
	if err := p.Err(); err != nil {
		return nil, err
	}
	c.init(l2cache.Profile{Evicts: true, Durable: durable})
	if p.Lazy {
		return c, nil
	}
	evicts, err := c.askEvicts(ctx)
	if err != nil {
		c.Close() // the error that led here is the one to report
		return nil, err
	}
	c.profile.Evicts = evicts
	return c, nil
}

// fromURL makes a Cache without a profile. The options that it sets also undo what
// go-redis does by default: repeat commands and dials, look for notifications before
// each command, and tell the server of each connection what it is.
func fromURL(p *l2cache.Params) *Cache {
	o := redis.Options{
		Network:    "tcp",
		Username:   p.User,
		Password:   p.Password.Reveal(),
		ClientName: p.String("client_name", ""),

		DialTimeout:  p.DialTimeout,
		ReadTimeout:  -2, // none: the end of a call's ctx closes the connection
		WriteTimeout: -2,
		PoolTimeout:  p.OpTimeout,

		MaxRetries:    -1,
		DialerRetries: 1,

		Protocol:                 2,
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
	if p.Scheme == "redis+unix" {
		o.Network = "unix"
		o.Addr = p.Path
		o.DB = p.Int("db", 0, 0)
		if strings.Trim(p.Path, "/") == "" {
			p.Fault("path", "that of the socket is missing, as in redis+unix:///run/redis.sock")
		}
		if len(p.Hosts) > 0 && (len(p.Hosts) > 1 || p.Hosts[0] != "localhost") {
			p.Fault("host", "it is localhost, to write user and password before it, or none")
		}
	} else {
		addrs := p.Addrs("6379")
		if len(addrs) > 1 {
			p.Fault("host", "there is more than one")
		}
		o.Addr = strings.Join(addrs, ",") // one, or p has a fault
		o.DB = database(p)
		if p.Scheme == "rediss" {
			config = p.TLS()
			if config.ServerName == "" {
				config.ServerName, _, _ = net.SplitHostPort(o.Addr) // a result of JoinHostPort
			}
		}
	}
	size := p.Int("pool_size", 10*runtime.GOMAXPROCS(0), 1)
	dial := newDialer(config)
	return &Cache{
		client:    newConns(func() *conn { return newConn(o, dial) }, size),
		newLink:   func() *conn { return newConn(resp3(o), dial) },
		prompt:    true,
		opTimeout: p.OpTimeout,
	}
}

// database returns the number in the path: /3, or 0 for / and nothing.
func database(p *l2cache.Params) int {
	digits := strings.TrimPrefix(p.Path, "/")
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		p.Fault("path", "it is not the number of a database, as in redis://localhost/0")
	}
	return int(n)
}

// askEvicts reports whether the server may evict, or does not tell. It makes the
// first connection, and so has all the time that there is for opening.
func (c *Cache) askEvicts(ctx context.Context) (bool, error) {
	deadline, _ := ctx.Deadline()
	info := redis.NewStringCmd(ctx, "info", "memory")
	err := c.exec(ctx, deadline, []redis.Cmder{info})
	if redis.IsPermissionError(err) {
		return true, nil
	}
	if err != nil {
		return true, c.newError(ctx, "open", "", err)
	}
	for line := range strings.Lines(info.Val()) {
		switch strings.TrimSpace(line) {
		case "maxmemory:0", "maxmemory_policy:noeviction":
			return false, nil
		}
	}
	return true, nil
}
