package l2cache

import (
	"context"
	"time"
)

// A Toucher is a backend that can change the TTL of an entry.
type Toucher interface {
	L2CacheBackend
	Touch(ctx context.Context, key string, ttl time.Duration) error
}

// Touch gives the entry under key the TTL ttl, counted from now, and leaves its
// value alone. A missing or expired key is ErrNotFound, and stays missing. A
// concurrent Set or Delete is neither overwritten nor undone.
//
// Where b is not a [Toucher], the error is errors.ErrUnsupported: reading and
// writing again could undo a write of another in between.
func Touch(ctx context.Context, b L2CacheBackend, key string, ttl time.Duration) error {
	if b, ok := b.(Toucher); ok {
		return b.Touch(ctx, key, ttl)
	}
	return unsupported(ctx, b, "touch", key)
}
