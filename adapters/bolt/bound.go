package bolt

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

const (
	// minMaxBytes leaves room for values of 1 MiB, of which maxBytes/16 is the longest.
	minMaxBytes = 16 << 20

	// deleteReserve is what only deletes may use of a bounded file: to delete a row
	// bbolt needs pages for what it changes before it can free the old ones.
	deleteReserve = 2 << 20

	// boundedAlloc is how many bytes a bounded file grows by. Bbolt's default is 16 MB,
	// which count against the limit before they are used.
	boundedAlloc = 1 << 20

	// boundedRowLen is chunkLen for a bounded file. Bbolt puts up to four long rows on
	// one run of pages, 16 pages for 16,000 B each, and a full file has its free pages in
	// pieces: there even a delete, which moves three of the four, may find no place. Two
	// rows of this length fit on a page.
	boundedRowLen = 1900

	// An eviction looks at this many entries, and deletes half of them at most.
	sampleEntries = 2048
)

// A bound keeps the file of a cache below a size. It is the committer's.
type bound struct {
	limit   int      // of the file, in bytes; 0: none, the caller has opened the database
	most    int      // that limit can be, where the file's own rows are in the way: see boundedRowLen
	reserve int      // of limit, for deletes
	evicts  bool     // limit is max_bytes; otherwise the disk's, and moved as the file grows
	file    *os.File // of the database, unless evicts
	hand    rowKey   // where the next sample begins

	patience time.Time // until when the commit under way may wait for readers
}

// setBound bounds the file to limit bytes, or to what it has already and, if all of
// that is in use, the reserve.
func (c *Cache) setBound(limit int) error {
	size, free, err := c.space()
	if err != nil {
		return err
	}
	if free < deleteReserve {
		size += deleteReserve
	}
	most := limit
	limit = max(limit-boundedAlloc, size+boundedAlloc)
	c.bound = bound{limit: limit, most: max(most, limit+boundedAlloc), reserve: deleteReserve, evicts: true}
	c.maxValueLen = min(maxValueLen, c.bound.most/16)
	c.rowLen = boundedRowLen
	c.maxCommitRows = min(maxCommitRows, c.bound.most/16/boundedRowLen)
	c.db.AllocSize = boundedAlloc
	return nil
}

// makeRoomLocked evicts entries until a commit that stores n bytes leaves the reserve
// for deletes.
func (c *Cache) makeRoomLocked(n int) error {
	for {
		size, free, err := c.space()
		if err != nil {
			return err
		}
		missing := deleteReserve + n - free - (c.bound.limit - boundedAlloc - size)
		if missing <= 0 {
			return nil
		}
		// A bit more than is needed, so that not each commit has to evict.
		if any, err := c.evictLocked(missing + c.bound.limit/64); err != nil || !any {
			return err
		}
	}
}

// space is how many bytes the pages of the file have, and those that are free. The
// file grows by boundedAlloc more than it needs.
func (c *Cache) space() (size, free int, err error) {
	err = c.view(func(tx *bbolt.Tx) error {
		s := c.db.Stats()
		size, free = int(tx.Size()), (s.FreePageN+s.PendingPageN)*c.db.Info().PageSize
		return nil
	})
	return size, free, err
}

// evictLocked deletes all entries that have ended or, if there are none, of a sample
// those that end first, about n bytes or half of them. It reports whether it has
// deleted any.
func (c *Cache) evictLocked(n int) (bool, error) {
	if c.earliest.Load() <= time.Now().UnixMicro() {
		any := false
		err := c.sweep(context.Background(), func(_ context.Context, keys []rowKey, rows int) error {
			if len(keys) == 0 {
				return nil
			}
			w := newReap(keys, rows)
			w.ctx = context.Background()
			c.commitLocked([]*write{w})
			any = any || w.err == nil
			return w.err
		})
		switch {
		case any:
			return true, nil
		case err != nil && kind(err) != l2cache.ErrFull:
			return false, err
		}
	}
	sample, err := c.sample()
	if err != nil || len(sample) == 0 {
		return false, err
	}
	slices.SortFunc(sample, func(a, b sampled) int { return cmp.Compare(a.deadline, b.deadline) })
	var ws []*write
	for _, s := range sample[:(len(sample)+1)/2] {
		w := newDelete(string(s.key.user()), s.rows)
		w.ctx, w.key = context.Background(), "" // nobody is told of it
		ws = append(ws, w)
		if n -= s.bytes; n <= 0 {
			break
		}
	}
	c.commitLocked(ws)
	for _, w := range ws {
		if w.err == nil {
			return true, nil
		}
	}
	return false, ws[0].err
}

// A sampled is an entry that may be evicted.
type sampled struct {
	key         rowKey
	deadline    int64
	rows, bytes int
}

// sample returns the next entries in the order of their keys, and from the first on
// when it has come to the end. It does not verify them.
func (c *Cache) sample() (sample []sampled, err error) {
	for _, from := range []rowKey{c.bound.hand, {rowPrefix}} {
		if from == nil {
			continue
		}
		c.bound.hand, err = c.walk(rowKey{rowPrefix}, from, func(k rowKey, row []byte) bool {
			deadline, rows, ok := peek(row)
			if ok {
				bytes := len(k) + len(row) + (rows-1)*chunkLen
				sample = append(sample, sampled{slices.Clone(k), deadline, rows, bytes})
			}
			return len(sample) == sampleEntries
		})
		if err != nil || len(sample) > 0 {
			break
		}
	}
	return sample, err
}
