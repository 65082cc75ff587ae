package mutants

import (
	"context"
	"errors"
	"time"

	"github.com/l2cache/l2cache"
)

// touched is a mutant whose Touch makes another row of a live one.
func touched(name, rule string, f func(c *client, r row, ttl time.Duration, now time.Time) row, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
			return c.touch(ctx, key, ttl, func(r row, ttl time.Duration, now time.Time) row { return f(c, r, ttl, now) })
		}}
	}, kills...)
}

// until is r with another deadline.
func (r row) until(ttl time.Duration, deadline time.Time) row {
	r.ttl, r.deadline = ttl, deadline
	return r
}

// rewritten is a mutant whose Touch is a read, a pause and a write, if write says
// so of an error of the read.
func rewritten(name, rule string, write func(error) bool, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
			e, err := c.GetWithTTL(ctx, key)
			if !write(err) {
				return err
			}
			time.Sleep(300 * time.Microsecond)
			return c.Set(ctx, key, e.Value, ttl)
		}}
	}, kills...)
}

var touchMutants = []Mutant{
	touched("Touch does nothing", "Touch changes the TTL",
		func(_ *client, r row, _ time.Duration, _ time.Time) row { return r },
		"touch/extends", "touch/shortens", "touch/remaining", "touch/to-no-expiry"),
	touched("Touch adds to what is left", "the TTL is counted from the call",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			if r.deadline.IsZero() || ttl == l2cache.NoExpiry {
				return r.until(ttl, c.deadline(now, ttl))
			}
			sum := min(ttl+r.deadline.Sub(now), l2cache.MaxTTL)
			return r.until(sum, now.Add(sum))
		},
		"touch/extends", "touch/remaining"),
	touched("Touch keeps the earlier deadline", "Touch extends",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			deadline := c.deadline(now, ttl)
			if deadline.IsZero() || !r.deadline.IsZero() && r.deadline.Before(deadline) {
				return r
			}
			return r.until(ttl, deadline)
		},
		"touch/extends", "touch/remaining"),
	touched("Touch takes milliseconds for seconds", "Touch gives the TTL that it was given",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			if ttl < l2cache.MaxTTL/1000 {
				ttl *= 1000
			}
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/extends", "touch/shortens", "touch/remaining"),
	touched("Touch never shortens", "Touch shortens",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			deadline := c.deadline(now, ttl)
			if r.deadline.IsZero() || !deadline.IsZero() && deadline.Before(r.deadline) {
				return r
			}
			return r.until(ttl, deadline)
		},
		"touch/shortens", "touch/remaining"),
	touched("Touch leaves alone what never expires", "Touch shortens",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			if r.deadline.IsZero() {
				return r
			}
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/shortens", "touch/remaining"),
	touched("Touch rounds up to whole seconds", "the TTL is exact to the resolution",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			if ttl < l2cache.MaxTTL {
				ttl = (ttl + time.Second - 1) / time.Second * time.Second
			}
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/shortens", "touch/extends", "touch/remaining"),
	patched("Touch with NoExpiry is ErrNotFound for an entry that has no deadline", "Touch with NoExpiry is no error for an entry that has none",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				e, err := c.GetWithTTL(ctx, key)
				if err == nil && ttl == l2cache.NoExpiry && e.TTL == l2cache.NoExpiry {
					return l2cache.ErrNotFound // PERSIST has returned 0
				}
				return c.Touch(ctx, key, ttl)
			}}
		},
		"touch/to-no-expiry"),
	touched("Touch with NoExpiry gives 30 days", "Touch with NoExpiry takes the deadline away",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			ttl = min(ttl, 30*24*time.Hour)
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/to-no-expiry", "touch/remaining"),
	touched("Touch with NoExpiry keeps the deadline", "Touch with NoExpiry takes the deadline away",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			if ttl == l2cache.NoExpiry {
				return r
			}
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/to-no-expiry", "touch/remaining"),
	touched("Touch does not change the TTL as set, which caps what is left", "the remaining TTL is the new one",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			return r.until(r.ttl, c.deadline(now, ttl))
		},
		"touch/remaining", "touch/extends"),
	touched("Touch cuts long values", "Touch leaves the value alone",
		func(c *client, r row, ttl time.Duration, now time.Time) row {
			r.value = r.value[:min(len(r.value), 64<<10)]
			r.sum = checksum(r.value)
			return r.until(ttl, c.deadline(now, ttl))
		},
		"touch/remaining"),
	rewritten("Touch creates an empty entry", "a missing key stays missing",
		func(err error) bool { return err == nil || errors.Is(err, l2cache.ErrNotFound) },
		"touch/missing"),
	patched("Touch of a missing key is nil", "Touch of a missing key is ErrNotFound",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if err := c.Touch(ctx, key, ttl); !errors.Is(err, l2cache.ErrNotFound) {
					return err
				}
				return nil
			}}
		},
		"touch/missing"),
	patched("Touch of a missing key is the driver's error", "Touch of a missing key is ErrNotFound",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if err := c.Touch(ctx, key, ttl); !errors.Is(err, l2cache.ErrNotFound) {
					return err
				}
				return c.failure(ctx, "touch", key, errNoKey)
			}}
		},
		"touch/missing"),
	patched("Touch brings back what has expired", "an expired entry is absent for Touch",
		func(c *client) patch {
			other := c.twin()
			other.find = func(rs rows, name string, _ time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok
			}
			return patch{touch: other.Touch}
		},
		"touch/missing"),
	patched("Touch with zero deletes", "a TTL of zero is ErrInvalidTTL and changes nothing",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if ttl == 0 {
					return c.Delete(ctx, key)
				}
				return c.Touch(ctx, key, ttl)
			}}
		},
		"touch/invalid"),
	patched("Touch with less than zero deletes, and is ErrInvalidTTL", "an invalid TTL changes nothing",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if ttl < 0 && c.check(ctx, "touch", key) == nil {
					c.Delete(ctx, key)
				}
				return c.Touch(ctx, key, ttl)
			}}
		},
		"touch/invalid"),
	patched("Touch takes -1 ns for never", "an invalid TTL changes nothing",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if ttl == -1 {
					ttl = l2cache.NoExpiry
				}
				return c.Touch(ctx, key, ttl)
			}}
		},
		"touch/invalid"),
	rewritten("Touch is a read and a write", "Touch brings nothing back",
		func(err error) bool { return err == nil },
		"touch/racing-delete", "touch/racing-set"),
	patched("Touch writes the value that it has read, if the key is still there", "Touch overwrites no Set",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				e, err := c.GetWithTTL(ctx, key)
				if err != nil {
					return err
				}
				time.Sleep(300 * time.Microsecond)
				return c.touch(ctx, key, ttl, func(r row, ttl time.Duration, now time.Time) row {
					r.value, r.sum = e.Value, checksum(e.Value)
					return r.until(ttl, c.deadline(now, ttl))
				})
			}}
		},
		"touch/racing-set"),
	patched("Touch stores what it has changed in a second step", "Touch brings nothing back",
		func(c *client) patch {
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				var seen row
				if err := c.touch(ctx, key, ttl, func(r row, ttl time.Duration, now time.Time) row {
					seen = r.until(ttl, c.deadline(now, ttl))
					return r
				}); err != nil {
					return err
				}
				time.Sleep(300 * time.Microsecond)
				c.behind(func(rs rows, now time.Time) {
					if r, ok := c.find(rs, key, now); !ok || r.sum == seen.sum {
						c.put(rs, key, seen, now)
					}
				})
				return nil
			}}
		},
		"touch/racing-delete"),
}
