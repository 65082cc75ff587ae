package natskv

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
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
	c.readAll(ctx, b, keys, func(key string, m message, err error) {
		var e l2cache.Entry
		if err == nil {
			e, err = m.entry()
		}
		switch {
		case err == nil:
			entries[key] = e
		case err != l2cache.ErrNotFound:
			c.failKey(ctx, &failed, "getmany", key, err)
		}
	})
	return entries, asError(failed)
}

// readAll reads keys, and hands on what read would return for each.
func (c *Cache) readAll(ctx context.Context, b *bucket, keys []string, got func(key string, m message, err error)) {
	limit := time.Now().Add(c.opTimeout) // for those that have to be read again
	err := b.patiently(ctx, limit, func() error {
		var again []string
		var notAvailable error
		b.doAll(ctx, c.opTimeout, batch{
			n:       len(keys),
			size:    b.replySize,
			request: func(i int) request { return c.readRequest(b, keys[i]) },
			reply: func(i int, m *nats.Msg, err error) {
				var stored message
				if err == nil {
					stored, err = readReply(b, m)
				}
				if isCode(err, codeNotAvailable) {
					again, notAvailable = append(again, keys[i]), err
					return
				}
				got(keys[i], stored, err)
			},
		})
		keys = again
		return notAvailable
	})
	for _, key := range keys {
		got(key, message{}, err)
	}
}

// SetMany publishes as Set does, without waiting for each acknowledgement.
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
	ttls := make([]time.Duration, 0, len(items))
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
		ttls = append(ttls, min(ttl, c.profile.MaxTTL))
		fitting = append(fitting, item)
	}
	b.doAll(ctx, c.opTimeout, batch{
		n:    len(fitting),
		size: func(i int) int { return len(fitting[i].Value) + reserve },
		request: func(i int) request {
			// Memory of its own: it may be sent after this call has returned.
			data := make([]byte, 0, envelope.Overhead+len(fitting[i].Value))
			return request{c.subjectOf(fitting[i].Key), entryHeader(ttls[i]), appendEntry(data, fitting[i].Value, ttls[i])}
		},
		reply: func(i int, m *nats.Msg, err error) {
			if err == nil {
				err = c.acknowledged(m)
			}
			c.failKey(ctx, &failed, "setmany", fitting[i].Key, err)
		},
	})
	return asError(failed)
}

// DeleteMany publishes as Delete does, without waiting for each acknowledgement.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	if err := l2cache.PreflightNoKey(ctx, name, "deletemany", c.closed.Load()); err != nil {
		return err
	}
	b, err := c.checked(ctx, time.Now().Add(c.opTimeout))
	if err != nil {
		return c.failKeys(ctx, "deletemany", keys, err)
	}
	var failed l2cache.KeyErrors
	c.deleteAll(ctx, b, keys, func(key string, err error) { c.failKey(ctx, &failed, "deletemany", key, err) })
	return asError(failed)
}

// deleteAll deletes keys, and hands on the error, or nil, of each.
func (c *Cache) deleteAll(ctx context.Context, b *bucket, keys []string, done func(key string, err error)) {
	var full []string
	b.doAll(ctx, c.opTimeout, batch{
		n:       len(keys),
		size:    func(int) int { return reserve },
		request: func(i int) request { return request{c.subjectOf(keys[i]), deleteHeader, nil} },
		reply: func(i int, m *nats.Msg, err error) {
			if err == nil {
				err = c.acknowledged(m)
			}
			if kind(err) == l2cache.ErrFull {
				full = append(full, keys[i])
				return
			}
			done(keys[i], err)
		},
	})
	for _, key := range full {
		done(key, c.deleteFromFull(ctx, time.Now().Add(c.opTimeout), b, key))
	}
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
