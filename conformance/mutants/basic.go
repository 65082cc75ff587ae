package mutants

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// All returns every mutant.
func All() []Mutant {
	return slices.Concat(
		basicMutants, keyMutants, valueMutants, ttlSetMutants, ttlRemainingMutants, overwriteMutants,
		deleteMutants, errorMutants, contextMutants, concurrencyMutants, closeMutants, limitMutants,
		isolationMutants, durabilityMutants,
		subtleMutants, faultMutants,
		batchMutants, touchMutants, addMutants, patternMutants, scanMutants, watchMutants, capabilityMutants,
		cornerMutants,
	)
}

var errDriver = errors.New("driver: nil")

var basicMutants = []Mutant{
	{
		Name:  "the profile is forgotten on Close",
		Rule:  "the profile is constant",
		Kills: []string{"basic/profile"},
		New: remote.patch(func(c *client) patch {
			return patch{profile: func() l2cache.Profile {
				if c.isClosed() {
					return l2cache.Profile{}
				}
				return c.profile
			}}
		}),
	},
	{
		Name:  "the profile has a resolution of 2 s",
		Rule:  "the resolution is at most 1 s",
		Kills: []string{"basic/profile"},
		New:   remote.edit(func(c *client) { c.profile.Resolution = 2 * time.Second }),
	},
	{
		Name:  "Set stores nothing",
		Rule:  "what was set is read back",
		Kills: []string{"basic/roundtrip"},
		New:   remote.edit(func(c *client) { c.put = func(rows, string, row, time.Time) {} }),
	},
	{
		Name:  "a miss is the driver's error",
		Rule:  "a miss is ErrNotFound",
		Kills: []string{"basic/miss", "delete/gone"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrNotFound) {
					err = errDriver
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a miss is an empty hit",
		Rule:  "a miss is ErrNotFound",
		Kills: []string{"basic/miss", "ttl/set/300ms"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrNotFound) {
					return l2cache.Entry{TTL: l2cache.NoExpiry}, nil
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a miss comes with an empty value that is not nil",
		Rule:  "a miss has a nil value",
		Kills: []string{"basic/miss"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if err != nil {
					e.Value = []byte{}
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "Ping asks for what this user may not do",
		Rule:  "Ping is nil if the backend can answer",
		Kills: []string{"basic/ping"},
		New: remote.patch(func(c *client) patch {
			return patch{ping: func(ctx context.Context) error {
				return l2cache.NewError(ctx, "sim", "ping", "", nil, errors.New("NOPERM INFO"))
			}}
		}),
	},
	{
		Name:  "Get consumes the entry",
		Rule:  "reading does not consume",
		Kills: []string{"basic/read-keeps", "basic/roundtrip"},
		New: remote.patch(func(c *client) patch {
			return patch{get: func(ctx context.Context, key string) ([]byte, error) {
				value, err := c.Get(ctx, key)
				c.behind(func(rs rows, _ time.Time) { delete(rs, key) })
				return value, err
			}}
		}),
	},
	{
		Name:  "the seventh read of an entry consumes it",
		Rule:  "reading does not consume",
		Kills: []string{"basic/read-keeps"},
		New: remote.patch(func(c *client) patch {
			var reads atomic.Int64
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if reads.Add(1)%7 == 0 {
					c.behind(func(rs rows, _ time.Time) { delete(rs, key) })
				}
				return c.read(ctx, "get", key)
			}}
		}),
	},
	{
		Name:  "Set is done 3 ms after it has returned",
		Rule:  "a Set is seen by the next read",
		Kills: []string{"basic/read-your-writes", "basic/roundtrip", "concurrency/linearizable"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(_ context.Context, key string, value []byte, ttl time.Duration) error {
				value = clone(value)
				time.AfterFunc(3*time.Millisecond, func() { c.Set(context.Background(), key, value, ttl) })
				return nil
			}}
		}),
	},
	{
		Name:  "reads come from a replica that is 3 ms behind",
		Rule:  "a Set is seen by the next read",
		Kills: []string{"basic/read-your-writes", "basic/roundtrip"},
		New: remote.edit(func(c *client) {
			// Each row is found as it was before the writes of the last 3 ms.
			old, put, drop := map[string]row{}, c.put, c.drop
			keep := func(rs rows, name string) {
				was := rs[name]
				time.AfterFunc(3*time.Millisecond, func() { c.behind(func(rs rows, _ time.Time) { old[name] = rs[name] }) })
				if _, ok := old[name]; !ok {
					old[name] = was
				}
			}
			c.put = func(rs rows, name string, r row, now time.Time) { keep(rs, name); put(rs, name, r, now) }
			c.drop = func(rs rows, name string, now time.Time) error { keep(rs, name); return drop(rs, name, now) }
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := old[name]
				return r, ok && r.value != nil && isLive(r, now)
			}
		}),
	},
	{
		Name:  "a Set is dropped if its ctx has no Done channel",
		Rule:  "a ctx that cannot be cancelled works like any other",
		Kills: []string{"basic/background"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ctx.Done() == nil {
					return nil
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a handle keeps what it has read",
		Rule:  "a Set is seen by every handle",
		Kills: []string{"basic/peer", "concurrency/linearizable-peers"},
		New: remote.patch(func(c *client) patch {
			var near sync.Map // key to l2cache.Entry
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					if e, ok := near.Load(key); ok {
						return e.(l2cache.Entry), nil
					}
					e, err := c.read(ctx, "get", key)
					if err == nil {
						near.Store(key, e)
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					defer near.Delete(key)
					return c.Set(ctx, key, value, ttl)
				},
				del: func(ctx context.Context, key string) error {
					defer near.Delete(key)
					return c.Delete(ctx, key)
				},
			}
		}),
	},
	{
		Name:  "every 97th write is lost",
		Rule:  "each key keeps its value",
		Kills: []string{"basic/many-keys", "keys/bytes-inside"},
		New: remote.edit(func(c *client) {
			writes, put := 0, c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if writes++; writes%97 != 0 {
					put(rs, name, r, now)
				}
			}
		}),
	},
	{
		Name:  "the store holds 400 entries and drops others, and does not say that it evicts",
		Rule:  "each key keeps its value",
		Kills: []string{"basic/many-keys"},
		New: remote.edit(func(c *client) {
			c.put = func(rs rows, name string, r row, _ time.Time) {
				for other := range rs {
					if len(rs) >= 400 {
						delete(rs, other)
					}
				}
				rs[name] = r
			}
		}),
	},
	{
		Name:  "keys share 4096 slots",
		Rule:  "distinct keys do not collide",
		Kills: []string{"basic/many-keys", "keys/bytes-inside"},
		New: remote.edit(func(c *client) {
			c.name = func(key string) string {
				return sha(key)[:3]
			}
		}),
	},
	{
		Name:  "a handle remembers two absent keys, and a Set clears only the later",
		Rule:  "no operation leaves something behind for another",
		Kills: []string{"basic/random-operations"},
		New: remote.patch(func(c *client) patch {
			var mu sync.Mutex
			var absent [2]string
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					mu.Lock()
					defer mu.Unlock()
					if slices.Contains(absent[:], key) {
						return l2cache.Entry{}, l2cache.ErrNotFound
					}
					e, err := c.read(ctx, "get", key)
					if errors.Is(err, l2cache.ErrNotFound) {
						absent = [2]string{absent[1], key}
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					mu.Lock()
					defer mu.Unlock()
					if absent[1] == key {
						absent[1] = ""
					}
					return c.Set(ctx, key, value, ttl)
				},
			}
		}),
	},
	{
		Name:  "writes under a deadline go to another database",
		Rule:  "a ctx with a deadline works like any other",
		Kills: []string{"basic/random-operations"},
		New: remote.patch(func(c *client) patch {
			other := newClient(c.s, c.namespace+"other", c.profile)
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if _, ok := ctx.Deadline(); ok {
					return other.Set(ctx, key, value, ttl)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "Get answers from a copy of its own, which GetWithTTL does not fill",
		Rule:  "Get and GetWithTTL read the same",
		Kills: []string{"basic/peer", "ttl/set/300ms"},
		New: remote.patch(func(c *client) patch {
			var own sync.Map // key to value
			return patch{
				get: func(ctx context.Context, key string) ([]byte, error) {
					if value, ok := own.Load(key); ok {
						return clone(value.([]byte)), nil
					}
					value, err := c.Get(ctx, key)
					return value, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					own.Store(key, clone(value))
					return c.Set(ctx, key, value, ttl)
				},
				del: func(ctx context.Context, key string) error {
					own.Delete(key)
					return c.Delete(ctx, key)
				},
			}
		}),
	},
	{
		Name:  "values come back in upper case",
		Rule:  "what was set is read back",
		Kills: []string{"basic/roundtrip", "values/bytes"},
		New: remote.edit(func(c *client) {
			c.decode = func(stored []byte) []byte { return []byte(strings.ToUpper(string(stored))) }
		}),
	},
}
