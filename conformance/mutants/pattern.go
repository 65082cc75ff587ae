package mutants

import (
	"context"
	"path"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// matched is a mutant that matches patterns in another way.
func matched(name, rule string, match func(pattern, key string) bool, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error {
			return c.deletePattern(ctx, pattern, match)
		}}
	}, kills...)
}

// deleted is a mutant that does another thing with a pattern.
func deleted(name, rule string, f func(ctx context.Context, c *client, pattern string) error, kills ...string) Mutant {
	return patched(name, rule, func(c *client) patch {
		return patch{deletePattern: func(ctx context.Context, pattern string) error { return f(ctx, c, pattern) }}
	}, kills...)
}

var patternMutants = []Mutant{
	matched("a pattern is looked for anywhere in the key", "a pattern is matched against the whole key",
		func(pattern, key string) bool { return l2cache.MatchPattern("*"+pattern+"*", key) },
		"delete-pattern/matches", "delete-pattern/quoted", "delete-pattern/prefix"),
	matched("a pattern is matched against the beginning of the key", "a pattern is matched against the whole key",
		func(pattern, key string) bool { return l2cache.MatchPattern(pattern+"*", key) },
		"delete-pattern/matches", "delete-pattern/quoted"),
	matched("in patterns [a-z] is a class", "all but * ? and the backslash is literal",
		func(pattern, key string) bool {
			if !strings.ContainsAny(pattern, "[]") {
				return l2cache.MatchPattern(pattern, key)
			}
			ok, err := path.Match(pattern, key)
			return ok && err == nil
		},
		"delete-pattern/matches", "delete-pattern/quoted", "delete-pattern/prefix"),
	matched("patterns are folded in case", "case counts",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(strings.ToLower(pattern), strings.ToLower(key))
		},
		"delete-pattern/matches"),
	matched("? is one character, of several bytes too", "? is one byte",
		func(pattern, key string) bool {
			ones := strings.Map(func(r rune) rune {
				if r > 0x7f {
					return 0x7f
				}
				return r
			}, key)
			return l2cache.MatchPattern(pattern, key) && len(ones) == len(key) || l2cache.MatchPattern(pattern, ones)
		},
		"delete-pattern/matches"),
	matched("* stops at a slash", "* is any run of bytes",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(pattern, key) && strings.Count(pattern, "/") == strings.Count(key, "/")
		},
		"delete-pattern/matches"),
	matched("* is at least one byte", "* is any run of bytes",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(pattern, key) &&
				(strings.Contains(pattern, `\`) || l2cache.MatchPattern(strings.ReplaceAll(pattern, "*", "?*"), key))
		},
		"delete-pattern/matches", "delete-pattern/prefix"),
	matched("a . in patterns is any byte", "all but * ? and the backslash is literal",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(pattern, key) || l2cache.MatchPattern(strings.ReplaceAll(pattern, ".", "?"), key)
		},
		"delete-pattern/matches"),
	matched("a backslash in patterns is literal", "a backslash takes the meaning from the byte after it",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(strings.ReplaceAll(pattern, `\`, `\\`), key)
		},
		"delete-pattern/quoted", "delete-pattern/matches"),
	matched("a quoted * is no longer literal when the pattern goes on", "QuotePattern makes a pattern for one key alone",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(pattern, key) ||
				strings.Contains(pattern, `\*`) && !strings.HasSuffix(pattern, `\*`) && l2cache.MatchPattern(strings.ReplaceAll(pattern, `\*`, "*"), key)
		},
		"delete-pattern/prefix", "delete-pattern/quoted"),
	matched("backslashes are lost on the way to the server", "a pattern stays behind the prefix",
		func(pattern, key string) bool {
			return l2cache.MatchPattern(pattern, key) || l2cache.MatchPattern(strings.ReplaceAll(pattern, `\`, ""), key)
		},
		"delete-pattern/prefix", "delete-pattern/quoted"),
	matched("a pattern that begins as another prefix does matches behind that", "a pattern stays behind the prefix",
		func(pattern, key string) bool {
			if l2cache.MatchPattern(pattern, key) {
				return true
			}
			_, rest, ok := strings.Cut(pattern, ":")
			_, tail, behind := strings.Cut(key, ":")
			return ok && behind && rest != "" && l2cache.MatchPattern(rest, tail) && key[0] == pattern[0]
		},
		"delete-pattern/prefix"),
	deleted("DeletePattern deletes the first page", "every match is deleted",
		func(ctx context.Context, c *client, pattern string) error {
			n := 0
			return c.deletePattern(ctx, pattern, func(pattern, key string) bool {
				if n == 1000 || !l2cache.MatchPattern(pattern, key) {
					return false
				}
				n++
				return true
			})
		},
		"delete-pattern/many"),
	deleted("DeletePattern looks at the first 1000 keys of a listing", "every match is deleted",
		func(ctx context.Context, c *client, pattern string) error {
			n := 0
			return c.deletePattern(ctx, pattern, func(pattern, key string) bool {
				n++
				return n <= 1000 && l2cache.MatchPattern(pattern, key)
			})
		},
		"delete-pattern/many"),
	deleted("DeletePattern with more than 1000 matches deletes everything", "nothing else is deleted",
		func(ctx context.Context, c *client, pattern string) error {
			n := 0
			return c.deletePattern(ctx, pattern, func(pattern, key string) bool {
				if l2cache.MatchPattern(pattern, key) {
					n++
				}
				return n > 1000 || l2cache.MatchPattern(pattern, key)
			})
		},
		"delete-pattern/many"),
	deleted("DeletePattern returns before it has deleted", "what matches is gone when it returns",
		func(ctx context.Context, c *client, pattern string) error {
			if err := c.begin(ctx, "deletepattern"); err != nil {
				return err
			}
			if err := l2cache.CheckPattern(pattern); err != nil {
				return l2cache.NewError(ctx, "sim", "deletepattern", pattern, nil, err)
			}
			time.AfterFunc(2*time.Second, func() { c.DeletePattern(context.Background(), pattern) })
			return nil
		},
		"delete-pattern/many", "delete-pattern/matches"),
	deleted("DeletePattern that matches nothing is the driver's error", "a pattern that nothing matches is no error",
		func(ctx context.Context, c *client, pattern string) error {
			n := 0
			err := c.deletePattern(ctx, pattern, func(pattern, key string) bool {
				ok := l2cache.MatchPattern(pattern, key)
				if ok {
					n++
				}
				return ok
			})
			if err == nil && n == 0 {
				err = c.failure(ctx, "deletepattern", pattern, errNoKey)
			}
			return err
		},
		"delete-pattern/none"),
	deleted("DeletePattern that matches nothing is ErrNotFound", "a pattern that nothing matches is no error",
		func(ctx context.Context, c *client, pattern string) error {
			n := 0
			err := c.deletePattern(ctx, pattern, func(pattern, key string) bool {
				ok := l2cache.MatchPattern(pattern, key)
				if ok {
					n++
				}
				return ok
			})
			if err == nil && n == 0 {
				err = l2cache.ErrNotFound
			}
			return err
		},
		"delete-pattern/none"),
	deleted("DeletePattern takes the last backslash of a pattern for itself", "a pattern that ends in a lone backslash is path.ErrBadPattern",
		func(ctx context.Context, c *client, pattern string) error {
			if l2cache.CheckPattern(pattern) != nil && strings.HasSuffix(pattern, `\`) {
				pattern += `\`
			}
			return c.DeletePattern(ctx, pattern)
		},
		"delete-pattern/bad"),
	deleted("a bad pattern deletes everything, and is an error", "a bad pattern deletes nothing",
		func(ctx context.Context, c *client, pattern string) error {
			if l2cache.CheckPattern(pattern) != nil {
				c.deletePattern(ctx, "bad", func(string, string) bool { return true })
			}
			return c.DeletePattern(ctx, pattern)
		},
		"delete-pattern/bad"),
	deleted("a bad pattern is ErrUnavailable", "a bad pattern is path.ErrBadPattern",
		func(ctx context.Context, c *client, pattern string) error {
			if err := l2cache.CheckPattern(pattern); err != nil {
				return l2cache.NewError(ctx, "sim", "deletepattern", pattern, l2cache.ErrUnavailable, err)
			}
			return c.DeletePattern(ctx, pattern)
		},
		"delete-pattern/bad"),
	deleted("DeletePattern looks at its ctx behind the first page", "with a ctx that has ended nothing is deleted",
		func(ctx context.Context, c *client, pattern string) error {
			if err := c.DeletePattern(context.WithoutCancel(ctx), pattern); err != nil {
				return err
			}
			return c.begin(ctx, "deletepattern")
		},
		"delete-pattern/bad"),
	deleted("an error between two pages ends DeletePattern silently", "what cannot be answered is ErrUnavailable",
		func(ctx context.Context, c *client, pattern string) error {
			err := c.DeletePattern(ctx, pattern)
			if unavailable(err) {
				return nil
			}
			return err
		},
		"delete-pattern/down"),
	deleted("DeletePattern that cannot be answered matches nothing, as ErrNotFound", "what cannot be answered is ErrUnavailable",
		func(ctx context.Context, c *client, pattern string) error {
			err := c.DeletePattern(ctx, pattern)
			if unavailable(err) {
				return l2cache.ErrNotFound
			}
			return err
		},
		"delete-pattern/down"),
}
