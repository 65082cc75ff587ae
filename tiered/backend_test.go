package tiered_test

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

// A backend is an l2cache backend that the test slows down or breaks.
type backend struct {
	l2cache.L2CacheBackend

	mu     sync.Mutex
	before func(ctx context.Context, op, key string) error // guarded by mu
	after  func(op, key string)                            // guarded by mu
	calls  map[string]int                                  // guarded by mu; by op
	max    time.Duration                                   // the profile's MaxTTL; zero: as the backend has it

	bad string // a key that GetMany cannot read; set before use

	interrupt chan error // to the watcher
}

func newBackend() *backend { return over(mem.New(mem.NewStore())) }

func over(l2 l2cache.L2CacheBackend) *backend {
	return &backend{L2CacheBackend: l2, calls: map[string]int{}, interrupt: make(chan error)}
}

// setBefore has f run before each call; its error is the call's.
func (b *backend) setBefore(f func(ctx context.Context, op, key string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// setAfter has f run after each call, before its caller gets the answer.
func (b *backend) setAfter(f func(op, key string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after = f
}

// down makes every call fail as unavailable.
func (b *backend) down() {
	b.setBefore(func(ctx context.Context, op, key string) error {
		return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
	})
}

func (b *backend) up() { b.setBefore(nil) }

func (b *backend) count(op string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[op]
}

func (b *backend) do(ctx context.Context, op, key string, f func() error) error {
	b.mu.Lock()
	b.calls[op]++
	before, after := b.before, b.after
	b.mu.Unlock()
	if before != nil {
		if err := before(ctx, op, key); err != nil {
			return err
		}
	}
	err := f()
	if after != nil {
		after(op, key)
	}
	return err
}

func (b *backend) GetWithTTL(ctx context.Context, key string) (entry l2cache.Entry, err error) {
	err = b.do(ctx, "get", key, func() (err error) {
		entry, err = b.L2CacheBackend.GetWithTTL(ctx, key)
		return err
	})
	return entry, err
}

func (b *backend) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return b.do(ctx, "set", key, func() error { return b.L2CacheBackend.Set(ctx, key, value, ttl) })
}

func (b *backend) Delete(ctx context.Context, key string) error {
	return b.do(ctx, "delete", key, func() error { return b.L2CacheBackend.Delete(ctx, key) })
}

func (b *backend) GetMany(ctx context.Context, keys []string) (entries map[string]l2cache.Entry, err error) {
	err = b.do(ctx, "getmany", "", func() (err error) {
		entries, err = l2cache.GetMany(ctx, b.L2CacheBackend, keys)
		if b.bad != "" && slices.Contains(keys, b.bad) {
			delete(entries, b.bad)
			return l2cache.KeyErrors{b.bad: l2cache.NewError(ctx, "mem", "getmany", b.bad, l2cache.ErrUnavailable, nil)}
		}
		return err
	})
	return entries, err
}

func (b *backend) SetMany(ctx context.Context, items []l2cache.Item) error {
	return b.do(ctx, "setmany", "", func() error { return l2cache.SetMany(ctx, b.L2CacheBackend, items) })
}

func (b *backend) DeleteMany(ctx context.Context, keys []string) error {
	return b.do(ctx, "deletemany", "", func() error { return l2cache.DeleteMany(ctx, b.L2CacheBackend, keys) })
}

func (b *backend) Touch(ctx context.Context, key string, ttl time.Duration) error {
	return b.do(ctx, "touch", key, func() error { return l2cache.Touch(ctx, b.L2CacheBackend, key, ttl) })
}

func (b *backend) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		if err := b.do(ctx, "scan", prefix, func() error { return nil }); err != nil {
			yield(l2cache.Info{}, err)
			return
		}
		l2cache.Scan(ctx, b.L2CacheBackend, prefix)(yield)
	}
}

func (b *backend) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return func(yield func(l2cache.Event, error) bool) {
		if err := b.do(ctx, "watch", prefix, func() error { return nil }); err != nil {
			yield(l2cache.Event{}, err)
			return
		}
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		events := make(chan func() bool)
		go func() {
			for event, err := range l2cache.Watch(inner, b.L2CacheBackend, prefix) {
				select {
				case events <- func() bool { return yield(event, err) && err == nil }:
				case <-inner.Done():
					return
				}
			}
		}()
		for {
			select {
			case event := <-events:
				if !event() {
					return
				}
			case err := <-b.interrupt:
				if !yield(l2cache.Event{Gap: err == nil}, err) || err != nil {
					return
				}
			case <-ctx.Done():
				yield(l2cache.Event{}, l2cache.NewError(ctx, b.Name(), "watch", prefix, nil, nil))
				return
			}
		}
	}
}

// gap gives the watcher a Gap.
func (b *backend) gap() { b.interrupt <- nil }

// endWatch has the watcher end with err.
func (b *backend) endWatch(err error) { b.interrupt <- err }

func (b *backend) Profile() l2cache.Profile {
	p := l2cache.ProfileOf(b.L2CacheBackend)
	if b.max > 0 {
		p.MaxTTL = b.max
	}
	return p
}
