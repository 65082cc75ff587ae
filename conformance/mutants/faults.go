package mutants

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// wasCut reports whether err says that the connection was cut.
func wasCut(err error) bool { return errors.Is(err, errCut) }

// whenOthersHaveRead returns a read that counts, and what waits for 15 more of them,
// 300 ms at most.
func (c *client) whenOthersHaveRead() (read func(context.Context, string) (l2cache.Entry, error), wait func()) {
	var reads atomic.Int64
	read = func(ctx context.Context, key string) (l2cache.Entry, error) {
		defer reads.Add(1)
		return c.read(ctx, "get", key)
	}
	wait = func() {
		end := time.Now().Add(300 * time.Millisecond)
		for n := reads.Load() + 15; reads.Load() < n && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	return read, wait
}

var faultMutants = []Mutant{
	patched("Ping says for 200 ms what it has said last", "Ping says whether the backend can answer",
		func(c *client) patch {
			var mu sync.Mutex
			var last error
			var at time.Time
			return patch{ping: func(ctx context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil && !c.isClosed() && time.Since(at) < 200*time.Millisecond {
					return last
				}
				last, at = c.Ping(ctx), time.Now()
				return last
			}}
		},
		"faults/ping"),
	patched("a Ping that its ctx has ended is ErrUnavailable", "a ctx that has ended is the error",
		func(c *client) patch {
			return patch{ping: func(ctx context.Context) error {
				err := c.Ping(ctx)
				if isContextErr(err) && !c.isClosed() {
					return c.failure(context.Background(), "ping", "", l2cache.ErrUnavailable)
				}
				return err
			}}
		},
		"faults/ping"),
	patched("what came of a value before the connection was cut is served", "a value is served whole",
		func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if wasCut(err) {
					var r row
					c.behind(func(rs rows, now time.Time) { r, _ = c.find(rs, c.name(key), now) })
					return l2cache.Entry{Value: clone(r.value[:len(r.value)/2]), TTL: time.Minute}, nil
				}
				return e, err
			}}
		},
		"faults/cut-read"),
	patched("a read whose connection is cut is a miss", "nothing but a miss is ErrNotFound",
		func(c *client) patch {
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				e, err := c.read(ctx, "get", key)
				if wasCut(err) {
					err = l2cache.ErrNotFound
				}
				return e, err
			}}
		},
		"faults/cut-read"),
	patched("after a cut, the next read gets the reply of the one that was cut off", "each call gets its own reply",
		func(c *client) patch {
			var pending sync.Map // one key at most
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				for stale := range pending.Range {
					pending.Delete(stale)
					return c.read(ctx, "get", stale.(string))
				}
				e, err := c.read(ctx, "get", key)
				if wasCut(err) {
					pending.Store(key, nil)
				}
				return e, err
			}}
		},
		"faults/cut-read"),
	patched("a Set whose connection is cut is sent again 50 ms after it has failed", "a write is sent once",
		func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if wasCut(err) {
					value = clone(value)
					time.AfterFunc(50*time.Millisecond, func() { c.Set(context.Background(), key, value, ttl) })
				}
				return err
			}}
		},
		"faults/cut-write"),
	patched("a Delete whose connection is cut is sent again 50 ms after it has failed", "a write is sent once",
		func(c *client) patch {
			return patch{del: func(ctx context.Context, key string) error {
				err := c.Delete(ctx, key)
				if wasCut(err) {
					time.AfterFunc(50*time.Millisecond, func() { c.Delete(context.Background(), key) })
				}
				return err
			}}
		},
		"faults/cut-write"),
	patched("a value is replaced by one command, and its deadline by the next", "a Set is atomic",
		func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.call(ctx, "set", key, func(rs rows, now time.Time) {
					if old, ok := rs[c.name(key)]; ok && ttl > 0 {
						old.value = c.encode(value)
						old.sum = checksum(old.value)
						rs[c.name(key)] = old
					}
				})
				if err != nil {
					return err
				}
				return c.Set(ctx, key, value, ttl)
			}}
		},
		"faults/cut-write"),
	patched("a Set whose connection is cut is undone, and says nothing", "an acknowledged write is done",
		func(c *client) patch {
			return patch{set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if wasCut(err) {
					c.behind(func(rs rows, _ time.Time) { delete(rs, c.name(key)) })
					return nil
				}
				return err
			}}
		},
		"faults/cut-write"),
	patched("an Add whose connection is cut is sent again", "a write is sent once",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				if wasCut(err) {
					return c.Add(ctx, key, value, ttl)
				}
				return added, err
			}}
		},
		"faults/cut-add"),
	patched("an Add whose connection is cut is false", "an error is not false",
		func(c *client) patch {
			return patch{add: func(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
				added, err := c.Add(ctx, key, value, ttl)
				if wasCut(err) {
					return false, nil
				}
				return added, err
			}}
		},
		"faults/cut-add"),
	gotMany("a cut in the middle of GetMany's replies ends the batch", "a key that was not read is in the error",
		func(keys []string, got map[string]l2cache.Entry, err error) (map[string]l2cache.Entry, error) {
			if wasCut(err) {
				return map[string]l2cache.Entry{}, nil
			}
			return got, err
		},
		"faults/cut-batch"),
	patched("a cut in the middle of SetMany's replies ends the batch, and the rest is not stored", "a partial failure is seen",
		func(c *client) patch {
			return patch{setMany: func(ctx context.Context, items []l2cache.Item) error {
				err := c.SetMany(ctx, items)
				if wasCut(err) {
					c.behind(func(rs rows, _ time.Time) { delete(rs, c.name(items[len(items)-1].Key)) })
					return nil
				}
				return err
			}}
		},
		"faults/cut-batch"),
	patched("a DeleteMany whose connection is cut names one key that failed, and another was not deleted", "a partial failure is seen",
		func(c *client) patch {
			return patch{deleteMany: func(ctx context.Context, keys []string) error {
				err := c.DeleteMany(ctx, keys)
				if wasCut(err) {
					c.Set(ctx, keys[1], []byte("of a round before"), time.Hour)
					return l2cache.KeyErrors{keys[0]: err}
				}
				return err
			}}
		},
		"faults/cut-batch"),
	patched("a Scan whose connection is cut is over", "an error of Scan is seen",
		func(c *client) patch {
			return patch{scan: func(ctx context.Context, prefix string, yield func(l2cache.Info, error) bool) {
				for info, err := range c.Scan(ctx, prefix) {
					if wasCut(err) || !yield(info, err) {
						return
					}
				}
			}}
		},
		"faults/cut-scan"),
	patched("a Set whose connection is cut is sent again, and succeeds", "a write is sent once",
		func(c *client) patch {
			read, later := c.whenOthersHaveRead()
			return patch{read: read, set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if wasCut(err) {
					later() // it takes a while to connect
					return c.Set(ctx, key, value, ttl)
				}
				return err
			}}
		},
		"faults/linearizable"),
	patched("a write that its deadline has ended is sent again when the server answers", "a write is sent once",
		func(c *client) patch {
			read, later := c.whenOthersHaveRead()
			return patch{read: read, set: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				err := c.Set(ctx, key, value, ttl)
				if errors.Is(err, context.DeadlineExceeded) {
					value = clone(value)
					go func() {
						c.Set(context.Background(), key, value, ttl) // the first, still in the socket
						later()
						c.Set(context.Background(), key, value, ttl)
					}()
				}
				return err
			}}
		},
		"faults/linearizable"),
	patched("for 100 ms after an error, a handle reads what it has read before", "a read is of the latest write",
		func(c *client) patch {
			var known sync.Map // key to l2cache.Entry
			var until atomic.Int64
			return patch{read: func(ctx context.Context, key string) (l2cache.Entry, error) {
				if e, ok := known.Load(key); ok && time.Now().UnixNano() < until.Load() {
					return e.(l2cache.Entry), nil
				}
				e, err := c.read(ctx, "get", key)
				switch {
				case err == nil:
					known.Store(key, l2cache.Entry{Value: clone(e.Value), TTL: e.TTL})
				case wasCut(err):
					until.Store(time.Now().Add(100 * time.Millisecond).UnixNano())
				}
				return e, err
			}}
		},
		"faults/linearizable"),
}
