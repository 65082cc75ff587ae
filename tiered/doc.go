// Package tiered is a cache of two levels: values in this process's memory (L1) in
// front of an l2cache backend that many processes share (L2).
//
//	cache, err := tiered.New[User](l2, &tiered.Options[User]{MaxL1TTL: 10 * time.Second})
//
//	result, err := cache.GetOrLoad(ctx, "user:1", func(ctx context.Context, key string, stale *User) (tiered.Loaded[User], error) {
//		u, err := db.User(ctx, 1)
//		return tiered.Loaded[User]{Value: u, TTL: 5 * time.Minute}, err
//	})
//
// # What L1 promises
//
// An entry that is promoted from L2 stays in L1 for at most what it has left there.
// The clock is read before L2 is asked, and the remaining TTL counts from that
// instant, on the monotonic clock; every L1 hit looks at the deadline again. So no
// read that begins after an entry's end in L2, plus L2's resolution, gets it from
// L1. With a backend on the server's clock that holds whatever the clocks of the
// machines show; with one on the clients' clocks it shifts by the skew between the
// writer of the entry and this reader, as L2's own end does, and L1 keeps nothing
// for longer than the TTL that was set. An entry without expiry stays one without
// expiry. (On Linux the monotonic clock stands still while the machine is
// suspended.)
//
// Before its end an entry may change or be deleted in L2. What this Cache did, its
// own later reads see. A change by another process reaches L1 by L2's Watch, where
// it has one; Options.MaxL1TTL bounds how long it can go unseen in any case.
//
// A read that was under way while its key was set, deleted or announced as changed
// answers its caller, but leaves nothing in L1; a load neither in L1 nor in L2.
//
// # Ownership
//
// L1 holds values of type V, not their bytes, and hands the same value to all who
// ask. A value that was given to the Cache, or that came from it, is shared: where V
// is a pointer, a slice or a map, or holds one, nobody may change what it refers to.
// That goes for []byte, too.
package tiered
