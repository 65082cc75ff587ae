package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"html"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/l2cache/l2cache"
)

const year = 365 * 24 * time.Hour

// between is what f makes of the TTLs from lo on and below hi.
func between(lo, hi time.Duration, f func(ttl time.Duration) time.Duration) func(time.Duration) time.Duration {
	return func(ttl time.Duration) time.Duration {
		if ttl >= lo && ttl < hi {
			return f(ttl)
		}
		ttl, _ = l2cache.CheckTTL(ttl, time.Millisecond)
		return ttl
	}
}

func never(time.Duration) time.Duration { return l2cache.NoExpiry }

// ttlOf is a mutant of which one of the operations that store stores another TTL.
func ttlOf(op, name string, f func(ttl time.Duration) time.Duration, kills ...string) Mutant {
	change := func(ttl time.Duration) time.Duration {
		if ttl <= 0 || ttl == l2cache.NoExpiry {
			return ttl
		}
		return f(ttl)
	}
	return patched(name, "every operation stores the TTL that it is given", func(c *client) patch {
		switch op {
		case "add":
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				return c.Add(ctx, key, value, change(ttl))
			}}
		case "touch":
			return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
				return c.Touch(ctx, key, change(ttl))
			}}
		}
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
			items = slices.Clone(items)
			for i := range items {
				items[i].TTL = change(items[i].TTL)
			}
			return c.SetMany(ctx, items)
		}}
	}, kills...)
}

// valued is a mutant that stores what f makes of a value.
func valued(name string, f func(value []byte) []byte, kills ...string) Mutant {
	return Mutant{Name: name, Rule: "values come back as they were", Kills: kills, New: remote.edit(func(c *client) {
		encode := c.encode
		c.encode = func(value []byte) []byte { return encode(f(clone(value))) }
	})}
}

// shared is what the handles on a namespace have in common, under a mutex.
type shared struct {
	mu    sync.Mutex
	known map[string]any // guarded by mu
}

func (c *client) shared() *shared {
	s, _ := c.s.memo.LoadOrStore(c.namespace, &shared{known: map[string]any{}})
	return s.(*shared)
}

func (s *shared) put(key string, v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = v
}

func (s *shared) get(key string) (any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.known[key]
	return v, ok
}

func (s *shared) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, key)
}

// cornerMutants break a rule in a corner: for some TTLs, lengths, numbers, keys,
// operations or handles only.
var cornerMutants = slices.Concat(cornerTTLs, cornerKeys, cornerValues, cornerCounts, cornerPeers, cornerWatches, cornerFaults)

var cornerTTLs = []Mutant{
	converted("TTLs between 30 s and a minute are halved", "the TTL is the one that was given",
		between(30*time.Second+1, time.Minute, func(ttl time.Duration) time.Duration { return ttl / 2 }), "ttl/set/every-magnitude"),
	converted("TTLs between 100 and 500 ms are never", "the TTL is the one that was given",
		between(100*time.Millisecond+1, 500*time.Millisecond, never), "ttl/set/every-magnitude"),
	converted("a TTL of exactly a second is never", "the TTL is the one that was given",
		between(time.Second, time.Second+1, never), "ttl/set/every-magnitude"),
	converted("TTLs over a minute are in whole seconds", "a TTL is rounded to the resolution",
		between(time.Minute, l2cache.MaxTTL, func(ttl time.Duration) time.Duration { return ceil(ttl, time.Second) }), "ttl/set/every-magnitude"),
	converted("TTLs over a day are in whole hours", "a TTL is rounded to the resolution",
		between(24*time.Hour, 20*24*time.Hour, func(ttl time.Duration) time.Duration { return ttl.Truncate(time.Hour) }), "ttl/set/every-magnitude"),
	converted("seconds of 16 bits", "the TTL is the one that was given",
		between(1<<16*time.Second, 24*time.Hour, func(ttl time.Duration) time.Duration { return max(ttl-1<<16*time.Second, 1) }), "ttl/set/every-magnitude"),
	converted("seconds are a number of 32 bits with a fraction", "the TTL is the one that was given",
		between(10*time.Second, l2cache.MaxTTL, func(ttl time.Duration) time.Duration {
			return time.Duration(float64(float32(ttl.Seconds())) * 1e9)
		}), "ttl/set/every-magnitude"),
	converted("deadlines are clamped to 2038", "the TTL is the one that was given",
		between(year+1, 60*year, func(ttl time.Duration) time.Duration { return min(ttl, 12*year) }), "ttl/set/every-magnitude"),
	converted("a TTL just over the largest is a second", "a larger TTL is stored as MaxTTL",
		between(l2cache.MaxTTL+1, l2cache.NoExpiry-1, func(time.Duration) time.Duration { return time.Second }), "ttl/set/every-magnitude"),
	{
		Name:  "deadlines are in whole milliseconds, cut",
		Rule:  "never early",
		Kills: []string{"ttl/set/every-magnitude"},
		New: remote.edit(func(c *client) {
			deadline, begin := c.deadline, time.Now()
			c.deadline = func(now time.Time, ttl time.Duration) time.Time {
				return deadline(now.Add(-(now.Sub(begin) % time.Millisecond)), ttl)
			}
		}),
	},
	{
		Name:  "entries of one to two seconds end after one, and do not say so",
		Rule:  "never early",
		Kills: []string{"ttl/set/every-magnitude"},
		New: remote.edit(func(c *client) {
			find := c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := find(rs, name, now)
				if r.ttl > time.Second && r.ttl < 2*time.Second && now.After(r.deadline.Add(time.Second-r.ttl)) {
					ok = false
				}
				return r, ok
			}
		}),
	},
	counted("the TTL that is left is in whole seconds between 30 s and a minute", "the remaining TTL is that of some instant of the read",
		finite(func(left time.Duration, _ row) time.Duration {
			if left > 30*time.Second && left < time.Minute {
				left = left.Truncate(time.Second)
			}
			return left
		}), "ttl/set/every-magnitude"),
	counted("large values have no expiry, says GetWithTTL", "the remaining TTL is that of some instant of the read",
		func(left time.Duration, r row) time.Duration {
			if len(r.value) > 600_000 {
				return l2cache.NoExpiry
			}
			return left
		}, "values/sizes"),
	ttlOf("add", "Add with less than 50 ms is never", between(1, 50*time.Millisecond, never), "add/ttl"),
	ttlOf("add", "Add takes over 30 days for a date", between(month+1, 50*year, func(time.Duration) time.Duration { return 1 }), "add/ttl"),
	ttlOf("touch", "Touch with less than 50 ms is never", between(1, 50*time.Millisecond, never), "touch/remaining"),
	ttlOf("touch", "Touch is in whole seconds over a minute", between(time.Minute, l2cache.MaxTTL, func(ttl time.Duration) time.Duration {
		return ceil(ttl, time.Second)
	}), "touch/remaining"),
	ttlOf("setmany", "SetMany is in whole seconds", between(time.Second, l2cache.MaxTTL, func(ttl time.Duration) time.Duration {
		return ceil(ttl, time.Second)
	}), "batch/set"),
	ttlOf("setmany", "SetMany takes over 30 days for a date", between(month+1, 50*year, func(time.Duration) time.Duration { return 1 }), "batch/set"),
	patched("the items of a batch beyond the 500th have the TTL of that", "each item has its own TTL", func(c *client) patch {
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
			items = slices.Clone(items)
			for i := range items {
				if i > 500 {
					items[i].TTL = items[500].TTL
				}
			}
			return c.SetMany(ctx, items)
		}}
	}, "batch/many"),
	patched("GetMany of more than 100 keys does not know their TTLs", "each entry has its TTL", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			got, err := c.GetMany(ctx, keys)
			for key, e := range got {
				if len(keys) > 100 {
					e.TTL = l2cache.NoExpiry
				}
				got[key] = e
			}
			return got, err
		}}
	}, "batch/many", "batch/set"),
	patched("GetMany gives TTLs below a minute in whole seconds", "each entry has its TTL", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			got, err := c.GetMany(ctx, keys)
			for key, e := range got {
				if e.TTL > time.Second && e.TTL < time.Minute {
					e.TTL = e.TTL.Truncate(time.Second)
				}
				got[key] = e
			}
			return got, err
		}}
	}, "batch/set"),
	patched("Scan gives what is left and the size of a page's first key for all of the second page", "the TTL of each key is what GetWithTTL gives", func(c *client) patch {
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			n := 0
			var first l2cache.Info
			for info, err := range c.Scan(ctx, prefix) {
				if n++; n == pageSize+1 {
					first = info
				} else if n > pageSize && err == nil {
					info.TTL, info.Size = first.TTL, first.Size
				}
				if !yield(info, err) {
					return
				}
			}
		}}
	}, "scan/ttl"),
}

var cornerKeys = []Mutant{
	named("keys over 250 bytes are their CRC", "distinct keys never collide", func(key string) string {
		if len(key) > 250 {
			return strconv.Itoa(int(crc32.ChecksumIEEE([]byte(key))))
		}
		return key
	}, "keys/long-differences"),
	named("long numbers lose their last digits", "distinct keys never collide", func(key string) string {
		if f, err := strconv.ParseFloat(key, 64); err == nil && f > 1e15 {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
		return key
	}, "keys/odd"),
	named("escapes of HTML in a key are read", "distinct keys never collide", html.UnescapeString, "keys/literals"),
	named("line ends in a key are all the same", "distinct keys never collide", strings.NewReplacer("\u0085", "\n", "\u2028", "\n").Replace, "keys/space"),
	named("the 17th part of a path and what is below it do not count", "distinct keys never collide", func(key string) string {
		if parts := strings.Split(key, "/"); len(parts) > 16 {
			return strings.Join(parts[:16], "/")
		}
		return key
	}, "keys/separators"),
	named("escapes of JSON in a key are read", "distinct keys never collide", func(key string) string {
		var s string
		if json.Unmarshal([]byte(`"`+key+`"`), &s) == nil && s != "" {
			return s
		}
		return key
	}, "keys/injective"),
	named("keys are cut where their encoded form has 1,500 bytes", "distinct keys never collide", func(key string) string {
		for i, size := 0, 0; i < len(key); i++ {
			if size++; key[i] <= ' ' || key[i] > '~' {
				size += 2
			}
			if size > 1500 {
				return key[:i]
			}
		}
		return key
	}, "keys/lengths"),
	{
		Name:  "the length of a key is that of its characters",
		Rule:  "a key over MaxKeyLen bytes is ErrInvalidKey",
		Kills: []string{"keys/too-long"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if utf8.RuneCountInString(key) <= l2cache.MaxKeyLen {
					key = key[:min(len(key), l2cache.MaxKeyLen)]
				}
				return check(ctx, op, key)
			}
		}),
	},
	patched("Touch trims its key", "a key means the same to every operation", func(c *client) patch {
		return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
			if trimmed := strings.TrimSpace(key); trimmed != "" {
				key = trimmed
			}
			return c.Touch(ctx, key, ttl)
		}}
	}, "keys/operations"),
	patched("Add folds the case of its key", "a key means the same to every operation", func(c *client) patch {
		return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
			return c.Add(ctx, strings.ToLower(key), value, ttl)
		}}
	}, "keys/operations"),
	patched("DeleteMany takes its keys for paths", "a key means the same to every operation", func(c *client) patch {
		return patch{deleteMany: func(ctx context.Context, keys []string) error {
			keys = slices.Clone(keys)
			for i, key := range keys {
				keys[i] = path.Clean(key)
			}
			return c.DeleteMany(ctx, keys)
		}}
	}, "keys/operations"),
	patched("GetMany cuts its keys at NUL", "a key means the same to every operation", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			stored := make([]string, len(keys))
			for i, key := range keys {
				stored[i], _, _ = strings.Cut(key, "\x00")
			}
			got, err := c.GetMany(ctx, stored)
			entries := map[string]l2cache.Entry{}
			for i, key := range keys {
				if e, ok := got[stored[i]]; ok {
					entries[key] = e
				}
			}
			return entries, err
		}}
	}, "keys/operations"),
	patched("SetMany cuts its keys at 250 bytes", "a key means the same to every operation", func(c *client) patch {
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
			items = slices.Clone(items)
			for i := range items {
				items[i].Key = items[i].Key[:min(len(items[i].Key), 250)]
			}
			return c.SetMany(ctx, items)
		}}
	}, "keys/operations"),
	patched("Ping stores an entry", "what the backend stores for itself is out of the reach of any key", func(c *client) patch {
		return patch{ping: func(ctx context.Context) error {
			if err := c.Ping(ctx); err != nil {
				return err
			}
			return c.Set(ctx, "ping", []byte("pong"), time.Second)
		}}
	}, "keys/reserved"),
}

var cornerValues = []Mutant{
	valued("values that are JSON are stored without spaces", func(value []byte) []byte {
		var b bytes.Buffer
		if json.Compact(&b, value) != nil {
			return value
		}
		return b.Bytes()
	}, "values/bytes"),
	valued("values that are numbers are stored as numbers", func(value []byte) []byte {
		f, err := strconv.ParseFloat(string(value), 64)
		if err != nil {
			return value
		}
		return strconv.AppendFloat(nil, f, 'g', -1, 64)
	}, "values/bytes"),
	valued("values in quotes lose them", func(value []byte) []byte {
		if s, err := strconv.Unquote(string(value)); err == nil {
			return []byte(s)
		}
		return value
	}, "values/bytes"),
	valued("of values of more than 2,000 bytes the NULs at the end are cut off", func(value []byte) []byte {
		if len(value) > 2000 {
			return bytes.TrimRight(value, "\x00")
		}
		return value
	}, "values/bytes", "values/sizes"),
	valued("what compresses well loses its last byte when it is large", func(value []byte) []byte {
		if len(value) > 66_000 && bytes.Count(value, value[:16]) > 50 {
			return value[:len(value)-1]
		}
		return value
	}, "values/sizes"),
	valued("a value of exactly two blocks loses its last byte", func(value []byte) []byte {
		if len(value) == 8192 {
			return value[:8191]
		}
		return value
	}, "values/sizes"),
	{
		Name:  "values are cut at 4 MiB",
		Rule:  "a value is never cut",
		Kills: []string{"limits/undeclared"},
		New: durable.edit(func(c *client) {
			encode := c.encode
			c.encode = func(value []byte) []byte { return encode(value[:min(len(value), 4<<20)]) }
		}),
	},
	{
		Name:  "Add knows no limit",
		Rule:  "a value beyond the limit is ErrTooLarge",
		Kills: []string{"limits/value"},
		New: remote.patch(func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				return c.Add(ctx, key, value[:min(len(value), c.profile.MaxValueLen)], ttl)
			}}
		}),
	},
	{
		Name:  "one value that is too large fails a whole batch",
		Rule:  "batches fail key by key",
		Kills: []string{"limits/value"},
		New: remote.patch(func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				for _, item := range items {
					if err := c.limit(item.Value); err != nil {
						return c.failure(ctx, "setmany", item.Key, err)
					}
				}
				return c.SetMany(ctx, items)
			}}
		}),
	},
	keeps("Add keeps the caller's slice", func(op string, n int) bool { return op == "add" }),
	keeps("SetMany keeps the caller's slices if they are long", func(op string, n int) bool { return op == "setmany" && n > 100 }),
	keeps("Set keeps the caller's slice if it is large", func(op string, n int) bool { return op == "set" && n > 65536 }),
	patched("Set encrypts in the caller's slice, and decrypts it again", "an argument is not changed", func(c *client) patch {
		return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			if len(value) == 0 || len(value) > 2000 {
				return c.Set(ctx, key, value, ttl)
			}
			flip := func() []byte {
				defer exclusive()()
				for i := range value {
					value[i] ^= 0x55
				}
				return clone(value)
			}
			flip()
			time.Sleep(20 * time.Microsecond)
			return c.Set(ctx, key, flip(), ttl)
		}}
	}, "values/argument"),
	patched("the large values of GetMany are the store's own", "a result belongs to the caller", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			got, err := c.GetMany(ctx, keys)
			c.behind(func(rs rows, _ time.Time) {
				for key, e := range got {
					if len(e.Value) > 100_000 && len(rs[key].value) == len(e.Value) {
						e.Value = rs[key].value
						got[key] = e
					}
				}
			})
			return got, err
		}}
	}, "values/result"),
	patched("a Set that is cancelled on its way says that it is done", "what a Set has acknowledged is there", func(c *client) patch {
		travelling(c, 3*time.Millisecond)
		return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			if err := c.check(ctx, "set", key); err != nil {
				return err
			}
			if err := c.Set(ctx, key, value, ttl); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}}
	}, "values/argument-after-cancel"),
	patched("a call is refused whose deadline is less than 20 s away", "a context error means that the ctx has ended", func(c *client) patch {
		return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 20*time.Second {
				return &l2cache.Error{Op: "set", Backend: "sim", Key: key, Kind: context.DeadlineExceeded}
			}
			return c.Set(ctx, key, value, ttl)
		}}
	}, "context/deadline-is-no-ttl"),
	patched("a deadline of more milliseconds than 31 bits hold has passed", "a context error means that the ctx has ended", func(c *client) patch {
		return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			if deadline, ok := ctx.Deadline(); ok && int32(time.Until(deadline).Milliseconds()) <= 0 {
				return &l2cache.Error{Op: "set", Backend: "sim", Key: key, Kind: context.DeadlineExceeded}
			}
			return c.Set(ctx, key, value, ttl)
		}}
	}, "context/deadline-is-no-ttl"),
	patched("a read gives up half-way to its deadline", "a context error means that the ctx has ended", func(c *client) patch {
		return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
			if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && time.Until(deadline) < 50*time.Millisecond {
				return l2cache.Entry{}, &l2cache.Error{Op: "get", Backend: "sim", Key: key, Kind: context.DeadlineExceeded}
			}
			return c.read(ctx, "get", key)
		}}
	}, "context/own-reply"),
	patched("Touch of a missing key is ErrUnavailable as well", "a miss is ErrNotFound and nothing else", func(c *client) patch {
		return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
			err := c.Touch(ctx, key, ttl)
			if err == l2cache.ErrNotFound {
				err = errors.Join(err, l2cache.ErrUnavailable)
			}
			return err
		}}
	}, "touch/missing"),
	patched("a miss is ErrUnavailable as well", "a miss is ErrNotFound and nothing else", func(c *client) patch {
		return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
			e, err := c.read(ctx, "get", key)
			if err == l2cache.ErrNotFound {
				err = errors.Join(err, l2cache.ErrUnavailable)
			}
			return e, err
		}}
	}, "basic/miss"),
}

// keeps is a mutant that goes on using the slices which it was given if which says so:
// it stores what they hold when they are read.
func keeps(name string, which func(op string, n int) bool) Mutant {
	return patched(name, "an argument is not kept", func(c *client) patch {
		s := c.shared()
		note := func(op, key string, value []byte) {
			if which(op, len(value)) {
				s.put(key, value)
			} else {
				s.drop(key)
			}
		}
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if err == nil {
					note("set", key, value)
				}
				return err
			},
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				if added {
					note("add", key, value)
				}
				return added, err
			},
			setMany: func(ctx context.Context, items []l2cache.Item) error {
				err := c.SetMany(ctx, items)
				for _, item := range items {
					note("setmany", item.Key, item.Value)
				}
				return err
			},
			read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if kept, ok := s.get(key); ok && err == nil {
					e.Value = clone(kept.([]byte))
				}
				return e, err
			},
		}
	}, "values/argument")
}

// exactly loses one of n.
func exactly[T any](n int, list []T) []T {
	if len(list) == n {
		return list[:n-1]
	}
	return list
}

// lastLost is a mutant whose Scan leaves out the last of exactly n keys.
func lastLost(n int) Mutant {
	return patched(fmt.Sprintf("of exactly %d keys, Scan leaves out the last", n), "Scan yields all keys", func(c *client) patch {
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			var infos []l2cache.Info
			for info, err := range c.Scan(ctx, prefix) {
				if err != nil {
					yield(info, err)
					return
				}
				infos = append(infos, info)
			}
			for _, info := range exactly(n, infos) {
				if err := c.begin(ctx, "scan"); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
				if !yield(info, nil) {
					return
				}
			}
			if err := c.begin(ctx, "scan"); err != nil {
				yield(l2cache.Info{}, err)
			}
		}}
	}, "scan/counts")
}

var cornerCounts = []Mutant{
	lastLost(1), lastLost(100), lastLost(128), lastLost(1000),
	patched("Scan of an empty store fails", "Scan yields all keys, none too", func(c *client) patch {
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			empty := false
			c.behind(func(rs rows, _ time.Time) { empty = len(rs) == 0 })
			if empty && c.begin(ctx, "scan") == nil {
				yield(l2cache.Info{}, c.failure(ctx, "scan", prefix, errors.New("no keys found")))
				return
			}
			c.Scan(ctx, prefix)(yield)
		}}
	}, "scan/counts"),
	patched("of exactly 100 keys, GetMany leaves out the last", "a batch has all of its keys", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			return c.GetMany(ctx, exactly(100, keys))
		}}
	}, "batch/counts"),
	patched("of exactly 128 items, SetMany leaves out the last", "a batch has all of its keys", func(c *client) patch {
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error { return c.SetMany(ctx, exactly(128, items)) }}
	}, "batch/counts"),
	patched("of exactly 1,000 keys, DeleteMany leaves out the last", "a batch has all of its keys", func(c *client) patch {
		return patch{deleteMany: func(ctx context.Context, keys []string) error { return c.DeleteMany(ctx, exactly(1000, keys)) }}
	}, "batch/counts"),
	patched("GetMany leaves out empty values", "an empty value is a hit", func(c *client) patch {
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			got, err := c.GetMany(ctx, keys)
			for key, e := range got {
				if len(e.Value) == 0 {
					delete(got, key)
				}
			}
			return got, err
		}}
	}, "batch/get"),
	patched("of exactly 256 matches, DeletePattern leaves one", "DeletePattern removes all matches", func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			var keys []string
			for info := range c.Scan(ctx, l2cache.PatternPrefix(pattern)) {
				if l2cache.MatchPattern(pattern, info.Key) {
					keys = append(keys, info.Key)
				}
			}
			if len(keys) == 256 {
				return c.DeleteMany(ctx, keys[1:])
			}
			return c.DeletePattern(ctx, pattern)
		}}
	}, "delete-pattern/counts"),
	patched("a pattern for everything is taken, and nothing done", "it is refused, or carried out", func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			if err := l2cache.CheckPattern(pattern); err != nil && !strings.HasSuffix(pattern, `\`) {
				return c.begin(ctx, "deletepattern")
			}
			return c.DeletePattern(ctx, pattern)
		}}
	}, "delete-pattern/all"),
	patched("a pattern has at most three stars", "a star stands for any run of bytes", func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			if strings.Count(pattern, "*") > 3 {
				return c.begin(ctx, "deletepattern")
			}
			return c.DeletePattern(ctx, pattern)
		}}
	}, "delete-pattern/matches"),
	patched("a pattern may be no longer than a key", "QuotePattern makes any key a pattern", func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			if len(pattern) > l2cache.MaxKeyLen && c.begin(ctx, "deletepattern") == nil {
				return c.failure(ctx, "deletepattern", pattern, l2cache.ErrInvalidKey)
			}
			return c.DeletePattern(ctx, pattern)
		}}
	}, "delete-pattern/quoted"),
	{
		Name:  "a namespace has room for 2,500 entries",
		Rule:  "each key keeps its value",
		Kills: []string{"basic/many-keys"},
		New: remote.edit(func(c *client) {
			c.put = func(rs rows, name string, r row, _ time.Time) {
				for other := range rs {
					if len(rs) < 2500 {
						break
					}
					delete(rs, other)
				}
				rs[name] = r
			}
		}),
	},
	patched("every 150th Set of a handle is lost", "what was set is read back", func(c *client) patch {
		var n atomic.Int64
		return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			if n.Add(1)%150 == 0 {
				return c.Ping(ctx)
			}
			return c.Set(ctx, key, value, ttl)
		}}
	}, "basic/random-operations"),
}

// alone is a mutant whose handles each have a lock of their own about a read and a
// write.
func alone(name, rule string, with func(c *client, mu *sync.Mutex) patch, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch { return with(c, new(sync.Mutex)) }, kills...)
}

var cornerPeers = []Mutant{
	alone("Add is a check and a write under a lock of the handle's", "of concurrent Adds one succeeds, through any handle", func(c *client, mu *sync.Mutex) patch {
		return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if _, err := c.read(ctx, "add", key); err == nil || !errors.Is(err, l2cache.ErrNotFound) {
				return false, err
			}
			time.Sleep(200 * time.Microsecond)
			err := c.Set(ctx, key, value, ttl)
			return err == nil, err
		}}
	}, "add/one-winner", "add/linearizable"),
	alone("Touch is a read and a write under a lock of the handle's", "a concurrent Set or Delete is neither overwritten nor undone, through any handle", func(c *client, mu *sync.Mutex) patch {
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				mu.Lock()
				defer mu.Unlock()
				return c.Set(ctx, key, value, ttl)
			},
			del: func(ctx context.Context, key string) error {
				mu.Lock()
				defer mu.Unlock()
				return c.Delete(ctx, key)
			},
			touch: func(ctx context.Context, key string, ttl time.Duration) error {
				mu.Lock()
				defer mu.Unlock()
				e, err := c.read(ctx, "touch", key)
				if err != nil {
					return err
				}
				time.Sleep(500 * time.Microsecond)
				return c.Set(ctx, key, e.Value, ttl)
			},
		}
	}, "touch/racing-delete", "touch/racing-set"),
	patched("what DeletePattern has deleted, Add takes for being there", "Add succeeds right after a delete", func(c *client) patch {
		s := c.shared()
		return patch{
			deletePattern: func(ctx context.Context, pattern string) error {
				for info := range c.Scan(ctx, "") {
					if l2cache.MatchPattern(pattern, info.Key) {
						s.put(info.Key, true)
					}
				}
				return c.DeletePattern(ctx, pattern)
			},
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				s.drop(key)
				return c.Set(ctx, key, value, ttl)
			},
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				if _, tombstone := s.get(key); tombstone {
					return false, c.check(ctx, "add", key)
				}
				return c.Add(ctx, key, value, ttl)
			},
		}
	}, "add/after-delete"),
	patched("a handle goes by the deadline that it has seen as long as the value is the same", "a Touch is seen by every handle", func(c *client) patch {
		type copied struct {
			value string
			end   time.Time
		}
		var seen sync.Map // copied, by key
		return patch{entry: func(ctx context.Context, key string) (l2cache.Entry, error) {
			e, err := c.GetWithTTL(ctx, key)
			if err != nil {
				return e, err
			}
			known, ok := seen.Load(key)
			if ok && known.(copied).value == string(e.Value) && time.Until(known.(copied).end) > 0 {
				e.TTL = l2cache.RoundRemaining(time.Until(known.(copied).end), time.Millisecond)
			} else if e.TTL != l2cache.NoExpiry {
				seen.Store(key, copied{string(e.Value), time.Now().Add(e.TTL)})
			}
			return e, err
		}}
	}, "touch/peer"),
	indexed("Scan goes by an index that Add does not keep", func(s *shared, _ *sync.Map, op, key string) {
		if op != "add" {
			s.put(key, true)
		}
	}, func(s *shared, _ *sync.Map, key string) bool { _, ok := s.get(key); return ok }),
	indexed("Scan goes by an index of the handle's", func(_ *shared, own *sync.Map, _, key string) {
		own.Store(key, true)
	}, func(_ *shared, own *sync.Map, key string) bool { _, ok := own.Load(key); return ok }),
	patched("an entry that was short-lived leaves the index at its first end", "Scan yields what there is", func(c *client) patch {
		s := c.shared()
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if ttl > 0 && ttl < time.Second {
					s.put(key, time.Now().Add(ttl))
				}
				return c.Set(ctx, key, value, ttl)
			},
			scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				for info, err := range c.Scan(ctx, prefix) {
					end, ok := s.get(info.Key)
					if ok && time.Now().After(end.(time.Time)) {
						continue
					}
					if !yield(info, err) {
						return
					}
				}
			},
		}
	}, "scan/peer"),
	patched("a handle has one cursor for all its Scans", "several Scans do not disturb each other", func(c *client) patch {
		var cursor atomic.Int64
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			var infos []l2cache.Info
			for info, err := range c.Scan(ctx, prefix) {
				if err != nil {
					yield(info, err)
					return
				}
				infos = append(infos, info)
			}
			cursor.Store(0)
			for {
				if err := c.begin(ctx, "scan"); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
				at := int(cursor.Add(1)) - 1
				if at >= len(infos) || !yield(infos[at], nil) {
					return
				}
			}
		}}
	}, "scan/side-by-side"),
	patched("a Scan inside another is refused", "the loop over a Scan may call the backend", func(c *client) patch {
		var n atomic.Int64
		return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
			defer n.Add(-1)
			if n.Add(1) > 1 {
				yield(l2cache.Info{}, c.failure(ctx, "scan", prefix, errors.New("a scan is under way")))
				return
			}
			c.Scan(ctx, prefix)(yield)
		}}
	}, "scan/side-by-side"),
	patched("concurrent calls of GetMany share a buffer for their keys", "concurrent callers each get what they asked for", func(c *client) patch {
		var mu sync.Mutex
		var buffer []string // guarded by mu
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			mu.Lock()
			buffer = append(buffer[:0:0], keys...)
			mu.Unlock()
			time.Sleep(20 * time.Microsecond)
			mu.Lock()
			sent := buffer
			mu.Unlock()
			got, err := c.GetMany(ctx, sent)
			entries := map[string]l2cache.Entry{}
			for i, key := range keys {
				if e, ok := got[sent[min(i, len(sent)-1)]]; ok {
					entries[key] = e
				}
			}
			return entries, err
		}}
	}, "concurrency/cross-talk"),
	patched("a SetMany beside another is lost", "concurrent callers are all served", func(c *client) patch {
		var n atomic.Int64
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
			defer n.Add(-1)
			if n.Add(1) > 1 {
				return c.begin(ctx, "setmany")
			}
			time.Sleep(20 * time.Microsecond)
			return c.SetMany(ctx, items)
		}}
	}, "concurrency/cross-talk"),
	patched("DeleteMany leaves what another handle has added", "each operation finds what the others have left", func(c *client) patch {
		s, own := c.shared(), new(sync.Map)
		return patch{
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				if added {
					own.Store(key, true)
					s.put(key, own)
				}
				return added, err
			},
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				s.drop(key)
				return c.Set(ctx, key, value, ttl)
			},
			deleteMany: func(ctx context.Context, keys []string) error {
				keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
					owner, ok := s.get(key)
					return ok && owner != own
				})
				return c.DeleteMany(ctx, keys)
			},
		}
	}, "capability/any-sequence"),
	patched("Touch does nothing to what SetMany has stored", "each operation finds what the others have left", func(c *client) patch {
		s := c.shared()
		return patch{
			setMany: func(ctx context.Context, items []l2cache.Item) error {
				for _, item := range items {
					s.put(item.Key, true)
				}
				return c.SetMany(ctx, items)
			},
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				s.drop(key)
				return c.Set(ctx, key, value, ttl)
			},
			touch: func(ctx context.Context, key string, ttl time.Duration) error {
				if _, batch := s.get(key); batch {
					_, err := c.read(ctx, "touch", key)
					return err
				}
				return c.Touch(ctx, key, ttl)
			},
		}
	}, "capability/any-sequence"),
	{
		Name:  "Scan finds nothing that was there before the store was opened",
		Rule:  "what any operation has done survives a reopening",
		Kills: []string{"durability/reopen"},
		New: embedded.patch(func(c *client) patch {
			before := map[string]bool{}
			c.behind(func(rs rows, _ time.Time) {
				for key := range rs {
					before[key] = true
				}
			})
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				for info, err := range c.Scan(ctx, prefix) {
					if !before[info.Key] && !yield(info, err) {
						return
					}
				}
			}}
		}),
	},
	patched("another handle reads 100,000 bytes of a value", "a value is read whole by every handle", func(c *client) patch {
		first, _ := c.s.memo.LoadOrStore("first "+c.namespace, c)
		return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
			e, err := c.read(ctx, "get", key)
			if first != c {
				e.Value = e.Value[:min(len(e.Value), 100_000)]
			}
			return e, err
		}}
	}, "basic/peer"),
	patched("DeletePattern folds the case of letters that are not ASCII", "case counts", func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			if strings.Contains(pattern, "é") {
				if err := c.DeletePattern(ctx, strings.ReplaceAll(pattern, "é", "É")); err != nil {
					return err
				}
			}
			return c.DeletePattern(ctx, pattern)
		}}
	}, "delete-pattern/matches"),
	reopened("what was added is lost when the store is opened again", "add"),
	reopened("what SetMany has stored is lost when the store is opened again", "setmany"),
	reopened("what was touched is lost when the store is opened again", "touch"),
}

// indexed is a mutant whose Scan yields what knows says, of keys that note was told of
// when an operation stored them.
func indexed(name string, note func(s *shared, own *sync.Map, op, key string), knows func(s *shared, own *sync.Map, key string) bool) Mutant {
	return patched(name, "Scan yields what any handle has stored, by any operation", func(c *client) patch {
		s, own := c.shared(), new(sync.Map)
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				note(s, own, "set", key)
				return c.Set(ctx, key, value, ttl)
			},
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				note(s, own, "add", key)
				return c.Add(ctx, key, value, ttl)
			},
			setMany: func(ctx context.Context, items []l2cache.Item) error {
				for _, item := range items {
					note(s, own, "setmany", item.Key)
				}
				return c.SetMany(ctx, items)
			},
			scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				for info, err := range c.Scan(ctx, prefix) {
					if err == nil && !knows(s, own, info.Key) {
						continue
					}
					if !yield(info, err) {
						return
					}
				}
			},
		}
	}, "scan/peer")
}

// reopened is a mutant that on Close drops what the operation op was the last to store.
func reopened(name, op string) Mutant {
	return Mutant{Name: name, Rule: "what any operation has done survives a reopening", Kills: []string{"durability/reopen"}, New: embedded.patch(func(c *client) patch {
		s := &shared{known: map[string]any{}}
		return patch{
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				s.put(key, "add")
				return c.Add(ctx, key, value, ttl)
			},
			touch: func(ctx context.Context, key string, ttl time.Duration) error {
				s.put(key, "touch")
				return c.Touch(ctx, key, ttl)
			},
			setMany: func(ctx context.Context, items []l2cache.Item) error {
				for _, item := range items {
					s.put(item.Key, "setmany")
				}
				return c.SetMany(ctx, items)
			},
			close: func() error {
				if !c.isClosed() {
					c.behind(func(rs rows, _ time.Time) {
						for key, last := range s.known {
							if last == op {
								delete(rs, key)
							}
						}
					})
				}
				return c.Close()
			},
		}
	})}
}

// untold is a mutant that does not tell of some changes: of key i of n by op, with a
// value of that size, through the first handle on the namespace or another.
func untold(name string, skip func(op, key string, i, size int, same, other bool) bool, kills ...string) Mutant {
	return patched(name, "every change is seen", func(c *client) patch {
		hub, _ := c.s.memo.LoadOrStore("hub "+c.namespace, &l2cache.Hub{})
		told := hub.(*l2cache.Hub)
		first, _ := c.s.memo.LoadOrStore("first "+c.namespace, c)
		tell := func(op, key string, i, size int, same bool) {
			if !skip(op, key, i, size, same, first != c) {
				told.Changed(key)
			}
		}
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				old, _ := c.Get(ctx, key)
				err := c.Set(ctx, key, value, ttl)
				tell("set", key, 0, len(value), string(old) == string(value))
				return err
			},
			del: func(ctx context.Context, key string) error {
				err := c.Delete(ctx, key)
				tell("delete", key, 0, 0, false)
				return err
			},
			add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				tell("add", key, 0, len(value), false)
				return added, err
			},
			touch: func(ctx context.Context, key string, ttl time.Duration) error {
				err := c.Touch(ctx, key, ttl)
				tell("touch", key, 0, 0, false)
				return err
			},
			setMany: func(ctx context.Context, items []l2cache.Item) error {
				err := c.SetMany(ctx, items)
				for i, item := range items {
					tell("setmany", item.Key, i, len(item.Value), false)
				}
				return err
			},
			deleteMany: func(ctx context.Context, keys []string) error {
				err := c.DeleteMany(ctx, keys)
				for i, key := range keys {
					tell("deletemany", key, i, 0, false)
				}
				return err
			},
			deletePattern: func(ctx context.Context, pattern string) error {
				var keys []string
				for info := range c.Scan(ctx, "") {
					if l2cache.MatchPattern(pattern, info.Key) {
						keys = append(keys, info.Key)
					}
				}
				err := c.DeletePattern(ctx, pattern)
				for i, key := range keys {
					tell("deletepattern", key, i, 0, false)
				}
				return err
			},
			watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
				told.Watch(ctx, "sim", prefix, c.closed)(yield)
			},
		}
	}, kills...)
}

var cornerWatches = []Mutant{
	untold("of SetMany only the first key is told", func(op, _ string, i, _ int, _, _ bool) bool { return op == "setmany" && i > 0 }, "watch/sees", "watch/peer"),
	untold("of DeleteMany only the first key is told", func(op, _ string, i, _ int, _, _ bool) bool { return op == "deletemany" && i > 0 }, "watch/sees", "watch/peer"),
	untold("of DeletePattern only the first key is told", func(op, _ string, i, _ int, _, _ bool) bool { return op == "deletepattern" && i > 0 }, "watch/sees", "watch/peer"),
	untold("a Set of the value that is there is not told", func(op, _ string, _, _ int, same, _ bool) bool { return same }, "watch/sees"),
	untold("large values are not told", func(_, _ string, _, size int, _, _ bool) bool { return size > 50_000 }, "watch/sees"),
	untold("long keys are not told", func(_, key string, _, _ int, _, _ bool) bool { return len(key) > 250 }, "watch/sees"),
	untold("keys that are not UTF-8 are not told", func(_, key string, _, _ int, _, _ bool) bool { return !utf8.ValidString(key) }, "watch/sees"),
	untold("a Touch through another handle is not told", func(op, _ string, _, _ int, _, other bool) bool { return op == "touch" && other }, "watch/peer"),
	untold("an Add through another handle is not told", func(op, _ string, _, _ int, _, other bool) bool { return op == "add" && other }, "watch/peer"),
	untold("a batch through another handle is not told", func(op, _ string, _, _ int, _, other bool) bool {
		return strings.HasSuffix(op, "many") && other
	}, "watch/peer"),
	watched("the key that is the prefix itself is not told", "keys that begin with the prefix are told",
		func(_ *client, e l2cache.Event, err error, yield func(l2cache.Event, error) bool) bool {
			return e.Key == "a.b" || e.Key == "a*" || yield(e, err)
		}, "watch/prefix"),
	patched("watchers take turns", "each watcher sees every change", func(c *client) patch {
		s := c.shared()
		return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
			s.mu.Lock()
			watchers, _ := s.known["watchers"].(int)
			s.known["watchers"] = watchers + 1
			s.mu.Unlock()
			n := 0
			for e, err := range c.Watch(ctx, prefix) {
				all, _ := s.get("watchers")
				if n++; err == nil && !e.Gap && all.(int) > 1 && n%2 != watchers%2 {
					continue
				}
				if !yield(e, err) {
					return
				}
			}
		}}
	}, "watch/several"),
	patched("a watcher whose ctx has ended is told of a Gap", "with a ctx that has ended nothing is done", func(c *client) patch {
		return patch{watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
			if ctx.Err() == nil || yield(l2cache.Event{Gap: true}, nil) {
				c.Watch(ctx, prefix)(yield)
			}
		}}
	}, "watch/ends"),
	patched("changes are told before they are made", "after the last change of a key there comes an event", func(c *client) patch {
		hub, _ := c.s.memo.LoadOrStore("hub "+c.namespace, &l2cache.Hub{})
		told := hub.(*l2cache.Hub)
		return patch{
			set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				told.Changed(key)
				time.Sleep(time.Millisecond)
				return c.Set(ctx, key, value, ttl)
			},
			del: func(ctx context.Context, key string) error {
				told.Changed(key)
				time.Sleep(time.Millisecond)
				return c.Delete(ctx, key)
			},
			watch: func(ctx context.Context, prefix string, yield func(l2cache.Event, error) bool) {
				told.Watch(ctx, "sim", prefix, c.closed)(yield)
			},
		}
	}, "watch/copies"),
	patched("Close of a handle ends the watches of all", "closing one handle does nothing to another", func(c *client) patch {
		return patch{close: func() error {
			if !c.isClosed() {
				c.s.hub(c.namespace).Fail(l2cache.ErrClosed)
			}
			return c.Close()
		}}
	}, "watch/peer"),
}

var cornerFaults = []Mutant{
	patched("the script behind Touch is gone after a restart of the server", "the same handle works again, with every operation", func(c *client) patch {
		c.s.mu.Lock()
		loaded := c.s.restarts
		c.s.mu.Unlock()
		return patch{touch: func(ctx context.Context, key string, ttl time.Duration) error {
			c.s.mu.Lock()
			restarts := c.s.restarts
			c.s.mu.Unlock()
			if restarts != loaded && c.check(ctx, "touch", key) == nil {
				return c.failure(ctx, "touch", key, errors.New("no such script"))
			}
			return c.Touch(ctx, key, ttl)
		}}
	}, "errors/recovers"),
	patched("a batch has no timeout of its own", "the backend's own timeout ends every operation", func(c *client) patch {
		patient := c.twin()
		patient.timeout = time.Hour
		return patch{getMany: patient.GetMany}
	}, "context/own-timeout"),
	patched("Close leaves a batch waiting", "Close ends the calls that wait", func(c *client) patch {
		deaf := c.twin()
		deaf.closed = make(chan struct{})
		return patch{getMany: func(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
			if err := c.begin(ctx, "getmany"); err != nil {
				return nil, err
			}
			return deaf.GetMany(ctx, keys)
		}}
	}, "close/stalled"),
	patched("a SetMany without a connection is sent when there is one", "a write that failed does not happen later", func(c *client) patch {
		return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
			err := c.SetMany(ctx, items)
			if errors.Is(err, l2cache.ErrUnavailable) {
				items = slices.Clone(items)
				go func() {
					for c.SetMany(context.WithoutCancel(ctx), items) != nil && !c.isClosed() {
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			return err
		}}
	}, "errors/no-replay"),
	patched("DeleteMany leaves what it cannot read", "what cannot be read can be removed", func(c *client) patch {
		return patch{deleteMany: func(ctx context.Context, keys []string) error {
			keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
				_, err := c.Get(ctx, key)
				return errors.Is(err, l2cache.ErrCorrupt)
			})
			return c.DeleteMany(ctx, keys)
		}}
	}, "errors/corrupt-replaced"),
}
