package memcached

import (
	"sync/atomic"

	"github.com/bradfitz/gomemcache/memcache"
)

// A read is a request for an item. After it is done either item or err is set.
type read struct {
	key  string // of the item
	item *memcache.Item
	err  error // ErrCacheMiss if there is no item
}

func keysOf(reads []*read) []string {
	keys := make([]string, len(reads))
	for i, r := range reads {
		keys[i] = r.key
	}
	return keys
}

// answer does reads by what GetMulti returned for their keys: items, and in place of
// those that did not come err, if it is not nil.
func answer(reads []*read, items map[string]*memcache.Item, err error) {
	if err == nil {
		err = memcache.ErrCacheMiss
	}
	for _, r := range reads {
		if r.item = items[r.key]; r.item == nil {
			r.err = err
		}
	}
}

// sizes tells from the items that were read how many a server should be asked for
// at once.
type sizes struct {
	mean atomic.Int64 // of the data of recent items, in bytes; 0 if there were none
}

// unknownSize is taken for the size of items, in bytes, before one was read.
const unknownSize = 32 << 10

// measure takes reads into account that are done. An update that is lost to another
// does no harm.
func (s *sizes) measure(reads []*read) {
	mean := s.mean.Load()
	for _, r := range reads {
		switch {
		case r.err != nil:
		case mean == 0:
			mean = int64(len(r.item.Value))
		default:
			mean += (int64(len(r.item.Value)) - mean) / 8
		}
	}
	s.mean.Store(mean)
}

// fit returns how many items have the size of bytes together, from 1 to most.
func (s *sizes) fit(bytes, most int) int {
	mean := int(s.mean.Load())
	if mean == 0 {
		mean = unknownSize
	}
	return min(max(bytes/mean, 1), most)
}
