package memcached

import (
	"context"
	"errors"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
)

var _ l2cache.MultiGetter = (*Cache)(nil)

// GetMany asks for chunks of at most manyKeys keys, that bring about manyBytes, one
// after another. Each chunk has op_timeout to itself.
const (
	manyKeys  = 1000
	manyBytes = 4 << 20
)

// GetMany sends a gets of many keys to each server, to all of them at a time.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, name, "getmany", c.closed()); err != nil {
		return nil, err
	}
	all := make([]read, len(keys))
	reads := make([]*read, len(keys))
	for i, key := range keys {
		all[i].key = itemKey(key)
		reads[i] = &all[i]
	}
	c.store.getMany(ctx, reads)
	entries := make(map[string]l2cache.Entry, len(keys))
	errs := l2cache.KeyErrors{}
	now := time.Now()
	for i, r := range reads {
		key, err := keys[i], r.err
		var e l2cache.Entry
		if err == nil {
			e, err = entry(r.item, key, now)
		}
		switch {
		case err == nil:
			entries[key] = e
		case err == l2cache.ErrNotFound, errors.Is(err, memcache.ErrCacheMiss):
		default:
			errs[key] = c.fail(ctx, "getmany", key, err)
		}
	}
	if len(errs) > 0 {
		return entries, errs
	}
	return entries, nil
}
