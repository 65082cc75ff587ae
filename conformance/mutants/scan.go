package mutants

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// scanned is a mutant that yields what f makes of what Scan does.
func scanned(name, rule string, f func(c *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool, kills ...string) Mutant {
	return scanning(name, rule, func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
		for info, err := range c.Scan(ctx, prefix) {
			if !f(c, info, err, yield) {
				return
			}
		}
	}, kills...)
}

// scanning is a mutant with another Scan.
func scanning(name, rule string, scan func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool), kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			scan(ctx, c, prefix, yield)
		}}
	}, kills...)
}

// told is what a goroutine hands over.
type told[T any] struct {
	item T
	err  error
}

var scanMutants = []Mutant{
	scanned("Scan yields keys in an encoded form", "Scan yields the caller's keys",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			info.Key = url.QueryEscape(info.Key)
			return yield(info, err)
		},
		"scan/complete", "scan/prefix"),
	scanning("Scan yields the store's own rows", "Scan yields the caller's keys",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			if prefix != "" || c.begin(ctx, "scan") != nil || yield(l2cache.Info{Key: "_meta", TTL: l2cache.NoExpiry, Size: 8}, nil) {
				c.Scan(ctx, prefix)(yield)
			}
		},
		"scan/complete", "scan/expired"),
	scanned("Scan gives no sizes", "Scan gives the size of the value",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			info.Size = 0
			return yield(info, err)
		},
		"scan/complete"),
	scanned("the size that Scan gives is that of the stored form", "Scan gives the size of the value",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			if err == nil {
				info.Size += 20
			}
			return yield(info, err)
		},
		"scan/complete"),
	scanned("Scan leaves out empty values", "Scan yields each live key",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			return err == nil && info.Size == 0 || yield(info, err)
		},
		"scan/complete"),
	scanned("Scan leaves out what never expires", "Scan yields each live key",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			return info.TTL == l2cache.NoExpiry || yield(info, err)
		},
		"scan/complete", "scan/ttl"),
	patched("Scan yields what was deleted, from its tombstone", "Scan yields live keys",
		func(c *client) patch {
			var mu sync.Mutex
			deleted := map[string]bool{}
			return patch{
				del: func(ctx context.Context, key string) error {
					mu.Lock()
					defer mu.Unlock()
					deleted[key] = true
					return c.Delete(ctx, key)
				},
				scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
					mu.Lock()
					keys := slices.Collect(maps.Keys(deleted))
					mu.Unlock()
					for _, key := range keys {
						if strings.HasPrefix(key, prefix) && c.begin(ctx, "scan") == nil && !yield(l2cache.Info{Key: key, TTL: 1}, nil) {
							return
						}
					}
					c.Scan(ctx, prefix)(yield)
				},
			}
		},
		"scan/complete", "scan/calls-inside"),
	patched("Scan gives the TTLs as they were set", "Scan gives what GetWithTTL gives",
		func(c *client) patch {
			other := c.twin()
			other.left = func(r row, _ time.Time) time.Duration { return r.ttl }
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				other.Scan(ctx, prefix)(yield)
			}}
		},
		"scan/ttl"),
	scanned("Scan gives TTLs in whole seconds", "Scan gives what GetWithTTL gives",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			if err == nil && info.TTL != l2cache.NoExpiry {
				info.TTL = max(info.TTL.Truncate(time.Second), 1)
			}
			return yield(info, err)
		},
		"scan/ttl"),
	scanned("Scan gives no TTLs", "Scan gives what GetWithTTL gives",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			info.TTL = 0
			return yield(info, err)
		},
		"scan/ttl", "scan/complete"),
	scanned("Scan gives 100 years for what never expires", "Scan gives what GetWithTTL gives",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			info.TTL = min(info.TTL, l2cache.MaxTTL)
			return yield(info, err)
		},
		"scan/ttl"),
	patched("Scan yields what has expired", "an expired entry never comes",
		func(c *client) patch {
			other := c.twin()
			other.find = func(rs rows, name string, _ time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok
			}
			other.left = func(r row, now time.Time) time.Duration { return max(c.left(r, now), 1) }
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				other.Scan(ctx, prefix)(yield)
			}}
		},
		"scan/expired"),
	scanning("Scan takes its prefix for a pattern", "the prefix is matched byte for byte",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for info, err := range c.Scan(ctx, "") {
				if (err != nil || l2cache.MatchPattern(prefix+"*", info.Key)) && !yield(info, err) {
					return
				}
			}
		},
		"scan/prefix"),
	scanning("Scan takes its prefix for a path", "the prefix is matched byte for byte",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for info, err := range c.Scan(ctx, prefix) {
				rest, _ := strings.CutPrefix(info.Key, prefix)
				whole := prefix == "" || rest == "" || strings.HasSuffix(prefix, "/") || rest[0] == '/'
				if (err != nil || whole) && !yield(info, err) {
					return
				}
			}
		},
		"scan/prefix", "scan/many"),
	scanning("Scan ignores its prefix", "Scan yields the keys that begin with the prefix",
		func(ctx context.Context, c *client, _ string, yield func(l2cache.Info, error) bool) {
			c.Scan(ctx, "")(yield)
		},
		"scan/prefix"),
	scanning("Scan folds its prefix in case", "the prefix is matched byte for byte",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for info, err := range c.Scan(ctx, "") {
				if (err != nil || strings.HasPrefix(strings.ToLower(info.Key), strings.ToLower(prefix))) && !yield(info, err) {
					return
				}
			}
		},
		"scan/prefix"),
	scanning("Scan does not yield the prefix itself", "Scan yields the keys that begin with the prefix",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for info, err := range c.Scan(ctx, prefix) {
				if (err != nil || info.Key != prefix) && !yield(info, err) {
					return
				}
			}
		},
		"scan/prefix"),
	scanning("Scan yields the first page", "Scan yields each live key",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			n := 0
			for info, err := range c.Scan(ctx, prefix) {
				if n++; !yield(info, err) || n == 1000 {
					return
				}
			}
		},
		"scan/many"),
	scanning("Scan leaves out the last key of each page", "Scan yields each live key",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			n := 0
			for info, err := range c.Scan(ctx, prefix) {
				if n++; n%pageSize != 0 && !yield(info, err) {
					return
				}
			}
		},
		"scan/many"),
	scanning("Scan counts keys to find its next page, while others come and go", "what is there all the time comes",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for done := 0; ; done += 10 {
				if err := c.begin(ctx, "scan"); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
				var infos []l2cache.Info
				if err := c.call(ctx, "scan", prefix, func(rs rows, now time.Time) {
					var names []string
					for name, r := range rs {
						if strings.HasPrefix(name, prefix) && isLive(r, now) {
							names = append(names, name)
						}
					}
					slices.Sort(names)
					for _, name := range names[min(done, len(names)):min(done+10, len(names))] {
						infos = append(infos, l2cache.Info{Key: name, TTL: c.left(rs[name], now), Size: len(rs[name].value)})
					}
				}); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
				if len(infos) == 0 {
					return
				}
				for _, info := range infos {
					if !yield(info, nil) {
						return
					}
				}
				time.Sleep(50 * time.Microsecond) // for the others
			}
		},
		"scan/many"),
	patched("a Set ends the Scans that are under way", "what is there all the time comes",
		func(c *client) patch {
			var mu sync.Mutex
			sets := 0
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return sets
			}
			return patch{
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					mu.Lock()
					sets++
					mu.Unlock()
					return c.Set(ctx, key, value, ttl)
				},
				scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
					before := count()
					n := 0
					for info, err := range c.Scan(ctx, prefix) {
						if n++; n%40 == 0 {
							time.Sleep(100 * time.Microsecond) // for the others
							if count() != before {
								return
							}
						}
						if !yield(info, err) {
							return
						}
					}
				},
			}
		},
		"scan/many", "scan/calls-inside"),
	{
		Name:  "Scan holds a lock while it yields, and Set takes it",
		Rule:  "the loop may call the backend",
		Kills: []string{"scan/calls-inside"},
		New: func() System {
			system := remote.patch(func(c *client) patch {
				lock := make(chan struct{}, 1)
				return patch{
					set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
						select {
						case lock <- struct{}{}:
							defer func() { <-lock }()
						case <-time.After(4 * time.Second): // for ever, as far as the case can tell
						}
						return c.Set(ctx, key, value, ttl)
					},
					scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
						lock <- struct{}{}
						defer func() { <-lock }()
						c.Scan(ctx, prefix)(yield)
					},
				}
			})()
			system.Options.CaseTimeout = 2 * time.Second
			return system
		},
	},
	patched("Scan keeps the only connection while it yields", "the loop may call the backend",
		func(c *client) patch {
			connection := make(chan struct{}, 1)
			return patch{
				read: func(ctx context.Context, key string) (l2cache.Entry, error) {
					q := request{ctx: ctx, closed: c.closed, expires: time.Now().Add(c.timeout)}
					if err := q.take(connection); err != nil {
						return l2cache.Entry{}, c.failure(ctx, "get", key, err)
					}
					defer func() { <-connection }()
					return c.read(ctx, "get", key)
				},
				scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
					connection <- struct{}{}
					defer func() { <-connection }()
					c.Scan(ctx, prefix)(yield)
				},
			}
		},
		"scan/calls-inside"),
	patched("a Set during a Scan is undone when that ends", "a Set in the loop is not lost",
		func(c *client) patch {
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				var before rows
				c.behind(func(rs rows, _ time.Time) { before = maps.Clone(rs) })
				defer c.behind(func(rs rows, _ time.Time) {
					for name, r := range before {
						if _, there := rs[name]; there {
							rs[name] = r
						}
					}
				})
				c.Scan(ctx, prefix)(yield)
			}}
		},
		"scan/calls-inside"),
	scanning("a Scan that is left waits to hand over its next key", "a loop that is left frees what the Scan held",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			next := make(chan told[l2cache.Info])
			go func() {
				defer close(next)
				for info, err := range c.Scan(ctx, prefix) {
					select {
					case next <- told[l2cache.Info]{info, err}:
					case <-time.After(10 * time.Second): // for ever, as far as the case can tell
						return
					}
				}
			}()
			for t := range next {
				if !yield(t.item, t.err) {
					return
				}
			}
		},
		"scan/break"),
	patched("a Scan that is left keeps its connection, of which there are ten", "a loop that is left frees what the Scan held",
		func(c *client) patch {
			var mu sync.Mutex
			used := 0
			return patch{
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					mu.Lock()
					none := used >= 10
					mu.Unlock()
					if none {
						return c.failure(ctx, "set", key, errNoReply)
					}
					return c.Set(ctx, key, value, ttl)
				},
				scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
					for info, err := range c.Scan(ctx, prefix) {
						if !yield(info, err) {
							mu.Lock()
							defer mu.Unlock()
							used++
							return
						}
					}
				},
			}
		},
		"scan/break"),
	patched("the second loop over a Scan goes on where the first one was left", "the sequence may be used again",
		func(c *client) patch {
			var mu sync.Mutex
			left := map[string]bool{} // keys that were yielded
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				for info, err := range c.Scan(ctx, prefix) {
					mu.Lock()
					again := err == nil && left[info.Key]
					left[info.Key] = true
					mu.Unlock()
					if !again && !yield(info, err) {
						return
					}
				}
			}}
		},
		"scan/break", "scan/many"),
	scanning("Scan yields again after the loop was left", "a loop that is left ends the Scan",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			for info, err := range c.Scan(ctx, prefix) {
				yield(info, err)
			}
		},
		"scan/break"),
	scanned("an error ends Scan silently", "an error is the last thing that comes",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			return err == nil && yield(info, err)
		},
		"scan/ends", "scan/down"),
	scanning("Scan does not look at its ctx", "Scan ends when its ctx does",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			c.Scan(context.WithoutCancel(ctx), prefix)(yield)
		},
		"scan/ends"),
	scanning("Scan looks at its ctx once", "Scan ends when its ctx does",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			if err := c.begin(ctx, "scan"); err != nil {
				yield(l2cache.Info{}, err)
				return
			}
			c.Scan(context.WithoutCancel(ctx), prefix)(yield)
		},
		"scan/ends"),
	scanning("Scan goes on after an error", "an error is the last thing that comes",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			failed := false
			for info, err := range c.Scan(ctx, prefix) {
				failed = failed || err != nil
				if !yield(info, err) {
					return
				}
			}
			if failed {
				yield(l2cache.Info{Key: "k", TTL: 1}, nil)
			}
		},
		"scan/ends"),
	scanning("Scan yields the last key with its error", "an error comes with the zero Info",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			var last l2cache.Info
			for info, err := range c.Scan(ctx, prefix) {
				if err == nil {
					last = info
				}
				if !yield(last, err) {
					return
				}
			}
		},
		"scan/ends"),
	scanned("Scan of a handle that is closed is empty", "after Close every operation is ErrClosed",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			return !errors.Is(err, l2cache.ErrClosed) && yield(info, err)
		},
		"scan/ends"),
	scanned("Scan takes a server that is gone for the end of the listing", "a short list is never taken for all",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			return !unavailable(err) && yield(info, err)
		},
		"scan/down"),
	scanning("Scan takes a server that goes away after the first page for the end of the listing", "a short list is never taken for all",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Info, error) bool) {
			n := 0
			for info, err := range c.Scan(ctx, prefix) {
				if n++; unavailable(err) && n > 1 || !yield(info, err) {
					return
				}
			}
		},
		"scan/down"),
	scanned("Scan of a server that is gone is ErrNotFound", "a backend that cannot answer is ErrUnavailable",
		func(_ *client, info l2cache.Info, err error, yield func(l2cache.Info, error) bool) bool {
			if unavailable(err) {
				err = l2cache.ErrNotFound
			}
			return yield(info, err)
		},
		"scan/down"),
}
