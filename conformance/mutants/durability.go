package mutants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var limitMutants = []Mutant{
	{
		Name:  "the declared limit counts the server's overhead",
		Rule:  "a value of MaxValueLen is stored",
		Kills: []string{"limits/value"},
		New: remote.edit(func(c *client) {
			c.limit = func(value []byte) error {
				if len(value)+64 > c.profile.MaxValueLen {
					return l2cache.ErrTooLarge
				}
				return nil
			}
		}),
	},
	{
		Name:  "a value of one byte more than the limit is cut",
		Rule:  "a value over MaxValueLen is ErrTooLarge",
		Kills: []string{"limits/value"},
		New: remote.edit(func(c *client) {
			limit := c.limit
			c.limit = func(value []byte) error { return limit(value[min(len(value), 1):]) }
			c.encode = func(value []byte) []byte { return clone(value[:min(len(value), c.profile.MaxValueLen)]) }
		}),
	},
	{
		Name:  "the limit holds with short keys only",
		Rule:  "a value of MaxValueLen is stored, under every key",
		Kills: []string{"limits/value"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if len(key)+len(value) > c.profile.MaxValueLen+500 {
					return c.failure(ctx, "set", key, l2cache.ErrTooLarge)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a value that is too large deletes the old entry",
		Rule:  "ErrTooLarge leaves the old entry",
		Kills: []string{"limits/value", "limits/undeclared"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if errors.Is(err, l2cache.ErrTooLarge) {
					c.Delete(ctx, key)
				}
				return err
			}}
		}),
	},
	{
		Name:  "a value over the limit is ErrUnavailable",
		Rule:  "a value over MaxValueLen is ErrTooLarge",
		Kills: []string{"limits/value", "limits/undeclared"},
		New: remote.edit(func(c *client) {
			limit := c.limit
			c.limit = func(value []byte) error {
				if limit(value) != nil {
					return errors.New("SERVER_ERROR object too large for cache")
				}
				return nil
			}
		}),
	},
	{
		Name:  "a value over 1 MiB is cut",
		Rule:  "a value is never cut",
		Kills: []string{"limits/undeclared"},
		New: durable.edit(func(c *client) {
			c.encode = func(value []byte) []byte { return clone(value[:min(len(value), 1<<20)]) }
		}),
	},
	{
		Name:  "a Set of a value over 1 MiB is nil, and stores nothing",
		Rule:  "a value that is not stored is an error",
		Kills: []string{"limits/undeclared"},
		New: durable.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if len(r.value) <= 1<<20 {
					put(rs, name, r, now)
				}
			}
		}),
	},
}

// behindColon is the key without what stands before a colon.
func behindColon(key string) string {
	if _, rest, ok := strings.Cut(key, ":"); ok && rest != "" {
		return rest
	}
	return key
}

var isolationMutants = []Mutant{
	{
		Name:  "all namespaces are one",
		Rule:  "namespaces share nothing",
		Kills: []string{"isolation/namespace"},
		New:   remote.edit(func(c *client) { c.namespace = "all" }),
	},
	{
		Name:  "what stands before a colon is a table, and its name ends at the first digit",
		Rule:  "two prefixes that differ share nothing",
		Kills: []string{"isolation/prefix"},
		New: remote.edit(func(c *client) {
			c.name = func(key string) string {
				table, rest, ok := strings.Cut(key, ":")
				if i := strings.IndexAny(table, "0123456789"); ok && i > 0 {
					table = table[:i]
				}
				if !ok {
					return key
				}
				return table + ":" + rest
			}
		}),
	},
	{
		Name:  "Delete drops what stands before a colon",
		Rule:  "every operation uses the whole key",
		Kills: []string{"isolation/prefix"},
		New: remote.patch(func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				return c.Delete(ctx, behindColon(key))
			}}
		}),
	},
	patched("Touch drops what stands before a colon", "every operation uses the whole key",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				return c.Touch(ctx, behindColon(key), ttl)
			}}
		},
		"isolation/prefix"),
	patched("Add finds a key behind any table", "every operation uses the whole key",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				there := false
				c.behind(func(rs rows, now time.Time) {
					for name := range rs {
						_, live := c.find(rs, name, now)
						there = there || live && behindColon(name) == behindColon(key)
					}
				})
				if there && c.check(ctx, "add", key) == nil {
					return false, nil
				}
				return c.Add(ctx, key, value, ttl)
			}}
		},
		"isolation/prefix"),
	patched("DeleteMany drops what stands before a colon", "every operation uses the whole key",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				var dropped []string
				for _, key := range keys {
					dropped = append(dropped, behindColon(key))
				}
				return c.DeleteMany(ctx, dropped)
			}}
		},
		"isolation/prefix"),
	{
		Name:  "what stands before a colon is not counted in the length of a key",
		Rule:  "the limit on keys counts the prefix",
		Kills: []string{"isolation/prefix-keys"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if _, rest, ok := strings.Cut(key, ":"); ok && len(rest) > 0 && len(rest) <= l2cache.MaxKeyLen {
					key = rest
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "the text of an error has the key in the cause",
		Rule:  "errors speak of the caller's key",
		Kills: []string{"isolation/prefix-errors"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				return failure(ctx, op, key, fmt.Errorf("%q: %w", key, err))
			}
		}),
	},
	{
		Name:  "an error names the row and not the key",
		Rule:  "errors speak of the caller's key",
		Kills: []string{"isolation/prefix-errors", "isolation/error-names-key"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				return failure(ctx, op, c.namespace+"/"+key, err)
			}
		}),
	},
	{
		Name:  "an error is the bare kind",
		Rule:  "an error says which operation failed on which key",
		Kills: []string{"isolation/error-names-key"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if errors.Is(err, l2cache.ErrInvalidTTL) {
					return l2cache.ErrInvalidTTL
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "the error of damage is the bare kind",
		Rule:  "an error says which operation failed on which key",
		Kills: []string{"isolation/error-names-key"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrCorrupt) {
					err = l2cache.ErrCorrupt
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "an error has two lines",
		Rule:  "an error is one line",
		Kills: []string{"isolation/error-names-key"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				return fmt.Errorf("sim:\n%w", failure(ctx, op, key, err))
			}
		}),
	},
}

// closing is an embedded store that does something to its rows when it is closed.
func closing(f func(rs rows, now time.Time)) func() System {
	return embedded.patch(func(c *client) patch {
		return patch{close: func() error {
			if !c.isClosed() {
				c.behind(f)
			}
			return c.Close()
		}}
	})
}

var durabilityMutants = []Mutant{
	{
		Name:  "deadlines are kept in memory only",
		Rule:  "deadlines survive a reopening",
		Kills: []string{"durability/reopen", "durability/time-counts", "durability/ends-after-reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				r.ttl, r.deadline = l2cache.NoExpiry, time.Time{}
				rs[name] = r
			}
		}),
	},
	{
		Name:  "what has no expiry is dropped on Close",
		Rule:  "entries survive a reopening",
		Kills: []string{"durability/reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				if r.deadline.IsZero() {
					delete(rs, name)
				}
			}
		}),
	},
	{
		Name:  "the TTL begins anew with a reopening",
		Rule:  "an entry ends when it would have",
		Kills: []string{"durability/ends-after-reopen", "durability/time-counts"},
		New: embedded.edit(func(c *client) {
			c.behind(func(rs rows, now time.Time) {
				for name, r := range rs {
					r.deadline = c.deadline(now, r.ttl)
					rs[name] = r
				}
			})
		}),
	},
	{
		Name:  "what is left of a TTL is stored on Close, and counts from the opening",
		Rule:  "time counts while the backend is closed",
		Kills: []string{"durability/time-counts"},
		New: embedded.patch(func(c *client) patch {
			closedAt, ok := c.s.memo.Load(c.namespace)
			c.behind(func(rs rows, now time.Time) {
				for name, r := range rs {
					if ok && !r.deadline.IsZero() {
						r.deadline = r.deadline.Add(now.Sub(closedAt.(time.Time)))
					}
					rs[name] = r
				}
			})
			return patch{close: func() error {
				c.s.memo.Store(c.namespace, time.Now())
				return c.Close()
			}}
		}),
	},
	{
		Name:  "what has expired while the store was closed is there again",
		Rule:  "an entry that ends meanwhile is a miss",
		Kills: []string{"durability/time-counts"},
		New: embedded.edit(func(c *client) {
			opened, find := time.Now(), c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				if r, ok := rs[name]; ok && !isLive(r, opened) {
					return r, true
				}
				return find(rs, name, now)
			}
		}),
	},
	{
		Name:  "a file that is open can be opened again",
		Rule:  "an exclusive store has one handle",
		Kills: []string{"durability/exclusive"},
		New: embedded.system(nil, func(_ context.Context, c *client) (l2cache.L2CacheBackend, error) {
			return c, nil
		}),
	},
	{
		Name:  "open waits for the file as long as it takes",
		Rule:  "a second opener gets an error, soon",
		Kills: []string{"durability/exclusive"},
		New: embedded.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			for c.connect(ctx) != nil && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			return c, ctx.Err()
		}),
	},
	{
		Name:  "a second opener that is refused takes the lock with it",
		Rule:  "a second opener does no harm",
		Kills: []string{"durability/exclusive"},
		New: embedded.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			err := c.connect(ctx)
			if err != nil {
				c.behind(func(rs rows, _ time.Time) { clear(rs) })
			}
			return c, err
		}),
	},
	{
		Name:  "a durable server loses the last 12 entries that were written",
		Rule:  "what was acknowledged stays",
		Kills: []string{"durability/cut-off"},
		New: durable.server(func(s *server) {
			s.goesDown = func(rs rows) {
				written := func(name string) time.Time { return rs[name].deadline.Add(-rs[name].ttl) }
				latest := slices.SortedFunc(maps.Keys(rs), func(a, b string) int { return written(b).Compare(written(a)) })
				for _, name := range latest[:min(len(latest), 12)] {
					delete(rs, name)
				}
			}
		}),
	},
	{
		Name:  "a durable server keeps nothing",
		Rule:  "entries survive a restart",
		Kills: []string{"durability/restart", "durability/cut-off"},
		New:   durable.server(func(s *server) { s.keepsData = false }),
	},
	{
		Name:  "a restart loses deadlines",
		Rule:  "entries survive a restart with their deadlines",
		Kills: []string{"durability/restart"},
		New: durable.server(func(s *server) {
			s.goesDown = func(rs rows) {
				for name, r := range rs {
					r.ttl, r.deadline = l2cache.NoExpiry, time.Time{}
					rs[name] = r
				}
			}
		}),
	},
	{
		Name:  "a restart brings back what was deleted",
		Rule:  "what was deleted stays so",
		Kills: []string{"durability/restart"},
		New: durable.edit(func(c *client) {
			c.drop = func(rs rows, name string, _ time.Time) error {
				if r, ok := rs[name]; ok {
					c.s.memo.Store(name, r)
				}
				delete(rs, name)
				return nil
			}
			c.s.goesDown = func(rs rows) {
				c.s.memo.Range(func(name, r any) bool { rs[name.(string)] = r.(row); return true })
			}
		}),
	},
	{
		Name:  "a handle is an error for keys that the old server had",
		Rule:  "after a restart entries are misses",
		Kills: []string{"durability/volatile-restart"},
		New: remote.edit(func(c *client) {
			known, put := map[string]int{}, c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				known[name] = c.s.restarts
				put(rs, name, r, now)
			}
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				if at, ok := known[name]; ok && at != c.s.restarts {
					return row{foreign: true}, true
				}
				r, ok := rs[name]
				return r, ok && isLive(r, now)
			}
		}),
	},
	{
		Name:  "a value is stored in two parts without a transaction",
		Rule:  "a write that was cut off leaves no mix",
		Kills: []string{"durability/cut-off", "concurrency/whole-values"},
		New: durable.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if len(value) > 16_000 {
					half := clone(value)
					c.behind(func(rs rows, _ time.Time) {
						if r, ok := rs[key]; ok {
							copy(half[len(half)/2:], r.value[min(len(r.value), len(half)/2):])
							rs[key] = row{value: half, sum: checksum(half), ttl: r.ttl, deadline: r.deadline}
						}
					})
					time.Sleep(2 * time.Millisecond)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a write that met a server that was down is sent when it is back",
		Rule:  "no adapter sends a write again after a reconnect",
		Kills: []string{"errors/no-replay"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if unavailable(err) {
					value = clone(value)
					c.s.mu.Lock()
					defer c.s.mu.Unlock()
					c.s.replay = append(c.s.replay, func() { c.Set(context.Background(), key, value, ttl) })
				}
				return err
			}}
		}),
	},
}
