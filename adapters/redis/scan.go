package redis

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

const (
	// pageSize is SCAN's COUNT: how many keys of the database the server looks at
	// for a page, of which those come back that match.
	pageSize = 1000

	// maxStars is how many * the server's matching can follow. A pattern with more
	// matches nothing (stringmatchlen in its util.c, since 6.2.16 and 7.2.6).
	maxStars = 1000
)

var (
	_ l2cache.PatternDeleter = (*Cache)(nil)
	_ l2cache.Scanner        = (*Cache)(nil)
)

// DeletePattern removes the keys that match by SCAN and an UNLINK for each page.
func (c *Cache) DeletePattern(ctx context.Context, pattern string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletepattern", c.isClosed()); err != nil {
		return err
	}
	if err := l2cache.CheckPattern(pattern); err != nil {
		return l2cache.NewError(ctx, name, "deletepattern", pattern, nil, err)
	}
	for keys, err := range c.pages(ctx, glob(pattern)) {
		if err != nil {
			return c.newError(ctx, "deletepattern", pattern, err)
		}
		errs := l2cache.KeyErrors{}
		c.unlink(ctx, "deletepattern", errs, slices.DeleteFunc(keys, func(key string) bool {
			return !l2cache.MatchPattern(pattern, key)
		}))
		for _, err := range errs {
			return err
		}
	}
	return nil
}

// Scan lists keys by SCAN, with an STRLEN and a PTTL for each key of a page, in a
// transaction.
func (c *Cache) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		if err := l2cache.PreflightNoKey(ctx, name, "scan", c.isClosed()); err != nil {
			yield(l2cache.Info{}, err)
			return
		}
		for keys, err := range c.pages(ctx, glob(l2cache.QuotePattern(prefix)+"*")) {
			if err != nil {
				yield(l2cache.Info{}, c.newError(ctx, "scan", prefix, err))
				return
			}
			if !c.yieldPage(ctx, prefix, keys, yield) {
				return
			}
		}
	}
}

// yieldPage yields what there is under keys, and reports whether to go on.
func (c *Cache) yieldPage(ctx context.Context, prefix string, keys []string, yield func(l2cache.Info, error) bool) bool {
	reads := newReads(slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix) }))
	if len(reads) == 0 {
		return true
	}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		scatter(ctx, deadline, c, map[*node]error{}, reads, func(ctx context.Context, deadline time.Time, n *node, reads []*read) error {
			return c.runPairsOf(ctx, deadline, n, "strlen", reads)
		})
		return nil
	})
	if err != nil {
		yield(l2cache.Info{}, c.newError(ctx, "scan", prefix, err))
		return false
	}
	then := time.Now()
	for _, r := range reads {
		if r.err == redis.Nil || kind(r.err) == l2cache.ErrCorrupt {
			continue
		}
		if r.err != nil {
			yield(l2cache.Info{}, c.newError(ctx, "scan", r.key, r.err))
			return false
		}
		if err := l2cache.PreflightNoKey(ctx, name, "scan", c.isClosed()); err != nil {
			yield(l2cache.Info{}, err)
			return false
		}
		info := l2cache.Info{Key: r.key, TTL: r.entry.TTL, Size: r.size}
		if info.TTL != l2cache.NoExpiry { // the loop may have taken its time
			info.TTL -= time.Since(then).Truncate(resolution)
		}
		if info.TTL > 0 && !yield(info, nil) {
			return false
		}
	}
	return true
}

// maxBegins is how many times a scan is begun because the server's process changed.
const maxBegins = 4

var errProcess = errors.New("the process of the server has changed again and again")

// pages yields the valid keys that match, or more, page by page, some of them more
// than once. An error is the last thing that comes.
func (c *Cache) pages(ctx context.Context, match string) iter.Seq2[[]string, error] {
	if c.cluster {
		return c.clusterPages(ctx, match)
	}
	return func(yield func([]string, error) bool) {
		n, err := c.servers.of(ctx, time.Now().Add(c.opTimeout), "")
		if err != nil {
			yield(nil, err)
			return
		}
		c.pagesOf(ctx, n, match)(yield)
	}
}

// pagesOf yields what n has.
//
// A cursor means something to one process of the server: another one hashes keys by
// another seed, so what is left to scan there is not what was left. So INFO comes with
// each SCAN, on its connection, and if another process answers all is begun again.
func (c *Cache) pagesOf(ctx context.Context, n *node, match string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		var cursor uint64
		var process string
		for begins := 1; ; {
			keys, next, by, err := c.page(ctx, n, match, cursor)
			if err == nil && cursor != 0 && by != process {
				if begins < maxBegins {
					begins++
					cursor = 0
					continue
				}
				keys, err = nil, errProcess
			}
			if !yield(keys, err) || err != nil || next == 0 {
				return
			}
			cursor, process = next, by
		}
	}
}

// page returns the keys of one SCAN, the cursor of the next, and the run_id of the
// server's process.
func (c *Cache) page(ctx context.Context, n *node, match string, cursor uint64) (keys []string, next uint64, process string, err error) {
	var scan *redis.ScanCmd
	var info *redis.StringCmd
	err = c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		cmds := c.execRead(ctx, deadline, n, func() []redis.Cmder {
			scan = redis.NewScanCmd(ctx, nil, "scan", cursor, "match", match, "count", pageSize)
			info = redis.NewStringCmd(ctx, "info", "server")
			return []redis.Cmder{scan, info}
		})
		return cmp.Or(cmds[0].Err(), cmds[1].Err())
	})
	if err != nil {
		return nil, 0, "", err
	}
	keys, next = scan.Val()
	for line := range strings.Lines(info.Val()) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			process = id
		}
	}
	return validKeys(keys), next, process, nil
}

// validKeys removes what cannot be the key of an entry.
func validKeys(keys []string) []string {
	return slices.DeleteFunc(keys, func(key string) bool { return l2cache.CheckKey(key, l2cache.MaxKeyLen) != nil })
}

// glob makes a pattern the server's: there a [ is special, too. What is special is
// quoted with a backslash in both.
func glob(pattern string) string {
	if strings.Count(pattern, "*") > maxStars {
		pattern = l2cache.QuotePattern(l2cache.PatternPrefix(pattern)) + "*"
	}
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			b.WriteByte('\\')
			i++
		case '[':
			b.WriteByte('\\')
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}
