package mutants

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// named is a mutant that stores keys under names that it makes of them.
func named(name, rule string, f func(key string) string, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.edit(func(c *client) { c.name = f })}
}

// anyKey makes c accept every key, of any length.
func anyKey(c *client) {
	check := c.check
	c.check = func(ctx context.Context, op, key string) error { return check(ctx, op, "k") }
}

var keyMutants = []Mutant{
	{
		Name:  "the empty key is a key",
		Rule:  "the empty key is ErrInvalidKey",
		Kills: []string{"keys/empty"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if key == "" && op != "ping" {
					key = "k"
				}
				return check(ctx, op, key)
			}
		}),
	},
	{
		Name:  "Delete of the empty key is nil",
		Rule:  "the empty key is ErrInvalidKey on every operation",
		Kills: []string{"keys/empty"},
		New: remote.patch(func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				if key == "" {
					return nil
				}
				return c.Delete(ctx, key)
			}}
		}),
	},
	{
		Name:  "a read of the empty key is a miss",
		Rule:  "the empty key is ErrInvalidKey on every operation",
		Kills: []string{"keys/empty"},
		New: remote.patch(func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if key == "" {
					return l2cache.Entry{}, l2cache.ErrNotFound
				}
				return c.read(ctx, "get", key)
			}}
		}),
	},
	{
		Name:  "keys that are too long are cut",
		Rule:  "a key that is too long is ErrInvalidKey",
		Kills: []string{"keys/too-long"},
		New: remote.edit(func(c *client) {
			anyKey(c)
			c.name = func(key string) string { return key[:min(len(key), l2cache.MaxKeyLen)] }
		}),
	},
	{
		Name:  "keys that are too long are hashed",
		Rule:  "a key that is too long is ErrInvalidKey",
		Kills: []string{"keys/too-long", "isolation/prefix-keys"},
		New: remote.edit(func(c *client) {
			anyKey(c)
			c.name = func(key string) string {
				if len(key) > l2cache.MaxKeyLen {
					return sha(key)
				}
				return key
			}
		}),
	},
	{
		Name:  "only Set looks at the length of a key",
		Rule:  "a key that is too long is ErrInvalidKey on every operation",
		Kills: []string{"keys/too-long"},
		New: remote.edit(func(c *client) {
			check := c.check
			c.check = func(ctx context.Context, op, key string) error {
				if op != "set" {
					key = key[:min(len(key), 8)]
				}
				return check(ctx, op, key)
			}
		}),
	},
	named("keys are cut at 250 bytes", "keys of up to MaxKeyLen keep their own values",
		func(key string) string { return key[:min(len(key), 250)] },
		"keys/lengths", "keys/long-differences"),
	named("keys are cut at the last byte but one of the longest", "keys of up to MaxKeyLen keep their own values",
		func(key string) string { return key[:min(len(key), l2cache.MaxKeyLen-1)] },
		"keys/long-differences"),
	named("long keys are told apart by both their ends", "distinct keys do not collide",
		func(key string) string {
			if len(key) > 200 {
				return key[:90] + strconv.Itoa(len(key)) + key[len(key)-90:]
			}
			return key
		},
		"keys/long-differences"),
	{
		Name:  "a key of 256 bytes has a length of 0 in a header of one byte",
		Rule:  "keys of every length up to MaxKeyLen work",
		Kills: []string{"keys/lengths"},
		New: remote.edit(func(c *client) {
			c.name = func(key string) string { return key[:1] + key[1:][:max(len(key)%256-1, 0)] }
		}),
	},
	named("control characters become underscores", "every byte stands for itself",
		func(key string) string {
			return strings.Map(func(r rune) rune {
				if r < ' ' {
					return '_'
				}
				return r
			}, key)
		},
		"keys/bytes-alone", "keys/bytes-inside"),
	named("keys are seven bits clean", "every byte stands for itself",
		func(key string) string {
			b := []byte(key)
			for i := range b {
				b[i] &= 0x7f
			}
			return string(b)
		},
		"keys/bytes-alone", "keys/bytes-inside"),
	named("keys end at NUL", "every byte may stand within a key",
		func(key string) string {
			if i := strings.IndexByte(key, 0); i > 0 {
				return key[:i]
			}
			return key
		},
		"keys/bytes-inside", "keys/injection"),
	named("a newline at the end of a key is dropped", "every byte may stand at the end of a key",
		func(key string) string {
			if len(key) > 1 {
				return strings.TrimRight(key, "\r\n")
			}
			return key
		},
		"keys/bytes-inside", "keys/space"),
	named("keys are trimmed", "space is significant",
		func(key string) string {
			if trimmed := strings.TrimSpace(key); trimmed != "" {
				return trimmed
			}
			return key
		},
		"keys/space", "delete/neighbours"),
	named("runs of space become one", "space is significant",
		func(key string) string {
			if fields := strings.Fields(key); len(fields) > 1 {
				return strings.Join(fields, " ")
			}
			return key
		},
		"keys/space"),
	{
		Name:  "a key goes into a text protocol as it is",
		Rule:  "no key can end a command",
		Kills: []string{"keys/injection"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				name, command, _ := strings.Cut(name, "\r\n")
				put(rs, name+"\r\n"[:2*min(len(command), 1)], r, now)
				switch word, rest, _ := strings.Cut(strings.TrimSpace(command), " "); word {
				case "delete", "DEL":
					delete(rs, rest)
				case "flush_all", "FLUSHALL":
					clear(rs)
				}
			}
		}),
	},
	named("what is not UTF-8 is replaced", "keys keep their bytes",
		func(key string) string { return strings.ToValidUTF8(key, "\uFFFD") },
		"keys/invalid-utf8", "keys/bytes-alone"),
	named("keys are normalised as Unicode", "composed and decomposed forms differ",
		strings.NewReplacer("e\u0301", "\u00e9", "A\u030a", "\u00c5", "\u212b", "\u00c5").Replace,
		"keys/unicode-forms"),
	named("keys go through a terminal, which drops what has no width", "every character is significant",
		strings.NewReplacer("\u200b", "").Replace,
		"keys/unicode-forms"),
	named("keys are folded to lower case", "keys are case sensitive", strings.ToLower,
		"keys/case", "basic/random-operations"),
	named("keys are folded to upper case, beyond ASCII only", "keys are case sensitive",
		func(key string) string {
			return strings.Map(func(r rune) rune {
				if r > 0x7f {
					return []rune(strings.ToUpper(string(r)))[0]
				}
				return r
			}, key)
		},
		"keys/case"),
	{
		Name:  "Get takes the key for a pattern",
		Rule:  "wildcards are literal",
		Kills: []string{"keys/literals"},
		New: remote.edit(func(c *client) {
			find := c.find
			c.find = func(rs rows, name string, now time.Time) (row, bool) {
				if strings.ContainsAny(name, "*?[") {
					for other := range rs {
						if ok, _ := path.Match(name, other); ok && other != name {
							return find(rs, other, now)
						}
					}
				}
				return find(rs, name, now)
			}
		}),
	},
	named("percent signs are decoded", "every character is literal",
		func(key string) string {
			if plain, err := url.PathUnescape(key); err == nil {
				return plain
			}
			return key
		},
		"keys/literals", "keys/injective"),
	named("braces choose a slot and are no part of the key", "every character is literal",
		strings.NewReplacer("{", "", "}", "").Replace,
		"keys/literals"),
	named("a backslash quotes what follows", "every character is literal",
		func(key string) string {
			if len(key) > 1 {
				return key[:1] + strings.ReplaceAll(key[1:], `\`, "")
			}
			return key
		},
		"keys/separators"),
	named("keys are cleaned like paths", "separators are literal", path.Clean, "keys/separators"),
	named("colons become slashes", "separators are literal",
		strings.NewReplacer(":", "/").Replace,
		"keys/separators"),
	named("dots become underscores", "separators are literal",
		strings.NewReplacer(".", "_").Replace,
		"keys/separators"),
	named("numbers are stored as numbers", "a key that looks like a number is only a key",
		func(key string) string {
			if n, err := strconv.Atoi(key); err == nil {
				return strconv.Itoa(n)
			}
			return key
		},
		"keys/odd"),
	named("quotes around a key are taken off", "a key in quotes is only a key",
		func(key string) string {
			if plain, err := strconv.Unquote(key); err == nil && plain != "" {
				return plain
			}
			return key
		},
		"keys/odd"),
	named("keys are escaped, unless they seem to be", "the encoding of keys is injective",
		func(key string) string {
			if plain, err := url.QueryUnescape(key); err == nil && plain != key {
				return key
			}
			return url.QueryEscape(key)
		},
		"keys/injective"),
	named("keys that are too long for the server are stored under their hash, beside plain ones", "the encoding of keys is injective",
		func(key string) string {
			if len(key) > 250 {
				return sha(key)
			}
			return key
		},
		"keys/injective"),
	named("a NUL in front marks encoded keys, and is taken off", "the encoding of keys is injective",
		func(key string) string {
			if len(key) > 1 {
				return strings.TrimPrefix(key, "\x00")
			}
			return key
		},
		"keys/injective"),
	{
		Name:  "deadlines are rows of their own beside the entries",
		Rule:  "the backend's own rows are out of reach",
		Kills: []string{"keys/reserved"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				put(rs, name, r, now)
				put(rs, name+":ttl", r, now)
			}
		}),
	},
	{
		Name:  "large values are stored in parts under names that a key can have",
		Rule:  "the backend's own rows are out of reach",
		Kills: []string{"keys/reserved"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				put(rs, name, r, now)
				if len(r.value) > 32_000 {
					put(rs, name+"\x00\x00\x00\x01", r, now)
				}
			}
		}),
	},
	{
		Name:  "a row holds the version of the format, and a key can have its name",
		Rule:  "the backend's own rows are out of reach",
		Kills: []string{"keys/reserved"},
		New: remote.edit(func(c *client) {
			put := c.put
			c.put = func(rs rows, name string, r row, now time.Time) {
				put(rs, name, r, now)
				if _, ok := rs["version"]; !ok {
					put(rs, "version", r, now)
				}
			}
		}),
	},
}

func sha(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
