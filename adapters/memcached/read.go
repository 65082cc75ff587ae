package memcached

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache/internal/batch"
)

// gets returns the item under itemKey. If the server had dropped the connection
// it asks once more, in what is left of opTimeout.
func (c *Cache) gets(ctx context.Context, itemKey string) (*memcache.Item, error) {
	start := time.Now()
	item, err := c.getsOnce(ctx, itemKey)
	if !dropped(err) {
		return item, err
	}
	c.client.Close() // the idle connections: they are likely to be gone too
	return c.getsAlone(ctx, c.opTimeout-time.Since(start), itemKey)
}

func (c *Cache) getsOnce(ctx context.Context, itemKey string) (*memcache.Item, error) {
	if c.own == nil {
		return c.getsAlone(ctx, c.opTimeout, itemKey)
	}
	r := &read{key: itemKey}
	if err := c.own.group(itemKey).Do(ctx, r); err != nil {
		return nil, err
	}
	return r.item, r.err
}

func (c *Cache) getsAlone(ctx context.Context, timeout time.Duration, itemKey string) (*memcache.Item, error) {
	var item *memcache.Item // not read if the wait ended early
	err := c.wait(ctx, timeout, func() (err error) {
		item, err = c.client.Get(itemKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	return item, nil
}

// ownClient is what belongs to a client that the adapter made.
type ownClient struct {
	conns   *conns
	servers *Selector
	groups  []*group // of servers
}

func (o *ownClient) group(itemKey string) *group { return o.groups[o.servers.pick(itemKey)] }

// A group combines the reads that one server gets: a stalled one does not keep the
// others from being asked.
type group struct {
	batch.Group[read]
	client *memcache.Client
	size   atomic.Int64 // of a hit's data in bytes, a moving average
}

type read struct {
	key  string // of the item
	item *memcache.Item
	err  error
}

const (
	batchesInFlight = 4
	batchKeys       = 128
	// batchBytes is about how much a batch reads. More of large values in one
	// answer make the first of them wait, and save no time that counts.
	batchBytes = 256 << 10
)

func newGroup(client *memcache.Client, opTimeout time.Duration) *group {
	g := &group{client: client}
	g.Run = g.run
	g.InFlight = batchesInFlight
	g.Max = func() int { return int(max(1, min(batchKeys, batchBytes/max(1, g.size.Load())))) }
	g.Timeout = opTimeout
	return g
}

func (g *group) run(reads []*read) {
	if len(reads) == 1 {
		r := reads[0]
		r.err = unstale(func() (err error) {
			r.item, err = g.client.Get(r.key)
			return err
		})
		return
	}
	keys := make([]string, 0, len(reads))
	owners := make(map[string]*read, len(reads))
	for _, r := range reads {
		if owners[r.key] == nil {
			owners[r.key] = r
			keys = append(keys, r.key)
		}
	}
	var items map[string]*memcache.Item
	err := unstale(func() (err error) {
		items, err = g.client.GetMulti(keys)
		return err
	})
	for _, r := range reads {
		item := items[r.key]
		switch {
		case item == nil && err == nil:
			r.err = memcache.ErrCacheMiss
		case item == nil:
			r.err = err
		case owners[r.key] == r:
			r.item = item
			size := g.size.Load()
			g.size.Store(size + (int64(len(item.Value))-size)/8)
		default: // a value belongs to the one who receives it
			twin := *item
			twin.Value = bytes.Clone(item.Value)
			r.item = &twin
		}
	}
}
