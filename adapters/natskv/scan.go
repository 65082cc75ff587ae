package natskv

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// scanPage is how many keys Scan reads before it yields them, and how many
// DeletePattern deletes before it looks at ctx anew.
const scanPage = 1000

// Scan lists the subjects that there are, then reads what is under them, page by page.
func (c *Cache) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		if err := l2cache.PreflightNoKey(ctx, name, "scan", c.closed.Load()); err != nil {
			yield(l2cache.Info{}, err)
			return
		}
		for keys, err := range c.list(ctx, prefix) {
			for page := range slices.Chunk(keys, scanPage) {
				var rows []row
				if rows, err = c.rows(ctx, page); err != nil {
					break
				}
				for _, r := range rows {
					if err := l2cache.PreflightNoKey(ctx, name, "scan", c.closed.Load()); err != nil {
						yield(l2cache.Info{}, err)
						return
					}
					left, live := r.Remaining(time.Now(), resolution) // the loop may have taken its time
					if live && !yield(l2cache.Info{Key: r.key, TTL: left, Size: r.size}, nil) {
						return
					}
				}
			}
			if err != nil {
				yield(l2cache.Info{}, c.fail(ctx, "scan", prefix, err))
				return
			}
		}
	}
}

// A row is what Scan keeps of an entry.
type row struct {
	envelope.Header
	key  string
	size int
}

// rows reads keys. What is not an entry of this package is not in the result.
func (c *Cache) rows(ctx context.Context, keys []string) ([]row, error) {
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		return nil, err
	}
	var rows []row
	var failed error
	c.readAll(ctx, b, keys, func(i int, m message, err error) {
		if err == nil {
			if h, value, err := envelope.Decode(m.data); err == nil {
				rows = append(rows, row{h, keys[i], len(value)})
			}
		} else if err != l2cache.ErrNotFound && !errors.Is(err, l2cache.ErrCorrupt) {
			failed = err
		}
	})
	return rows, failed
}

// DeletePattern lists the subjects that there are, and deletes those whose keys match.
func (c *Cache) DeletePattern(ctx context.Context, pattern string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletepattern", c.closed.Load()); err != nil {
		return err
	}
	if err := l2cache.CheckPattern(pattern); err != nil {
		return c.fail(ctx, "deletepattern", pattern, err)
	}
	for keys, err := range c.list(ctx, l2cache.PatternPrefix(pattern)) {
		keys = slices.DeleteFunc(keys, func(key string) bool { return !l2cache.MatchPattern(pattern, key) })
		for page := range slices.Chunk(keys, scanPage) {
			if err = c.deletePage(ctx, page); err != nil {
				break
			}
		}
		if err != nil {
			return c.fail(ctx, "deletepattern", pattern, err)
		}
	}
	return nil
}

// deletePage deletes keys, and returns an error of one of them.
func (c *Cache) deletePage(ctx context.Context, keys []string) error {
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		return err
	}
	c.overwriteAll(ctx, b, removal, asItems(keys), func(_ int, e error) {
		if e != nil {
			err = e
		}
	})
	return err
}
