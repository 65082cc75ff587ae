package bolt

import (
	"bytes"
	"context"
	"math"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// A sweep deletes about this many rows at a time, in a commit that it shares
	// with the writes of others.
	sweepRows = 256

	// maxSleep bounds the time between looks at the clock, which may be set.
	maxSleep = time.Hour

	never = math.MaxInt64 // as a deadline
)

// sweeper reclaims expired entries until ctx ends: at most once per interval, and
// not before the first entry has ended.
func (c *Cache) sweeper(ctx context.Context) {
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	rested := time.Now().Add(c.sweepInterval)
	for ctx.Err() == nil {
		wait := max(time.Until(rested), time.Until(time.UnixMicro(c.earliest.Load())))
		if wait <= 0 {
			if err := c.sweep(ctx, c.reap); err != nil {
				c.sweepBy(0) // try again after the next interval
			}
			rested = time.Now().Add(c.sweepInterval)
			continue
		}
		timer.Reset(min(wait, maxSleep))
		select {
		case <-ctx.Done():
		case <-c.sooner:
		case <-timer.C:
		}
	}
}

// sweepBy has the sweeper wake up for an entry that ends at deadline.
func (c *Cache) sweepBy(deadline int64) {
	for {
		earliest := c.earliest.Load()
		if deadline >= earliest {
			return
		}
		if c.earliest.CompareAndSwap(earliest, deadline) {
			signal(c.sooner)
			return
		}
	}
}

// sweep goes once through all entries, and has reap delete those that have ended, of
// so many rows.
func (c *Cache) sweep(ctx context.Context, reap func(ctx context.Context, keys []rowKey, rows int) error) error {
	// Sets lower this again from here on. Those that did before were committed
	// before, so that the walk sees them.
	c.earliest.Store(never)
	for from := (rowKey{rowPrefix}); from != nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := c.ended(from, time.Now().UnixMicro())
		if err != nil {
			return err
		}
		if err := reap(ctx, p.ended, p.rows); err != nil {
			return err
		}
		c.sweepBy(p.earliest)
		from = p.next
	}
	return nil
}

// A page is what one read transaction of a sweep has found.
type page struct {
	ended    []rowKey
	rows     int    // of those
	earliest int64  // deadline of the others
	next     rowKey // where the next page begins; nil if this is the last
}

// ended reads a page of rows. It does not verify them: reap does.
func (c *Cache) ended(from rowKey, now int64) (p page, err error) {
	p.earliest = never
	p.next, err = c.walk(rowKey{rowPrefix}, from, func(k rowKey, row []byte) bool {
		deadline, rows, ok := peek(row)
		switch {
		case !ok:
		case deadline > now:
			p.earliest = min(p.earliest, deadline)
		default:
			p.ended = append(p.ended, bytes.Clone(k))
			p.rows += rows
		}
		return p.rows >= sweepRows
	})
	return p, err
}

// reap deletes those of keys whose entries have ended still, rows in all.
func (c *Cache) reap(ctx context.Context, keys []rowKey, rows int) error {
	if len(keys) == 0 {
		return nil
	}
	return c.do(ctx, newReap(keys, rows))
}

// newReap returns the write that deletes those of keys whose entries have ended when
// it is applied: in the meantime a Set may have renewed one.
func newReap(keys []rowKey, rows int) *write {
	return &write{
		rows:     rows,
		deadline: never,
		apply: func(b *bbolt.Bucket) (changed bool, err error) {
			now := time.Now()
			for _, k := range keys {
				h, _, _, err := decodeRow(k, b.Get(k))
				if err != nil {
					continue // gone, or damaged: that is not ours to delete
				}
				if _, live := h.Remaining(now, resolution); live {
					continue
				}
				if _, err := remove(b, k); err != nil {
					return false, err
				}
				changed = true
			}
			return changed, nil
		},
	}
}
