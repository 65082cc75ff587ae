package bolt

import (
	"context"
	"iter"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

var _ l2cache.Watcher = (*Cache)(nil)

// A place is where a cache keeps its entries. Caches on one place see each other's
// changes.
type place struct {
	db     *bbolt.DB
	bucket string
}

type sharedHub struct {
	hub    *l2cache.Hub
	caches int // that are open
}

var (
	hubsMu sync.Mutex
	hubs   = map[place]*sharedHub{} // guarded by hubsMu
)

func (c *Cache) place() place { return place{c.db, string(c.bucket)} }

func joinHub(p place) *l2cache.Hub {
	hubsMu.Lock()
	defer hubsMu.Unlock()
	s := hubs[p]
	if s == nil {
		s = &sharedHub{hub: new(l2cache.Hub)}
		hubs[p] = s
	}
	s.caches++
	return s.hub
}

func leaveHub(p place) {
	hubsMu.Lock()
	defer hubsMu.Unlock()
	s := hubs[p]
	if s.caches--; s.caches == 0 {
		delete(hubs, p)
	}
}

// Watch tells of the changes that are made through all caches on the bucket.
func (c *Cache) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return c.hub.Watch(ctx, "bolt", prefix, c.done)
}
