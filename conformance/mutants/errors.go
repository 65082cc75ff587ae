package mutants

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// unavailable reports whether err says that the server is down.
func unavailable(err error) bool { return errors.Is(err, l2cache.ErrUnavailable) }

var errorMutants = []Mutant{
	{
		Name:  "a read of a server that is down is a miss",
		Rule:  "nothing but a miss is ErrNotFound",
		Kills: []string{"errors/down"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if unavailable(err) {
					err = l2cache.ErrNotFound
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "the error of a Set is swallowed",
		Rule:  "a backend that cannot answer says so",
		Kills: []string{"errors/down", "context/own-timeout"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if err := c.Set(ctx, key, value, ttl); !unavailable(err) {
					return err
				}
				return nil
			}}
		}),
	},
	{
		Name:  "the error of a Delete is swallowed",
		Rule:  "a backend that cannot answer says so",
		Kills: []string{"errors/down"},
		New: remote.patch(func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				if err := c.Delete(ctx, key); !unavailable(err) {
					return err
				}
				return nil
			}}
		}),
	},
	{
		Name:  "Ping asks only whether the handle is open",
		Rule:  "Ping says why the backend cannot answer",
		Kills: []string{"errors/down", "context/own-timeout"},
		New: remote.patch(func(c *client) patch {
			return patch{ping: func(ctx context.Context) error { return c.check(ctx, "ping", "") }}
		}),
	},
	{
		Name:  "the error of a server that is down is the driver's alone",
		Rule:  "a backend that cannot answer is ErrUnavailable",
		Kills: []string{"errors/down"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == errRefused {
					return fmt.Errorf("%s %q: %w", op, key, err)
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "the error of a server that is down matches ErrNotFound as well",
		Rule:  "nothing but a miss is ErrNotFound",
		Kills: []string{"errors/down"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if unavailable(err) {
					err = errors.Join(l2cache.ErrNotFound, err)
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a refused connection is a timeout of the net package, which matches DeadlineExceeded",
		Rule:  "an error matches a context's if and only if the caller's has ended",
		Kills: []string{"errors/down"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == errRefused {
					return errors.Join(l2cache.ErrUnavailable, context.DeadlineExceeded)
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "while the server is down, reads come from what was read last",
		Rule:  "a backend that cannot answer is ErrUnavailable",
		Kills: []string{"errors/down"},
		New: remote.patch(func(c *client) patch {
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					e, err := c.read(ctx, "get", key)
					if last, ok := c.s.memo.Load(key); ok && unavailable(err) {
						return last.(l2cache.Entry), nil
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					c.s.memo.Store(key, l2cache.Entry{Value: clone(value), TTL: ttl})
					return c.Set(ctx, key, value, ttl)
				},
			}
		}),
	},
	{
		Name:  "a handle that has met an error is given up for good",
		Rule:  "a handle works again when the server is back",
		Kills: []string{"errors/recovers"},
		New: remote.edit(func(c *client) {
			var broken atomic.Bool
			failure, check := c.failure, c.check
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == errRefused {
					broken.Store(true)
				}
				return failure(ctx, op, key, err)
			}
			c.check = func(ctx context.Context, op, key string) error {
				if err := check(ctx, op, key); err != nil || !broken.Load() {
					return err
				}
				return failure(ctx, op, key, errRefused)
			}
		}),
	},
	{
		Name:  "Ping connects again, and writes do not",
		Rule:  "a handle works again when the server is back",
		Kills: []string{"errors/recovers", "durability/volatile-restart"},
		New: remote.patch(func(c *client) patch {
			c.s.mu.Lock()
			connected := c.s.restarts
			c.s.mu.Unlock()
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				c.s.mu.Lock()
				restarts := c.s.restarts
				c.s.mu.Unlock()
				if restarts != connected {
					return c.failure(ctx, "set", key, errors.New("broken pipe"))
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "open waits until the server is there",
		Rule:  "opening ends",
		Kills: []string{"errors/open-dead"},
		New: remote.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			for c.Ping(ctx) != nil && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			return c, ctx.Err()
		}),
	},
	{
		Name:  "open without a server gives a handle for which everything is a miss",
		Rule:  "nothing but a miss is ErrNotFound",
		Kills: []string{"errors/open-dead"},
		New: remote.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			if c.Ping(ctx) == nil {
				return c, nil
			}
			return patch{L2CacheBackend: c, read: func(context.Context, string) (l2cache.Entry, error) {
				return l2cache.Entry{}, l2cache.ErrNotFound
			}}, nil
		}),
	},
	{
		Name:  "open without a server is the error of a ctx that the caller does not have",
		Rule:  "an error matches a context's if and only if the caller's has ended",
		Kills: []string{"errors/open-dead"},
		New: remote.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			if err := c.Ping(ctx); err != nil {
				return nil, fmt.Errorf("dial: %w", context.DeadlineExceeded)
			}
			return c, nil
		}),
	},
	{
		Name:  "the decoder panics",
		Rule:  "stored bytes that are no entry are ErrCorrupt",
		Kills: []string{"errors/corrupt"},
		New: remote.edit(func(c *client) {
			verify := c.verify
			c.verify = func(r row) error {
				if err := verify(r); err != nil {
					panic(err)
				}
				return nil
			}
		}),
	},
	{
		Name:  "what is stored is served as it is",
		Rule:  "stored bytes that are no entry are ErrCorrupt",
		Kills: []string{"errors/corrupt"},
		New: remote.edit(func(c *client) {
			c.verify = func(r row) error {
				if r.foreign {
					return errWrongType
				}
				return nil
			}
		}),
	},
	{
		Name:  "an entry that cannot be decoded is a miss",
		Rule:  "nothing but a miss is ErrNotFound",
		Kills: []string{"errors/corrupt"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrCorrupt) {
					err = l2cache.ErrNotFound
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a foreign type under the key is ErrUnavailable",
		Rule:  "a foreign type is ErrCorrupt",
		Kills: []string{"errors/corrupt"},
		New: remote.edit(func(c *client) {
			find := c.find
			c.verify = func(r row) error {
				if r.sum != checksum(r.value) {
					return errDamaged
				}
				return nil
			}
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := find(rs, name, now)
				return r, ok && !r.foreign
			}
		}),
	},
	{
		Name:  "an entry that cannot be decoded is returned with its error",
		Rule:  "a value is nil when there is an error",
		Kills: []string{"errors/corrupt"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrCorrupt) {
					e.Value = []byte("what there is")
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a read deletes what it cannot decode",
		Rule:  "a read never deletes what is corrupt",
		Kills: []string{"errors/corrupt-stays"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrCorrupt) {
					c.behind(func(rs rows, _ time.Time) { delete(rs, key) })
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a Set over a foreign type is refused",
		Rule:  "a Set replaces what is there",
		Kills: []string{"errors/corrupt-stays"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				foreign := false
				c.behind(func(rs rows, _ time.Time) { foreign = rs[key].foreign })
				if foreign {
					return c.failure(ctx, "set", key, errWrongType)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "Delete leaves what is no entry",
		Rule:  "a Delete removes what is there",
		Kills: []string{"errors/corrupt-replaced"},
		New: remote.edit(func(c *client) {
			drop := c.drop
			c.drop = func(rs rows, name string, now time.Time) error {
				if c.verify(rs[name]) != nil {
					return nil
				}
				return drop(rs, name, now)
			}
		}),
	},
}
