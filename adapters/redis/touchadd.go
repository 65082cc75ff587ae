package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

var (
	_ l2cache.Toucher = (*Cache)(nil)
	_ l2cache.Adder   = (*Cache)(nil)
)

// Touch changes the TTL of key by PEXPIRE. To NoExpiry it is PERSIST, which says 0 of
// a missing key and of one without a TTL, in a transaction with EXISTS. Neither looks
// at what the key holds.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "touch", key, c.isClosed()); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return l2cache.NewError(ctx, name, "touch", key, nil, err)
	}
	if ttl == l2cache.NoExpiry {
		return c.persist(ctx, key)
	}
	expire := redis.NewIntCmd(ctx, "pexpire", key, ttl.Milliseconds())
	if err := c.send(ctx, "touch", key, expire); err != nil {
		return err
	}
	if expire.Val() == 0 {
		return l2cache.ErrNotFound
	}
	return nil
}

func (c *Cache) persist(ctx context.Context, key string) error {
	replies := redis.NewIntSliceCmd(ctx, "exec")
	cmds := []redis.Cmder{
		once{redis.NewStatusCmd(ctx, "multi")},
		once{redis.NewStatusCmd(ctx, "exists", key)}, // +QUEUED
		once{redis.NewStatusCmd(ctx, "persist", key)},
		once{replies},
	}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		return c.keyed(ctx, deadline, key, cmds)
	})
	switch {
	case err != nil:
		return c.newError(ctx, "touch", key, err)
	case len(replies.Val()) != 2:
		return c.newError(ctx, "touch", key, errReply)
	case replies.Val()[0] == 0:
		return l2cache.ErrNotFound
	}
	return nil
}

// Add stores an entry by SET with NX and PX, whose reply is nil if there is one.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := l2cache.Preflight(ctx, name, "add", key, c.isClosed()); err != nil {
		return false, err
	}
	args, err := c.setArgs(ctx, "add", key, value, ttl)
	if err != nil {
		return false, err
	}
	err = c.send(ctx, "add", key, redis.NewStatusCmd(ctx, append(args, "nx")...))
	if err == l2cache.ErrNotFound {
		return false, nil
	}
	return err == nil, err
}
