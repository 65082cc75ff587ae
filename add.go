package l2cache

import (
	"context"
	"time"
)

// An Adder is a backend that can store an entry only if there is none.
type Adder interface {
	L2CacheBackend
	Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error)
}

// Add stores an entry as Set does if there is none under key, and reports whether
// it has. Of several concurrent callers one succeeds. A false comes with a nil
// error, and changes nothing: neither value nor TTL. After an error that says
// that the write is in doubt, the entry may be there.
//
// Where b is not an [Adder], the error is errors.ErrUnsupported.
func Add(ctx context.Context, b L2CacheBackend, key string, value []byte, ttl time.Duration) (bool, error) {
	if b, ok := b.(Adder); ok {
		return b.Add(ctx, key, value, ttl)
	}
	return false, unsupported(ctx, b, "add", key)
}
