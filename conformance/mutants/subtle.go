package mutants

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// subtleMutants break a rule under a condition only, or where two rules meet.
var subtleMutants = []Mutant{
	{
		Name:  "values over 64 KiB never expire",
		Rule:  "every entry ends",
		Kills: []string{"ttl/set/sizes"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if len(r.value) > 64<<10 {
					r.deadline = time.Time{}
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "bytes 300 to 399 of a key do not count",
		Rule:  "distinct keys do not collide",
		Kills: []string{"keys/long-differences"},
		New: remote.edit(func(c *client) {
			c.name = func(key string) string {
				if len(key) > 400 {
					return key[:300] + key[400:]
				}
				return key
			}
		}),
	},
	{
		Name:  "a namespace has room for 1000 entries",
		Rule:  "each key keeps its value",
		Kills: []string{"basic/many-keys"},
		New: remote.edit(func(c *client) {
			c.put = func(rs rows, name string, r row, _ time.Time) {
				for other := range rs {
					if len(rs) >= 1000 {
						delete(rs, other)
					}
				}
				rs[name] = r
			}
		}),
	},
	{
		Name:  "a Set of the value that is there, without expiry, leaves the deadline",
		Rule:  "a Set replaces the TTL",
		Kills: []string{"ttl/remaining/after-overwrite"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; ok && string(old.value) == string(r.value) && r.deadline.IsZero() {
					return
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "a Set under a deadline lives no longer than that",
		Rule:  "the TTL of an entry is the one that was given",
		Kills: []string{"context/deadline-is-no-ttl"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if deadline, ok := ctx.Deadline(); ok && ttl > 0 {
					ttl = min(ttl, max(time.Until(deadline), 1))
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a cancelled call leaves a goroutine behind",
		Rule:  "no goroutine is left after Close",
		Kills: []string{"concurrency/no-goroutine-left"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if ctx.Err() != nil {
					go time.Sleep(time.Minute)
				}
				return failure(ctx, op, key, err)
			}
			travelling(c, 300*time.Microsecond)
		}),
	},
	{
		Name:  "a key is looked at before the handle's being closed",
		Rule:  "of several errors the first in the contract's order is returned",
		Kills: []string{"errors/precedence"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if op != "ping" && ctx.Err() == nil && (key == "" || len(key) > l2cache.MaxKeyLen) {
					return c.failure(ctx, op, key, l2cache.ErrInvalidKey)
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "that a handle is closed is looked at before the ctx",
		Rule:  "of several errors the first in the contract's order is returned",
		Kills: []string{"errors/precedence"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if c.isClosed() {
					ctx = context.WithoutCancel(ctx)
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "a TTL is looked at before the key",
		Rule:  "of several errors the first in the contract's order is returned",
		Kills: []string{"errors/precedence"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl <= 0 && ctx.Err() == nil && !c.isClosed() {
					return c.failure(ctx, "set", key, l2cache.ErrInvalidTTL)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a value's size is looked at before the TTL",
		Rule:  "of several errors the first in the contract's order is returned",
		Kills: []string{"errors/precedence"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if err := c.check(ctx, "set", key); err != nil {
					return err
				}
				if err := c.limit(value); err != nil {
					return c.failure(ctx, "set", key, err)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a fraction of a millisecond is cut off",
		Rule:  "a TTL is rounded up",
		Kills: []string{"ttl/remaining/not-more-than-set"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > time.Millisecond && ttl != l2cache.NoExpiry {
					ttl = ttl.Truncate(time.Millisecond)
				}
				return stored(ttl)
			}
		}),
	},
	{
		Name:  "a handle remembers for 20 ms that a key is absent",
		Rule:  "a Set is seen by every handle",
		Kills: []string{"basic/peer"},
		New: remote.patch(func(c *client) patch {
			var absent sync.Map // key to time.Time
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					if at, ok := absent.Load(key); ok && time.Since(at.(time.Time)) < 20*time.Millisecond {
						return l2cache.Entry{}, l2cache.ErrNotFound
					}
					e, err := c.read(ctx, "get", key)
					if errors.Is(err, l2cache.ErrNotFound) {
						absent.Store(key, time.Now())
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					err := c.Set(ctx, key, value, ttl)
					absent.Delete(key)
					return err
				},
			}
		}),
	},
	{
		Name:  "a reopened store has lost its empty values",
		Rule:  "entries survive a reopening",
		Kills: []string{"durability/reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				if len(r.value) == 0 {
					delete(rs, name)
				}
			}
		}),
	},
	{
		Name:  "a reopened store has lost what is larger than 100 kB",
		Rule:  "entries survive a reopening",
		Kills: []string{"durability/reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				if len(r.value) > 100_000 {
					delete(rs, name)
				}
			}
		}),
	},
	{
		Name:  "the keys of a reopened store end at NUL",
		Rule:  "entries survive a reopening",
		Kills: []string{"durability/reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				if cut, _, ok := strings.Cut(name, "\x00"); ok {
					delete(rs, name)
					rs[cut] = r
				}
			}
		}),
	},
	{
		Name:  "a reopened store has its deadlines in whole seconds",
		Rule:  "deadlines survive a reopening",
		Kills: []string{"durability/ends-after-reopen"},
		New: closing(func(rs rows, _ time.Time) {
			for name, r := range rs {
				if !r.deadline.IsZero() {
					r.deadline = r.deadline.Truncate(time.Second).Add(time.Second)
				}
				rs[name] = r
			}
		}),
	},
	{
		Name:  "after a reconnect a handle is in another database",
		Rule:  "a handle works on its data when the server is back",
		Kills: []string{"errors/recovers"},
		New: remote.edit(func(c *client) {
			check, namespace := c.check, c.namespace
			c.s.mu.Lock()
			connected := c.s.restarts
			c.s.mu.Unlock()
			var moved atomic.Bool
			c.check = func(ctx context.Context, op, key string) error {
				c.s.mu.Lock()
				defer c.s.mu.Unlock()
				if c.s.restarts != connected && moved.CompareAndSwap(false, true) {
					c.namespace = namespace + "0"
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "equal values are stored once, and Delete of one key takes it from the others",
		Rule:  "Delete removes one key",
		Kills: []string{"values/equal"},
		New: remote.edit(func(c *client) {
			c.drop = func(rs rows, name string, _ time.Time) error {
				value, ok := rs[name]
				for other, r := range rs {
					if ok && r.sum == value.sum {
						delete(rs, other)
					}
				}
				return nil
			}
		}),
	},
	{
		Name:  "equal values are stored once, and a Set of one key is one of the others",
		Rule:  "each key keeps its value",
		Kills: []string{"values/equal"},
		New: remote.edit(func(c *client) {
			c.put = func(rs rows, name string, r row, _ time.Time) {
				old, ok := rs[name]
				for other, shared := range rs {
					if ok && shared.sum == old.sum {
						shared.value, shared.sum = r.value, r.sum
						rs[other] = shared
					}
				}
				rs[name] = r
			}
		}),
	},
	{
		Name:  "the ctx of open ends the handle",
		Rule:  "the ctx bounds the opening only",
		Kills: []string{"context/cancel-after-return"},
		New: remote.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
			if err := c.connect(ctx); err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { c.Close() })
			return c, nil
		}),
	},
	{
		Name:  "GetWithTTL reads an entry for 300 ms more than Get does",
		Rule:  "an expired entry is absent for every operation",
		Kills: []string{"ttl/set/getwithttl-does-not-extend"},
		New: remote.patch(func(c *client) patch {
			late := newClient(c.s, c.namespace, c.profile)
			find := late.find
			late.find = func(rs rows, name string, now time.Time) (row, bool) {
				return find(rs, name, now.Add(-300*time.Millisecond))
			}
			return patch{entry: late.GetWithTTL}
		}),
	},
	{
		Name:  "a Set within 5 ms of a Delete of the key is lost",
		Rule:  "a Set is seen by the next read",
		Kills: []string{"basic/read-your-writes"},
		New: remote.edit(func(c *client) {
			dropped, put := map[string]time.Time{}, c.put
			c.drop = func(rs rows, name string, now time.Time) error {
				dropped[name] = now
				delete(rs, name)
				return nil
			}
			c.put = func(rs rows, name string, r row, now time.Time) {
				if at, ok := dropped[name]; !ok || now.Sub(at) > 5*time.Millisecond {
					put(rs, name, r, now)
				}
			}
		}),
	},
	{
		Name:  "the first call after 800 ms of rest fails",
		Rule:  "a backend that can answer does",
		Kills: []string{"ttl/set/30d"},
		New: remote.edit(func(c *client) {
			var last atomic.Int64
			last.Store(time.Now().UnixNano())
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if err := check(ctx, op, key); err != nil {
					return err
				}
				now := time.Now().UnixNano()
				if time.Duration(now-last.Swap(now)) > 800*time.Millisecond {
					return c.failure(ctx, op, key, errors.New("connection reset by peer"))
				}
				return nil
			}
		}),
	},
	{
		Name:  "a Set that fails for its size stays in the handle's own copy",
		Rule:  "a failed Set changes nothing",
		Kills: []string{"limits/value", "limits/undeclared"},
		New: remote.patch(func(c *client) patch {
			var own sync.Map
			return patch{
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					err := c.Set(ctx, key, value, ttl)
					own.Delete(key)
					if errors.Is(err, l2cache.ErrTooLarge) {
						own.Store(key, l2cache.Entry{Value: clone(value), TTL: ttl})
					}
					return err
				},
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					if e, ok := own.Load(key); ok {
						return e.(l2cache.Entry), nil
					}
					return c.read(ctx, "get", key)
				},
			}
		}),
	},
	{
		Name:  "a cancelled Set removes the old entry",
		Rule:  "with a ctx that has ended nothing is done",
		Kills: []string{"context/cancelled-before"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ctx.Err() != nil {
					c.Delete(context.Background(), key)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a TTL of more than a day has a jitter of a second",
		Rule:  "the remaining TTL is exact",
		Kills: []string{"ttl/set/30d", "ttl/remaining/bounds"},
		New: remote.edit(func(c *client) {
			deadline := c.deadline
			c.deadline = func(now time.Time, ttl time.Duration) time.Time {
				if ttl > 24*time.Hour && ttl != l2cache.NoExpiry {
					ttl -= time.Second
				}
				return deadline(now, ttl)
			}
		}),
	},
	{
		Name:  "a TTL is whole seconds when it is more than an hour",
		Rule:  "the remaining TTL is exact",
		Kills: []string{"ttl/set/24d21h"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > time.Hour && ttl < l2cache.MaxTTL {
					ttl = ttl.Truncate(time.Second)
				}
				return stored(ttl)
			}
		}),
	},
	{
		Name:  "microseconds overflow 32 bits",
		Rule:  "TTLs are kept",
		Kills: []string{"ttl/remaining/bounds", "ttl/set/30d"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > 70*time.Minute && ttl != l2cache.NoExpiry {
					ttl = time.Duration(uint32(ttl/time.Microsecond)) * time.Microsecond
				}
				return stored(ttl)
			}
		}),
	},
	{
		Name:  "a cancelled call after Close has another error",
		Rule:  "of several errors the first in the contract's order is returned",
		Kills: []string{"errors/precedence"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				err := check(ctx, op, key)
				if c.isClosed() && ctx.Err() != nil {
					return errors.Join(l2cache.ErrClosed, l2cache.ErrInvalidKey)
				}
				return err
			}
		}),
	},
	{
		Name:  "Close does not end what waits for the server",
		Rule:  "Close ends the calls under way",
		Kills: []string{"close/stalled"},
		New: remote.patch(func(c *client) patch {
			never := newClient(c.s, c.namespace, c.profile) // closed
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if err := c.check(ctx, "get", key); err != nil {
					return l2cache.Entry{}, err
				}
				return never.read(ctx, "get", key)
			}}
		}),
	},
	{
		Name:  "Close waits for the server's answers",
		Rule:  "Close ends the calls under way",
		Kills: []string{"close/stalled"},
		New: remote.patch(func(c *client) patch {
			return patch{
				close: func() error {
					if !c.isClosed() {
						c.Ping(context.Background())
					}
					return c.Close()
				},
			}
		}),
	},
	{
		Name:  "a large value that two callers read at a time is a miss for one of them",
		Rule:  "what was set is read back",
		Kills: []string{"concurrency/whole-values"},
		New: remote.patch(func(c *client) patch {
			var reads atomic.Int64
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				defer reads.Add(-1)
				n := reads.Add(1)
				e, err := c.read(ctx, "get", key)
				if len(e.Value) > 1000 {
					time.Sleep(100 * time.Microsecond)
				}
				if n > 1 && len(e.Value) > 40_000 {
					return l2cache.Entry{}, l2cache.ErrNotFound
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a key that is deleted while it is read comes back",
		Rule:  "operations on a key are linearizable",
		Kills: []string{"concurrency/linearizable"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				// It stores again what it has read, as if to extend it.
				var r row
				var ok bool
				c.behind(func(rs rows, now time.Time) { r, ok = c.find(rs, key, now) })
				e, err := c.read(ctx, "get", key)
				if ok && err == nil {
					time.Sleep(20 * time.Microsecond)
					c.behind(func(rs rows, _ time.Time) { rs[key] = r })
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "the deadline of an entry of no value is lost",
		Rule:  "every entry ends",
		Kills: []string{"ttl/set/sizes"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if len(r.value) == 0 {
					r.deadline = time.Time{}
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "a key of more than 500 bytes never expires",
		Rule:  "every entry ends",
		Kills: []string{"ttl/set/sizes"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if len(name) > 500 {
					r.deadline = time.Time{}
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "the tenth overwrite in a row keeps the deadline",
		Rule:  "a Set replaces the TTL",
		Kills: []string{"ttl/remaining/not-more-than-set"},
		New: remote.edit(func(c *client) {
			n, put := 0, c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; ok {
					if n++; n%10 == 0 {
						r.ttl, r.deadline = old.ttl, old.deadline
					}
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "Ping says nothing of a server that is stalled",
		Rule:  "Ping says why the backend cannot answer",
		Kills: []string{"context/own-timeout"},
		New: remote.patch(func(c *client) patch {
			return patch{ping: func(ctx context.Context) error {
				err := c.Ping(ctx)
				if unavailable(err) && strings.Contains(err.Error(), errNoReply.Error()) {
					return nil
				}
				return err
			}}
		}),
	},
}
