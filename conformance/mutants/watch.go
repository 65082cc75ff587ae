package mutants

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// watched is a mutant that yields what f makes of what Watch does.
func watched(name, rule string, f func(c *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool, kills ...string) Mutant {
	return watching(name, rule, func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
		for e, err := range c.Watch(ctx, prefix) {
			if !f(c, e, err, yield) {
				return
			}
		}
	}, kills...)
}

// watching is a mutant with another Watch.
func watching(name, rule string, watch func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool), kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
			watch(ctx, c, prefix, yield)
		}}
	}, kills...)
}

// buffered hands events from a goroutine of its own to the loop, through a
// channel with room for n. It calls full when there is no room, which reports
// whether to go on.
func buffered(ctx context.Context, c *client, prefix string, n int, yield func(l2cache.Event, error) bool, full func(events chan told[l2cache.Event], t told[l2cache.Event]) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan told[l2cache.Event], n)
	go func() {
		defer close(events)
		for e, err := range c.Watch(ctx, prefix) {
			t := told[l2cache.Event]{e, err}
			if err != nil {
				// The last one: the loop has to get it, or has been left.
				select {
				case events <- t:
				case <-time.After(time.Second):
				}
				return
			}
			select {
			case events <- t:
			default:
				if !full(events, t) {
					return
				}
			}
		}
	}()
	for t := range events {
		if !yield(t.item, t.err) {
			return
		}
	}
}

var watchMutants = []Mutant{
	watched("Watch begins without a Gap", "the first event is a Gap",
		func(_ *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			return e.Gap || yield(e, err)
		},
		"watch/sees"),
	watching("Watch begins with all keys that are there", "the first event is a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			for info, err := range c.Scan(ctx, prefix) {
				if err == nil && !yield(l2cache.Event{Key: info.Key}, nil) {
					return
				}
			}
			c.Watch(ctx, prefix)(yield)
		},
		"watch/sees", "watch/ends"),
	watching("Watch subscribes 300 ms after the first event", "changes after the first event are seen",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			if err := c.begin(ctx, "watch"); err != nil {
				yield(l2cache.Event{}, err)
				return
			}
			if !yield(l2cache.Event{Gap: true}, nil) {
				return
			}
			time.Sleep(300 * time.Millisecond)
			first := true
			for e, err := range c.Watch(ctx, prefix) {
				if again := first && e.Gap; !again && !yield(e, err) {
					return
				}
				first = false
			}
		},
		"watch/sees", "watch/prefix"),
	patched("a Delete is not told", "every change is seen",
		func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				if err := c.check(ctx, "delete", key); err != nil {
					return err
				}
				return c.call(ctx, "delete", key, func(rs rows, _ time.Time) { delete(rs, key) })
			}}
		},
		"watch/sees", "watch/peer"),
	patched("a SetMany is not told", "every change is seen",
		func(c *client) patch {
			return patch{setMany: func(_ context.Context, items []l2cache.Item) error {
				c.behind(func(rs rows, now time.Time) {
					for _, item := range items {
						value := clone(item.Value)
						rs[item.Key] = row{value: value, sum: checksum(value)}.until(item.TTL, c.deadline(now, item.TTL))
					}
				})
				return nil
			}}
		},
		"watch/sees"),
	patched("a DeleteMany is not told", "every change is seen",
		func(c *client) patch {
			return patch{deleteMany: func(_ context.Context, keys []string) error {
				c.behind(func(rs rows, _ time.Time) {
					for _, key := range keys {
						delete(rs, key)
					}
				})
				return nil
			}}
		},
		"watch/sees"),
	patched("a Touch is not told", "every change is seen",
		func(c *client) patch {
			return patch{touch: func(_ context.Context, key string, ttl time.Duration) error {
				err := l2cache.ErrNotFound
				c.behind(func(rs rows, now time.Time) {
					if r, ok := c.find(rs, key, now); ok {
						rs[key] = r.until(ttl, c.deadline(now, ttl))
						err = nil
					}
				})
				return err
			}}
		},
		"watch/sees"),
	patched("an Add is not told", "every change is seen",
		func(c *client) patch {
			return patch{add: func(_ context.Context, key string, value []byte, ttl time.Duration) (added bool, err error) {
				value = clone(value)
				c.behind(func(rs rows, now time.Time) {
					if _, there := c.find(rs, key, now); !there {
						rs[key] = row{value: value, sum: checksum(value)}.until(ttl, c.deadline(now, ttl))
						added = true
					}
				})
				return added, nil
			}}
		},
		"watch/sees"),
	patched("a DeletePattern is not told", "every change is seen",
		func(c *client) patch {
			return patch{deletePattern: func(_ context.Context, pattern string) error {
				c.behind(func(rs rows, _ time.Time) {
					for name := range rs {
						if l2cache.MatchPattern(pattern, name) {
							delete(rs, name)
						}
					}
				})
				return nil
			}}
		},
		"watch/sees"),
	watched("a key is told once", "every change is seen",
		func() func(*client, l2cache.Event, error, func(l2cache.Event, error) bool) bool {
			var seen sync.Map // keys of a client
			type key struct {
				c   *client
				key string
			}
			return func(c *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
				_, again := seen.LoadOrStore(key{c, e.Key}, true)
				return again && e.Key != "" || yield(e, err)
			}
		}(),
		"watch/sees"),
	patched("Watch tells of the handle's own writes", "changes through another handle are seen",
		func(c *client) patch {
			var ours sync.Map // keys
			return patch{
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					ours.Store(key, true)
					return c.Set(ctx, key, value, ttl)
				},
				watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
					for e, err := range c.Watch(ctx, prefix) {
						if _, own := ours.Load(e.Key); !own && e.Key != "" {
							continue
						}
						if !yield(e, err) {
							return
						}
					}
				},
			}
		},
		"watch/peer"),
	patched("a handle does not tell others of its Delete", "changes through another handle are seen",
		func(c *client) patch {
			var ours sync.Map // keys
			return patch{
				del: func(ctx context.Context, key string) error {
					ours.Store(key, true)
					if err := c.check(ctx, "delete", key); err != nil {
						return err
					}
					return c.call(ctx, "delete", key, func(rs rows, _ time.Time) { delete(rs, key) })
				},
			}
		},
		"watch/peer", "watch/sees"),
	watching("Watch ignores its prefix", "only keys that begin with the prefix are told",
		func(ctx context.Context, c *client, _ string, yield func(l2cache.Event, error) bool) {
			c.Watch(ctx, "")(yield)
		},
		"watch/prefix"),
	watching("Watch takes its prefix for a pattern", "only keys that begin with the prefix are told",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			for e, err := range c.Watch(ctx, "") {
				if (err != nil || e.Gap || l2cache.MatchPattern(prefix+"*", e.Key)) && !yield(e, err) {
					return
				}
			}
		},
		"watch/prefix"),
	watched("Watch tells of keys in an encoded form", "keys are told as the caller knows them",
		func(_ *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			e.Key = url.QueryEscape(e.Key)
			return yield(e, err)
		},
		"watch/prefix", "watch/sees"),
	watching("Watch tells of keys without the prefix", "keys are told as the caller knows them",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			for e, err := range c.Watch(ctx, prefix) {
				e.Key = strings.TrimPrefix(e.Key, prefix)
				if !yield(e, err) {
					return
				}
			}
		},
		"watch/prefix"),
	watching("what does not fit into a buffer of 16 events is lost", "a reader that is too slow gets a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			buffered(ctx, c, prefix, 16, yield, func(chan told[l2cache.Event], told[l2cache.Event]) bool { return true })
		},
		"watch/burst"),
	watching("a buffer of 16 events that is full loses the oldest", "a reader that is too slow gets a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			buffered(ctx, c, prefix, 16, yield, func(events chan told[l2cache.Event], t told[l2cache.Event]) bool {
				select {
				case <-events:
				default:
				}
				select {
				case events <- t:
				default:
				}
				return true
			})
		},
		"watch/burst"),
	watching("Watch stops to tell when a buffer of 16 events is full", "a reader that is too slow gets a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			ended, cancel := context.WithCancel(ctx)
			defer cancel()
			buffered(ended, c, prefix, 16, yield, func(chan told[l2cache.Event], told[l2cache.Event]) bool {
				<-ended.Done()
				return false
			})
		},
		"watch/burst"),
	watching("events of a key that come within a second are one, the first", "after the last change an event follows",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			told := map[string]time.Time{}
			for e, err := range c.Watch(ctx, prefix) {
				if at, known := told[e.Key]; known && time.Since(at) < time.Second && !e.Gap && err == nil {
					continue
				}
				told[e.Key] = time.Now()
				if !yield(e, err) {
					return
				}
			}
		},
		"watch/sees"),
	watching("Watch does not end with its ctx", "Watch ends when its ctx does",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			c.Watch(context.WithoutCancel(ctx), prefix)(yield)
		},
		"watch/ends"),
	watched("Watch ends with its ctx silently", "ctx's error comes last",
		func(_ *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			return !isContextErr(err) && yield(e, err)
		},
		"watch/ends"),
	watched("a Close ends Watch silently", "after Close every operation is ErrClosed",
		func(_ *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			return !errors.Is(err, l2cache.ErrClosed) && yield(e, err)
		},
		"watch/ends"),
	watched("Watch that ends is ErrUnavailable", "ctx's error comes last",
		func(c *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			if err != nil {
				err = c.failure(context.Background(), "watch", "", errors.New("subscription ended"))
			}
			return yield(e, err)
		},
		"watch/ends"),
	watching("Watch goes on after its error", "an error comes last",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			failed := false
			for e, err := range c.Watch(ctx, prefix) {
				failed = failed || err != nil
				if !yield(e, err) {
					return
				}
			}
			if failed {
				yield(l2cache.Event{Gap: true}, nil)
			}
		},
		"watch/ends"),
	patched("a Watch does not end when its handle is closed", "Close ends the calls under way",
		func(c *client) patch {
			other := newClient(c.s, c.namespace, c.profile) // that nobody closes
			return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
				if err := c.begin(ctx, "watch"); err != nil {
					yield(l2cache.Event{}, err)
					return
				}
				other.Watch(ctx, prefix)(yield)
			}}
		},
		"watch/ends"),
	watching("a Watch that is left has a goroutine that stays", "nothing is left behind",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			ended, cancel := context.WithTimeout(context.Background(), 10*time.Second) // for ever, as far as the case can tell
			go func() {
				defer cancel()
				for range c.Watch(ended, prefix) {
				}
			}()
			c.Watch(ctx, prefix)(yield)
		},
		"watch/ends"),
	watching("a connection that was lost is renewed silently", "a connection that was lost is a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			begun := false
			for e, err := range c.Watch(ctx, prefix) {
				if again := begun && e.Gap; !again && !yield(e, err) {
					return
				}
				begun = true
			}
		},
		"watch/reconnect"),
	watching("a connection that was lost is a Gap, and not renewed", "changes after the Gap are seen",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			gaps := 0
			for e, err := range c.Watch(ctx, prefix) {
				if e.Gap {
					gaps++
				}
				if (e.Gap || err != nil || gaps < 2) && !yield(e, err) {
					return
				}
			}
		},
		"watch/reconnect"),
	watching("a connection that was lost ends Watch silently", "a connection that was lost is a Gap",
		func(ctx context.Context, c *client, prefix string, yield func(l2cache.Event, error) bool) {
			begun := false
			for e, err := range c.Watch(ctx, prefix) {
				if e.Gap && begun || !yield(e, err) {
					return
				}
				begun = true
			}
		},
		"watch/reconnect"),
}
