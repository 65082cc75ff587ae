package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

// errUnchanged ends a write transaction that has nothing to commit.
var errUnchanged = errors.New("nothing to commit")

// view runs read in a read transaction.
func (c *Cache) view(read func(*bbolt.Tx) error) (err error) {
	if err := c.broken.Load(); err != nil {
		return *err
	}
	var tx *bbolt.Tx
	faults := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(faults)
		if p := recover(); p != nil {
			err = c.panicked(tx, p)
		}
	}()
	// Not db.View: what is passed to that is allocated, with all it refers to.
	if tx, err = c.db.Begin(false); err != nil {
		return err
	}
	defer tx.Rollback() // of a read transaction that is open: nil
	return read(tx)
}

// update runs write on the bucket in a write transaction, which it commits unless
// write returns an error.
func (c *Cache) update(write func(*bbolt.Bucket) error) (err error) {
	if err := c.broken.Load(); err != nil {
		return *err
	}
	var tx *bbolt.Tx
	faults := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(faults)
		if p := recover(); p != nil {
			err = c.panicked(tx, p)
		}
	}()
	err = c.db.Update(func(t *bbolt.Tx) error {
		tx = t
		b, err := ownBucket(t, c.bucket)
		if err != nil {
			return err
		}
		return write(b)
	})
	if err == errUnchanged {
		return nil
	}
	return err
}

// panicked makes an error of a panic: bbolt panics when it meets a damaged page,
// and its memory map faults beyond the end of a file that has been truncated.
//
// Bbolt has ended the transaction then. If it panicked before there was one, or
// while it ended it, its locks are lost, and whatever asks for them would hang:
// from then on the cache has nothing but this error.
func (c *Cache) panicked(tx *bbolt.Tx, p any) error {
	err := fmt.Errorf("%w: %v", l2cache.ErrCorrupt, p)
	if tx == nil || tx.DB() != nil {
		c.broken.Store(&err)
	}
	return err
}

// ownBucket returns the bucket, and makes it if there is none.
func ownBucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	if b := tx.Bucket(name); b != nil {
		return b, nil
	}
	b, err := tx.CreateBucket(name)
	if err != nil {
		return nil, err
	}
	return b, b.Put(versionKey, []byte{formatVersion})
}

// checkBucket returns an ErrCorrupt unless the bucket is absent or this version's.
func checkBucket(tx *bbolt.Tx, name []byte) error {
	b := tx.Bucket(name)
	if b == nil {
		return nil
	}
	version := b.Get(versionKey)
	switch {
	case len(version) != 1:
		return foreignError{damaged("bucket %q is another program's", name)}
	case version[0] != formatVersion:
		return foreignError{damaged("bucket %q has format version %d; this program reads version %d",
			name, version[0], formatVersion)}
	}
	return nil
}
