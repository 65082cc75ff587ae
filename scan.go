package l2cache

import (
	"context"
	"iter"
	"time"
)

// An Info is what Scan tells of an entry.
type Info struct {
	Key  string
	TTL  time.Duration // remaining, as GetWithTTL gives it
	Size int           // of the value, in bytes
}

// A Scanner is a backend that can list its entries.
type Scanner interface {
	L2CacheBackend
	Scan(ctx context.Context, prefix string) iter.Seq2[Info, error]
}

// Scan lists the entries whose keys begin with prefix, in no order. One that is
// there during all of the scan comes at least once, and may come again; one that
// has expired never comes. The values are not read where that can be helped.
//
// It reads a page, lets go of the store and yields what it has read: the loop may
// call the backend, and take its time. An error is the last thing that comes, with
// the zero Info; ctx's, if it ends.
//
// Where b is not a [Scanner], the error is errors.ErrUnsupported.
func Scan(ctx context.Context, b L2CacheBackend, prefix string) iter.Seq2[Info, error] {
	if b, ok := b.(Scanner); ok {
		return b.Scan(ctx, prefix)
	}
	return func(yield func(Info, error) bool) { yield(Info{}, unsupported(ctx, b, "scan", prefix)) }
}
