package mutants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var concurrencyMutants = []Mutant{
	{
		Name:  "reads beside other reads come from a copy that is up to 2 ms old",
		Rule:  "operations on a key are linearizable",
		Kills: []string{"concurrency/linearizable"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 200*time.Microsecond)
			var reads atomic.Int64 // under way
			var copied rows
			var at time.Time
			find := c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				if now.Sub(at) > 2*time.Millisecond {
					copied, at = maps.Clone(rs), now
				}
				if reads.Load() > 1 {
					rs = copied
				}
				return find(rs, name, now)
			}
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				reads.Add(1)
				defer reads.Add(-1)
				return c.read(ctx, "get", key)
			}}
		}),
	},
	{
		Name:  "a Set that finds another one of the key under way is dropped",
		Rule:  "operations on a key are linearizable",
		Kills: []string{"concurrency/linearizable"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 200*time.Microsecond)
			var under sync.Map // keys with a Set under way
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if _, busy := under.LoadOrStore(key, true); busy {
					// It waits, as if it were done by the other.
					return c.Ping(ctx)
				}
				err := c.Set(ctx, key, value, ttl)
				c.Ping(ctx)
				under.Delete(key)
				return err
			}}
		}),
	},
	{
		Name:  "a handle's reads are answered from what it read within the last 20 ms",
		Rule:  "operations are linearizable across handles",
		Kills: []string{"concurrency/linearizable-peers", "basic/peer"},
		New: remote.patch(func(c *client) patch {
			type known struct {
				l2cache.Entry
				at time.Time
			}
			var near sync.Map // key to known
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					if k, ok := near.Load(key); ok && time.Since(k.(known).at) < 20*time.Millisecond {
						return k.(known).Entry, nil
					}
					e, err := c.read(ctx, "get", key)
					if err == nil {
						near.Store(key, known{e, time.Now()})
					}
					return e, err
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					near.Delete(key)
					defer near.Delete(key)
					return c.Set(ctx, key, value, ttl)
				},
				del: func(ctx context.Context, key string) error {
					near.Delete(key)
					defer near.Delete(key)
					return c.Delete(ctx, key)
				},
			}
		}),
	},
	{
		Name:  "a value is written in two parts",
		Rule:  "a value is never a mix of two",
		Kills: []string{"concurrency/whole-values"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if len(value) > 16_000 {
					half := clone(value)
					c.behind(func(rs rows, _ time.Time) {
						if r, ok := rs[key]; ok {
							copy(half[len(half)/2:], r.value[min(len(r.value), len(half)/2):])
							rs[key] = row{value: half, sum: checksum(half), ttl: r.ttl, deadline: r.deadline}
						}
					})
					time.Sleep(200 * time.Microsecond)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a large value is read in two parts",
		Rule:  "a value is never a mix of two",
		Kills: []string{"concurrency/whole-values"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if len(e.Value) > 16_000 {
					time.Sleep(200 * time.Microsecond)
					second, _ := c.read(ctx, "get", key)
					copy(e.Value[len(e.Value)/2:], second.Value[min(len(second.Value), len(e.Value)/2):])
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "an overwrite is a Delete and a Set",
		Rule:  "a key that is overwritten is always there",
		Kills: []string{"ttl/remaining/one-snapshot", "concurrency/whole-values"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if l2cache.CheckKey(key, l2cache.MaxKeyLen) == nil && ttl > 0 {
					c.Delete(ctx, key)
					time.Sleep(200 * time.Microsecond)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "all calls of a handle have one buffer for replies",
		Rule:  "every caller gets the value of its key",
		Kills: []string{"concurrency/cross-talk"},
		New: remote.patch(func(c *client) patch {
			var mu sync.Mutex
			var buffer []byte
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if err != nil {
					return e, err
				}
				mu.Lock()
				buffer = append(buffer[:0], e.Value...)
				mu.Unlock()
				time.Sleep(50 * time.Microsecond)
				mu.Lock()
				defer mu.Unlock()
				e.Value = clone(buffer)
				return e, nil
			}}
		}),
	},
	{
		Name:  "a pool of 50 connections has errors for those who find none",
		Rule:  "any number of callers is served",
		Kills: []string{"concurrency/many-callers"},
		New: remote.edit(func(c *client) {
			travelling(c, 4*time.Millisecond)
			var used atomic.Int64
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if err := check(ctx, op, key); err != nil {
					return err
				}
				time.AfterFunc(4*time.Millisecond, func() { used.Add(-1) })
				if used.Add(1) > 50 {
					return c.failure(ctx, op, key, errors.New("connection pool exhausted"))
				}
				return nil
			}
		}),
	},
	{
		Name:  "a handle leaves a goroutine behind",
		Rule:  "no goroutine is left after Close",
		Kills: []string{"concurrency/no-goroutine-left"},
		New: remote.edit(func(*client) {
			go time.Sleep(time.Minute) // for ever, as far as the case can tell
		}),
	},
	{
		Name:  "every 30th call leaves a goroutine behind",
		Rule:  "no goroutine is left after Close",
		Kills: []string{"concurrency/no-goroutine-left"},
		New: remote.edit(func(c *client) {
			var calls atomic.Int64
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if calls.Add(1)%30 == 0 {
					go time.Sleep(time.Minute)
				}
				return check(ctx, op, key)
			}
		}),
	},
}

var closeMutants = []Mutant{
	{
		Name:  "a second Close is the driver's error",
		Rule:  "Close is idempotent",
		Kills: []string{"close/twice"},
		New: remote.patch(func(c *client) patch {
			return patch{close: func() error {
				if c.isClosed() {
					return errors.New("client is closed")
				}
				return c.Close()
			}}
		}),
	},
	{
		Name:  "a second Close panics",
		Rule:  "Close is idempotent",
		Kills: []string{"close/twice"},
		New: remote.patch(func(c *client) patch {
			done := make(chan struct{})
			return patch{close: func() error {
				close(done)
				return c.Close()
			}}
		}),
	},
	{
		Name:  "of two Close at a time one is an error",
		Rule:  "Close is idempotent",
		Kills: []string{"close/twice"},
		New: remote.patch(func(c *client) patch {
			var closing atomic.Int64
			return patch{close: func() error {
				defer closing.Add(-1)
				if closing.Add(1) > 1 {
					return errors.New("close is in progress")
				}
				time.Sleep(2 * time.Millisecond)
				return c.Close()
			}}
		}),
	},
	{
		Name:  "a handle that was closed works on",
		Rule:  "after Close every operation is ErrClosed",
		Kills: []string{"close/after", "close/during"},
		New: remote.patch(func(*client) patch {
			return patch{close: func() error { return nil }}
		}),
	},
	{
		Name:  "after Close, errors are the driver's",
		Rule:  "after Close every operation is ErrClosed",
		Kills: []string{"close/after", "close/during"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if err := check(ctx, op, key); !errors.Is(err, l2cache.ErrClosed) {
					return err
				}
				return fmt.Errorf("client is closed: %w", l2cache.ErrUnavailable)
			}
		}),
	},
	{
		Name:  "Ping is nil after Close",
		Rule:  "after Close every operation is ErrClosed",
		Kills: []string{"close/after"},
		New: remote.patch(func(c *client) patch {
			return patch{ping: func(ctx context.Context) error {
				if c.isClosed() {
					return nil
				}
				return c.Ping(ctx)
			}}
		}),
	},
	{
		Name:  "after Close, everything is a miss",
		Rule:  "after Close every operation is ErrClosed",
		Kills: []string{"close/after"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if errors.Is(err, l2cache.ErrClosed) {
					err = l2cache.ErrNotFound
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a handle that was never used panics after Close",
		Rule:  "after Close every operation is ErrClosed",
		Kills: []string{"close/after"},
		New: remote.edit(func(c *client) {
			used := false
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if c.isClosed() && !used {
					panic("nil pointer")
				}
				used = used || op == "set"
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "a call that is under way when the handle is closed gets the connection's error",
		Rule:  "an operation under way is ErrClosed, or succeeds",
		Kills: []string{"close/during"},
		New: remote.edit(func(c *client) {
			travelling(c, time.Millisecond)
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == l2cache.ErrClosed {
					err = errors.New("use of closed network connection")
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "a call that is under way when the handle is closed has a worker that is gone",
		Rule:  "Close ends the calls under way",
		Kills: []string{"close/during"},
		New: func() System {
			system := remote.patch(func(c *client) patch {
				travelling(c, time.Millisecond)
				return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					open := !c.isClosed()
					e, err := c.read(ctx, "get", key)
					if open && errors.Is(err, l2cache.ErrClosed) {
						time.Sleep(4 * time.Second) // for ever, as far as the case can tell
					}
					return e, err
				}}
			})()
			system.Options.CaseTimeout = 2 * time.Second
			return system
		},
	},
	{
		Name:  "Close waits for calls that wait for Close",
		Rule:  "Close ends",
		Kills: []string{"close/during"},
		New: func() System {
			system := remote.patch(func(c *client) patch {
				travelling(c, time.Millisecond)
				var calls atomic.Int64
				return patch{
					read: func(ctx context.Context, key string) (l2cache.Entry, error) {
						if err := c.check(ctx, "get", key); err != nil {
							return l2cache.Entry{}, err
						}
						calls.Add(1)
						defer calls.Add(-1)
						e, err := c.read(ctx, "get", key)
						if errors.Is(err, l2cache.ErrClosed) {
							time.Sleep(4 * time.Second) // for ever, as far as the case can tell
						}
						return e, err
					},
					close: func() error {
						err := c.Close()
						for calls.Load() > 0 {
							time.Sleep(time.Millisecond)
						}
						return err
					},
				}
			})()
			system.Options.CaseTimeout = 2 * time.Second
			return system
		},
	},
	{
		Name:  "the first Close takes away what all handles share",
		Rule:  "closing a handle does nothing to another",
		Kills: []string{"close/peer-lives"},
		New: remote.edit(func(c *client) {
			shared, _ := c.s.memo.LoadOrStore(c.namespace, c)
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if shared.(*client).isClosed() {
					return c.failure(ctx, op, key, l2cache.ErrClosed)
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "Close wipes the data",
		Rule:  "the data stays",
		Kills: []string{"close/peer-lives", "durability/reopen"},
		New: durable.patch(func(c *client) patch {
			return patch{close: func() error {
				c.behind(func(rs rows, _ time.Time) { clear(rs) })
				return c.Close()
			}}
		}),
	},
}
