package bolt

import (
	"context"
	"time"
)

const syncInterval = 100 * time.Millisecond

// syncer writes commits through to the disk, syncInterval after the first that has
// not been, until ctx ends. A failure stays for Ping to report.
func (c *Cache) syncer(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.unsynced:
		}
		timer.Reset(syncInterval)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := c.db.Sync(); err != nil {
			c.syncErr.Store(&err)
		}
	}
}
