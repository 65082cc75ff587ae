// Package l2cache is one contract for second-level caches, distributed or on
// disk: a value and its exact remaining time to live.
//
// A backend is an [L2CacheBackend]. Adapters for Redis, memcached, NATS KV,
// bbolt and process memory are in the adapters folder; each maps what its
// store natively has onto the same semantics, and the package conformance
// checks that it does. A backend is opened by URL, so that one can be swapped
// for another in a configuration file:
//
//	import _ "github.com/l2cache/l2cache/adapters/redis"
//
//	cache, err := l2cache.Open(ctx, "redis://localhost:6379/0?prefix=app:")
//
// or made by an adapter's own constructor over a client that the caller has.
//
// # The contract
//
// These rules hold for every operation of every backend. What a store cannot
// do is said in its [Profile], and nowhere else.
//
// TTL in. A TTL is positive, or [NoExpiry]. Zero and less are [ErrInvalidTTL]
// and change nothing, so that a computed TTL which has run out never becomes
// "for ever". A TTL is rounded up to the profile's resolution, 1 ms on all
// adapters of this module.
//
// Never early, never late. An entry is readable from the return of Set until
// ttl after the call of Set, and absent from ttl, rounded up, plus one resolution
// after the return of Set, whatever the granularity of the server; unless the
// profile says Evicts and the backend was short of space.
//
// TTL out. The remaining TTL is that of some instant between call and return,
// rounded down to the resolution but at least 1 ns, and at most the TTL that
// was set (rounded up to the resolution). Reading the clock before the call and
// adding the TTL therefore never outlives the entry by more than a resolution.
//
// One snapshot. Value and TTL come from the same write, by one atomic read.
//
// Set replaces value and TTL, in either direction. Get never extends.
//
// A miss is [ErrNotFound] with a nil value, and nothing else is a miss: a
// backend that cannot answer gives an error that is not ErrNotFound. Delete of
// an absent key is nil.
//
// Keys are strings of 1 to [MaxKeyLen] bytes, any bytes. Distinct keys never
// collide. Other keys are [ErrInvalidKey] on every operation.
//
// Values are 0 to at least 1,000,000 bytes. Nil is stored as empty, and an
// empty value is a hit. A value that the server would not take is
// [ErrTooLarge] before anything is sent that could harm the old entry.
//
// Memory. Arguments are neither retained nor changed after a call has returned,
// also when it returned early. Results belong to the caller, for ever.
//
// Contexts are checked before anything is done and honoured while a call waits.
// An error matches [context.Canceled] or [context.DeadlineExceeded] if and only
// if the caller's ctx has ended, and then it is not [ErrUnavailable]. An
// adapter's own timeout is ErrUnavailable. An embedded store honours ctx while
// it queues; a system call under way is not interrupted. A cancelled caller
// never fails another that shares its round trip.
//
// Close is idempotent. Afterwards every operation is [ErrClosed]. An adapter
// closes only the client that it opened itself; a wrapper closes what it wraps.
//
// Concurrency. Every method may be called from any number of goroutines.
// Without failures, the operations on one key are linearizable across all
// handles and processes.
//
// In doubt. A write that fails validation or meets a ctx that is done changes
// nothing. A write that fails after it may have been sent is in doubt:
// afterwards there is the old entry, the new one or a miss, never a mix. It may
// still land after the call has returned, but no adapter sends a write twice.
//
// Clock. All bounds are on the profile's clock. With [ServerClock] they hold
// between any machines. With [ClientClock] they shift by the skew between writer
// and reader; a reported TTL still never exceeds the TTL that was set.
//
// Where several errors apply to one call, the first of these is returned: the
// ctx's own, ErrClosed, ErrInvalidKey, ErrInvalidTTL, ErrTooLarge.
package l2cache
