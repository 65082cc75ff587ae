package l2cache

import (
	"context"
	"math"
	"time"
)

const (
	// NoExpiry is the TTL of an entry that never expires. It is the largest
	// Duration, so that min and < treat it as the infinity it stands for.
	NoExpiry time.Duration = math.MaxInt64

	// MaxTTL is the longest finite TTL; a longer one is stored as MaxTTL. A
	// deadline that far ahead still fits int64 nanoseconds since 1970, and the
	// limits of every server that has an adapter here.
	MaxTTL = 100 * 365 * 24 * time.Hour

	// MaxKeyLen is the length in bytes of the longest key, at the adapter: a
	// prefix that [WithPrefix] adds counts.
	MaxKeyLen = 1024
)

// An Entry is a value with the time that it has left.
type Entry struct {
	// Value belongs to whoever received the Entry.
	Value []byte
	// TTL is what remained at some instant during the read, rounded down to the
	// backend's resolution but never below 1 ns; NoExpiry if the entry never
	// expires.
	TTL time.Duration
}

// A CacheBackend stores values under keys for a time. The package documentation
// has the rules that hold for all methods.
type CacheBackend interface {
	// Get returns the value of key, or ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)

	// Set stores value under key for ttl, and replaces what was there: value
	// and TTL. The value is not retained.
	//
	// It returns ErrInvalidTTL for a ttl that is not positive and ErrTooLarge for a
	// value that the server would not take, and leaves the old entry alone then.
	// ErrFull is that the server has no room: the old entry is there still, or gone
	// (memcached deletes it before it looks for room).
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// Delete removes key. That key was absent is not an error.
	Delete(ctx context.Context, key string) error

	// Ping is the health check: nil if the backend can answer now, else why not.
	Ping(ctx context.Context) error

	// Name is the kind of the store, "redis" say, for errors and metrics. It is
	// constant, and the only method that may be called after Close without
	// getting ErrClosed.
	Name() string

	// Close releases what the backend holds, and ends the calls under way.
	// The data stays. Closing again is nil.
	Close() error
}

// An L2CacheBackend is a CacheBackend that knows how long an entry has left:
// what promotion into a first level, warming and monitoring need.
type L2CacheBackend interface {
	CacheBackend

	// GetWithTTL returns the value of key and its remaining TTL, read in one
	// atomic step, or ErrNotFound.
	GetWithTTL(ctx context.Context, key string) (Entry, error)
}
