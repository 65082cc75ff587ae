package mutants

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// decoded is a mutant that makes of what is stored something else.
func decoded(name, rule string, f func(stored []byte) []byte, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) {
		c.decode = func(stored []byte) []byte { return append([]byte{}, f(stored)...) }
	})}
}

var valueMutants = []Mutant{
	{
		Name:  "an empty value is a miss",
		Rule:  "an empty value is a hit",
		Kills: []string{"values/empty", "ttl/overwrite/value"},
		New: remote.edit(func(c *client) {
			find := c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				r, ok := find(rs, name, now)
				return r, ok && len(r.value) > 0
			}
		}),
	},
	{
		Name:  "Set of nil deletes",
		Rule:  "nil is stored as an empty value",
		Kills: []string{"values/empty"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if value == nil {
					return c.Delete(ctx, key)
				}
				return c.Set(ctx, key, value, ttl)
			}}
		}),
	},
	{
		Name:  "Set of an empty value leaves the old one",
		Rule:  "an empty value replaces another",
		Kills: []string{"values/empty"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old, ok := rs[name]; ok && len(r.value) == 0 {
					r = old
				}
				put(rs, name, r, now)
			}
		}),
	},
	decoded("values end at NUL", "values keep all of their bytes",
		func(stored []byte) []byte { before, _, _ := bytes.Cut(stored, []byte{0}); return before },
		"values/bytes"),
	decoded("values are trimmed", "values keep all of their bytes", bytes.TrimSpace, "values/bytes"),
	decoded("values are repaired as UTF-8", "values keep all of their bytes",
		func(stored []byte) []byte { return bytes.ToValidUTF8(stored, []byte("\uFFFD")) },
		"values/bytes"),
	decoded("a byte order mark is dropped", "values keep all of their bytes",
		func(stored []byte) []byte { return bytes.TrimPrefix(stored, []byte("\xef\xbb\xbf")) },
		"values/bytes"),
	decoded("null is nothing", "values keep all of their bytes",
		func(stored []byte) []byte {
			if string(stored) == "null" {
				return nil
			}
			return stored
		},
		"values/bytes"),
	decoded("a value ends where the protocol's end mark stands", "a value that looks like protocol is only a value",
		func(stored []byte) []byte { before, _, _ := bytes.Cut(stored, []byte("END\r\n")); return before },
		"values/protocol"),
	decoded("a null reply inside a value ends it", "a value that looks like protocol is only a value",
		func(stored []byte) []byte {
			if string(stored) == "$-1\r\n" {
				return nil
			}
			return stored
		},
		"values/protocol"),
	decoded("a value with the magic bytes of the envelope is taken out of it", "a value that looks like the stored form comes back as it is",
		func(stored []byte) []byte {
			if bytes.HasPrefix(stored, []byte("\xC5\x4C\x01")) && len(stored) >= 20 {
				return stored[20:]
			}
			return stored
		},
		"values/lookalike"),
	decoded("a value with a gzip header is unpacked", "a value that looks compressed comes back as it is",
		func(stored []byte) []byte {
			r, err := gzip.NewReader(bytes.NewReader(stored))
			if err != nil {
				return stored
			}
			plain, _ := io.ReadAll(r)
			return plain
		},
		"values/lookalike"),
	decoded("a value that is JSON with a value in it is taken out of it", "a value that looks like the stored form comes back as it is",
		func(stored []byte) []byte {
			var form struct{ Value *string }
			if json.Unmarshal(stored, &form) == nil && form.Value != nil {
				return []byte(*form.Value)
			}
			return stored
		},
		"values/lookalike"),
	decoded("the length of a value has 16 bits", "values of every size come back whole",
		func(stored []byte) []byte { return stored[:len(stored)&0xffff] },
		"values/sizes", "values/shrink"),
	decoded("a part of a whole number of KiB at the end is lost", "values of every size come back whole",
		func(stored []byte) []byte {
			if n := len(stored); n > 32_000 && n%1024 == 0 {
				return stored[:n-1024]
			}
			return stored
		},
		"values/sizes"),
	{
		Name:  "the limit on values is 1,000,000 bytes with the key and a header",
		Rule:  "values up to 1,000,000 bytes are taken",
		Kills: []string{"values/sizes"},
		New: remote.edit(func(c *client) {
			c.limit = func(value []byte) error {
				if len(value)+48 > 1_000_000 {
					return l2cache.ErrTooLarge
				}
				return nil
			}
		}),
	},
	{
		Name:  "a shorter value is written over the longer one",
		Rule:  "nothing of an older value is left",
		Kills: []string{"values/shrink", "ttl/overwrite/value"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old := rs[name].value; len(old) > len(r.value) {
					r.value = append(r.value, old[len(r.value):]...)
					r.sum = checksum(r.value)
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "parts of 16,000 bytes that a shorter value does not need stay, and are read",
		Rule:  "nothing of an older value is left",
		Kills: []string{"values/shrink"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				if old := rs[name].value; len(r.value) > 0 && len(r.value)%16_000 == 0 && len(old) > len(r.value) {
					r.value = append(r.value, old[len(r.value):]...)
					r.sum = checksum(r.value)
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "Set stores the caller's slice",
		Rule:  "arguments are not retained",
		Kills: []string{"values/argument"},
		New: remote.edit(func(c *client) {
			c.encode = func(value []byte) []byte { return value }
			c.verify = func(row) error { return nil }
		}),
	},
	{
		Name:  "Set writes a trailer behind the caller's slice",
		Rule:  "arguments are not changed",
		Kills: []string{"values/argument"},
		New: remote.edit(func(c *client) {
			c.encode = func(value []byte) []byte {
				defer exclusive()()
				framed := append(value, "\r\n"...)
				return clone(framed[:len(value)])
			}
		}),
	},
	{
		Name:  "Set encrypts in place",
		Rule:  "arguments are not changed",
		Kills: []string{"values/argument"},
		New: remote.edit(func(c *client) {
			mask := func(value []byte) []byte {
				defer exclusive()()
				for i := range value {
					value[i] ^= 0x55
				}
				return clone(value)
			}
			c.encode, c.decode = mask, func(stored []byte) []byte { return mask(clone(stored)) }
		}),
	},
	{
		Name:  "a Set that was cancelled goes on with the caller's slice",
		Rule:  "arguments are not retained when a call has returned early",
		Kills: []string{"values/argument-after-cancel"},
		New: remote.patch(func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				done := make(chan error, 1)
				go func() {
					time.Sleep(200 * time.Microsecond)
					done <- c.Set(context.Background(), key, snapshot(value), ttl)
				}()
				select {
				case err := <-done:
					return err
				case <-ctx.Done():
					return l2cache.NewError(ctx, "sim", "set", key, nil, ctx.Err())
				}
			}}
		}),
	},
	{
		Name:  "a read returns the store's slice",
		Rule:  "results belong to the caller",
		Kills: []string{"values/result"},
		New: remote.edit(func(c *client) {
			c.decode = func(stored []byte) []byte { return stored }
			c.verify = func(row) error { return nil }
		}),
	},
	{
		Name:  "results are cut from one slab, with room to append into the next",
		Rule:  "results share no memory",
		Kills: []string{"values/result"},
		New: remote.edit(func(c *client) {
			slab := make([]byte, 0, 1<<20)
			c.decode = func(stored []byte) []byte {
				at := len(slab)
				slab = append(slab, stored...)
				return slab[at:]
			}
		}),
	},
	{
		Name:  "two reads of one key in a row share their result",
		Rule:  "results share no memory",
		Kills: []string{"values/result"},
		New: remote.edit(func(c *client) {
			var last []byte
			c.decode = func(stored []byte) []byte {
				if !bytes.Equal(last, stored) {
					last = clone(stored)
				}
				return last
			}
		}),
	},
	{
		Name:  "a result is memory of the file, which the next write takes",
		Rule:  "results stay as they are",
		Kills: []string{"values/result-outlives"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.decode = func(stored []byte) []byte { return stored }
			c.put = func(rs rows, name string, r row, now time.Time) {
				for i := range rs[name].value {
					rs[name].value[i] = 0xdd
				}
				put(rs, name, r, now)
			}
		}),
	},
	{
		Name:  "Close wipes the buffers that results are in",
		Rule:  "results stay as they are",
		Kills: []string{"values/result-outlives"},
		New: remote.patch(func(c *client) patch {
			var results [][]byte
			c.decode = func(stored []byte) []byte {
				results = append(results, clone(stored))
				return results[len(results)-1]
			}
			return patch{close: func() error {
				for _, result := range results {
					clear(result)
				}
				return c.Close()
			}}
		}),
	},
	{
		Name:  "Get returns a buffer that it uses again after two more reads",
		Rule:  "results stay as they are",
		Kills: []string{"values/result-outlives"},
		New: remote.patch(func(c *client) patch {
			var mu sync.Mutex
			buffers := [][]byte{make([]byte, 1<<17), make([]byte, 1<<17)}
			next := 0
			return patch{get: func(ctx context.Context, key string) ([]byte, error) {
				value, err := c.Get(ctx, key)
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				next = (next + 1) % len(buffers)
				buffers[next] = append(buffers[next][:0], value...)
				return buffers[next], nil
			}}
		}),
	},
	{
		Name:  "the value of an error is the older one",
		Rule:  "a value is nil when there is an error",
		Kills: []string{"errors/down"},
		New: remote.patch(func(c *client) patch {
			var last sync.Map // key to value
			return patch{get: func(ctx context.Context, key string) ([]byte, error) {
				value, err := c.Get(ctx, key)
				if err == nil {
					last.Store(key, value)
				} else if old, ok := last.Load(key); ok && errors.Is(err, l2cache.ErrUnavailable) {
					return old.([]byte), err
				}
				return value, err
			}}
		}),
	},
}

// snapshot copies value without the race detector's notice: that the caller may
// be writing to it is what the mutant is about.
//
//go:norace
func snapshot(value []byte) []byte {
	copied := make([]byte, len(value))
	//lint:ignore S1001 the race detector would see copy
	for i := range value {
		copied[i] = value[i]
	}
	return copied
}
