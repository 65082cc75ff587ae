package bolt

import (
	"context"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache/envelope"
)

// DB is the database behind c, for tests that reach what is stored.
func (c *Cache) DB() *bbolt.DB { return c.db }

// Sweep sweeps now. Between looking for what has ended and deleting it, a page at
// a time, it calls between.
func (c *Cache) Sweep(ctx context.Context, between func()) error {
	for from := (rowKey{rowPrefix}); from != nil; {
		p, err := c.ended(from, time.Now().UnixMicro())
		if err != nil {
			return err
		}
		between()
		if err := c.reap(ctx, p.ended, p.rows); err != nil {
			return err
		}
		from = p.next
	}
	return nil
}

// Kind is the kind of a failure.
func Kind(err error) error { return kind(err) }

// FilePath is the name of the file that the path of a URL stands for.
func FilePath(path string, windows bool) string { return filePath(path, windows) }

// DecodeRow checks and decodes the row of an entry.
func DecodeRow(key string, row []byte) (h envelope.Header, body []byte, err error) {
	h, _, body, err = decodeRow(newRowKey(key), row)
	return h, body, err
}

// Verify reads all of a file, as Open does.
func Verify(ctx context.Context, path string) error { return verify(ctx, path, defaultBucket) }

// Hubs is how many buckets there are with an open handle.
func Hubs() int {
	hubsMu.Lock()
	defer hubsMu.Unlock()
	return len(hubs)
}
