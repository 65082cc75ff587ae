package bolt

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

var (
	_ l2cache.Toucher = (*Cache)(nil)
	_ l2cache.Adder   = (*Cache)(nil)
)

// Touch rewrites the row of a live entry with another deadline. That the chunks of
// a long value are whole is for a read to find out.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if err := c.preflightWrite(ctx, "touch", key); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "touch", key, nil, err)
	}
	k, h := newRowKey(key), envelope.NewHeader(time.Now(), ttl)
	var missing error // or damaged
	err = c.do(ctx, &write{
		key:      key,
		rows:     1,
		deadline: ends(h),
		apply: func(b *bbolt.Bucket) (bool, error) {
			var row []byte
			if row, missing = live(b.Cursor(), k, time.Now()); missing != nil {
				return false, nil
			}
			return true, b.Put(k, withHeader(k, row, h))
		},
	})
	if err == nil {
		err = missing
	}
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "touch", key, kind(err), err)
	}
	return nil
}

// Add stores a copy of value if there is no live entry.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := c.preflightWrite(ctx, "add", key); err != nil {
		return false, err
	}
	w, err := c.newSet(key, value, ttl)
	if err != nil {
		return false, l2cache.NewError(ctx, "bolt", "add", key, nil, err)
	}
	k, put := newRowKey(key), w.apply
	var taken error // ErrNotFound: it is free
	w.apply = func(b *bbolt.Bucket) (bool, error) {
		if _, taken = live(b.Cursor(), k, time.Now()); taken != l2cache.ErrNotFound {
			return false, nil
		}
		return put(b)
	}
	err = c.do(ctx, w)
	if err == nil && taken == l2cache.ErrNotFound {
		return true, nil
	}
	if err == nil {
		err = taken
	}
	if err != nil {
		return false, l2cache.NewError(ctx, "bolt", "add", key, kind(err), err)
	}
	return false, nil
}
