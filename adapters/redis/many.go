package redis

import (
	"context"
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

// GetMany reads keys by MGET and a PTTL for each, in a transaction; in a cluster, by a
// GET and a PTTL in a transaction for each.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, name, "getmany", c.isClosed()); err != nil {
		return nil, err
	}
	do := c.runColumns
	if c.cluster {
		do = func(ctx context.Context, deadline time.Time, n *node, reads []*read) error {
			defer c.measure(reads)
			return c.runPairsOf(ctx, deadline, n, "get", reads)
		}
	}
	entries := make(map[string]l2cache.Entry, len(keys))
	errs := l2cache.KeyErrors{}
	broken := map[*node]error{}
	for len(keys) > 0 {
		reads := newReads(keys[:min(c.batchSize(), len(keys))])
		err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
			scatter(ctx, deadline, c, broken, reads, do)
			return nil
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

// A write is a command about a key that is sent together with others.
type write struct {
	call
	cmd redis.Cmder
}

// SetMany stores items by a pipeline of SETs.
func (c *Cache) SetMany(ctx context.Context, items []l2cache.Item) error {
	if err := l2cache.PreflightNoKey(ctx, name, "setmany", c.isClosed()); err != nil {
		return err
	}
	errs := l2cache.KeyErrors{}
	broken := map[*node]error{}
	for len(items) > 0 {
		var writes []*write
		n := 0
		for bytes := 0; n < len(items) && len(writes) < maxWrites && bytes < maxWriteBytes; n++ {
			item := items[n]
			args, err := c.setArgs(ctx, "setmany", item.Key, item.Value, item.TTL)
			if err != nil {
				errs[item.Key] = err
				continue
			}
			writes = append(writes, &write{call{key: item.Key}, once{redis.NewStatusCmd(ctx, args...)}})
			bytes += len(item.Value)
		}
		items = items[n:]
		if err := c.write(ctx, "setmany", errs, broken, writes, c.runWrites); err != nil {
			for _, item := range items {
				errs[item.Key] = c.newError(ctx, "setmany", item.Key, err)
			}
			break
		}
	}
	return orNil(errs)
}

// DeleteMany removes keys by UNLINK, or by one for each key in a cluster, or if the
// server does not permit one of them.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletemany", c.isClosed()); err != nil {
		return err
	}
	errs := l2cache.KeyErrors{}
	c.unlink(ctx, "deletemany", errs, keys)
	return orNil(errs)
}

// unlink removes keys, and puts the errors of those that it does not into errs.
func (c *Cache) unlink(ctx context.Context, op string, errs l2cache.KeyErrors, keys []string) {
	broken := map[*node]error{}
	for len(keys) > 0 {
		writes := make([]*write, min(maxWrites, len(keys)))
		for i := range writes {
			writes[i] = &write{call{key: keys[i]}, once{redis.NewIntCmd(ctx, "unlink", keys[i])}}
		}
		if err := c.write(ctx, op, errs, broken, writes, c.runUnlinks); err != nil {
			c.fail(ctx, op, errs, keys[len(writes):], err)
			return
		}
		keys = keys[len(writes):]
	}
}

// runColumns does reads as an MGET and PTTLs in a transaction: MULTI, MGET, PTTL,
// PTTL, …, EXEC. The error is that the server has not answered.
func (c *Cache) runColumns(ctx context.Context, deadline time.Time, n *node, reads []*read) error {
	var replies *columns
	cmds := c.execRead(ctx, deadline, n, func() []redis.Cmder {
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
		failedReads(reads, err)
		return err
	}
	defer c.measure(reads)
	if replies.refused != nil {
		return c.rescue(ctx, deadline, n, "get", refusedReads(reads, replies.refused))
	}
	return nil
}

func newReads(keys []string) []*read {
	all := make([]read, len(keys))
	reads := make([]*read, len(keys))
	for i, key := range keys {
		all[i].call.key = key
		reads[i] = &all[i]
	}
	return reads
}

// write has writes done by do, and puts their errors into errs. It returns an error if all
// that is to come would fail like these.
func (c *Cache) write(ctx context.Context, op string, errs l2cache.KeyErrors, broken map[*node]error, writes []*write,
	do func(context.Context, time.Time, *node, []*write) error,
) error {
	if len(writes) == 0 {
		return nil
	}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		scatter(ctx, deadline, c, broken, writes, do)
		return nil
	})
	for _, w := range writes {
		if err != nil { // and w may still be in use
			errs[w.key] = c.newError(ctx, op, w.key, err)
		} else if w.err != nil {
			errs[w.key] = c.newError(ctx, op, w.key, w.err)
		}
	}
	return err
}

// runWrites does writes in a pipeline. The error is that the server has not answered.
func (c *Cache) runWrites(ctx context.Context, deadline time.Time, n *node, writes []*write) error {
	cmds := make([]redis.Cmder, 0, len(writes))
	for _, w := range writes {
		if w.asking {
			cmds = append(cmds, newAsking())
		}
		cmds = append(cmds, w.cmd)
	}
	c.exec(ctx, deadline, n, cmds) // the errors are in cmds
	for _, w := range writes {
		w.err = w.cmd.Err()
	}
	if err := cmds[len(cmds)-1].Err(); err != nil && !answered(err) {
		return err
	}
	return nil
}

// runUnlinks does writes, which are UNLINKs, as one for all if the server takes that.
func (c *Cache) runUnlinks(ctx context.Context, deadline time.Time, n *node, writes []*write) error {
	if c.cluster { // which refuses one for several slots
		return c.runWrites(ctx, deadline, n, writes)
	}
	args := make([]any, 1, 1+len(writes))
	args[0] = "unlink"
	for _, w := range writes {
		args = append(args, w.key)
	}
	err := c.exec(ctx, deadline, n, []redis.Cmder{once{redis.NewIntCmd(ctx, args...)}})
	if redis.IsPermissionError(err) { // for one of the keys
		return c.runWrites(ctx, deadline, n, writes)
	}
	for _, w := range writes {
		w.err = err
	}
	if err != nil && !answered(err) {
		return err
	}
	return nil
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
