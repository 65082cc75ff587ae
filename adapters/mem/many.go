package mem

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var (
	_ l2cache.MultiGetter    = (*Cache)(nil)
	_ l2cache.MultiSetter    = (*Cache)(nil)
	_ l2cache.MultiDeleter   = (*Cache)(nil)
	_ l2cache.Toucher        = (*Cache)(nil)
	_ l2cache.Adder          = (*Cache)(nil)
	_ l2cache.PatternDeleter = (*Cache)(nil)
	_ l2cache.Scanner        = (*Cache)(nil)
	_ l2cache.Watcher        = (*Cache)(nil)
)

// GetMany reads all keys at one instant.
func (c *Cache) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := l2cache.PreflightNoKey(ctx, "mem", "getmany", c.closed.Load()); err != nil {
		return nil, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	now := time.Now()
	entries := make(map[string]l2cache.Entry, len(keys))
	for _, key := range keys {
		if e, left, live := c.store.liveLocked(key, now); live {
			entries[key] = l2cache.Entry{Value: e.copy(), TTL: left}
		}
	}
	return entries, nil
}

// SetMany stores all items at one instant.
func (c *Cache) SetMany(ctx context.Context, items []l2cache.Item) error {
	if err := l2cache.PreflightNoKey(ctx, "mem", "setmany", c.closed.Load()); err != nil {
		return err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for _, item := range items {
		ttl, err := l2cache.CheckTTL(item.TTL, resolution)
		if err != nil {
			return l2cache.NewError(ctx, "mem", "setmany", item.Key, nil, err)
		}
		c.store.setLocked(item.Key, bytes.Clone(item.Value), ttl)
	}
	return nil
}

// DeleteMany removes all keys at one instant.
func (c *Cache) DeleteMany(ctx context.Context, keys []string) error {
	if err := l2cache.PreflightNoKey(ctx, "mem", "deletemany", c.closed.Load()); err != nil {
		return err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for _, key := range keys {
		c.store.deleteLocked(key)
	}
	return nil
}

// Touch changes the deadline of a live entry.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, "mem", "touch", key, c.closed.Load()); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return l2cache.NewError(ctx, "mem", "touch", key, nil, err)
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	e, _, live := c.store.liveLocked(key, time.Now())
	if !live {
		return l2cache.ErrNotFound
	}
	c.store.setLocked(key, e.value, ttl)
	return nil
}

// Add stores a copy of value if there is no live entry.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := l2cache.Preflight(ctx, "mem", "add", key, c.closed.Load()); err != nil {
		return false, err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return false, l2cache.NewError(ctx, "mem", "add", key, nil, err)
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if _, _, live := c.store.liveLocked(key, time.Now()); live {
		return false, nil
	}
	c.store.setLocked(key, bytes.Clone(value), ttl)
	return true, nil
}

// DeletePattern removes all that match at one instant.
func (c *Cache) DeletePattern(ctx context.Context, pattern string) error {
	if err := l2cache.PreflightNoKey(ctx, "mem", "deletepattern", c.closed.Load()); err != nil {
		return err
	}
	if err := l2cache.CheckPattern(pattern); err != nil {
		return l2cache.NewError(ctx, "mem", "deletepattern", pattern, nil, err)
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for key := range c.store.entries {
		if l2cache.MatchPattern(pattern, key) {
			c.store.deleteLocked(key)
		}
	}
	return nil
}

// Scan takes note of all live entries at one instant, then yields them.
func (c *Cache) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		for _, info := range c.list(prefix) {
			if err := l2cache.PreflightNoKey(ctx, "mem", "scan", c.closed.Load()); err != nil {
				yield(l2cache.Info{}, err)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := l2cache.PreflightNoKey(ctx, "mem", "scan", c.closed.Load()); err != nil {
			yield(l2cache.Info{}, err)
		}
	}
}

func (c *Cache) list(prefix string) []l2cache.Info {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	now := time.Now()
	var infos []l2cache.Info
	for key, e := range c.store.entries {
		if left, live := e.remaining(now); live && strings.HasPrefix(key, prefix) {
			infos = append(infos, l2cache.Info{Key: key, TTL: left, Size: len(e.value)})
		}
	}
	return infos
}

// Watch tells of the changes made through any handle on the store.
func (c *Cache) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return c.store.hub.Watch(ctx, "mem", prefix, c.done)
}
