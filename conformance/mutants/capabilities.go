package mutants

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// everything is what the simulated store supports.
const everything = l2cache.CanGetMany | l2cache.CanSetMany | l2cache.CanDeleteMany | l2cache.CanTouch |
	l2cache.CanAdd | l2cache.CanDeletePattern | l2cache.CanScan | l2cache.CanWatch

// pageSize is how many entries Scan and DeletePattern take at a time.
const pageSize = 200

// hub has those who watch a namespace.
func (s *server) hub(namespace string) *l2cache.Hub {
	hub, _ := s.hubs.LoadOrStore(namespace, &l2cache.Hub{})
	return hub.(*l2cache.Hub)
}

// reconnected tells all who watch that their connection was lost.
func (s *server) reconnected() {
	s.hubs.Range(func(_, hub any) bool {
		hub.(*l2cache.Hub).Gap()
		return true
	})
}

// changed tells those who watch. The server calls it, in the step that makes the
// change.
func (c *client) changed(key string) { c.s.hub(c.namespace).Changed(key) }

// begin is what an operation without a key begins with.
func (c *client) begin(ctx context.Context, op string) error {
	return l2cache.PreflightNoKey(ctx, "sim", op, c.isClosed())
}

func (c *client) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if err := c.begin(ctx, "getmany"); err != nil {
		return nil, err
	}
	found := map[string]row{}
	var now time.Time
	if err := c.call(ctx, "getmany", "", func(rs rows, at time.Time) {
		now = at
		for _, key := range keys {
			if r, ok := c.find(rs, c.name(key), at); ok {
				found[key] = r
			}
		}
	}); err != nil {
		return nil, err
	}
	entries := make(map[string]l2cache.Entry, len(found))
	failed := l2cache.KeyErrors{}
	for key, r := range found {
		if err := c.verify(r); err != nil {
			failed[key] = l2cache.NewError(ctx, "sim", "getmany", key, l2cache.ErrCorrupt, err)
			continue
		}
		entries[key] = l2cache.Entry{Value: c.decode(r.value), TTL: c.left(r, now)}
	}
	if len(failed) > 0 {
		return entries, failed
	}
	return entries, nil
}

func (c *client) SetMany(ctx context.Context, items []l2cache.Item) error {
	if err := c.begin(ctx, "setmany"); err != nil {
		return err
	}
	failed := l2cache.KeyErrors{}
	ready := map[string]row{}
	for _, item := range items {
		ttl, err := c.stored(item.TTL)
		if err == nil {
			err = c.limit(item.Value)
		}
		if err != nil {
			failed[item.Key] = c.failure(ctx, "setmany", item.Key, err)
			continue
		}
		stored := c.encode(item.Value)
		ready[item.Key] = row{value: stored, sum: checksum(stored), ttl: ttl}
	}
	if err := c.call(ctx, "setmany", "", func(rs rows, now time.Time) {
		for key, r := range ready {
			r.deadline = c.deadline(now, r.ttl)
			c.put(rs, c.name(key), r, now)
			c.changed(key)
		}
	}); err != nil {
		return err
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

func (c *client) DeleteMany(ctx context.Context, keys []string) error {
	if err := c.begin(ctx, "deletemany"); err != nil {
		return err
	}
	return c.call(ctx, "deletemany", "", func(rs rows, now time.Time) {
		for _, key := range keys {
			c.drop(rs, c.name(key), now)
			c.changed(key)
		}
	})
}

func (c *client) Touch(ctx context.Context, key string, ttl time.Duration) error {
	return c.touch(ctx, key, ttl, func(r row, ttl time.Duration, now time.Time) row {
		r.ttl, r.deadline = ttl, c.deadline(now, ttl)
		return r
	})
}

// touch puts in place of a live entry what f makes of it.
func (c *client) touch(ctx context.Context, key string, ttl time.Duration, f func(r row, ttl time.Duration, now time.Time) row) error {
	if err := c.check(ctx, "touch", key); err != nil {
		return err
	}
	ttl, err := c.stored(ttl)
	if err != nil {
		return c.failure(ctx, "touch", key, err)
	}
	var bad error
	if err := c.call(ctx, "touch", key, func(rs rows, now time.Time) {
		r, ok := c.find(rs, c.name(key), now)
		if !ok {
			bad = l2cache.ErrNotFound
		} else if bad = c.verify(r); bad == nil {
			c.put(rs, c.name(key), f(r, ttl, now), now)
			c.changed(key)
		}
	}); err != nil {
		return err
	}
	switch bad {
	case nil, l2cache.ErrNotFound:
		return bad
	}
	return l2cache.NewError(ctx, "sim", "touch", key, l2cache.ErrCorrupt, bad)
}

func (c *client) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	return c.add(ctx, key, value, ttl, func(rs rows, name string, r row, now time.Time) (bool, error) {
		if old, ok := c.find(rs, name, now); ok {
			return false, c.verify(old)
		}
		c.put(rs, name, r, now)
		return true, nil
	})
}

// add has the server run f, which stores r or does not, and says what is wrong
// with what is there.
func (c *client) add(ctx context.Context, key string, value []byte, ttl time.Duration, f func(rs rows, name string, r row, now time.Time) (bool, error)) (added bool, err error) {
	if err := c.check(ctx, "add", key); err != nil {
		return false, err
	}
	if ttl, err = c.stored(ttl); err == nil {
		err = c.limit(value)
	}
	if err != nil {
		return false, c.failure(ctx, "add", key, err)
	}
	stored := c.encode(value)
	var bad error
	if err := c.call(ctx, "add", key, func(rs rows, now time.Time) {
		r := row{value: stored, sum: checksum(stored), ttl: ttl, deadline: c.deadline(now, ttl)}
		if added, bad = f(rs, c.name(key), r, now); added {
			c.changed(key)
		}
	}); err != nil {
		return false, err
	}
	if bad != nil {
		return false, l2cache.NewError(ctx, "sim", "add", key, l2cache.ErrCorrupt, bad)
	}
	return added, nil
}

func (c *client) DeletePattern(ctx context.Context, pattern string) error {
	return c.deletePattern(ctx, pattern, l2cache.MatchPattern)
}

// deletePattern deletes what match says, in pages.
func (c *client) deletePattern(ctx context.Context, pattern string, match func(pattern, key string) bool) error {
	if err := c.begin(ctx, "deletepattern"); err != nil {
		return err
	}
	if err := l2cache.CheckPattern(pattern); err != nil {
		return l2cache.NewError(ctx, "sim", "deletepattern", pattern, nil, err)
	}
	for more := true; more; {
		if err := c.call(ctx, "deletepattern", pattern, func(rs rows, now time.Time) {
			n := 0
			for name := range rs {
				if !match(pattern, name) {
					continue
				}
				c.drop(rs, name, now)
				c.changed(name)
				if n++; n == pageSize {
					return
				}
			}
			more = false
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		for from := ""; ; {
			infos, next, err := c.page(ctx, prefix, from)
			if err != nil {
				yield(l2cache.Info{}, err)
				return
			}
			for _, info := range infos {
				if !yield(info, nil) {
					return
				}
				if err := c.begin(ctx, "scan"); err != nil {
					yield(l2cache.Info{}, err)
					return
				}
			}
			if next == "" {
				return
			}
			from = next
		}
	}
}

// page reads the live entries behind from, in the order of their keys. If these
// are not all, next is the last of them.
func (c *client) page(ctx context.Context, prefix, from string) (infos []l2cache.Info, next string, err error) {
	if err := c.begin(ctx, "scan"); err != nil {
		return nil, "", err
	}
	err = c.call(ctx, "scan", prefix, func(rs rows, now time.Time) {
		var names []string
		for name := range rs {
			if strings.HasPrefix(name, prefix) && name > from {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if len(names) > pageSize {
			names = names[:pageSize]
			next = names[pageSize-1]
		}
		for _, name := range names {
			if r, ok := c.find(rs, name, now); ok {
				infos = append(infos, l2cache.Info{Key: name, TTL: c.left(r, now), Size: len(r.value)})
			}
		}
	})
	return infos, next, err
}

func (c *client) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return func(yield func(l2cache.Event, error) bool) {
		err := c.begin(ctx, "watch")
		if err == nil {
			err = c.call(ctx, "watch", prefix, func(rows, time.Time) {})
		}
		if err != nil {
			yield(l2cache.Event{}, err)
			return
		}
		c.s.hub(c.namespace).Watch(ctx, "sim", prefix, c.closed)(yield)
	}
}

// The methods below forward the capabilities of what is patched.

func (p patch) GetMany(ctx context.Context, keys []string) (map[string]l2cache.Entry, error) {
	if p.getMany != nil {
		return p.getMany(ctx, keys)
	}
	return l2cache.GetMany(ctx, p.L2CacheBackend, keys)
}

func (p patch) SetMany(ctx context.Context, items []l2cache.Item) error {
	if p.setMany != nil {
		return p.setMany(ctx, items)
	}
	return l2cache.SetMany(ctx, p.L2CacheBackend, items)
}

func (p patch) DeleteMany(ctx context.Context, keys []string) error {
	if p.deleteMany != nil {
		return p.deleteMany(ctx, keys)
	}
	return l2cache.DeleteMany(ctx, p.L2CacheBackend, keys)
}

func (p patch) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if p.touch != nil {
		return p.touch(ctx, key, ttl)
	}
	return l2cache.Touch(ctx, p.L2CacheBackend, key, ttl)
}

func (p patch) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if p.add != nil {
		return p.add(ctx, key, value, ttl)
	}
	return l2cache.Add(ctx, p.L2CacheBackend, key, value, ttl)
}

func (p patch) DeletePattern(ctx context.Context, pattern string) error {
	if p.deletePattern != nil {
		return p.deletePattern(ctx, pattern)
	}
	return l2cache.DeletePattern(ctx, p.L2CacheBackend, pattern)
}

func (p patch) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	if p.scan != nil {
		return func(yield func(l2cache.Info, error) bool) { p.scan(ctx, prefix, yield) }
	}
	return l2cache.Scan(ctx, p.L2CacheBackend, prefix)
}

func (p patch) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	if p.watch != nil {
		return func(yield func(l2cache.Event, error) bool) { p.watch(ctx, prefix, yield) }
	}
	return l2cache.Watch(ctx, p.L2CacheBackend, prefix)
}

// patched is a mutant of the remote store.
func patched(name, rule string, with func(*client) patch, kills ...string) Mutant {
	return Mutant{Name: name, Rule: rule, Kills: kills, New: remote.patch(with)}
}

// twin is a client with the rules of c, to be changed. It is closed when c is.
func (c *client) twin() *client {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return &client{
		cuts: c.s.cuts, rules: c.rules, s: c.s, namespace: c.namespace, profile: c.profile, timeout: c.timeout,
		latency: c.latency, failure: c.failure, closed: c.closed,
	}
}
