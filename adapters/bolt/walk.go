package bolt

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

var (
	_ l2cache.PatternDeleter = (*Cache)(nil)
	_ l2cache.Scanner        = (*Cache)(nil)
)

const (
	// A read transaction of a walk ends after this many entries or bytes: while it is
	// open, bbolt cannot remap the file, and a write that needs that makes all new
	// readers wait too.
	walkEntries = 20_000
	walkBytes   = 16 << 20
	// A page of Scan has this many entries at most.
	scanEntries = 1000
)

// walk shows visit the rows of entries that begin with prefix, from from on, until
// it has enough, in one read transaction. It returns where to go on, nil if nothing
// is left. It does not verify the rows, and they are bbolt's.
func (c *Cache) walk(prefix, from rowKey, visit func(k rowKey, row []byte) (enough bool)) (next rowKey, err error) {
	err = c.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(c.bucket)
		if b == nil {
			return nil
		}
		cursor := b.Cursor()
		entries, size, enough := 0, 0, false
		for k, row := cursor.Seek(from); bytes.HasPrefix(k, prefix); k, row = cursor.Next() {
			if enough || entries == walkEntries || size >= walkBytes {
				if bytes.Compare(k, from) <= 0 { // who goes on there goes round in circles
					return fmt.Errorf("%w: keys out of order", l2cache.ErrCorrupt)
				}
				next = bytes.Clone(k)
				return nil
			}
			entries++
			size += len(row)
			enough = visit(k, row)
		}
		return nil
	})
	return next, err
}

// DeletePattern finds a page of keys that match, and deletes them in a commit that
// it shares with the writes of others; and so on. It deletes damaged rows too.
func (c *Cache) DeletePattern(ctx context.Context, pattern string) error {
	if err := c.preflightWrites(ctx, "deletepattern"); err != nil {
		return err
	}
	err := l2cache.CheckPattern(pattern)
	if err == nil {
		err = c.deletePattern(ctx, pattern)
	}
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "deletepattern", pattern, kind(err), err)
	}
	return nil
}

func (c *Cache) deletePattern(ctx context.Context, pattern string) error {
	prefix := newRowKey(l2cache.PatternPrefix(pattern))
	for from := prefix; from != nil; {
		if err := c.refused(ctx); err != nil {
			return err
		}
		var page []*write
		size := 0 // of page, in rows
		next, err := c.walk(prefix, from, func(k rowKey, row []byte) bool {
			if key := string(k.user()); l2cache.MatchPattern(pattern, key) {
				_, rows, _ := peek(row)
				page = append(page, newDelete(key, max(rows, 1)))
				size += page[len(page)-1].rows
			}
			return size >= c.maxCommitRows
		})
		if err == nil && len(page) > 0 {
			err = c.doAll(ctx, page)
		}
		if err != nil {
			return err
		}
		for _, w := range page {
			if w.err != nil {
				return w.err
			}
		}
		from = next
	}
	return nil
}

// A listed is what Scan keeps of an entry until it yields it.
type listed struct {
	key    string
	header envelope.Header
	size   int
}

// Scan reads a page of rows, ends its transaction, and then yields. It leaves out
// what is damaged: the error of the first such row comes last.
func (c *Cache) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		fail := func(key string, err error) {
			yield(l2cache.Info{}, l2cache.NewError(ctx, "bolt", "scan", key, kind(err), err))
		}
		var (
			start      = newRowKey(prefix)
			page       []listed
			damagedKey string
			damaged    error
		)
		for from := start; from != nil; {
			if err := c.refused(ctx); err != nil {
				fail("", err)
				return
			}
			page = page[:0]
			next, err := c.walk(start, from, func(k rowKey, row []byte) bool {
				h, kind, body, err := decodeRow(k, row)
				if err == nil {
					page = append(page, listed{string(k.user()), h, valueLen(kind, body)})
				} else if damaged == nil {
					damagedKey, damaged = string(k.user()), err
				}
				return len(page) == scanEntries
			})
			for _, e := range page {
				if err := l2cache.PreflightNoKey(ctx, "bolt", "scan", c.closed.Load()); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
				left, live := e.header.Remaining(time.Now(), resolution)
				if live && !yield(l2cache.Info{Key: e.key, TTL: left, Size: e.size}, nil) {
					return
				}
			}
			if err != nil {
				fail("", err)
				return
			}
			from = next
		}
		if damaged != nil {
			fail(damagedKey, damaged)
		}
	}
}
