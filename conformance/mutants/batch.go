package mutants

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// gotMany is a mutant whose GetMany returns what f makes of it.
func gotMany(name, rule string, f func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error), kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			got, err := c.GetMany(ctx, keys)
			if c.isClosed() || isContextErr(err) {
				return got, err
			}
			return f(keys, got, err)
		}}
	}, kills...)
}

// sentMany is a mutant whose SetMany stores what f makes of its items.
func sentMany(name, rule string, f func([]l2cache.Item) []l2cache.Item, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error { return c.SetMany(ctx, f(items)) }}
	}, kills...)
}

var batchMutants = []Mutant{
	gotMany("GetMany matches replies to keys by position, without the misses", "each entry is under its own key",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			shifted := map[string]l2cache.Entry{}
			n := 0
			for _, key := range keys {
				if e, ok := got[key]; ok {
					shifted[keys[n]] = e
					n++
				}
			}
			return shifted, err
		},
		"batch/get"),
	gotMany("GetMany has an empty entry for a key that is missing", "a missing key is not in the map",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			for _, key := range keys {
				if _, ok := got[key]; !ok && got != nil {
					got[key] = l2cache.Entry{Value: []byte{}, TTL: 1}
				}
			}
			return got, err
		},
		"batch/get", "batch/empty", "batch/expired"),
	gotMany("GetMany names missing keys in its error", "a missing key is not in the error",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			failed := l2cache.KeyErrors{}
			for _, key := range keys {
				if _, ok := got[key]; !ok {
					failed[key] = l2cache.ErrNotFound
				}
			}
			if err == nil && len(failed) > 0 {
				return got, failed
			}
			return got, err
		},
		"batch/get", "batch/empty"),
	gotMany("GetMany has the TTL of the first entry for all", "each entry has its own TTL",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			for key, e := range got {
				e.TTL = got[keys[0]].TTL
				got[key] = e
			}
			return got, err
		},
		"batch/get"),
	gotMany("GetMany gives no TTLs", "each entry has its TTL",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			for key, e := range got {
				got[key] = l2cache.Entry{Value: e.Value}
			}
			return got, err
		},
		"batch/get"),
	patched("GetMany gives the TTLs as they were set", "each entry has the TTL that it has left",
		func(c *client) patch {
			other := c.twin()
			other.left = func(r row, _ time.Time) time.Duration { return r.ttl }
			return patch{getMany: other.GetMany}
		},
		"batch/get"),
	sentMany("SetMany gives all items the TTL of the first", "each item has its own TTL",
		func(items []l2cache.Item) []l2cache.Item {
			for i := range items {
				items[i].TTL = items[0].TTL
			}
			return items
		},
		"batch/set", "batch/same-as-single"),
	sentMany("SetMany ignores TTLs, as MSET does", "each item has its own TTL",
		func(items []l2cache.Item) []l2cache.Item {
			for i := range items {
				items[i].TTL = l2cache.NoExpiry
			}
			return items
		},
		"batch/set", "batch/same-as-single", "batch/expired"),
	sentMany("SetMany leaves out items without a value", "an empty value is a value",
		func(items []l2cache.Item) []l2cache.Item {
			return slices.DeleteFunc(items, func(item l2cache.Item) bool { return len(item.Value) == 0 })
		},
		"batch/set", "batch/many"),
	patched("SetMany leaves alone what is there", "the last of several items counts",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				c.behind(func(rs rows, now time.Time) {
					items = slices.DeleteFunc(items, func(item l2cache.Item) bool {
						_, there := c.find(rs, item.Key, now)
						return there
					})
				})
				return c.SetMany(ctx, items)
			}}
		},
		"batch/duplicates", "batch/set"),
	patched("SetMany does not wait for the reply to the last item", "what a batch has stored is there when it returns",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				if err := c.begin(ctx, "setmany"); err != nil {
					return err
				}
				last := items[len(items)-1]
				last.Value = clone(last.Value)
				time.AfterFunc(300*time.Millisecond, func() { c.SetMany(context.Background(), []l2cache.Item{last}) })
				return c.SetMany(ctx, items[:len(items)-1])
			}}
		},
		"batch/duplicates", "batch/set", "batch/same-as-single"),
	patched("DeleteMany stops at the first key that is missing", "a missing key does not matter",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				c.behind(func(rs rows, _ time.Time) {
					for i, key := range keys {
						if _, ok := rs[key]; !ok {
							keys = keys[:i]
							return
						}
					}
				})
				return c.DeleteMany(ctx, keys)
			}}
		},
		"batch/delete"),
	patched("DeleteMany has an error for a key that is missing", "a missing key is not an error",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				failed := l2cache.KeyErrors{}
				c.behind(func(rs rows, _ time.Time) {
					for _, key := range keys {
						if _, ok := rs[key]; !ok {
							failed[key] = c.failure(ctx, "deletemany", key, errNoKey)
						}
					}
				})
				if err := c.DeleteMany(ctx, keys); err != nil || len(failed) == 0 {
					return err
				}
				return failed
			}}
		},
		"batch/delete"),
	patched("DeleteMany removes all from the least key to the greatest", "only the keys of the batch are removed",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				least, greatest := slices.Min(keys), slices.Max(keys)
				c.behind(func(rs rows, _ time.Time) {
					maps.DeleteFunc(rs, func(name string, _ row) bool { return least <= name && name <= greatest })
				})
				return c.DeleteMany(ctx, keys)
			}}
		},
		"batch/delete"),
	gotMany("GetMany gives a nil map when it finds nothing", "an empty map is not nil",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			if len(got) == 0 {
				return nil, err
			}
			return got, err
		},
		"batch/empty"),
	gotMany("GetMany that finds nothing is ErrNotFound", "a missing key is not in the error",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			if len(got) == 0 && err == nil {
				err = l2cache.ErrNotFound
			}
			return got, err
		},
		"batch/empty", "batch/many"),
	patched("GetMany asks for the first 1000 keys", "a batch may have thousands of keys",
		func(c *client) patch {
			return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
				return c.GetMany(ctx, keys[:min(1000, len(keys))])
			}}
		},
		"batch/many"),
	sentMany("SetMany stores the first 2048 items", "a batch may have thousands of keys",
		func(items []l2cache.Item) []l2cache.Item { return items[:min(2048, len(items))] },
		"batch/many"),
	patched("DeleteMany removes the first 1000 keys", "a batch may have thousands of keys",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				return c.DeleteMany(ctx, keys[:min(1000, len(keys))])
			}}
		},
		"batch/many"),
	gotMany("GetMany leaves out what does not fit into one message of 8 MiB", "values may be many megabytes in all",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			room := 8 << 20
			for _, key := range keys {
				if room -= len(got[key].Value); room < 0 {
					delete(got, key)
				}
			}
			return got, err
		},
		"batch/large"),
	patched("SetMany is refused if the items do not fit into one message of 8 MiB", "values may be many megabytes in all",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				size := 0
				for _, item := range items {
					size += len(item.Value)
				}
				if size > 8<<20 {
					return c.failure(ctx, "setmany", "", l2cache.ErrTooLarge)
				}
				return c.SetMany(ctx, items)
			}}
		},
		"batch/large"),
	patched("GetMany does not look at deadlines", "an expired entry is in no batch",
		func(c *client) patch {
			other := c.twin() // that reads in another way
			other.find = func(rs rows, name string, _ time.Time) (row, bool) {
				r, ok := rs[name]
				return r, ok
			}
			return patch{getMany: other.GetMany}
		},
		"batch/expired"),
	{
		Name:  "a handle that has written forgets that keys have 250 bytes at most, and SetMany sends all up to the first that is longer",
		Rule:  "with one invalid key nothing is done",
		Kills: []string{"batch/invalid"},
		New: remote.but(func(sh *shape) { sh.MaxKeyLen = 250 }).patch(func(c *client) patch {
			written := false
			return patch{
				profile: func() l2cache.Profile {
					profile := c.profile
					if written {
						profile.MaxKeyLen = 0
					}
					return profile
				},
				set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
					written = true
					return c.Set(ctx, key, value, ttl)
				},
				setMany: func(ctx context.Context, items []l2cache.Item) error {
					for _, item := range items {
						if err := c.Set(ctx, item.Key, item.Value, item.TTL); err != nil {
							return err
						}
					}
					return nil
				},
			}
		}),
	},
	sentMany("SetMany escapes keys, which single calls do not", "a batch gives what single calls give",
		func(items []l2cache.Item) []l2cache.Item {
			for i := range items {
				items[i].Key = url.QueryEscape(items[i].Key)
			}
			return items
		},
		"batch/same-as-single"),
	patched("GetMany trims keys", "a batch gives what single calls give",
		func(c *client) patch {
			return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
				for i := range keys {
					keys[i] = strings.TrimSpace(keys[i])
				}
				return c.GetMany(ctx, keys)
			}}
		},
		"batch/same-as-single"),
	sentMany("SetMany cuts values at a NUL", "a batch gives what single calls give",
		func(items []l2cache.Item) []l2cache.Item {
			for i, item := range items {
				value, _, _ := strings.Cut(string(item.Value), "\x00")
				items[i].Value = []byte(value)
			}
			return items
		},
		"batch/same-as-single", "batch/large"),
	patched("SetMany keeps the values that it was given", "arguments are not retained",
		func(c *client) patch {
			other := c.twin()
			other.encode = func(value []byte) []byte { return value }
			return patch{setMany: other.SetMany}
		},
		"batch/memory"),
	patched("SetMany masks the values in place", "arguments are not changed",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				err := c.SetMany(ctx, items)
				for _, item := range items {
					for i := range item.Value {
						item.Value[i] ^= 0x55
					}
				}
				return err
			}}
		},
		"batch/memory"),
	gotMany("the values of GetMany lie behind one another in one buffer", "results belong to the caller",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			var buffer []byte
			for _, key := range keys {
				buffer = append(buffer, got[key].Value...)
			}
			for _, key := range keys {
				if e, ok := got[key]; ok {
					n := copy(e.Value, buffer)
					e.Value, buffer = buffer[:n], buffer[n:]
					got[key] = e
				}
			}
			return got, err
		},
		"batch/memory"),
	patched("GetMany gives the values themselves", "results belong to the caller",
		func(c *client) patch {
			other := c.twin()
			other.decode = func(stored []byte) []byte { return stored }
			return patch{getMany: other.GetMany}
		},
		"batch/memory"),
	patched("a batch does not look whether the handle is closed", "after Close every operation is ErrClosed",
		func(c *client) patch {
			other := newClient(c.s, c.namespace, c.profile) // that nobody closes
			return patch{getMany: other.GetMany, setMany: other.SetMany, deleteMany: other.DeleteMany}
		},
		"batch/ended-context"),
	patched("GetMany is an empty map after Close", "after Close every operation is ErrClosed",
		func(c *client) patch {
			return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
				got, err := c.GetMany(ctx, keys)
				if errors.Is(err, l2cache.ErrClosed) {
					return map[string]l2cache.Entry{}, nil
				}
				return got, err
			}}
		},
		"batch/ended-context"),
	gotMany("GetMany drops the keys that failed", "a key that failed is in the error",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			if got == nil {
				got = map[string]l2cache.Entry{}
			}
			return got, nil
		},
		"batch/down", "batch/damaged"),
	patched("SetMany is nil whatever the server says", "a key that failed is in the error",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				if err := c.begin(ctx, "setmany"); err != nil {
					return err
				}
				c.SetMany(ctx, items)
				return nil
			}}
		},
		"batch/down"),
	patched("DeleteMany that cannot be answered has an error without a kind", "a backend that cannot answer is ErrUnavailable",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				err := c.DeleteMany(ctx, keys)
				if unavailable(err) {
					return errors.New("EOF")
				}
				return err
			}}
		},
		"batch/down"),
	patched("a batch does not end with its ctx", "ctx is honoured while a call waits",
		func(c *client) patch {
			other := c.twin()
			other.timeout = time.Second
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				err := other.SetMany(context.WithoutCancel(ctx), items)
				if unavailable(err) {
					return c.failure(ctx, "setmany", "", err)
				}
				return err
			}}
		},
		"batch/stalled"),
	patched("GetMany is what had come when its ctx ended", "a ctx that has ended is the error",
		func(c *client) patch {
			return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
				before := ctx.Err()
				got, err := c.GetMany(ctx, keys)
				if before == nil && isContextErr(err) {
					return map[string]l2cache.Entry{}, nil
				}
				return got, err
			}}
		},
		"batch/stalled"),
	patched("DeleteMany that its ctx has ended is ErrUnavailable", "a ctx that has ended is the error",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				err := c.DeleteMany(ctx, keys)
				if isContextErr(err) {
					return c.failure(context.Background(), "deletemany", "", l2cache.ErrUnavailable)
				}
				return err
			}}
		},
		"batch/stalled"),
	gotMany("GetMany fails as a whole if one key is damaged", "a key fails alone",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			if err != nil {
				return nil, err
			}
			return got, nil
		},
		"batch/damaged"),
	gotMany("GetMany has a damaged key's error for the whole", "the error names the key",
		func(_ []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			var failed l2cache.KeyErrors
			if errors.As(err, &failed) {
				for _, err := range failed {
					return got, err
				}
			}
			return got, err
		},
		"batch/damaged"),
	patched("GetMany does not verify what it reads", "a damaged entry is ErrCorrupt",
		func(c *client) patch {
			other := c.twin()
			other.verify = func(row) error { return nil }
			return patch{getMany: other.GetMany}
		},
		"batch/damaged"),
}
