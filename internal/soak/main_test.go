package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// broken is a mem backend that breaks a law now and then. A nil func does not.
type broken struct {
	l2cache.L2CacheBackend
	read func(key string, e l2cache.Entry, err error) (l2cache.Entry, error)
	set  func(ctx context.Context, key string, value []byte, ttl time.Duration) (done bool)
}

func (b *broken) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	e, err := b.L2CacheBackend.GetWithTTL(ctx, key)
	if b.read != nil {
		return b.read(key, e, err)
	}
	return e, err
}

func (b *broken) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := b.GetWithTTL(ctx, key)
	return e.Value, err
}

func (b *broken) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if b.set != nil && b.set(ctx, key, value, ttl) {
		return nil
	}
	return b.L2CacheBackend.Set(ctx, key, value, ttl)
}

func sometimes() bool { return rand.IntN(50) == 0 }

func (r *run) count(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[kind]
}

// TestSoak is a short one of each backend. ./scripts/soak is long.
func TestSoak(t *testing.T) {
	for _, name := range []string{"mem", "bolt", "redis", "memcached", "nats", "nats-r3"} {
		t.Run(name, func(t *testing.T) {
			if err := soak(t.Context(), name, 4*time.Second, rand.Uint64()); err != nil {
				servertest.SkipOrFail(t, err)
			}
		})
	}
}

// TestSoakSees soaks backends that break one law each, and one that breaks none.
func TestSoakSees(t *testing.T) {
	tests := []struct {
		name, kind string
		breakIt    func(b *broken)
	}{
		{"sound", "", func(*broken) {}},
		{"late", "late", func(b *broken) {
			var last sync.Map // what was read before
			b.read = func(key string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if err == nil {
					last.Store(key, e)
				} else if old, ok := last.Load(key); ok && err == l2cache.ErrNotFound {
					return old.(l2cache.Entry), nil
				}
				return e, err
			}
		}},
		{"early", "early", func(b *broken) {
			b.read = func(_ string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if err == nil && e.TTL < 100*time.Millisecond {
					return l2cache.Entry{}, l2cache.ErrNotFound
				}
				return e, err
			}
		}},
		{"ttl of another", "torn", func(b *broken) {
			b.read = func(_ string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if err == nil && sometimes() {
					e.TTL = 2 * time.Hour
				}
				return e, err
			}
		}},
		{"value of two", "torn", func(b *broken) {
			b.read = func(_ string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if err == nil && sometimes() {
					e.Value[len(e.Value)-1]++
				}
				return e, err
			}
		}},
		{"lost", "lost", func(b *broken) {
			b.read = func(_ string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if e.TTL > time.Minute && sometimes() {
					return l2cache.Entry{}, l2cache.ErrNotFound
				}
				return e, err
			}
		}},
		{"write not done", "wrong", func(b *broken) {
			b.set = func(context.Context, string, []byte, time.Duration) bool { return sometimes() }
		}},
		{"write done twice", "torn", func(b *broken) {
			b.set = func(ctx context.Context, key string, value []byte, ttl time.Duration) bool {
				if sometimes() {
					time.AfterFunc(20*time.Millisecond, func() { b.L2CacheBackend.Set(context.Background(), key, value, ttl) })
				}
				return false
			}
		}},
		{"value of another key", "wrong", func(b *broken) {
			var last sync.Map
			b.read = func(key string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				old, ok := last.Swap(0, e)
				if err == nil && ok && sometimes() {
					return old.(l2cache.Entry), nil
				}
				return e, err
			}
		}},
		{"odd error", "wrong", func(b *broken) {
			b.read = func(_ string, e l2cache.Entry, err error) (l2cache.Entry, error) {
				if sometimes() {
					return l2cache.Entry{}, errors.New("odd")
				}
				return e, err
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inner, err := l2cache.Open(t.Context(), "mem://")
			if err != nil {
				t.Fatal(err)
			}
			b := &broken{L2CacheBackend: inner}
			test.breakIt(b)
			r := newRun(test.name, b)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := 2 * time.Second
			if test.kind != "" {
				d = time.Minute
				go func() {
					for ctx.Err() == nil && r.count(test.kind) == 0 {
						time.Sleep(5 * time.Millisecond)
					}
					cancel()
				}()
			}
			if err := r.live(ctx, nil, d, 1); err != nil {
				t.Fatal(err)
			}
			if err := inner.Close(); err != nil {
				t.Error(err)
			}
			if test.kind == "" {
				if err := r.print([2]int{}); err != nil {
					t.Errorf("a sound backend: %v", err)
				}
				return
			}
			if r.count(test.kind) == 0 {
				t.Errorf("%d operations: found %v, want some %q", r.ops.Load(), r.counts, test.kind)
			}
			if err := r.print([2]int{}); err == nil {
				t.Error("print says that all is well")
			}
		})
	}
}

// TestSoakTellsLeaks has the line say so when something is left.
func TestSoakTellsLeaks(t *testing.T) {
	r := newRun("leaky")
	if err := r.print([2]int{1, 0}); err == nil {
		t.Error("print with a leaked goroutine = nil")
	}
	if err := r.print([2]int{0, 1}); err == nil {
		t.Error("print with a leaked descriptor = nil")
	}
}
