package bolt

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

var (
	_ l2cache.MultiGetter  = (*Cache)(nil)
	_ l2cache.MultiSetter  = (*Cache)(nil)
	_ l2cache.MultiDeleter = (*Cache)(nil)
)

// A read transaction of GetMany ends after this many keys or bytes of values, for
// the reason that walkEntries has.
const (
	getManyKeys  = 1000
	getManyBytes = 4 << 20
)

// GetMany reads a page of keys at one instant.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, "bolt", "getmany", c.closed.Load()); err != nil {
		return nil, err
	}
	entries := make(map[string]l2cache.Entry, len(keys))
	failed := l2cache.KeyErrors{}
	for len(keys) > 0 {
		n, err := c.readPage(ctx, keys, entries)
		if err != nil { // of the key that the page ended at
			failed[keys[n]] = l2cache.NewError(ctx, "bolt", "getmany", keys[n], kind(err), err)
			n++
		}
		keys = keys[n:]
	}
	if len(failed) > 0 {
		return entries, failed
	}
	return entries, nil
}

// readPage reads the first of keys in one read transaction, puts what there is into
// entries, and returns how many it has dealt with. An error is that of the next.
func (c *Cache) readPage(ctx context.Context, keys []string, entries map[string]l2cache.Entry) (n int, err error) {
	if err := c.refused(ctx); err != nil {
		return 0, err
	}
	err = c.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(c.bucket)
		if b == nil {
			n = len(keys)
			return nil
		}
		cursor, now, size := b.Cursor(), time.Now(), 0
		var k rowKey
		for n < len(keys) && n < getManyKeys && size < getManyBytes {
			k = appendRowKey(k[:0], keys[n])
			e, err := read(cursor, k, now)
			switch {
			case err == nil:
				entries[keys[n]] = e
				size += len(e.Value)
			case err != l2cache.ErrNotFound:
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// SetMany stores copies of the values.
func (c *Cache) SetMany(ctx context.Context, items []l2cache.Item) error {
	return c.writeMany(ctx, "setmany", len(items), func(i int) (string, *write, error) {
		item := items[i]
		w, err := c.newSet(item.Key, item.Value, item.TTL)
		return item.Key, w, err
	})
}

// DeleteMany removes keys.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	return c.writeMany(ctx, "deletemany", len(keys), func(i int) (string, *write, error) {
		return keys[i], newDelete(keys[i], 1), nil
	})
}

// writeMany has n writes committed, as many at a time as one commit takes. After
// the end of ctx or a timeout it begins no other commit.
func (c *Cache) writeMany(ctx context.Context, op string, n int, prepare func(i int) (key string, w *write, err error)) error {
	if err := c.preflightWrites(ctx, op); err != nil {
		return err
	}
	failed := l2cache.KeyErrors{}
	fail := func(key string, err error) {
		failed[key] = l2cache.NewError(ctx, "bolt", op, key, kind(err), err)
	}
	var (
		page  []*write
		size  int // of page, in rows
		ended error
	)
	commit := func() {
		if ended == nil {
			ended = c.doAll(ctx, page)
		}
		for _, w := range page {
			switch {
			case ended != nil:
				fail(w.key, ended)
			case w.err != nil:
				fail(w.key, w.err)
			}
		}
		page, size = nil, 0 // not page[:0]: doAll may keep it
	}
	for i := range n {
		key, w, err := prepare(i)
		if err != nil {
			fail(key, err)
			continue
		}
		if len(page) > 0 && size+w.rows > c.maxCommitRows {
			commit()
		}
		page, size = append(page, w), size+w.rows
	}
	if len(page) > 0 {
		commit()
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}
