// Package mem keeps entries in the memory of the process: for tests, as a
// fallback, and as the definition of the contract in its simplest form.
//
// Its URLs are mem:// for a store that nobody else can reach, and mem://name for
// one that all handles of that name in the process share, and that is dropped
// when the last of them is closed.
//
// Deadlines are on the monotonic clock. An expired entry is absent at once, and
// its memory is reclaimed by later Sets.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

const resolution = time.Millisecond

// A Store holds entries, for any number of handles. It is made by NewStore.
type Store struct {
	hub l2cache.Hub // of those who watch

	mu      sync.Mutex
	entries map[string]entry // guarded by mu
	peak    int              // the most entries that the map has had; guarded by mu
}

type entry struct {
	value    []byte        // never written to once it is here
	ttl      time.Duration // as set, rounded up
	deadline time.Time     // zero: never
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{entries: map[string]entry{}} }

// Cache is a handle on a store.
type Cache struct {
	store   *Store
	release func()        // drops the name of a named store
	done    chan struct{} // closed by Close
	closed  atomic.Bool
}

var (
	_ l2cache.L2CacheBackend = (*Cache)(nil)
	_ l2cache.Profiler       = (*Cache)(nil)
)

// New returns a handle on s, or on a store of its own if s is nil. Closing it leaves
// s and its other handles alone.
func New(s *Store) *Cache {
	if s == nil {
		s = NewStore()
	}
	return &Cache{store: s, release: func() {}, done: make(chan struct{})}
}

// Name returns "mem".
func (c *Cache) Name() string { return "mem" }

// Format writes the name, whatever the verb: what else there is changes all the time.
func (c *Cache) Format(f fmt.State, _ rune) { io.WriteString(f, "mem") }

// Profile says that the store is in this process, and gone with it.
func (c *Cache) Profile() l2cache.Profile {
	return l2cache.Profile{
		Embedded: true,
		Supports: l2cache.CanGetMany | l2cache.CanSetMany | l2cache.CanDeleteMany | l2cache.CanTouch |
			l2cache.CanAdd | l2cache.CanDeletePattern | l2cache.CanScan | l2cache.CanWatch,
	}
}

// Get returns a copy of the value.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.GetWithTTL(ctx, key)
	return e.Value, err
}

// GetWithTTL returns a copy of the value, and what is left of its TTL.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, "mem", "get", key, c.closed.Load()); err != nil {
		return l2cache.Entry{}, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	e, left, live := c.store.liveLocked(key, time.Now())
	if !live {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	return l2cache.Entry{Value: e.copy(), TTL: left}, nil
}

// Set stores a copy of value.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, "mem", "set", key, c.closed.Load()); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return l2cache.NewError(ctx, "mem", "set", key, nil, err)
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.setLocked(key, bytes.Clone(value), ttl)
	return nil
}

// Delete removes key.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := l2cache.Preflight(ctx, "mem", "delete", key, c.closed.Load()); err != nil {
		return err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.deleteLocked(key)
	return nil
}

// Ping is nil until Close.
func (c *Cache) Ping(ctx context.Context) error {
	return l2cache.PreflightNoKey(ctx, "mem", "ping", c.closed.Load())
}

// Close ends the handle, and the loops over its Watch.
func (c *Cache) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		close(c.done)
		c.release()
	}
	return nil
}

// remaining is the TTL left at now, and false from the deadline on.
func (e entry) remaining(now time.Time) (time.Duration, bool) {
	if e.deadline.IsZero() {
		return l2cache.NoExpiry, true
	}
	left := e.deadline.Sub(now)
	return l2cache.RoundRemaining(min(left, e.ttl), resolution), left > 0
}

// copy returns the value in memory of its own, not nil if it is empty.
func (e entry) copy() []byte { return append([]byte{}, e.value...) }

// liveLocked returns the entry of key and its remaining TTL, if it has not ended.
func (s *Store) liveLocked(key string, now time.Time) (entry, time.Duration, bool) {
	e, ok := s.entries[key]
	left, live := e.remaining(now)
	return e, left, ok && live
}

// setLocked stores value, which it keeps, for ttl from now.
func (s *Store) setLocked(key string, value []byte, ttl time.Duration) {
	e, now := entry{value: value, ttl: ttl}, time.Now()
	if ttl != l2cache.NoExpiry {
		e.deadline = now.Add(ttl)
	}
	s.entries[key] = e
	s.reclaimLocked(now)
	s.hub.Changed(key)
}

func (s *Store) deleteLocked(key string) {
	delete(s.entries, key)
	s.hub.Changed(key)
}

// reclaimLocked drops the expired among a few entries. A map is iterated from a
// random place, so with two looked at for each one stored, dead entries cannot
// pile up without bound.
func (s *Store) reclaimLocked(now time.Time) {
	// A map keeps its size when it empties, and looking for entries in it gets slow.
	if s.peak = max(s.peak, len(s.entries)); s.peak > 1024 && len(s.entries) < s.peak/8 {
		smaller := make(map[string]entry, len(s.entries))
		maps.Copy(smaller, s.entries)
		s.entries, s.peak = smaller, len(smaller)
	}
	looked := 0
	for key, e := range s.entries {
		if _, live := e.remaining(now); !live {
			delete(s.entries, key)
		}
		if looked++; looked == 2 {
			return
		}
	}
}
