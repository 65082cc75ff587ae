package mutants

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// added is a mutant whose Add does another thing at the server, or says another.
func added(name, rule string, f func(c *client, rs rows, name string, r row, now time.Time) (bool, error), kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
			return c.add(ctx, key, value, ttl, func(rs rows, name string, r row, now time.Time) (bool, error) {
				return f(c, rs, name, r, now)
			})
		}}
	}, kills...)
}

// answered is a mutant that returns what f makes of the answer to an Add.
func answered(name, rule string, f func(added bool, err error) (bool, error), kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
			return f(c.Add(ctx, key, value, ttl))
		}}
	}, kills...)
}

var addMutants = []Mutant{
	added("Add overwrites", "a false changes nothing",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			_, there := c.find(rs, name, now)
			c.put(rs, name, r, now)
			return !there, nil
		},
		"add/first-wins", "add/one-winner"),
	added("an Add that loses gives its TTL to the entry", "a false changes nothing",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if old, there := c.find(rs, name, now); there {
				c.put(rs, name, old.until(r.ttl, r.deadline), now)
				return false, nil
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/first-wins"),
	added("Add takes an empty value for none", "an empty value is an entry",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if old, there := c.find(rs, name, now); there && len(old.value) > 0 {
				return false, nil
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/first-wins"),
	answered("Add is always true", "Add reports whether it has stored the entry",
		func(_ bool, err error) (bool, error) { return err == nil, err },
		"add/first-wins", "add/one-winner"),
	answered("Add is never true", "Add reports whether it has stored the entry",
		func(_ bool, err error) (bool, error) { return false, err },
		"add/first-wins", "add/after-delete", "add/one-winner"),
	answered("an Add that loses is an error", "a false comes with a nil error",
		func(added bool, err error) (bool, error) {
			if !added && err == nil {
				err = l2cache.NewError(context.Background(), "sim", "add", "", l2cache.ErrUnavailable, errors.New("the key exists"))
			}
			return added, err
		},
		"add/first-wins", "add/one-winner"),
	added("Add drops its TTL", "an entry that was added has its TTL",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if _, there := c.find(rs, name, now); there {
				return false, nil
			}
			c.put(rs, name, r.until(l2cache.NoExpiry, time.Time{}), now)
			return true, nil
		},
		"add/ttl", "add/after-expiry"),
	added("Add stores the TTL, and does not act on it", "an entry that was added ends by its TTL",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if _, there := c.find(rs, name, now); there {
				return false, nil
			}
			r.deadline = r.deadline.Add(time.Hour)
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/ttl"),
	patched("Add sets the TTL 30 ms later, from then on", "an entry that was added ends by its TTL",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				if added {
					time.AfterFunc(30*time.Millisecond, func() { c.Touch(context.Background(), key, ttl) })
				}
				return added, err
			}}
		},
		"add/ttl"),
	added("Add is stopped by an entry that has expired", "Add succeeds after expiry",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if _, there := rs[name]; there {
				return false, nil
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/after-expiry", "add/one-winner"),
	added("Add on an entry that has expired keeps its deadline", "Add succeeds after expiry",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			old, there := rs[name]
			if there && isLive(old, now) {
				return false, nil
			}
			if there {
				r.deadline = old.deadline
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/after-expiry", "add/one-winner"),
	patched("Add is stopped by the tombstone of a Delete", "Add succeeds after a Delete",
		func(c *client) patch {
			var deleted sync.Map
			return patch{
				del: func(ctx context.Context, key string) error {
					deleted.Store(key, true)
					return c.Delete(ctx, key)
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					deleted.Delete(key)
					return c.Set(ctx, key, value, ttl)
				},
				add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
					if _, ok := deleted.Load(key); ok {
						return false, nil
					}
					return c.Add(ctx, key, value, ttl)
				},
			}
		},
		"add/after-delete", "add/one-winner"),
	patched("Add brings back the entry that was deleted", "Add stores its value",
		func(c *client) patch {
			var deleted sync.Map // values
			return patch{
				del: func(ctx context.Context, key string) error {
					if e, err := c.GetWithTTL(ctx, key); err == nil {
						deleted.Store(key, e.Value)
					}
					return c.Delete(ctx, key)
				},
				add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
					if old, ok := deleted.Load(key); ok {
						value = old.([]byte)
					}
					return c.Add(ctx, key, value, ttl)
				},
			}
		},
		"add/after-delete", "add/one-winner"),
	patched("Add is a Get and a Set", "of concurrent Adds one succeeds",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				if _, err := c.Get(ctx, key); !errors.Is(err, l2cache.ErrNotFound) {
					return false, err
				}
				time.Sleep(300 * time.Microsecond)
				err := c.Set(ctx, key, value, ttl)
				return err == nil, err
			}}
		},
		"add/one-winner", "add/linearizable"),
	patched("concurrent Adds of a key share one answer", "of concurrent Adds one succeeds",
		func(c *client) patch {
			type answer struct {
				done  chan struct{}
				added bool
				err   error
			}
			var under sync.Map // key to *answer
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				first := &answer{done: make(chan struct{})}
				if a, busy := under.LoadOrStore(key, first); busy {
					<-a.(*answer).done
					return a.(*answer).added, a.(*answer).err
				}
				time.Sleep(300 * time.Microsecond)
				first.added, first.err = c.Add(ctx, key, value, ttl)
				under.Delete(key)
				close(first.done)
				return first.added, first.err
			}}
		},
		"add/one-winner", "add/linearizable"),
	patched("an Add that finds another one of the key under way is false before that is done", "Add takes its place among concurrent operations",
		func(c *client) patch {
			var under sync.Map // keys
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				if err := c.check(ctx, "add", key); err != nil {
					return false, err
				}
				if _, busy := under.LoadOrStore(key, true); busy {
					return false, nil
				}
				defer under.Delete(key)
				time.Sleep(500 * time.Microsecond)
				return c.Add(ctx, key, value, ttl)
			}}
		},
		"add/linearizable"),
	patched("Touch is nil for a key that this handle has added once", "Touch takes its place among concurrent operations",
		func(c *client) patch {
			var ours sync.Map // keys
			return patch{
				add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
					added, err := c.Add(ctx, key, value, ttl)
					if added {
						ours.Store(key, true)
					}
					return added, err
				},
				touch: func(ctx context.Context, key string, ttl time.Duration) error {
					err := c.Touch(ctx, key, ttl)
					if _, known := ours.Load(key); known && errors.Is(err, l2cache.ErrNotFound) {
						return nil
					}
					return err
				},
			}
		},
		"add/linearizable"),
	answered("Add is false instead of an error", "an error is not false",
		func(added bool, _ error) (bool, error) { return added, nil },
		"add/invalid"),
	patched("Add takes a TTL of zero for never", "an invalid TTL is an error",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				if ttl == 0 {
					ttl = l2cache.NoExpiry
				}
				return c.Add(ctx, key, value, ttl)
			}}
		},
		"add/invalid"),
	patched("Add does not look at its ctx", "a ctx that has ended is the error",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				return c.Add(context.WithoutCancel(ctx), key, value, ttl)
			}}
		},
		"add/invalid"),
	added("Add overwrites what is damaged", "what is not an entry is not overwritten",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if old, there := c.find(rs, name, now); there && c.verify(old) == nil {
				return false, nil
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/damaged"),
	added("Add removes what is damaged, and is ErrCorrupt", "what is not an entry is not overwritten",
		func(c *client, rs rows, name string, r row, now time.Time) (bool, error) {
			if old, there := c.find(rs, name, now); there {
				err := c.verify(old)
				if err != nil {
					delete(rs, name)
				}
				return false, err
			}
			c.put(rs, name, r, now)
			return true, nil
		},
		"add/damaged"),
}
