package bolt

import (
	"os"

	"go.etcd.io/bbolt"
)

// A file without max_bytes has its room on the disk before it is used, growStep at
// least, and the last growReserve of it are for deletes: bbolt needs pages for what a
// delete changes before it can free the old ones, and when the disk is full it would
// find none, or too few of them side by side.
const (
	growStep    = 1 << 20
	maxGrowStep = 16 << 20
	growReserve = 512 << 10
	growAlloc   = 256 << 10 // what bbolt grows a file by: within the room
)

// setRoom has the file grow as this package does it. What an earlier handle has given it
// beyond its pages is there for deletes still.
func (c *Cache) setRoom(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return c.view(func(tx *bbolt.Tx) error {
		limit := max(int(tx.Size()), growStep)
		if size := int(info.Size()); size > limit && allocate(file, info.Size()) == nil { // it may have holes
			limit = size
		}
		c.bound = bound{limit: limit, reserve: growReserve, file: file}
		c.db.AllocSize = growAlloc
		return nil
	})
}

// growLocked makes room for n bytes, or is the error of a full disk.
func (c *Cache) growLocked(n int) error {
	limit := c.bound.limit + n + max(growStep, min(c.bound.limit/8, maxGrowStep))
	if err := allocate(c.bound.file, int64(limit)); err != nil {
		return err
	}
	if !c.noSync {
		if err := c.bound.file.Sync(); err != nil {
			return err
		}
	}
	c.bound.limit = limit
	return nil
}
