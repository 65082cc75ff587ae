package mutants

import (
	"context"
	"errors"
	"time"

	"github.com/l2cache/l2cache"
)

// A core has the methods of the contract's core, whatever its profile says.
type core struct{ l2cache.L2CacheBackend }

func (c core) Profile() l2cache.Profile { return l2cache.ProfileOf(c.L2CacheBackend) }

// supporting returns a shape that supports other things.
func (sh shape) supporting(supports l2cache.Capability) shape {
	return sh.but(func(sh *shape) { sh.Supports = supports })
}

// wrapped is a system whose clients are wrapped by hand.
func (sh shape) wrapped(wrap func(*client) l2cache.L2CacheBackend) func() System {
	return sh.system(nil, func(ctx context.Context, c *client) (l2cache.L2CacheBackend, error) {
		return wrap(c), c.connect(ctx)
	})
}

// A toucher is a core that has Touch, if that is not nil.
type toucher struct {
	core
	touch func(ctx context.Context, key string, ttl time.Duration) error
}

func (t toucher) Touch(ctx context.Context, key string, ttl time.Duration) error {
	return t.touch(ctx, key, ttl)
}

// An adder is a core that has Add.
type adder struct {
	core
	add func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error)
}

func (a adder) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	return a.add(ctx, key, value, ttl)
}

// A patternDeleter is a core that has DeletePattern.
type patternDeleter struct {
	core
	deletePattern func(ctx context.Context, pattern string) error
}

func (p patternDeleter) DeletePattern(ctx context.Context, pattern string) error {
	return p.deletePattern(ctx, pattern)
}

var capabilityMutants = []Mutant{
	{
		Name:  "a wrapper has the profile of what it wraps, and not its methods",
		Rule:  "what the profile supports is never ErrUnsupported",
		Kills: []string{"capability/honest", "touch/extends", "add/first-wins", "scan/complete", "watch/sees", "delete-pattern/none"},
		New:   remote.wrapped(func(c *client) l2cache.L2CacheBackend { return core{c} }),
	},
	{
		Name:  "Watch is declared and ErrUnsupported",
		Rule:  "what the profile supports is never ErrUnsupported",
		Kills: []string{"capability/honest", "watch/sees"},
		New: remote.patch(func(c *client) patch {
			return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
				yield(l2cache.Event{}, c.failure(ctx, "watch", prefix, errors.ErrUnsupported))
			}}
		}),
	},
	{
		Name:  "Touch is not declared, and works",
		Rule:  "what the profile does not support is ErrUnsupported",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return toucher{core{c}, c.Touch}
		}),
	},
	{
		Name:  "Touch is not declared and ErrUnsupported, once it is done",
		Rule:  "what the profile does not support does nothing",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return toucher{core{c}, func(ctx context.Context, key string, ttl time.Duration) error {
				if err := c.Touch(ctx, key, ttl); err != nil {
					return err
				}
				return c.failure(ctx, "touch", key, errors.ErrUnsupported)
			}}
		}),
	},
	{
		Name:  "Touch is not declared, and a nil that does nothing",
		Rule:  "what the profile does not support is ErrUnsupported",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return toucher{core{c}, func(context.Context, string, time.Duration) error { return nil }}
		}),
	},
	{
		Name:  "what is not supported is ErrUnavailable, too",
		Rule:  "what the profile does not support is ErrUnsupported",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return toucher{core{c}, func(ctx context.Context, key string, _ time.Duration) error {
				return c.failure(ctx, "touch", key, errors.Join(l2cache.ErrUnavailable, errors.ErrUnsupported))
			}}
		}),
	},
	{
		Name:  "Add is not declared and ErrUnsupported, once it is done",
		Rule:  "what the profile does not support does nothing",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return adder{core{c}, func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				if added, err := c.Add(ctx, key, value, ttl); err != nil {
					return added, err
				}
				return false, c.failure(ctx, "add", key, errors.ErrUnsupported)
			}}
		}),
	},
	{
		Name:  "Add is not declared, and always false",
		Rule:  "what the profile does not support is ErrUnsupported",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return adder{core{c}, func(context.Context, string, []byte, time.Duration) (bool, error) { return false, nil }}
		}),
	},
	{
		Name:  "DeletePattern is not declared, and a nil that does nothing",
		Rule:  "what the profile does not support is ErrUnsupported, never a silent success",
		Kills: []string{"capability/honest"},
		New: remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
			return patternDeleter{core{c}, func(context.Context, string) error { return nil }}
		}),
	},
	{
		Name:  "the first handle on a server declares what it supports, the others nothing",
		Rule:  "the profile is the same for all handles, and behind wrappers",
		Kills: []string{"capability/forwarded"},
		New: remote.patch(func(c *client) patch {
			first, _ := c.s.memo.LoadOrStore("first", c)
			return patch{profile: func() l2cache.Profile {
				profile := c.profile
				if first != c {
					profile.Supports = 0
				}
				return profile
			}}
		}),
	},
	{
		Name:  "Watch is declared when a profile is asked for the first time, and never again",
		Rule:  "the profile is the same for all handles, and behind wrappers",
		Kills: []string{"capability/forwarded"},
		New: remote.patch(func(c *client) patch {
			return patch{profile: func() l2cache.Profile {
				profile := c.profile
				if _, asked := c.s.memo.LoadOrStore("asked", true); asked {
					profile.Supports &^= l2cache.CanWatch
				}
				return profile
			}}
		}),
	},
}

// capabilityOddballs returns stores that keep the contract of what is optional in
// a way that a suite may not expect.
func capabilityOddballs() []Store {
	return []Store{
		{
			Name: "a store that supports nothing beyond the core",
			Why:  "all else is optional, and batches have fallbacks",
			New: relaxed(remote.supporting(0).wrapped(func(c *client) l2cache.L2CacheBackend {
				c.timeout = slowTimeout
				travelling(c, trip)
				return core{c}
			})),
		},
		{
			Name: "every key comes twice in a Scan",
			Why:  "a key comes at least once",
			New: remote.oddPatch(trip, func(c *client) patch {
				return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
					for info, err := range c.Scan(ctx, prefix) {
						if err == nil && !yield(info, nil) || !yield(info, err) {
							return
						}
					}
				}}
			}),
		},
		{
			Name: "every event of a Watch is a Gap",
			Why:  "a Gap stands for any number of changes",
			New: remote.oddPatch(trip, func(c *client) patch {
				return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
					for e, err := range c.Watch(ctx, prefix) {
						if err == nil {
							e = l2cache.Event{Gap: true}
						}
						if !yield(e, err) {
							return
						}
					}
				}}
			}),
		},
		{
			Name: "events of a Watch come 100 ms late, and each twice",
			Why:  "an event follows a change, some time or other, at least once",
			New: remote.oddPatch(trip, func(c *client) patch {
				return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
					pause := time.Now().Add(100 * time.Millisecond)
					for e, err := range c.Watch(ctx, prefix) {
						if err == nil && time.Now().After(pause) {
							time.Sleep(100 * time.Millisecond)
							pause = time.Now().Add(time.Millisecond)
							if !yield(e, err) {
								return
							}
						}
						if !yield(e, err) {
							return
						}
					}
				}}
			}),
		},
		{
			Name: "a batch is done key by key, 2 ms each",
			Why:  "a batch is not done at one instant, and the contract does not speak of speed",
			New: remote.oddPatch(2*trip, func(c *client) patch {
				return patch{
					getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
						return l2cache.GetMany(ctx, core{c}, keys)
					},
					setMany: func(ctx context.Context, items []l2cache.Item) error {
						return l2cache.SetMany(ctx, core{c}, items)
					},
					deleteMany: func(ctx context.Context, keys []string) error {
						return l2cache.DeleteMany(ctx, core{c}, keys)
					},
				}
			}),
		},
	}
}
