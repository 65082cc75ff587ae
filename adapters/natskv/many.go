package natskv

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
)

// GetMany sends the requests of Get without waiting for each reply.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, name, "getmany", c.closed.Load()); err != nil {
		return nil, err
	}
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		return nil, c.failKeys(ctx, "getmany", keys, err)
	}
	entries := make(map[string]l2cache.Entry, len(keys))
	var failed l2cache.KeyErrors
	c.readAll(ctx, b, keys, func(i int, m message, err error) {
		var e l2cache.Entry
		if err == nil {
			e, err = m.entry()
		}
		switch {
		case err == nil:
			entries[keys[i]] = e
		case err != l2cache.ErrNotFound:
			c.failKey(ctx, &failed, "getmany", keys[i], err)
		}
	})
	return entries, asError(failed)
}

// readAll reads keys, and hands on what read would return for each.
func (c *Cache) readAll(ctx context.Context, b *bucket, keys []string, got func(i int, m message, err error)) {
	limit := time.Now().Add(c.opTimeout) // for those that have to be read again
	left := make([]int, len(keys))
	for i := range left {
		left[i] = i
	}
	err := b.patiently(ctx, limit, func() error {
		var again []int
		var notAvailable error
		b.doAll(ctx, c.opTimeout, batch{
			n:       len(left),
			size:    b.replySize,
			request: func(n int) request { return c.readRequest(b, keys[left[n]]) },
			reply: func(n int, m *nats.Msg, err error) {
				var stored message
				if err == nil {
					stored, err = readReply(b, m)
				}
				if isCode(err, codeNotAvailable) {
					again, notAvailable = append(again, left[n]), err
					return
				}
				got(left[n], stored, err)
			},
		})
		left = again
		return notAvailable
	})
	for _, i := range left {
		got(i, message{}, err)
	}
}

// SetMany reads and publishes as Set does, without waiting for each reply.
func (c *Cache) SetMany(ctx context.Context, items []l2cache.Item) error {
	if err := l2cache.PreflightNoKey(ctx, name, "setmany", c.closed.Load()); err != nil {
		return err
	}
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		keys := make([]string, len(items))
		for i, item := range items {
			keys[i] = item.Key
		}
		return c.failKeys(ctx, "setmany", keys, err)
	}
	var failed l2cache.KeyErrors
	fitting := make([]l2cache.Item, 0, len(items))
	for _, item := range items {
		ttl, err := l2cache.CheckTTL(item.TTL, resolution)
		if err == nil {
			err = b.takes(item.Value)
		}
		if err != nil {
			c.failKey(ctx, &failed, "setmany", item.Key, err)
			continue
		}
		item.TTL = min(ttl, c.profile.MaxTTL)
		fitting = append(fitting, item)
	}
	c.overwriteAll(ctx, b, entry, fitting, func(i int, err error) {
		c.failKey(ctx, &failed, "setmany", fitting[i].Key, err)
	})
	return asError(failed)
}

// DeleteMany reads and publishes as Delete does, without waiting for each reply.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletemany", c.closed.Load()); err != nil {
		return err
	}
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		return c.failKeys(ctx, "deletemany", keys, err)
	}
	var failed l2cache.KeyErrors
	c.overwriteAll(ctx, b, marker, asItems(keys), func(i int, err error) {
		c.failKey(ctx, &failed, "deletemany", keys[i], err)
	})
	return asError(failed)
}

func asItems(keys []string) []l2cache.Item {
	items := make([]l2cache.Item, len(keys))
	for i, key := range keys {
		items[i].Key = key
	}
	return items
}

// failKey puts the error of an operation, if it is one, under the key.
func (c *Cache) failKey(ctx context.Context, failed *l2cache.KeyErrors, op, key string, err error) {
	if err == nil {
		return
	}
	if *failed == nil {
		*failed = l2cache.KeyErrors{}
	}
	(*failed)[key] = c.fail(ctx, op, key, err)
}

// failKeys puts the error of an operation under each key.
func (c *Cache) failKeys(ctx context.Context, op string, keys []string, err error) error {
	var failed l2cache.KeyErrors
	for _, key := range keys {
		c.failKey(ctx, &failed, op, key, err)
	}
	return asError(failed)
}

// asError is nil if no key has failed.
func asError(failed l2cache.KeyErrors) error {
	if failed == nil {
		return nil
	}
	return failed
}
