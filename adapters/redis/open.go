package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/l2cache/l2cache"
)

func init() {
	for _, scheme := range []string{"redis", "rediss", "redis+unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"} {
		l2cache.Register(scheme, open)
	}
}

// maxPoolSize is the server's default for maxclients.
const maxPoolSize = 10_000

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	c, durable := fromURL(p), p.Bool("durable", false)
	if err := p.Err(); err != nil {
		return nil, err
	}
	c.init(l2cache.Profile{Evicts: true, Durable: durable})
	if s, ok := c.servers.(*sentinels); ok && c.begin() {
		go func() {
			defer c.calls.Done()
			s.watch()
		}()
	}
	if p.Lazy {
		return c, nil
	}
	evicts, err := c.askEvicts(ctx)
	if err != nil {
		if stale(err) && !strings.HasPrefix(p.Scheme, "rediss") {
			err = fmt.Errorf("%w; if the server has TLS on this port, it is rediss:// instead of redis://", err)
		}
		err = c.newError(ctx, "open", "", err)
		c.Close()
		return nil, err
	}
	c.profile.Evicts = evicts
	return c, nil
}

// fromURL makes a Cache without a profile.
func fromURL(p *l2cache.Params) *Cache {
	c := &Cache{prompt: true, opTimeout: p.OpTimeout}
	o := options(p)
	size := p.Int("pool_size", 10*runtime.GOMAXPROCS(0), 1)
	if size > maxPoolSize {
		p.Fault("pool_size", "it is more than %d connections", maxPoolSize)
		size = 1
	}
	var config *tls.Config
	scheme, secure := strings.CutPrefix(p.Scheme, "rediss")
	if secure {
		config = p.TLS()
	} else {
		scheme = strings.TrimPrefix(scheme, "redis")
		for _, option := range []string{"tls_ca", "tls_cert", "tls_key", "tls_server_name"} {
			if scheme == "+unix" {
				hint(p, option, "there is no TLS on a socket")
			} else {
				hint(p, option, "it needs TLS: rediss%s://", scheme)
			}
		}
	}
	dial := newDialer(config, p.DialTimeout)
	reach := func(o redis.Options, dial dialer) *node {
		pool := newConns(func() *conn { return newConn(o, dial) }, size)
		return c.newNode(o.Addr, pool, func() *conn { return newConn(resp3(o), dial) })
	}

	switch scheme {
	case "+unix":
		o.Network = "unix"
		o.Addr = p.Path
		o.DB = p.Int("db", 0, 0)
		if strings.Trim(p.Path, "/") == "" {
			p.Fault("path", "that of the socket is missing, as in redis+unix:///run/redis.sock")
		}
		if len(p.Hosts) > 0 && (len(p.Hosts) > 1 || p.Hosts[0] != "localhost") {
			p.Fault("host", "it is localhost, to write user and password before it, or none")
		}
		c.servers = alone{reach(o, dial)}
	case "+cluster":
		if strings.Trim(p.Path, "/") != "" {
			p.Fault("path", "a cluster has no databases")
		}
		hint(p, "db", "a cluster has no databases")
		c.cluster = true
		c.servers = newCluster(c, p.Addrs("6379"), func(addr string) *node {
			o := o
			o.Addr = addr
			return reach(o, dial)
		})
	case "+sentinel":
		s := &sentinels{c: c, dial: dial, open: map[*tracked]struct{}{}}
		s.poll = &inquiry{c: c, fresh: mapAge, do: s.fetch}
		var number string
		s.name, number, _ = strings.Cut(strings.TrimPrefix(p.Path, "/"), "/")
		if s.name == "" {
			p.Fault("path", "the name of the master is missing, as in redis+sentinel://host/mymaster")
		}
		hint(p, "db", "the database is written after the name, as in redis+sentinel://host/mymaster/2")
		guard := o
		if !p.Bool("sentinel_auth", false) {
			guard.Username, guard.Password = "", ""
		}
		for _, addr := range p.Addrs("26379") {
			o := guard
			o.Addr = addr
			s.ask = append(s.ask, newConns(func() *conn { return newConn(o, dial) }, sentinelPool))
		}
		o.Addr = s.name
		o.DB = database(p, number)
		o.OnConnect = checkRole
		s.alone = alone{reach(o, s.connect)}
		c.servers = s
	default:
		hint(p, "db", "the database is the path, as in redis://localhost/2")
		addrs := p.Addrs("6379")
		if len(addrs) > 1 {
			p.Fault("host", "there is more than one; a cluster is redis+cluster://, and sentinels are redis+sentinel://")
		}
		o.Addr = strings.Join(addrs, ",") // one, or p has a fault
		o.DB = database(p, strings.TrimPrefix(p.Path, "/"))
		c.servers = alone{reach(o, dial)}
	}
	return c
}

// hint says what is to be written instead of an option, if it is given.
func hint(p *l2cache.Params, option, format string, args ...any) {
	const none = "\x00" // which no URL can have
	if p.String(option, none) != none {
		p.Fault(option, format, args...)
	}
}

// options returns those of every connection. Those that the URL does not set undo what
// go-redis does by default: repeat commands and dials, look for notifications before
// each command, and tell the server of each connection what it is.
func options(p *l2cache.Params) redis.Options {
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
	return o
}

// database returns the number of one: 3, or 0 for nothing.
func database(p *l2cache.Params, digits string) int {
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		p.Fault("path", "it does not end with the number of a database, as in redis://localhost/0")
	}
	return int(n)
}

// askEvicts reports whether one of the servers may evict, or does not tell. It makes
// the first connections, and so has all the time that there is for opening.
func (c *Cache) askEvicts(ctx context.Context) (bool, error) {
	deadline, _ := ctx.Deadline()
	evicts := false
	err := c.askAll(ctx, deadline,
		func() redis.Cmder { return redis.NewStringCmd(ctx, "info", "memory") },
		func(cmd redis.Cmder) { evicts = evicts || mayEvict(cmd.(*redis.StringCmd).Val()) })
	if redis.IsPermissionError(err) {
		return true, nil
	}
	return evicts, err
}

// mayEvict reports whether a server does of which this is INFO memory.
func mayEvict(info string) bool {
	for line := range strings.Lines(info) {
		switch strings.TrimSpace(line) {
		case "maxmemory:0", "maxmemory_policy:noeviction":
			return false
		}
	}
	return true
}
