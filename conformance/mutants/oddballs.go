package mutants

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
)

// References returns stores without oddities, one of each kind that the suite
// tells apart. Between them every case applies.
func References() []Store {
	var stores []Store
	for _, kind := range []struct {
		name string
		shape
	}{
		{"reference: a server that forgets when it restarts", remote},
		{"reference: a durable server", durable},
		{"reference: an embedded store, one handle at a time", embedded},
	} {
		stores = append(stores, Store{Name: kind.name, Why: "it keeps every rule", New: kind.plain})
	}
	return stores
}

// Reference returns the first of References.
func Reference() System { return remote.plain() }

// odd is a store whose round trips take d, which edit has changed. In a bubble
// time goes on only while something waits: without d, cases that go on for a
// second would go on for ever.
func (sh shape) odd(d time.Duration, edit func(*client)) func() System {
	return sh.oddPatch(d, func(c *client) patch { edit(c); return patch{} })
}

func (sh shape) oddPatch(d time.Duration, with func(*client) patch) func() System {
	return relaxed(sh.patch(func(c *client) patch {
		c.timeout = slowTimeout
		travelling(c, d)
		return with(c)
	}))
}

// slowTimeout is the operations' own timeout of stores that may be slow.
const slowTimeout = 10 * time.Second

// relaxed gives a system's cases the time that a slow store needs.
func relaxed(system func() System) func() System {
	return func() System {
		s := system()
		s.Options.OpTimeout, s.Options.CaseTimeout = slowTimeout, 3*time.Hour
		return s
	}
}

// with changes a system's options.
func with(system func() System, change func(*conformance.Options)) func() System {
	return func() System {
		s := system()
		change(&s.Options)
		return s
	}
}

// trip is what a round trip takes unless that is the oddity; half is one way of a
// longer one.
const (
	trip = 4 * time.Millisecond
	half = 20 * time.Millisecond
)

// but returns a shape that differs in its profile.
func (sh shape) but(change func(*shape)) shape {
	change(&sh)
	return sh
}

// Oddballs returns stores that keep the contract in a way that a suite may not
// expect.
func Oddballs() []Store {
	nothing := func(*client) {}
	return append([]Store{
		{
			Name: "TTLs are rounded up to whole seconds",
			Why:  "the profile declares a resolution of 1 s",
			New:  remote.but(func(sh *shape) { sh.Resolution = time.Second }).odd(trip, nothing),
		},
		{
			Name: "TTLs are rounded up to tenths of a second",
			Why:  "the profile declares a resolution of 100 ms",
			New:  durable.but(func(sh *shape) { sh.Resolution = 100 * time.Millisecond }).odd(trip, nothing),
		},
		{
			Name: "an entry is read for most of a resolution longer, of 100 ms",
			Why:  "it has to be absent one resolution after its end",
			New: remote.but(func(sh *shape) { sh.Resolution = 100 * time.Millisecond }).odd(trip, func(c *client) {
				c.stored = func(ttl time.Duration) (time.Duration, error) { return l2cache.CheckTTL(ttl, 1) }
				find, left := c.find, c.left
				c.find = func(rs rows, name string, now time.Time) (row, bool) {
					return find(rs, name, now.Add(-99*time.Millisecond))
				}
				c.left = func(r row, now time.Time) time.Duration { return max(left(r, now), 1) }
			}),
		},
		{
			Name: "every call takes 50 ms",
			Why:  "the contract does not speak of speed",
			New:  remote.odd(50*time.Millisecond, nothing),
		},
		{
			Name: "calls take from nothing to 20 ms",
			Why:  "the contract does not speak of speed",
			New: durable.odd(trip, func(c *client) {
				c.latency = func() time.Duration { return rand.N(10 * time.Millisecond) }
			}),
		},
		{
			Name: "calls take from nothing to a second",
			Why:  "the contract does not speak of speed; but not every case finds its evidence",
			New: with(remote.odd(trip, func(c *client) {
				c.latency = func() time.Duration { return rand.N(500 * time.Millisecond) }
			}), func(o *conformance.Options) { o.Strict = false }),
		},
		{
			Name: "one call in a hundred takes two seconds",
			Why:  "the contract does not speak of speed; but not every case finds its evidence",
			New: with(durable.odd(trip, func(c *client) {
				c.latency = func() time.Duration {
					if rand.N(200) == 0 {
						return 2 * time.Second
					}
					return trip / 2
				}
			}), func(o *conformance.Options) { o.Strict = false }),
		},
		{
			Name: "every error is wrapped, that of a miss too",
			Why:  "errors are compared by errors.Is",
			New: remote.oddPatch(trip, func(c *client) patch {
				wrap := func(err error) error {
					if err == nil {
						return nil
					}
					return fmt.Errorf("the application's store: %w", err)
				}
				return patch{
					read: func(ctx context.Context, key string) (l2cache.Entry, error) {
						e, err := c.read(ctx, "get", key)
						return e, wrap(err)
					},
					set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
						return wrap(c.Set(ctx, key, value, ttl))
					},
					del:  func(ctx context.Context, key string) error { return wrap(c.Delete(ctx, key)) },
					ping: func(ctx context.Context) error { return wrap(c.Ping(ctx)) },
				}
			}),
		},
		{
			Name: "errors are not of the type *l2cache.Error",
			Why:  "errors are compared by errors.Is; what they tell is a SHOULD",
			New: with(remote.odd(trip, func(c *client) {
				failure, check := c.failure, c.check
				c.failure = func(ctx context.Context, op, key string, err error) error {
					return bare(failure(ctx, op, key, err))
				}
				c.check = func(ctx context.Context, op, key string) error { return bare(check(ctx, op, key)) }
			}), func(o *conformance.Options) {
				o.KnownFailures = map[string]string{"isolation/error-names-key": "errors of its own"}
			}),
		},
		{
			Name: "nothing is kept for more than 3 s",
			Why:  "the profile declares this MaxTTL",
			New:  remote.but(func(sh *shape) { sh.MaxTTL = 3 * time.Second }).odd(trip, nothing),
		},
		{
			Name: "nothing is kept for more than a minute, in whole seconds",
			Why:  "the profile declares this MaxTTL and this resolution",
			New: durable.but(func(sh *shape) {
				sh.MaxTTL, sh.Resolution = time.Minute, time.Second
			}).odd(trip, nothing),
		},
		{
			Name: "there is room for 64 MiB, and the oldest entries go",
			Why:  "the profile declares that it evicts",
			New: func() System {
				var evictor evictor
				return remote.but(func(sh *shape) { sh.Evicts = true }).odd(trip, evictor.install)()
			},
		},
		{
			Name: "an empty value is read as nil",
			Why:  "an empty value is a hit, whatever slice stands for it",
			New: remote.odd(trip, func(c *client) {
				c.decode = func(stored []byte) []byte { return append([]byte(nil), stored...) }
			}),
		},
		{
			Name: "values are read with room behind them",
			Why:  "the room is the caller's as well",
			New: remote.odd(trip, func(c *client) {
				c.decode = func(stored []byte) []byte { return append(make([]byte, 0, 2*len(stored)+64), stored...) }
			}),
		},
		{
			Name: "keys have up to 250 bytes",
			Why:  "the profile declares it",
			New:  remote.but(func(sh *shape) { sh.MaxKeyLen = 250 }).odd(trip, nothing),
		},
		{
			Name: "values have up to 1,000,000 bytes",
			Why:  "the profile declares it",
			New:  remote.but(func(sh *shape) { sh.MaxValueLen = 1_000_000 }).odd(trip, nothing),
		},
		{
			Name: "values of more than 1,000,000 bytes are refused, which is not declared",
			Why:  "larger values are as the server allows",
			New: durable.odd(trip, func(c *client) {
				c.limit = func(value []byte) error {
					if len(value) > 1_000_000 {
						return l2cache.ErrTooLarge
					}
					return nil
				}
			}),
		},
		{
			Name: "expired entries are left where they are",
			Why:  "giving back their space is a SHOULD",
			New: with(remote.odd(trip, func(c *client) {
				c.s.mu.Lock()
				defer c.s.mu.Unlock()
				c.s.lazy = true
			}), func(o *conformance.Options) {
				o.KnownFailures = map[string]string{"ttl/set/reclaimed": "expiry is only looked at by reads"}
			}),
		},
		{
			Name: "a backend without a profile",
			Why:  "it has the defaults",
			New: relaxed(durable.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
				c.timeout = slowTimeout
				travelling(c, trip)
				return struct{ l2cache.L2CacheBackend }{c}, c.connect(ctx)
			})),
		},
		{
			Name: "a server that came back is refused for another 2 s",
			Why:  "how soon a client connects again is its own affair",
			New: durable.odd(trip, func(c *client) {
				c.s.mu.Lock()
				defer c.s.mu.Unlock()
				c.s.warmUp = 2 * time.Second
			}),
		},
		{
			Name: "a write that is cut off leaves a miss",
			Why:  "a write that fails after it may have been sent is in doubt",
			New: durable.oddPatch(trip, func(c *client) patch {
				return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					err := c.Set(ctx, key, value, ttl)
					if unavailable(err) {
						c.s.mu.Lock()
						defer c.s.mu.Unlock()
						delete(c.s.spaces[c.namespace], key)
					}
					return err
				}}
			}),
		},
		{
			Name: "a Set that is cancelled in flight lands 30 ms later",
			Why:  "a write that fails after it may have been sent is in doubt",
			New: remote.oddPatch(trip, func(c *client) patch {
				return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					ended := ctx.Err() != nil
					err := c.Set(ctx, key, value, ttl)
					if isContextErr(err) && !ended {
						sent := clone(value)
						time.AfterFunc(30*time.Millisecond, func() { c.Set(context.Background(), key, sent, ttl) })
					}
					return err
				}}
			}),
		},
		{
			Name: "the remaining TTL is that of the call",
			Why:  "it is of some instant between call and return",
			New: remote.odd(half*2, func(c *client) {
				left := c.left
				c.left = func(r row, now time.Time) time.Duration { return left(r, now.Add(-half)) }
			}),
		},
		{
			Name: "the remaining TTL is that of the return",
			Why:  "it is of some instant between call and return, and above zero",
			New: remote.odd(half*2, func(c *client) {
				left := c.left
				c.left = func(r row, now time.Time) time.Duration { return max(left(r, now.Add(half)), 1) }
			}),
		},
		{
			Name: "a TTL begins with the return of Set",
			Why:  "an entry has to be absent a TTL after that",
			New: remote.odd(half*2, func(c *client) {
				deadline := c.deadline
				c.deadline = func(now time.Time, ttl time.Duration) time.Time { return deadline(now.Add(half), ttl) }
			}),
		},
		{
			Name: "a TTL begins with the call of Set",
			Why:  "an entry has to be there until a TTL after that",
			New: remote.odd(half*2, func(c *client) {
				deadline := c.deadline
				c.deadline = func(now time.Time, ttl time.Duration) time.Time { return deadline(now.Add(-half), ttl) }
			}),
		},
		{
			Name: "a server that is not called durable keeps its data",
			Why:  "the profile promises nothing",
			New: relaxed(remote.system(func(s *server) { s.keepsData = true }, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
				c.timeout = slowTimeout
				travelling(c, trip)
				return c, c.connect(ctx)
			})),
		},
		{
			Name: "behind a prefix",
			Why:  "WithPrefix keeps the contract",
			New: func() System {
				const prefix = "an app:"
				system := relaxed(remote.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
					c.timeout = slowTimeout
					travelling(c, trip)
					return l2cache.WithPrefix(c, prefix), c.connect(ctx)
				}))()
				raw := *system.Options.Raw
				system.Options.Raw = &conformance.Raw{Stored: func(ctx context.Context, namespace, key string) (bool, error) {
					return raw.Stored(ctx, namespace, prefix+key)
				}}
				for _, damage := range raw.Damage {
					system.Options.Raw.Damage = append(system.Options.Raw.Damage, conformance.Damage{
						Name: damage.Name,
						Do: func(ctx context.Context, namespace, key string) error {
							return damage.Do(ctx, namespace, prefix+key)
						},
					})
				}
				return system
			},
		},
		{
			Name: "Close takes 200 ms",
			Why:  "the contract does not speak of speed",
			New: remote.oddPatch(trip, func(c *client) patch {
				return patch{close: func() error {
					err := c.Close()
					time.Sleep(200 * time.Millisecond)
					return err
				}}
			}),
		},
		{
			Name: "open takes half a second, and asks nothing of the server",
			Why:  "a backend may connect when it is first used",
			New: relaxed(remote.system(nil, func(_ context.Context, c *client) (l2cache.L2CacheBackend, error) {
				c.timeout = slowTimeout
				travelling(c, trip)
				time.Sleep(500 * time.Millisecond)
				return c, nil
			})),
		},
		{
			Name: "calls of a handle are done one after another",
			Why:  "a call may wait, if it honours its ctx",
			New: remote.oddPatch(trip, func(c *client) patch {
				turn := make(chan struct{}, 1)
				check := c.check
				begin := func(ctx context.Context, op, key string) (end func(), err error) {
					if err := check(ctx, op, key); err != nil {
						return nil, err
					}
					q := request{ctx: ctx, closed: c.closed, expires: time.Now().Add(c.timeout)}
					if err := q.take(turn); err != nil {
						return nil, c.failure(ctx, op, key, err)
					}
					return func() { <-turn }, nil
				}
				return patch{
					read: func(ctx context.Context, key string) (l2cache.Entry, error) {
						end, err := begin(ctx, "get", key)
						if err != nil {
							return l2cache.Entry{}, err
						}
						defer end()
						return c.read(ctx, "get", key)
					},
					set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
						end, err := begin(ctx, "set", key)
						if err != nil {
							return err
						}
						defer end()
						return c.Set(ctx, key, value, ttl)
					},
					del: func(ctx context.Context, key string) error {
						end, err := begin(ctx, "delete", key)
						if err != nil {
							return err
						}
						defer end()
						return c.Delete(ctx, key)
					},
				}
			}),
		},
		{
			Name: "an embedded store that waits 5 ms for its disk",
			Why:  "the contract does not speak of speed",
			New:  embedded.odd(5*time.Millisecond, nothing),
		},
		{
			Name: "TTLs are stored and reported to the nanosecond",
			Why:  "that is finer than the resolution, and never above what was set",
			New: remote.odd(trip, func(c *client) {
				c.stored = func(ttl time.Duration) (time.Duration, error) { return l2cache.CheckTTL(ttl, 1) }
				c.left = func(r row, now time.Time) time.Duration {
					if r.deadline.IsZero() {
						return l2cache.NoExpiry
					}
					return min(r.deadline.Sub(now), r.ttl)
				}
			}),
		},
	}, capabilityOddballs()...)
}

// take waits for a turn.
func (q request) take(turn chan struct{}) error {
	expired := time.NewTimer(time.Until(q.expires))
	defer expired.Stop()
	select {
	case turn <- struct{}{}:
		return nil
	case <-q.ctx.Done():
		return q.ctx.Err()
	case <-q.closed:
		return l2cache.ErrClosed
	case <-expired.C:
		return errNoReply
	}
}

// bareError says what it matches, and no more.
type bareError struct{ err error }

func (e bareError) Error() string        { return "failed" }
func (e bareError) Is(target error) bool { return errors.Is(e.err, target) }

func bare(err error) error {
	if err == nil {
		return nil
	}
	return bareError{err}
}

// An evictor keeps a server below 64 MiB.
type evictor struct {
	mu     sync.Mutex
	held   int       // bytes; guarded by mu
	stores []evicted // in the order of their writes; guarded by mu
}

type evicted struct {
	rs   rows
	name string
	row
}

func (e *evictor) install(c *client) {
	put, drop := c.put, c.drop
	c.put = func(rs rows, name string, r row, now time.Time) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.held += len(r.value) - len(rs[name].value)
		put(rs, name, r, now)
		e.stores = append(e.stores, evicted{rs, name, r})
		for e.held > 64<<20 {
			oldest := e.stores[0]
			e.stores = e.stores[1:]
			if r, ok := oldest.rs[oldest.name]; ok && r.sum == oldest.sum && r.deadline.Equal(oldest.deadline) {
				e.held -= len(r.value)
				delete(oldest.rs, oldest.name)
			}
		}
	}
	c.drop = func(rs rows, name string, now time.Time) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.held -= len(rs[name].value)
		return drop(rs, name, now)
	}
}
