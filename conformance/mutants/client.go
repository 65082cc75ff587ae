package mutants

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
)

// A client is a handle on a namespace of a server. As newClient makes it, it
// keeps the contract.
type client struct {
	rules
	s         *server
	namespace string
	profile   l2cache.Profile
	timeout   time.Duration                                      // of an operation
	latency   func() time.Duration                               // half of what a round trip takes; nil: nothing
	failure   func(context.Context, string, string, error) error // makes the error of an op on a key

	closing sync.Once
	closed  chan struct{}

	cuts   int  // of the server's that this client's connection has seen; guarded by s.mu
	passed int  // bytes of replies since then; guarded by s.mu
	armed  bool // it is still to be cut; guarded by s.mu
}

// rules are how a client does what it does. Most mutants have another of one.
type rules struct {
	name     func(key string) string                                    // of the row
	check    func(ctx context.Context, op, key string) error            // before anything else
	limit    func(value []byte) error                                   // of the size of a value
	stored   func(ttl time.Duration) (time.Duration, error)             // the TTL that is stored
	deadline func(now time.Time, ttl time.Duration) time.Time           // zero: never
	encode   func(value []byte) []byte                                  // what is stored of a value
	put      func(rs rows, name string, r row, now time.Time)           // at the server
	drop     func(rs rows, name string, now time.Time) error            // at the server
	find     func(rs rows, name string, now time.Time) (r row, ok bool) // at the server
	verify   func(r row) error                                          // nil if r is an entry
	decode   func(stored []byte) []byte                                 // the value
	left     func(r row, now time.Time) time.Duration                   // the remaining TTL
}

func newClient(s *server, namespace string, profile l2cache.Profile) *client {
	c := &client{
		s: s, namespace: namespace, profile: profile, timeout: opTimeout,
		closed: make(chan struct{}),
	}
	s.mu.Lock()
	c.cuts = s.cuts
	s.mu.Unlock()
	full := l2cache.ProfileOf(profiled{profile: profile})
	c.failure = func(ctx context.Context, op, key string, err error) error {
		return l2cache.NewError(ctx, "sim", op, key, nil, err)
	}
	c.rules = rules{
		name: func(key string) string { return key },
		check: func(ctx context.Context, op, key string) error {
			if op == "ping" {
				return l2cache.PreflightNoKey(ctx, "sim", op, c.isClosed())
			}
			if err := l2cache.Preflight(ctx, "sim", op, key, c.isClosed()); err != nil {
				return err
			}
			if err := l2cache.CheckKey(key, full.MaxKeyLen); err != nil {
				return c.failure(ctx, op, key, err)
			}
			return nil
		},
		limit: func(value []byte) error {
			if full.MaxValueLen > 0 && len(value) > full.MaxValueLen {
				return l2cache.ErrTooLarge
			}
			return nil
		},
		stored: func(ttl time.Duration) (time.Duration, error) {
			ttl, err := l2cache.CheckTTL(ttl, full.Resolution)
			return min(ttl, full.MaxTTL), err
		},
		deadline: func(now time.Time, ttl time.Duration) time.Time {
			if ttl == l2cache.NoExpiry {
				return time.Time{}
			}
			return now.Add(ttl)
		},
		encode: clone,
		put:    func(rs rows, name string, r row, _ time.Time) { rs[name] = r },
		drop:   func(rs rows, name string, _ time.Time) error { delete(rs, name); return nil },
		find: func(rs rows, name string, now time.Time) (row, bool) {
			r, ok := rs[name]
			return r, ok && isLive(r, now)
		},
		verify: func(r row) error {
			switch {
			case r.foreign:
				return errWrongType
			case r.sum != checksum(r.value):
				return errDamaged
			}
			return nil
		},
		decode: clone,
		left: func(r row, now time.Time) time.Duration {
			if r.deadline.IsZero() {
				return l2cache.NoExpiry
			}
			return l2cache.RoundRemaining(min(r.deadline.Sub(now), r.ttl), full.Resolution)
		},
	}
	return c
}

// call has the server run f, and waits for it.
func (c *client) call(ctx context.Context, op, key string, f func(rows, time.Time)) error {
	q := request{ctx: ctx, closed: c.closed, expires: time.Now().Add(c.timeout)}
	err := c.travel(q)
	if err == nil {
		err = c.s.do(q, c.namespace, f)
	}
	if err == nil {
		err = c.reply()
	}
	if err == nil {
		err = c.travel(q)
	}
	if err != nil {
		return c.failure(ctx, op, key, err)
	}
	return nil
}

// travel is half of a round trip.
func (c *client) travel(q request) error {
	if c.latency == nil {
		return nil
	}
	return q.wait(nil, max(c.latency(), 1))
}

func (c *client) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.read(ctx, "get", key)
	return e.Value, err
}

func (c *client) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	return c.read(ctx, "get", key)
}

func (c *client) read(ctx context.Context, op, key string) (l2cache.Entry, error) {
	if err := c.check(ctx, op, key); err != nil {
		return l2cache.Entry{}, err
	}
	var r row
	var ok bool
	var now time.Time
	err := c.call(ctx, op, key, func(rs rows, at time.Time) {
		r, ok = c.find(rs, c.name(key), at)
		now = at
	})
	switch {
	case err != nil:
		return l2cache.Entry{}, err
	case !ok:
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	if err := c.verify(r); err != nil {
		return l2cache.Entry{}, l2cache.NewError(ctx, "sim", op, key, l2cache.ErrCorrupt, err)
	}
	return l2cache.Entry{Value: c.decode(r.value), TTL: c.left(r, now)}, nil
}

func (c *client) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := c.check(ctx, "set", key); err != nil {
		return err
	}
	ttl, err := c.stored(ttl)
	if err != nil {
		return c.failure(ctx, "set", key, err)
	}
	if err := c.limit(value); err != nil {
		return c.failure(ctx, "set", key, err)
	}
	stored := c.encode(value)
	r := row{value: stored, sum: checksum(stored), ttl: ttl}
	return c.call(ctx, "set", key, func(rs rows, now time.Time) {
		r.deadline = c.deadline(now, ttl)
		c.put(rs, c.name(key), r, now)
		c.changed(key)
	})
}

func (c *client) Delete(ctx context.Context, key string) error {
	if err := c.check(ctx, "delete", key); err != nil {
		return err
	}
	var refused error
	err := c.call(ctx, "delete", key, func(rs rows, now time.Time) {
		refused = c.drop(rs, c.name(key), now)
		c.changed(key)
	})
	if err == nil && refused != nil {
		return c.failure(ctx, "delete", key, refused)
	}
	return err
}

func (c *client) Ping(ctx context.Context) error {
	if err := c.check(ctx, "ping", ""); err != nil {
		return err
	}
	return c.call(ctx, "ping", "", func(rows, time.Time) {})
}

func (c *client) Name() string { return "sim" }

func (c *client) Profile() l2cache.Profile { return c.profile }

func (c *client) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		if c.profile.Exclusive {
			c.s.unlock(c.namespace)
		}
	})
	return nil
}

func (c *client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// clone copies value; the copy is not nil.
func clone(value []byte) []byte { return append([]byte{}, value...) }

// exclusive keeps mutants that write to what several callers pass from doing so at the
// same time: the race detector would end the gate for what a case is to find out. It
// returns the end of that.
func exclusive() (end func()) {
	arguments.Lock()
	return arguments.Unlock
}

var arguments sync.Mutex

// A patch is a backend that does some things in another way. What is nil is done
// by the backend itself.
type patch struct {
	l2cache.L2CacheBackend
	read    func(ctx context.Context, key string) (l2cache.Entry, error) // Get and GetWithTTL
	get     func(ctx context.Context, key string) ([]byte, error)
	entry   func(ctx context.Context, key string) (l2cache.Entry, error) // GetWithTTL
	set     func(ctx context.Context, key string, value []byte, ttl time.Duration) error
	del     func(ctx context.Context, key string) error
	ping    func(ctx context.Context) error
	close   func() error
	profile func() l2cache.Profile

	getMany       func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error)
	setMany       func(ctx context.Context, items []l2cache.Item) error
	deleteMany    func(ctx context.Context, keys []string) error
	touch         func(ctx context.Context, key string, ttl time.Duration) error
	add           func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error)
	deletePattern func(ctx context.Context, pattern string) error
	scan          func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool)
	watch         func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool)
}

func (p patch) Get(ctx context.Context, key string) ([]byte, error) {
	switch {
	case p.get != nil:
		return p.get(ctx, key)
	case p.read != nil:
		e, err := p.read(ctx, key)
		return e.Value, err
	}
	return p.L2CacheBackend.Get(ctx, key)
}

func (p patch) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	switch {
	case p.entry != nil:
		return p.entry(ctx, key)
	case p.read != nil:
		return p.read(ctx, key)
	}
	return p.L2CacheBackend.GetWithTTL(ctx, key)
}

func (p patch) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if p.set != nil {
		return p.set(ctx, key, value, ttl)
	}
	return p.L2CacheBackend.Set(ctx, key, value, ttl)
}

func (p patch) Delete(ctx context.Context, key string) error {
	if p.del != nil {
		return p.del(ctx, key)
	}
	return p.L2CacheBackend.Delete(ctx, key)
}

func (p patch) Ping(ctx context.Context) error {
	if p.ping != nil {
		return p.ping(ctx)
	}
	return p.L2CacheBackend.Ping(ctx)
}

func (p patch) Close() error {
	if p.close != nil {
		return p.close()
	}
	return p.L2CacheBackend.Close()
}

func (p patch) Profile() l2cache.Profile {
	if p.profile != nil {
		return p.profile()
	}
	return l2cache.ProfileOf(p.L2CacheBackend)
}

// profiled is only a profile.
type profiled struct {
	l2cache.CacheBackend
	profile l2cache.Profile
}

func (p profiled) Profile() l2cache.Profile { return p.profile }

// A shape is a sort of store, by its profile.
type shape l2cache.Profile

var (
	// remote is a server that forgets when it restarts.
	remote = shape{Supports: everything, Clock: l2cache.ServerClock, MaxValueLen: 1 << 20}
	// durable is a server that does not.
	durable = shape{Supports: everything, Clock: l2cache.ServerClock, Durable: true}
	// embedded is a file that one handle has open.
	embedded = shape{Supports: everything, Embedded: true, Durable: true, Exclusive: true}
)

// plain makes the reference.
func (sh shape) plain() System { return sh.edit(func(*client) {})() }

// edit makes a client that edit has changed.
func (sh shape) edit(edit func(*client)) func() System {
	return sh.patch(func(c *client) patch { edit(c); return patch{} })
}

// patch makes a client that with has changed, or wrapped in what it returns.
func (sh shape) patch(with func(*client) patch) func() System {
	return sh.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
		if err := c.connect(ctx); err != nil {
			return nil, err
		}
		p := with(c)
		p.L2CacheBackend = c
		return p, nil
	})
}

// server makes a server that edit has changed.
func (sh shape) server(edit func(*server)) func() System {
	return sh.system(edit, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
		return c, c.connect(ctx)
	})
}

// system makes a system whose handles open finishes.
func (sh shape) system(edit func(*server), open func(context.Context, *client) (l2cache.L2CacheBackend, error)) func() System {
	return func() System {
		s := newServer(sh.Durable)
		if edit != nil {
			edit(s)
		}
		system := System{
			Open: func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
				return open(ctx, newClient(s, namespace, l2cache.Profile(sh)))
			},
			Options: conformance.Options{Strict: true, OpTimeout: opTimeout, CaseTimeout: 20 * time.Second, Raw: s.raw()},
		}
		if !sh.Embedded {
			system.Options.Faults = s.faults()
		}
		return system
	}
}

var errLocked = errors.New("another handle has it open")

// connect asks the server whether it is there, and takes the lock of an exclusive
// store.
func (c *client) connect(ctx context.Context) error {
	if err := c.Ping(ctx); err != nil {
		return err
	}
	if c.profile.Exclusive && !c.s.lock(c.namespace) {
		return c.failure(ctx, "open", "", errLocked)
	}
	return nil
}
