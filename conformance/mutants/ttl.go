package mutants

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

const month = 30 * 24 * time.Hour

// converted is a mutant that stores another TTL than it was given. f is not called
// for NoExpiry.
func converted(name, rule string, f func(ttl time.Duration) time.Duration, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) {
		stored := c.stored
		c.stored = func(ttl time.Duration) (time.Duration, error) {
			checked, err := stored(ttl)
			if err != nil || ttl == l2cache.NoExpiry {
				return checked, err
			}
			return f(ttl), nil
		}
	})}
}

// allowed is a mutant that takes TTLs which are not positive for what f makes of
// them.
func allowed(name, rule string, f func(ttl time.Duration) (time.Duration, error), kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) {
		stored := c.stored
		c.stored = func(ttl time.Duration) (time.Duration, error) {
			if ttl <= 0 {
				return f(ttl)
			}
			return stored(ttl)
		}
	})}
}

// counted is a mutant that reports another TTL than is left.
func counted(name, rule string, f func(left time.Duration, r row) time.Duration, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) {
		left := c.left
		c.left = func(r row, now time.Time) time.Duration { return f(left(r, now), r) }
	})}
}

// finite leaves NoExpiry alone.
func finite(f func(left time.Duration, r row) time.Duration) func(time.Duration, row) time.Duration {
	return func(left time.Duration, r row) time.Duration {
		if left == l2cache.NoExpiry {
			return left
		}
		return f(left, r)
	}
}

// ceil rounds up.
func ceil(d, unit time.Duration) time.Duration { return (d + unit - 1) / unit * unit }

var ttlSetMutants = []Mutant{
	allowed("a TTL of zero is no expiry", "a TTL of zero is ErrInvalidTTL",
		func(ttl time.Duration) (time.Duration, error) {
			if ttl == 0 {
				return l2cache.NoExpiry, nil
			}
			return 0, l2cache.ErrInvalidTTL
		},
		"ttl/set/zero"),
	{
		Name:  "a TTL of zero deletes",
		Rule:  "a TTL of zero is ErrInvalidTTL, and changes nothing",
		Kills: []string{"ttl/set/zero"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl == 0 {
					c.Delete(ctx, key)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	allowed("a TTL of zero is a default of a minute", "a TTL of zero is ErrInvalidTTL",
		func(ttl time.Duration) (time.Duration, error) {
			if ttl == 0 {
				return time.Minute, nil
			}
			return 0, l2cache.ErrInvalidTTL
		},
		"ttl/set/zero"),
	allowed("a negative TTL is no expiry", "a negative TTL is ErrInvalidTTL",
		func(ttl time.Duration) (time.Duration, error) {
			if ttl < 0 {
				return l2cache.NoExpiry, nil
			}
			return 0, l2cache.ErrInvalidTTL
		},
		"ttl/set/negative"),
	{
		Name:  "a TTL of −1 ns keeps the TTL that is there, as in a driver",
		Rule:  "a negative TTL is ErrInvalidTTL",
		Kills: []string{"ttl/set/negative"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl == -1 {
					e, err := c.GetWithTTL(ctx, key)
					if err == nil {
						return c.Set(ctx, key, value, e.TTL)
					}
					ttl = l2cache.NoExpiry
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "a negative TTL is refused after the old entry was deleted",
		Rule:  "a negative TTL changes nothing",
		Kills: []string{"ttl/set/negative"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl < -time.Second {
					c.Delete(ctx, key)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	allowed("the smallest number becomes positive when its sign is changed", "a negative TTL is ErrInvalidTTL",
		func(ttl time.Duration) (time.Duration, error) {
			if ttl == -1<<63 {
				return month, nil
			}
			return 0, l2cache.ErrInvalidTTL
		},
		"ttl/set/negative"),
	{
		Name:  "all entries end with the one that was set last",
		Rule:  "each entry ends by its own TTL",
		Kills: []string{"ttl/set/independent"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				put(rs, name, r, now)
				for other, old := range rs {
					old.ttl, old.deadline = r.ttl, r.deadline
					rs[other] = old
				}
			}
		}),
	},
	{
		Name:  "the first entry to expire takes those without expiry with it",
		Rule:  "an entry without expiry outlives others",
		Kills: []string{"ttl/set/independent"},
		New: remote.edit(func(c *client) {
			find := c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := rs[name]
				if ok && !isLive(r, now) {
					for other, old := range rs {
						if old.deadline.IsZero() {
							delete(rs, other)
						}
					}
				}
				return find(rs, name, now)
			}
		}),
	},
	{
		Name:  "Get extends the life of an entry",
		Rule:  "Get never extends",
		Kills: []string{"ttl/set/get-does-not-extend", "ttl/set/300ms"},
		New: remote.patch(func(c *client) patch {
			return patch{get: func(ctx context.Context, key string) ([]byte, error) {
				value, err := c.Get(ctx, key)
				if err == nil {
					c.slide(key)
				}
				return value, err
			}}
		}),
	},
	{
		Name:  "GetWithTTL extends the life of an entry",
		Rule:  "GetWithTTL never extends",
		Kills: []string{"ttl/set/getwithttl-does-not-extend", "ttl/set/300ms"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.GetWithTTL(ctx, key)
				if err == nil {
					c.slide(key)
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "a TTL begins with the first read",
		Rule:  "an entry that nobody reads ends all the same",
		Kills: []string{"ttl/set/unread", "ttl/set/many"},
		New: remote.edit(func(c *client) {
			deadline, find := c.deadline, c.find
			c.deadline = func(time.Time, time.Duration) time.Time { return time.Time{} }
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				if r, ok := rs[name]; ok && r.deadline.IsZero() {
					r.deadline = deadline(now, r.ttl)
					rs[name] = r
				}
				return find(rs, name, now)
			}
		}),
	},
	{
		Name:  "a Set over an expired entry that nobody has read keeps its deadline",
		Rule:  "a Set after expiry starts a full TTL",
		Kills: []string{"ttl/set/unread"},
		New: remote.edit(func(c *client) {
			find, put := c.find, c.put
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := find(rs, name, now)
				if !ok {
					delete(rs, name)
				}
				return r, ok
			}
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; ok && !isLive(old, now) {
					r.deadline = old.deadline
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "a Set over an expired entry is taken for one that came too late",
		Rule:  "a Set after expiry starts a full TTL",
		Kills: []string{"ttl/set/after-expiry", "ttl/set/unread"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; !ok || isLive(old, now) {
					put(rs, name, r, now)
				}
			}
		}),
	},
	{
		Name:  "one expired entry is dropped with each read, and nobody looks at deadlines",
		Rule:  "all expired entries are absent",
		Kills: []string{"ttl/set/many"},
		New: remote.edit(func(c *client) {
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				for other, old := range rs {
					if !isLive(old, now) {
						delete(rs, other)
						break
					}
				}
				r, ok := rs[name]
				return r, ok
			}
		}),
	},
	{
		Name:  "only the handle that set a TTL knows it",
		Rule:  "an entry ends for every handle",
		Kills: []string{"ttl/set/peer"},
		New: remote.edit(func(c *client) {
			mine := map[string]time.Time{}
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				mine[name] = r.deadline
				put(rs, name, r, now)
			}
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok && isLive(row{deadline: mine[name]}, now)
			}
		}),
	},
	{
		Name:  "expired entries are left where they are",
		Rule:  "space is given back",
		Kills: []string{"ttl/set/reclaimed"},
		New:   remote.server(func(s *server) { s.lazy = true }),
	},
	{
		Name:  "a read that finds an expired entry deletes the key a little later",
		Rule:  "removing an expired entry never removes a fresh one",
		Kills: []string{"ttl/set/lazy-race"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				expired := false
				c.behind(func(rs rows, now time.Time) {
					r, ok := rs[key]
					expired = ok && !isLive(r, now)
				})
				if expired {
					time.Sleep(200 * time.Microsecond)
					c.behind(func(rs rows, _ time.Time) { delete(rs, key) })
				}
				return c.read(ctx, "get", key)
			}}
		}),
	},
	converted("a TTL below 1 ms becomes zero, which is never", "every TTL ends",
		func(ttl time.Duration) time.Duration {
			if ttl < time.Millisecond {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/1ns", "ttl/set/999us"),
	{
		Name:  "a TTL of some microseconds is refused as too short",
		Rule:  "every positive TTL is accepted",
		Kills: []string{"ttl/set/999us", "ttl/set/1ns"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > 0 && ttl < time.Millisecond {
					return 0, l2cache.ErrInvalidTTL
				}
				return stored(ttl)
			}
		}),
	},
	converted("one is taken off before rounding up, so that 1 ms is never", "every TTL ends",
		func(ttl time.Duration) time.Duration {
			if (ttl-1)/time.Millisecond == 0 {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/1ms", "ttl/set/999us"),
	converted("TTLs are in hundredths of a second, and below that never", "every TTL ends",
		func(ttl time.Duration) time.Duration {
			if ttl <= 10*time.Millisecond {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/10ms", "ttl/set/1ms"),
	converted("a TTL below a second is rounded to zero seconds, which is never", "every TTL ends",
		func(ttl time.Duration) time.Duration {
			if ttl = ttl.Round(time.Second); ttl == 0 {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/300ms", "ttl/set/10ms"),
	converted("TTLs are cut to whole seconds, and zero is never", "every TTL ends",
		func(ttl time.Duration) time.Duration {
			if ttl = ttl.Truncate(time.Second); ttl == 0 {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/999ms", "ttl/set/1500ms", "ttl/set/300ms"),
	{
		Name:  "a TTL below a second is an error",
		Rule:  "every positive TTL is accepted",
		Kills: []string{"ttl/set/300ms", "ttl/set/999ms"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > 0 && ttl < time.Second {
					return 0, errors.New("TTLs below a second are not supported")
				}
				return stored(ttl)
			}
		}),
	},
	{
		Name:  "an entry with a TTL below 100 ms is not worth storing",
		Rule:  "every TTL is kept",
		Kills: []string{"ttl/overwrite/tiny"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl > 0 && ttl < 100*time.Millisecond {
					return ctx.Err()
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	converted("TTLs are rounded up to whole seconds, though the resolution is 1 ms", "entries are never late",
		func(ttl time.Duration) time.Duration { return ceil(min(ttl, l2cache.MaxTTL), time.Second) },
		"ttl/set/1500ms", "ttl/set/300ms"),
	converted("TTLs are cut to whole seconds, but one at least", "entries are never early",
		func(ttl time.Duration) time.Duration { return max(ttl.Truncate(time.Second), time.Second) },
		"ttl/set/1500ms", "ttl/set/300ms"),
	{
		Name:  "TTLs are dropped",
		Rule:  "entries end",
		Kills: []string{"ttl/set/300ms", "ttl/set/1ns", "ttl/set/many", "ttl/remaining/bounds"},
		New: remote.edit(func(c *client) {
			c.deadline = func(time.Time, time.Duration) time.Time { return time.Time{} }
		}),
	},
	{
		Name:  "TTLs are reported and not enforced",
		Rule:  "entries end",
		Kills: []string{"ttl/set/300ms", "ttl/set/999ms"},
		New: remote.edit(func(c *client) {
			c.find = func(rs rows, name string, _ time.Time) (row, bool) { r, ok := rs[name]; return r, ok }
		}),
	},
	{
		Name:  "only GetWithTTL looks at the deadline",
		Rule:  "an expired entry is absent for every operation",
		Kills: []string{"ttl/set/300ms", "ttl/set/get-does-not-extend"},
		New: remote.patch(func(c *client) patch {
			blind := newClient(c.s, c.namespace, c.profile)
			blind.find = func(rs rows, name string, _ time.Time) (row, bool) { r, ok := rs[name]; return r, ok }
			return patch{get: blind.Get}
		}),
	},
	{
		Name:  "every entry with a TTL has ended at once",
		Rule:  "entries are never early",
		Kills: []string{"ttl/set/300ms", "basic/roundtrip"},
		New: remote.edit(func(c *client) {
			c.deadline = func(now time.Time, ttl time.Duration) time.Time {
				if ttl == l2cache.NoExpiry {
					return time.Time{}
				}
				return now
			}
		}),
	},
	converted("TTLs are halved", "entries are never early",
		func(ttl time.Duration) time.Duration { return ttl / 2 },
		"ttl/set/1500ms", "ttl/remaining/bounds"),
	converted("TTLs are a fifth longer, against stampedes", "entries are never late",
		func(ttl time.Duration) time.Duration { return min(ttl, l2cache.MaxTTL) / 5 * 6 },
		"ttl/set/300ms", "ttl/remaining/not-more-than-set"),
	converted("TTLs are up to a tenth shorter, by chance, against stampedes", "entries are never early",
		func(ttl time.Duration) time.Duration { return ttl - ttl/30 - rand.N(ttl/15+1) },
		"ttl/remaining/bounds", "ttl/set/30d"),
	{
		Name:  "entries are read for a second more than they say",
		Rule:  "entries are never late",
		Kills: []string{"ttl/set/300ms", "ttl/set/10ms"},
		New: remote.edit(func(c *client) {
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok && isLive(r, now.Add(-time.Second))
			}
		}),
	},
	{
		Name:  "entries end 400 ms before they should",
		Rule:  "entries are never early",
		Kills: []string{"ttl/set/1500ms"},
		New: remote.edit(func(c *client) {
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok && isLive(r, now.Add(400*time.Millisecond))
			}
		}),
	},
	converted("milliseconds are passed as seconds", "units",
		func(ttl time.Duration) time.Duration { return min(ttl, l2cache.MaxTTL/1000) * 1000 },
		"ttl/set/300ms", "ttl/remaining/bounds"),
	converted("seconds are passed as milliseconds", "units",
		func(ttl time.Duration) time.Duration { return max(ttl/1000, 1) },
		"ttl/set/1500ms", "ttl/remaining/bounds"),
	converted("milliseconds overflow 32 bits", "long TTLs are kept",
		func(ttl time.Duration) time.Duration {
			return time.Duration(int32(ttl/time.Millisecond)) * time.Millisecond
		},
		"ttl/set/24d21h", "ttl/set/100y"),
	converted("milliseconds overflow 32 bits without a sign", "long TTLs are kept",
		func(ttl time.Duration) time.Duration {
			return time.Duration(uint32(ttl/time.Millisecond)) * time.Millisecond
		},
		"ttl/set/49d18h"),
	converted("seconds overflow 32 bits", "long TTLs are kept",
		func(ttl time.Duration) time.Duration {
			if seconds := int32(ttl / time.Second); ttl > month {
				return time.Duration(seconds) * time.Second
			}
			return ttl
		},
		"ttl/set/68y", "ttl/set/292y"),
	{
		Name:  "a TTL of 30 days and more is read as a date",
		Rule:  "long TTLs are kept",
		Kills: []string{"ttl/set/30d", "ttl/set/30d1s"},
		New:   remote.edit(func(c *client) { dates(c, month) }),
	},
	{
		Name:  "a TTL over 30 days is read as a date",
		Rule:  "long TTLs are kept",
		Kills: []string{"ttl/set/30d1s", "ttl/set/100y"},
		New:   remote.edit(func(c *client) { dates(c, month+1) }),
	},
	converted("TTLs are 30 days at most, and the profile does not say so", "long TTLs are kept",
		func(ttl time.Duration) time.Duration { return min(ttl, month) },
		"ttl/set/30d1s", "ttl/remaining/no-expiry"),
	converted("the longest TTL is no expiry", "MaxTTL is a TTL",
		func(ttl time.Duration) time.Duration {
			if ttl >= l2cache.MaxTTL {
				return l2cache.NoExpiry
			}
			return ttl
		},
		"ttl/set/100y", "ttl/set/292y"),
	converted("TTLs beyond MaxTTL are stored as they are", "a longer TTL is stored as MaxTTL",
		func(ttl time.Duration) time.Duration { return ttl },
		"ttl/set/292y"),
	{
		Name:  "a TTL beyond MaxTTL is refused",
		Rule:  "a longer TTL is stored as MaxTTL",
		Kills: []string{"ttl/set/292y"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl > l2cache.MaxTTL && ttl != l2cache.NoExpiry {
					return 0, l2cache.ErrInvalidTTL
				}
				return stored(ttl)
			}
		}),
	},
	{
		Name:  "rounding up overflows",
		Rule:  "long TTLs and NoExpiry are kept",
		Kills: []string{"ttl/set/292y", "ttl/set/no-expiry"},
		New: remote.edit(func(c *client) {
			c.stored = func(ttl time.Duration) (time.Duration, error) {
				if ttl <= 0 {
					return 0, l2cache.ErrInvalidTTL
				}
				return ceil(ttl, time.Millisecond), nil
			}
			c.deadline = func(now time.Time, ttl time.Duration) time.Time { return now.Add(ttl) }
		}),
	},
	{
		Name:  "now and NoExpiry are added, and wrap",
		Rule:  "NoExpiry is no number",
		Kills: []string{"ttl/set/no-expiry", "ttl/remaining/no-expiry"},
		New: remote.edit(func(c *client) {
			c.deadline = func(now time.Time, ttl time.Duration) time.Time {
				return time.Unix(0, now.UnixNano()+int64(ttl))
			}
		}),
	},
	{
		Name:  "NoExpiry is stored as MaxTTL, and the profile does not say so",
		Rule:  "NoExpiry stays NoExpiry",
		Kills: []string{"ttl/set/no-expiry", "ttl/remaining/no-expiry", "ttl/overwrite/to-no-expiry"},
		New: remote.edit(func(c *client) {
			stored := c.stored
			c.stored = func(ttl time.Duration) (time.Duration, error) { return stored(min(ttl, l2cache.NoExpiry-1)) }
		}),
	},
}

// dates reads TTLs from a length on as seconds since 1970.
func dates(c *client, from time.Duration) {
	deadline := c.deadline
	c.deadline = func(now time.Time, ttl time.Duration) time.Time {
		if ttl >= from && ttl != l2cache.NoExpiry {
			return time.Unix(int64(ttl/time.Second), 0)
		}
		return deadline(now, ttl)
	}
}

// slide has the TTL of an entry begin anew.
func (c *client) slide(key string) {
	c.behind(func(rs rows, now time.Time) {
		if r, ok := rs[key]; ok {
			r.deadline = c.deadline(now, r.ttl)
			rs[key] = r
		}
	})
}

var ttlRemainingMutants = []Mutant{
	counted("the TTL is reported as it was set", "the remaining TTL is what is left",
		func(_ time.Duration, r row) time.Duration { return r.ttl },
		"ttl/remaining/bounds", "ttl/remaining/falls"),
	counted("the TTL is reported in whole seconds", "the remaining TTL is exact",
		finite(func(left time.Duration, _ row) time.Duration { return max(left.Truncate(time.Second), 1) }),
		"ttl/remaining/bounds", "ttl/set/300ms"),
	counted("the TTL is a constant of a minute", "the remaining TTL is what is left",
		finite(func(_ time.Duration, r row) time.Duration { return min(r.ttl, time.Minute) }),
		"ttl/remaining/bounds", "ttl/remaining/no-expiry"),
	counted("the TTL is reported 50 ms too low, to be on the safe side", "the remaining TTL is exact",
		finite(func(left time.Duration, _ row) time.Duration { return max(left-50*time.Millisecond, 1) }),
		"ttl/remaining/bounds"),
	counted("the TTL is rounded up to whole seconds", "the remaining TTL is at most what was set",
		finite(func(left time.Duration, _ row) time.Duration { return ceil(left, time.Second) }),
		"ttl/remaining/not-more-than-set", "ttl/remaining/bounds"),
	counted("the TTL has a margin of 5 ms on top", "the remaining TTL is at most what was set",
		finite(func(left time.Duration, _ row) time.Duration { return left + 5*time.Millisecond }),
		"ttl/remaining/not-more-than-set", "ttl/set/300ms"),
	counted("the TTL is cut to hundredths of a second, and is zero at the end", "the remaining TTL is above zero",
		finite(func(left time.Duration, _ row) time.Duration { return left.Truncate(10 * time.Millisecond) }),
		"ttl/remaining/positive"),
	counted("the server's −1 for no expiry is passed on", "no expiry is NoExpiry",
		func(left time.Duration, _ row) time.Duration {
			if left == l2cache.NoExpiry {
				return -1
			}
			return left
		},
		"ttl/remaining/no-expiry", "ttl/set/no-expiry"),
	counted("no expiry is a TTL of zero", "no expiry is NoExpiry",
		func(left time.Duration, _ row) time.Duration {
			if left == l2cache.NoExpiry {
				return 0
			}
			return left
		},
		"ttl/remaining/no-expiry", "ttl/remaining/after-overwrite"),
	counted("a TTL over 300 days is as good as none", "NoExpiry is for entries that never expire",
		func(left time.Duration, _ row) time.Duration {
			if left > 10*month {
				return l2cache.NoExpiry
			}
			return left
		},
		"ttl/remaining/no-expiry", "ttl/set/68y"),
	{
		Name:  "GetWithTTL of a missing key is (nil, 0, nil)",
		Rule:  "a miss is ErrNotFound",
		Kills: []string{"ttl/remaining/miss", "basic/miss"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.GetWithTTL(ctx, key)
				if errors.Is(err, l2cache.ErrNotFound) {
					return l2cache.Entry{}, nil
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "GetWithTTL of an expired key has the −2 of the server beside ErrNotFound",
		Rule:  "a miss comes with the zero Entry",
		Kills: []string{"ttl/remaining/miss"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.GetWithTTL(ctx, key)
				c.behind(func(rs rows, _ time.Time) {
					if _, ok := rs[key]; ok && err != nil {
						e.TTL = -2
					}
				})
				return e, err
			}}
		}),
	},
	counted("the TTL has a random spread of 40 ms", "the remaining TTL never rises",
		finite(func(left time.Duration, _ row) time.Duration { return max(left-rand.N(40*time.Millisecond), 1) }),
		"ttl/remaining/falls", "ttl/remaining/bounds"),
	{
		Name:  "a handle asks for the TTL of a key once, and counts from the read",
		Rule:  "the remaining TTL falls as time goes by",
		Kills: []string{"ttl/remaining/falls"},
		New: remote.edit(func(c *client) {
			var memo sync.Map // deadline to time.Duration
			left := c.left
			c.left = func(r row, now time.Time) time.Duration {
				known, _ := memo.LoadOrStore(r.deadline, left(r, now))
				return known.(time.Duration)
			}
		}),
	},
	{
		Name:  "deadlines are kept apart, and follow a Set after 5 ms",
		Rule:  "right after a Set the TTL is that of the new entry",
		Kills: []string{"ttl/remaining/after-overwrite", "ttl/remaining/one-snapshot"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; ok {
					ttl, deadline := r.ttl, r.deadline
					time.AfterFunc(5*time.Millisecond, func() {
						c.behind(func(rs rows, _ time.Time) {
							r := rs[name]
							r.ttl, r.deadline = ttl, deadline
							rs[name] = r
						})
					})
					r.ttl, r.deadline = old.ttl, old.deadline
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "large values are stored in another form, which GetWithTTL does not undo",
		Rule:  "GetWithTTL returns the value that Get returns",
		Kills: []string{"ttl/remaining/same-value", "values/sizes"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.GetWithTTL(ctx, key)
				for i := 0; i < len(e.Value) && len(e.Value) > 16_384; i++ {
					e.Value[i] ^= 0x80
				}
				return e, err
			}}
		}),
	},
	{
		Name:  "value and TTL are read one after the other",
		Rule:  "value and TTL come from one atomic read",
		Kills: []string{"ttl/remaining/one-snapshot"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				value, err := c.Get(ctx, key)
				if err != nil {
					return l2cache.Entry{}, err
				}
				time.Sleep(100 * time.Microsecond)
				e, err := c.GetWithTTL(ctx, key)
				e.Value = value
				if err != nil {
					return l2cache.Entry{}, err
				}
				return e, nil
			}}
		}),
	},
	{
		Name:  "a TTL that is gone when it is asked for, after the value, is no expiry",
		Rule:  "value and TTL come from one atomic read",
		Kills: []string{"ttl/remaining/one-snapshot-expiring"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.GetWithTTL(ctx, key)
				if err != nil {
					return e, err
				}
				time.Sleep(time.Millisecond)
				again, err := c.GetWithTTL(ctx, key)
				if errors.Is(err, l2cache.ErrNotFound) {
					again.TTL = l2cache.NoExpiry
				}
				return l2cache.Entry{Value: e.Value, TTL: again.TTL}, nil
			}}
		}),
	},
	{
		Name:  "an error of the TTL, asked for after the value, is discarded",
		Rule:  "an entry is a hit with a TTL, or a miss",
		Kills: []string{"ttl/remaining/one-snapshot-expiring"},
		New: remote.patch(func(c *client) patch {
			return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
				value, err := c.Get(ctx, key)
				if err != nil {
					return l2cache.Entry{}, err
				}
				time.Sleep(time.Millisecond)
				e, _ := c.GetWithTTL(ctx, key)
				return l2cache.Entry{Value: value, TTL: e.TTL}, nil
			}}
		}),
	},
}

// overwriting is a mutant that makes of an entry and the one that replaces it
// another.
func overwriting(name, rule string, f func(old, r row) row, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) {
		put := c.put
		c.put = func(rs rows, name string, r row, now time.Time) {
			if old, ok := rs[name]; ok && isLive(old, now) {
				r = f(old, r)
			}
			put(rs, name, r, now)
		}
	})}
}

var overwriteMutants = []Mutant{
	overwriting("Set is done if there is nothing yet", "a Set replaces the value",
		func(old, _ row) row { return old },
		"ttl/overwrite/value", "ttl/overwrite/longer"),
	overwriting("a Set keeps the old deadline", "a Set replaces the TTL",
		func(old, r row) row { r.ttl, r.deadline = old.ttl, old.deadline; return r },
		"ttl/overwrite/longer", "ttl/overwrite/shorter"),
	{
		Name:  "every Set starts a timer that deletes the key, and none is stopped",
		Rule:  "a Set replaces the TTL",
		Kills: []string{"ttl/overwrite/longer", "delete/forgets-ttl"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				put(rs, name, r, now)
				if r.ttl < time.Minute {
					time.AfterFunc(r.ttl, func() { c.behind(func(rs rows, _ time.Time) { delete(rs, name) }) })
				}
			}
		}),
	},
	overwriting("a Set keeps the later deadline", "a Set replaces the TTL, in either direction",
		func(old, r row) row {
			if old.deadline.IsZero() || !r.deadline.IsZero() && old.deadline.After(r.deadline) {
				r.ttl, r.deadline = old.ttl, old.deadline
			}
			return r
		},
		"ttl/overwrite/shorter", "ttl/overwrite/from-no-expiry"),
	overwriting("a Set keeps the earlier deadline", "a Set replaces the TTL, in either direction",
		func(old, r row) row {
			if !old.deadline.IsZero() && (r.deadline.IsZero() || old.deadline.Before(r.deadline)) {
				r.ttl, r.deadline = old.ttl, old.deadline
			}
			return r
		},
		"ttl/overwrite/longer", "ttl/overwrite/to-no-expiry"),
	overwriting("a Set without expiry leaves the old deadline", "a Set replaces the TTL",
		func(old, r row) row {
			if r.deadline.IsZero() {
				r.ttl, r.deadline = old.ttl, old.deadline
			}
			return r
		},
		"ttl/overwrite/to-no-expiry", "ttl/remaining/after-overwrite"),
	overwriting("an entry without expiry stays so", "a Set replaces the TTL",
		func(old, r row) row {
			if old.deadline.IsZero() {
				r.ttl, r.deadline = old.ttl, old.deadline
			}
			return r
		},
		"ttl/overwrite/from-no-expiry"),
	overwriting("a Set over a live entry drops the TTL", "a Set replaces the TTL",
		func(_, r row) row { r.deadline = time.Time{}; return r },
		"ttl/overwrite/shorter", "ttl/overwrite/often"),
	overwriting("a Set of the value that is there is left out", "a Set replaces the TTL",
		func(old, r row) row {
			if string(old.value) == string(r.value) {
				return old
			}
			return r
		},
		"ttl/overwrite/same-value", "ttl/overwrite/often"),
	overwriting("a Set of a value of the same length and first bytes is left out", "a Set replaces the value",
		func(old, r row) row {
			if n := len(r.value); n == len(old.value) && n > 0 && r.value[0] == old.value[0] {
				return old
			}
			return r
		},
		"basic/read-your-writes"),
	overwriting("the TTL of each Set is added to what is left", "the last Set's TTL counts from that Set",
		func(old, r row) row {
			if !old.deadline.IsZero() && !r.deadline.IsZero() && r.ttl < time.Minute {
				r.deadline = old.deadline.Add(r.ttl)
			}
			return r
		},
		"ttl/overwrite/often", "ttl/overwrite/same-value"),
}
