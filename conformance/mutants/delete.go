package mutants

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var errNoKey = errors.New("ERR no such key")

// dropped is a mutant that deletes in another way.
func dropped(name, rule string, f func(rs rows, name string, now time.Time) error, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) { c.drop = f })}
}

var deleteMutants = []Mutant{
	dropped("Delete does nothing", "Delete removes the key",
		func(rows, string, time.Time) error { return nil },
		"delete/gone", "delete/missing"),
	{
		Name:  "Delete is done 3 ms after it has returned",
		Rule:  "Delete removes the key at once",
		Kills: []string{"delete/gone", "delete/missing"},
		New: remote.patch(func(c *client) patch {
			return patch{del: func(_ context.Context, key string) error {
				time.AfterFunc(3*time.Millisecond, func() { c.Delete(context.Background(), key) })
				return nil
			}}
		}),
	},
	dropped("Delete empties the value", "Delete removes the key",
		func(rs rows, name string, _ time.Time) error {
			if r, ok := rs[name]; ok {
				rs[name] = row{sum: checksum(nil), ttl: r.ttl, deadline: r.deadline}
			}
			return nil
		},
		"delete/gone"),
	dropped("Delete of an absent key is the driver's error", "Delete of an absent key is nil",
		func(rs rows, name string, _ time.Time) error {
			if _, ok := rs[name]; !ok {
				return errNoKey
			}
			delete(rs, name)
			return nil
		},
		"delete/missing"),
	dropped("Delete of an absent key is ErrNotFound", "Delete of an absent key is nil",
		func(rs rows, name string, now time.Time) error {
			if r, ok := rs[name]; !ok || !isLive(r, now) {
				return l2cache.ErrNotFound
			}
			delete(rs, name)
			return nil
		},
		"delete/missing", "delete/expired", "ttl/set/unread"),
	dropped("Delete of an expired key is an error", "Delete of an absent key is nil",
		func(rs rows, name string, now time.Time) error {
			if r, ok := rs[name]; ok && !isLive(r, now) {
				return errNoKey
			}
			delete(rs, name)
			return nil
		},
		"delete/expired", "ttl/set/unread"),
	dropped("Delete removes all that begins with the key", "Delete removes one key",
		func(rs rows, name string, _ time.Time) error {
			for other := range rs {
				if strings.HasPrefix(other, name) {
					delete(rs, other)
				}
			}
			return nil
		},
		"delete/neighbours"),
	dropped("Delete takes the key for a pattern", "Delete removes one key",
		func(rs rows, name string, _ time.Time) error {
			for other := range rs {
				if ok, _ := path.Match(name, other); ok {
					delete(rs, other)
				}
			}
			delete(rs, name)
			return nil
		},
		"delete/neighbours", "keys/literals"),
	dropped("Delete removes what differs in case only, too", "Delete removes one key",
		func(rs rows, name string, _ time.Time) error {
			for other := range rs {
				if strings.EqualFold(other, name) {
					delete(rs, other)
				}
			}
			return nil
		},
		"delete/neighbours", "keys/case"),
	{
		Name:  "a key that was deleted keeps its deadline for the next entry",
		Rule:  "an entry that is set after a Delete has its own TTL",
		Kills: []string{"delete/forgets-ttl"},
		New: remote.edit(func(c *client) {
			ended, put := map[string]row{}, c.put
			c.drop = func(rs rows, name string, _ time.Time) error {
				if r, ok := rs[name]; ok {
					ended[name] = r
				}
				delete(rs, name)
				return nil
			}
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := ended[name]; ok {
					r.ttl, r.deadline = old.ttl, old.deadline
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "a tombstone ends the next entry after 300 ms",
		Rule:  "an entry that is set after a Delete has its own TTL",
		Kills: []string{"delete/forgets-ttl"},
		New: remote.edit(func(c *client) {
			c.drop = func(rs rows, name string, _ time.Time) error {
				delete(rs, name)
				time.AfterFunc(300*time.Millisecond, func() {
					c.behind(func(rs rows, _ time.Time) { delete(rs, name) })
				})
				return nil
			}
		}),
	},
	{
		Name:  "handles tell each other of a Set, and not of a Delete",
		Rule:  "a Delete is seen by every handle",
		Kills: []string{"delete/peer", "basic/peer"},
		New: remote.patch(func(c *client) patch {
			// What any handle has set is kept for those that did not delete it.
			gone := map[string]bool{}
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					e, err := c.read(ctx, "get", key)
					if last, ok := c.s.memo.Load(c.namespace + key); ok && errors.Is(err, l2cache.ErrNotFound) && !gone[key] {
						return last.(l2cache.Entry), nil
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					delete(gone, key)
					c.s.memo.Store(c.namespace+key, l2cache.Entry{Value: clone(value), TTL: ttl})
					return c.Set(ctx, key, value, ttl)
				},
				del: func(ctx context.Context, key string) error {
					gone[key] = true
					return c.Delete(ctx, key)
				},
			}
		}),
	},
}
