package bolt

import (
	"context"
	"errors"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/l2cache/l2cache"
)

// maxCommitRows bounds a commit by the rows that it writes, of 16 KB at most each.
// A single larger value has a commit for itself.
const maxCommitRows = 1024

// A write is a part of a commit: what is done for one key, or by a sweep.
type write struct {
	ctx context.Context // the caller's; nothing is done if it has ended when the commit begins
	key string          // empty for a sweep
	// apply changes the bucket, and reports whether it did. It may be run again
	// after a transaction that was undone. An error undoes the transaction.
	apply    func(*bbolt.Bucket) (changed bool, err error)
	rows     int   // how many rows apply writes, about
	stores   int   // how many bytes apply adds, about; 0 if it only deletes or rewrites
	deadline int64 // the earliest that apply stores, in µs since 1970; never if none

	changed bool  // what apply has reported
	err     error // the outcome
}

// do has w committed, together with what others write at the same time.
func (c *Cache) do(ctx context.Context, w *write) error {
	if err := c.doAll(ctx, []*write{w}); err != nil {
		return err
	}
	return w.err
}

// doAll is do for several writes, which share a commit. If it returns nil each has
// its outcome in err. Otherwise none may be touched again.
func (c *Cache) doAll(ctx context.Context, ws []*write) error {
	for _, w := range ws {
		w.ctx = ctx
	}
	return c.writes.Do(ctx, &ws)
}

// rows is how many rows ws write, about.
func rows(ws []*write) (n int) {
	for _, w := range ws {
		n += w.rows
	}
	return n
}

// run commits what writes has collected; it is called for one batch at a time.
func (c *Cache) run(calls []*[]*write) {
	c.committing.Lock()
	defer c.committing.Unlock()
	c.bound.patience = time.Now().Add(c.writes.Timeout)
	if len(calls) == 1 {
		c.commitLocked(*calls[0])
		return
	}
	var ws []*write
	for _, call := range calls {
		ws = append(ws, *call...)
	}
	c.commitLocked(ws)
}

// commitLocked applies ws in one transaction. If that is undone because it did not
// fit or met a damaged page, it tries the halves, so that what fails is only what
// must: a full file may still have room for a smaller write.
func (c *Cache) commitLocked(ws []*write) {
	err := c.applyLocked(ws)
	if err != nil && len(ws) > 1 && undone(err) {
		c.commitLocked(ws[:len(ws)/2])
		c.commitLocked(ws[len(ws)/2:])
		return
	}
	for _, w := range ws {
		if w.err == nil {
			w.err = err
		}
		if !w.changed || err != nil && undone(err) {
			continue
		}
		c.sweepBy(w.deadline)
		if w.key != "" {
			c.hub.Changed(w.key)
		}
	}
	if err == nil && c.noSync {
		signal(c.unsynced)
	}
}

// applyLocked applies ws in one transaction, for which it makes room.
func (c *Cache) applyLocked(ws []*write) error {
	if c.bound.limit == 0 {
		return c.apply(ws)
	}
	stores := 0
	for _, w := range ws {
		stores += w.stores
	}
	reserve := c.bound.reserve
	if stores == 0 {
		reserve = 0
	} else if c.bound.evicts {
		if err := c.makeRoomLocked(stores); err != nil {
			return err
		}
	}
	for {
		c.db.MaxSize = c.bound.limit - reserve
		err := c.apply(ws)
		c.db.MaxSize = c.bound.limit
		if !errors.Is(err, berrors.ErrMaxSizeReached) {
			return err
		}
		if !c.bound.evicts {
			if err := c.growLocked(stores); err != nil {
				return err
			}
			continue
		}
		if stores > 0 { // there is room, but in pieces that are too small
			if any, evictErr := c.evictLocked(4*stores + c.bound.limit/64); any && evictErr == nil {
				continue
			}
		}
		if stores == 0 && len(ws) == 1 && c.bound.limit+boundedAlloc <= c.bound.most {
			c.bound.limit += boundedAlloc
			continue
		}
		// Pages that were freed while somebody reads are used again when he has ended.
		if c.db.Stats().OpenTxN == 0 || time.Now().After(c.bound.patience) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// apply applies ws in one transaction.
func (c *Cache) apply(ws []*write) error {
	return c.update(func(b *bbolt.Bucket) error {
		changed := false
		for _, w := range ws {
			w.changed = false
			if w.err = c.refused(w.ctx); w.err != nil {
				continue
			}
			var err error
			if w.changed, err = w.apply(b); err != nil {
				return err
			}
			changed = changed || w.changed
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
}

// refused is why nothing must be begun any more for a caller with this ctx.
func (c *Cache) refused(ctx context.Context) error {
	if c.closed.Load() {
		return l2cache.ErrClosed
	}
	return ctx.Err()
}

// undone reports whether a transaction that failed with err has left no trace:
// these come before bbolt writes the meta page, which makes a commit take effect.
func undone(err error) bool {
	kind := kind(err)
	return kind == l2cache.ErrFull || kind == l2cache.ErrCorrupt
}

// kind is the kind of the error that an operation failed with, nil for
// ErrUnavailable or what err itself says.
func kind(err error) error {
	switch {
	case errors.Is(err, berrors.ErrDatabaseNotOpen): // a caller's, closed by the caller
		return l2cache.ErrClosed
	case errors.Is(err, berrors.ErrMaxSizeReached),
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return l2cache.ErrFull
	case errors.Is(err, l2cache.ErrCorrupt),
		errors.Is(err, berrors.ErrIncompatibleValue): // a bucket where a chunk should be
		return l2cache.ErrCorrupt
	}
	return nil
}

// signal wakes the goroutine that reads ch, which has room for one, or will find
// that it was woken.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
