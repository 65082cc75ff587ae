package redis

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

// A batch goes in parts, one after another, each of them with the operation timeout
// to itself. Reads are bounded as those that share a round trip are, by batchSize.
const (
	maxWrites     = 1000    // keys in a part
	maxWriteBytes = 1 << 20 // at which a part ends
)

var (
	_ l2cache.MultiGetter  = (*Cache)(nil)
	_ l2cache.MultiSetter  = (*Cache)(nil)
	_ l2cache.MultiDeleter = (*Cache)(nil)
)

// GetMany reads keys by MGET and a PTTL for each, in a transaction.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, name, "getmany", c.isClosed()); err != nil {
		return nil, err
	}
	entries := make(map[string]l2cache.Entry, len(keys))
	errs := l2cache.KeyErrors{}
	for len(keys) > 0 {
		reads := newReads(keys[:min(c.batchSize(), len(keys))])
		err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
			return c.runColumns(ctx, deadline, reads)
		})
		if err != nil {
			c.fail(ctx, "getmany", errs, keys, err)
			break
		}
		for _, r := range reads {
			switch r.err {
			case nil:
				entries[r.key] = r.entry
			case redis.Nil:
			default:
				errs[r.key] = c.newError(ctx, "getmany", r.key, r.err)
			}
		}
		keys = keys[len(reads):]
	}
	return entries, orNil(errs)
}

// SetMany stores items by a pipeline of SETs.
func (c *Cache) SetMany(ctx context.Context, items []l2cache.Item) error {
	if err := l2cache.PreflightNoKey(ctx, name, "setmany", c.isClosed()); err != nil {
		return err
	}
	errs := l2cache.KeyErrors{}
	for len(items) > 0 {
		var keys []string
		var cmds []redis.Cmder
		n := 0
		for bytes := 0; n < len(items) && len(keys) < maxWrites && bytes < maxWriteBytes; n++ {
			item := items[n]
			args, err := c.setArgs(ctx, "setmany", item.Key, item.Value, item.TTL)
			if err != nil {
				errs[item.Key] = err
				continue
			}
			keys = append(keys, item.Key)
			cmds = append(cmds, once{redis.NewStatusCmd(ctx, args...)})
			bytes += len(item.Value)
		}
		items = items[n:]
		if err := c.write(ctx, "setmany", errs, keys, cmds); err != nil {
			for _, item := range items {
				errs[item.Key] = c.newError(ctx, "setmany", item.Key, err)
			}
			break
		}
	}
	return orNil(errs)
}

// DeleteMany removes keys by UNLINK, or by one for each key if the server does not
// permit one of them.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletemany", c.isClosed()); err != nil {
		return err
	}
	errs := l2cache.KeyErrors{}
	var broken error // of all that is left
	for part := range slices.Chunk(keys, maxWrites) {
		err := broken
		if err == nil {
			err = c.unlink(ctx, part)
		}
		switch {
		case redis.IsPermissionError(err):
			cmds := make([]redis.Cmder, len(part))
			for i, key := range part {
				cmds[i] = once{redis.NewIntCmd(ctx, "unlink", key)}
			}
			broken = c.write(ctx, "deletemany", errs, part, cmds)
		case err != nil:
			c.fail(ctx, "deletemany", errs, part, err)
			if !answered(err) {
				broken = err
			}
		}
	}
	return orNil(errs)
}

// unlink removes keys, all or none of them.
func (c *Cache) unlink(ctx context.Context, keys []string) error {
	args := make([]any, 1, 1+len(keys))
	args[0] = "unlink"
	for _, key := range keys {
		args = append(args, key)
	}
	return c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		return c.exec(ctx, deadline, []redis.Cmder{once{redis.NewIntCmd(ctx, args...)}})
	})
}

// runColumns does reads as an MGET and PTTLs in a transaction: MULTI, MGET, PTTL,
// PTTL, …, EXEC. The error is that of all.
func (c *Cache) runColumns(ctx context.Context, deadline time.Time, reads []*read) error {
	var replies *columns
	cmds := c.execRead(ctx, deadline, func() []redis.Cmder {
		replies = newColumns(reads)
		mget := make([]any, 1, 1+len(reads))
		mget[0] = "mget"
		cmds := make([]redis.Cmder, 2, 3+len(reads))
		for _, r := range reads {
			var key any = r.key
			mget = append(mget, key)
			cmds = append(cmds, raw(replies, "pttl", key))
		}
		cmds[0], cmds[1] = raw(replies, "multi"), raw(replies, mget...)
		return append(cmds, raw(replies, "exec"))
	})
	if err := cmds[len(cmds)-1].Err(); err != nil {
		return err
	}
	if replies.refused != nil {
		c.rescue(ctx, deadline, "get", reads)
	}
	c.measure(reads)
	return nil
}

func newReads(keys []string) []*read {
	all := make([]read, len(keys))
	reads := make([]*read, len(keys))
	for i, key := range keys {
		all[i].key = key
		reads[i] = &all[i]
	}
	return reads
}

// write has cmds done, of which each is for one of keys, and puts their errors into
// errs. It returns an error if the next ones would fail like these.
func (c *Cache) write(ctx context.Context, op string, errs l2cache.KeyErrors, keys []string, cmds []redis.Cmder) (broken error) {
	if len(cmds) == 0 {
		return nil
	}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		c.exec(ctx, deadline, cmds) // the error is in cmds
		return nil
	})
	if err != nil {
		c.fail(ctx, op, errs, keys, err)
		return err
	}
	for i, key := range keys {
		if err := cmds[i].Err(); err != nil {
			errs[key] = c.newError(ctx, op, key, err)
			if !answered(err) {
				broken = err
			}
		}
	}
	return broken
}

// fail puts err into errs for all of keys.
func (c *Cache) fail(ctx context.Context, op string, errs l2cache.KeyErrors, keys []string, err error) {
	for _, key := range keys {
		errs[key] = c.newError(ctx, op, key, err)
	}
}

func orNil(errs l2cache.KeyErrors) error {
	if len(errs) == 0 {
		return nil
	}
	return errs
}
