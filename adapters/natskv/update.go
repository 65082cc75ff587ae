package natskv

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

// Touch publishes the value again with another deadline, on the condition that what
// it has read is still the last message; otherwise it begins anew.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "touch", key, c.closed.Load()); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return c.fail(ctx, "touch", key, err)
	}
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return c.fail(ctx, "touch", key, err)
	}
	for {
		stored, err := c.read(ctx, limit, b, key)
		if err != nil {
			return c.fail(ctx, "touch", key, err)
		}
		e, err := stored.entry()
		if err != nil {
			return c.fail(ctx, "touch", key, err)
		}
		err = c.replace(ctx, limit, b, key, stored, e.Value, ttl)
		if !isOvertaken(err) {
			return c.fail(ctx, "touch", key, err)
		}
	}
}

// Add publishes on the condition that there is no message, or still the one that
// it has found to be a marker or expired.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := l2cache.Preflight(ctx, name, "add", key, c.closed.Load()); err != nil {
		return false, err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return false, c.fail(ctx, "add", key, err)
	}
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return false, c.fail(ctx, "add", key, err)
	}
	if err := b.takes(value); err != nil {
		return false, c.fail(ctx, "add", key, err)
	}
	var last message
	for {
		err := c.replace(ctx, limit, b, key, last, value, ttl)
		if !isOvertaken(err) {
			return err == nil, c.fail(ctx, "add", key, err)
		}
		stored, err := c.read(ctx, limit, b, key)
		if err == nil {
			_, err = stored.entry()
		}
		if err == nil {
			return false, nil
		}
		if err != l2cache.ErrNotFound {
			return false, c.fail(ctx, "add", key, err)
		}
		last = stored
	}
}

// replace publishes an entry if last is still the last message of key.
func (c *Cache) replace(ctx context.Context, limit time.Time, b *bucket, key string, last message, value []byte, ttl time.Duration) error {
	ttl = min(ttl, c.profile.MaxTTL)
	header := entry.over(last, b.lifetimeOf(ttl))
	header[derivedHeader] = []string{"1"}
	_, err := c.publish(ctx, limit, b, key, header, appendEntry(nil, value, ttl))
	return err
}

// isOvertaken: the last message is not the one that was expected. The server says
// so with the sequence, or without it while another write is under way.
func isOvertaken(err error) bool {
	return isCode(err, jetstream.JSErrCodeStreamWrongLastSequence) || isCode(err, codeWrongLastSequence)
}
