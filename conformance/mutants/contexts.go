package mutants

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// deaf is a client that does not look at its callers' contexts.
func deaf(c *client) *client {
	check := c.check
	c.check = func(_ context.Context, op, key string) error { return check(context.Background(), op, key) }
	return c
}

// travelling gives c a round trip of d.
func travelling(c *client, d time.Duration) *client {
	c.latency = func() time.Duration { return d / 2 }
	return c
}

var contextMutants = []Mutant{
	{
		Name:  "no operation looks at its ctx before it begins",
		Rule:  "with a ctx that has ended nothing is done",
		Kills: []string{"context/cancelled-before", "context/expired-before"},
		New:   remote.edit(func(c *client) { deaf(c) }),
	},
	{
		Name:  "Delete does not look at its ctx",
		Rule:  "with a ctx that has ended nothing is done",
		Kills: []string{"context/cancelled-before", "context/expired-before"},
		New: remote.patch(func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				return c.Delete(context.WithoutCancel(ctx), key)
			}}
		}),
	},
	{
		Name:  "Ping does not look at its ctx",
		Rule:  "a ctx that has ended is the error",
		Kills: []string{"context/cancelled-before", "context/deadline-in-flight"},
		New: remote.patch(func(c *client) patch {
			return patch{ping: func(ctx context.Context) error { return c.Ping(context.WithoutCancel(ctx)) }}
		}),
	},
	{
		Name:  "Set says that its ctx was cancelled, and stores",
		Rule:  "with a ctx that has ended nothing is done",
		Kills: []string{"context/cancelled-before"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(context.WithoutCancel(ctx), key, value, ttl)
				if ctx.Err() != nil {
					err = c.failure(ctx, "set", key, ctx.Err())
				}
				return err
			}}
		}),
	},
	{
		Name:  "a Set that was cancelled before the call lands 20 ms later",
		Rule:  "with a ctx that has ended nothing is done",
		Kills: []string{"context/cancelled-before"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if errors.Is(err, context.Canceled) {
					value = clone(value)
					time.AfterFunc(20*time.Millisecond, func() { c.Set(context.Background(), key, value, ttl) })
				}
				return err
			}}
		}),
	},
	{
		Name:  "a deadline that has passed before the call is ErrUnavailable",
		Rule:  "the end of the caller's ctx is the error",
		Kills: []string{"context/expired-before"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if ctx.Err() == context.DeadlineExceeded {
					return fmt.Errorf("%w: no time left", l2cache.ErrUnavailable)
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "the end of a ctx is always Canceled",
		Rule:  "a deadline that has passed is DeadlineExceeded",
		Kills: []string{"context/expired-before", "context/deadline-in-flight"},
		New: remote.edit(func(c *client) {
			check, failure := c.check, c.failure
			c.check = func(ctx context.Context, op, key string) error {
				if ctx.Err() != nil {
					return context.Canceled
				}
				return check(ctx, op, key)
			}
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if ctx.Err() != nil {
					return context.Canceled
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "the error of a cancelled call is the driver's",
		Rule:  "the error matches context.Canceled",
		Kills: []string{"context/cancelled-before"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if ctx.Err() != nil {
					return errors.New("operation was canceled")
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "the error of a cancelled call does not tell the cause",
		Rule:  "the error matches the cause",
		Kills: []string{"context/error-names-cause"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("%s %q: %w", op, key, err)
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "the error of a cancelled call is ErrUnavailable as well",
		Rule:  "when the caller's ctx has ended, the error is not ErrUnavailable",
		Kills: []string{"context/error-names-cause", "context/cancelled-before"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if ctx.Err() != nil {
					return errors.Join(l2cache.ErrUnavailable, ctx.Err(), context.Cause(ctx))
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "a ctx that ends in flight is not noticed before the operation's own timeout",
		Rule:  "a call returns when its ctx ends",
		Kills: []string{"context/deadline-in-flight", "context/cancel-in-flight"},
		New: remote.patch(func(c *client) patch {
			slow := deaf(newClient(c.s, c.namespace, c.profile))
			slow.timeout = 2 * time.Second
			say := func(ctx context.Context, err error) error {
				if err != nil && ctx.Err() != nil {
					return c.failure(ctx, "", "", err)
				}
				return err
			}
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					e, err := slow.read(context.WithoutCancel(ctx), "get", key)
					return e, say(ctx, err)
				},
			}
		}),
	},
	{
		Name:  "a deadline that passes in flight is ErrUnavailable",
		Rule:  "the end of the caller's ctx is the error",
		Kills: []string{"context/deadline-in-flight"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == context.DeadlineExceeded {
					return fmt.Errorf("i/o timeout: %w", l2cache.ErrUnavailable)
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "a stalled read is a miss once the deadline has passed",
		Rule:  "nothing but a miss is ErrNotFound",
		Kills: []string{"context/deadline-in-flight"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				ended := ctx.Err() != nil
				e, err := c.read(ctx, "get", key)
				if !ended && errors.Is(err, context.DeadlineExceeded) {
					err = l2cache.ErrNotFound
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a driver that knows deadlines only",
		Rule:  "a call returns when its ctx is cancelled",
		Kills: []string{"context/cancel-in-flight"},
		New: remote.patch(func(c *client) patch {
			c.timeout = 2 * time.Second
			numb := func(ctx context.Context) (context.Context, context.CancelFunc) {
				only := context.WithoutCancel(ctx)
				if deadline, ok := ctx.Deadline(); ok {
					return context.WithDeadline(only, deadline)
				}
				return only, func() {}
			}
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if err := c.check(ctx, "set", key); err != nil {
					return err
				}
				only, cancel := numb(ctx)
				defer cancel()
				err := c.Set(only, key, value, ttl)
				if err != nil && ctx.Err() != nil {
					return c.failure(ctx, "set", key, err)
				}
				return err
			}}
		}),
	},
	{
		Name:  "the error of the operation's own timeout matches DeadlineExceeded",
		Rule:  "an error matches a context's if and only if the caller's has ended",
		Kills: []string{"context/own-timeout"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == errNoReply {
					return errors.Join(l2cache.ErrUnavailable, context.DeadlineExceeded)
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "the operation's own timeout is not ErrUnavailable",
		Rule:  "the backend's own timeout is ErrUnavailable",
		Kills: []string{"context/own-timeout"},
		New: remote.edit(func(c *client) {
			failure := c.failure
			c.failure = func(ctx context.Context, op, key string, err error) error {
				if err == errNoReply {
					return err
				}
				return failure(ctx, op, key, err)
			}
		}),
	},
	{
		Name:  "operations have no timeout of their own",
		Rule:  "the backend's own timeout bounds every call",
		Kills: []string{"context/own-timeout"},
		New:   remote.edit(func(c *client) { c.timeout = 20 * opTimeout }),
	},
	{
		Name:  "the operation's own timeout is off when the caller has a deadline",
		Rule:  "the backend's own timeout bounds every call",
		Kills: []string{"context/own-timeout"},
		New: remote.patch(func(c *client) patch {
			patient := newClient(c.s, c.namespace, c.profile)
			patient.timeout = 20 * opTimeout
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if _, ok := ctx.Deadline(); ok && ctx.Err() == nil {
					return patient.read(ctx, "get", key)
				}
				return c.read(ctx, "get", key)
			}}
		}),
	},
	{
		Name:  "Ping has no timeout of its own",
		Rule:  "the backend's own timeout bounds every call",
		Kills: []string{"context/own-timeout"},
		New: remote.patch(func(c *client) patch {
			patient := newClient(c.s, c.namespace, c.profile)
			patient.timeout = 20 * opTimeout
			return patch{ping: patient.Ping}
		}),
	},
	{
		Name:  "the reply of a cancelled read is taken for the next one's",
		Rule:  "every call gets its own reply",
		Kills: []string{"context/own-reply"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 300*time.Microsecond)
			var mu sync.Mutex
			var left []l2cache.Entry // in the connection
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if err := c.check(ctx, "get", key); err != nil {
					return l2cache.Entry{}, err
				}
				e, err := c.read(context.WithoutCancel(ctx), "get", key)
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() != nil {
					left = append(left, e)
					return l2cache.Entry{}, c.failure(ctx, "get", key, ctx.Err())
				}
				if len(left) > 0 {
					e, left = left[0], left[1:]
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "after a cancelled read, the next one of the handle is an error",
		Rule:  "a call that was cancelled breaks nothing",
		Kills: []string{"context/own-reply"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 300*time.Microsecond)
			var broken atomic.Bool
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if broken.CompareAndSwap(true, false) {
					return l2cache.Entry{}, fmt.Errorf("read tcp: i/o timeout: %w", l2cache.ErrUnavailable)
				}
				e, err := c.read(ctx, "get", key)
				broken.CompareAndSwap(false, isContextErr(err))
				return e, err
			}}
		}),
	},
	{
		Name:  "reads of one key share a round trip under the ctx of the first",
		Rule:  "a cancelled caller fails nobody else",
		Kills: []string{"context/shared-round-trip"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 300*time.Microsecond)
			type flight struct {
				done  chan struct{}
				entry l2cache.Entry
				err   error
			}
			var mu sync.Mutex
			flights := map[string]*flight{}
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				mu.Lock()
				f, ok := flights[key]
				if !ok {
					f = &flight{done: make(chan struct{})}
					flights[key] = f
				}
				mu.Unlock()
				if !ok {
					f.entry, f.err = c.read(ctx, "get", key)
					mu.Lock()
					delete(flights, key)
					mu.Unlock()
					close(f.done)
				}
				<-f.done
				return l2cache.Entry{Value: clone(f.entry.Value), TTL: f.entry.TTL}, f.err
			}}
		}),
	},
	{
		Name:  "writes are sent in batches under the ctx of the first",
		Rule:  "a cancelled caller fails nobody else",
		Kills: []string{"context/shared-round-trip"},
		New: remote.patch(func(c *client) patch {
			travelling(c, 300*time.Microsecond)
			var mu sync.Mutex
			var leader context.Context // of the batch that is under way
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if err := c.check(ctx, "set", key); err != nil {
					return err
				}
				mu.Lock()
				first := leader == nil
				if first {
					leader = ctx
				}
				its := leader
				mu.Unlock()
				err := c.Set(its, key, value, ttl)
				mu.Lock()
				defer mu.Unlock()
				if first {
					leader = nil
				}
				return err
			}}
		}),
	},
	{
		Name:  "the connection is tied to the ctx of its last call",
		Rule:  "cancelling a ctx after the call has no effect",
		Kills: []string{"context/cancel-after-return"},
		New: remote.patch(func(c *client) patch {
			var last context.Context
			return patch{
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					last = ctx
					return c.Set(ctx, key, value, ttl)
				},
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					if last != nil && last.Err() != nil && ctx.Err() == nil {
						return l2cache.Entry{}, fmt.Errorf("use of a closed connection: %w", l2cache.ErrUnavailable)
					}
					return c.read(ctx, "get", key)
				},
			}
		}),
	},
	{
		Name:  "a Set is taken back when its ctx is cancelled afterwards",
		Rule:  "cancelling a ctx after the call has no effect",
		Kills: []string{"context/cancel-after-return"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if err == nil {
					context.AfterFunc(ctx, func() { c.behind(func(rs rows, _ time.Time) { delete(rs, key) }) })
				}
				return err
			}}
		}),
	},
}

func isContextErr(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
