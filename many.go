package l2cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// An Item is what SetMany stores under one key.
type Item struct {
	Key   string
	Value []byte
	TTL   time.Duration
}

// KeyErrors says which keys of a batch failed, by the caller's keys, and why. A
// key that is not in it did not fail.
type KeyErrors map[string]error

// Error returns one line with the number of keys and the error of the first.
func (e KeyErrors) Error() string {
	if len(e) == 0 {
		return "no key failed"
	}
	first := ""
	for key := range e {
		if first == "" || key < first {
			first = key
		}
	}
	if _, named := errors.AsType[*Error](e[first]); named {
		return fmt.Sprintf("%d of the keys failed, one of them: %s", len(e), text(e[first]))
	}
	return fmt.Sprintf("%d of the keys failed, one of them: %q: %s", len(e), first, text(e[first]))
}

// Unwrap returns the errors of the keys.
func (e KeyErrors) Unwrap() []error {
	errs := make([]error, 0, len(e))
	for _, err := range e {
		errs = append(errs, err)
	}
	return errs
}

// A MultiGetter is a backend with a GetMany of its own. The keys that it gets are
// valid and distinct. It returns as GetMany does.
type MultiGetter interface {
	L2CacheBackend
	GetMany(ctx context.Context, keys []string) (map[string]Entry, error)
}

// A MultiSetter is a backend with a SetMany of its own. The items that it gets
// have valid, distinct keys and positive TTLs.
type MultiSetter interface {
	L2CacheBackend
	SetMany(ctx context.Context, items []Item) error
}

// A MultiDeleter is a backend with a DeleteMany of its own. The keys that it gets
// are valid and distinct.
type MultiDeleter interface {
	L2CacheBackend
	DeleteMany(ctx context.Context, keys []string) error
}

// fallbackConcurrency is how many single operations a fallback has under way.
const fallbackConcurrency = 16

// GetMany returns the entries that there are under keys, by key; a missing key is
// in neither the map nor the error. Each entry is one snapshot, the map as a whole
// is not.
//
// If some keys fail, the error is a [KeyErrors], and the map has what was read. One
// invalid key, or a ctx that has ended, and nothing is done: that is found out before
// b is called, also where b is closed. Where b is not a
// [MultiGetter], GetMany calls GetWithTTL for each key, several at a time.
func GetMany(ctx context.Context, b L2CacheBackend, keys []string) (map[string]Entry, error) {
	keys, err := distinctKeys(ctx, b, "getmany", keys)
	if err != nil || len(keys) == 0 {
		return map[string]Entry{}, err
	}
	if b, ok := b.(MultiGetter); ok {
		return b.GetMany(ctx, keys)
	}
	var mu sync.Mutex
	entries := make(map[string]Entry, len(keys))
	err = each(len(keys), func(i int) (string, error) {
		entry, err := b.GetWithTTL(ctx, keys[i])
		if err == nil {
			mu.Lock()
			entries[keys[i]] = entry
			mu.Unlock()
		}
		return keys[i], err
	})
	return entries, err
}

// SetMany stores items, each as Set does; of several with one key the last counts.
// The items are not stored at one instant.
//
// If some keys fail, the error is a [KeyErrors]. One invalid key or TTL, or a ctx
// that has ended, and nothing is done. Where b is not a [MultiSetter], SetMany calls
// Set for each item, several at a time.
func SetMany(ctx context.Context, b L2CacheBackend, items []Item) error {
	keys := make([]string, len(items))
	last := make(map[string]int, len(items))
	for i, item := range items {
		keys[i] = item.Key
		last[item.Key] = i
	}
	keys, err := distinctKeys(ctx, b, "setmany", keys)
	if err != nil || len(keys) == 0 {
		return err
	}
	distinct := make([]Item, len(keys))
	for i, key := range keys {
		distinct[i] = items[last[key]]
	}
	for _, item := range items { // those that another replaces, too
		if _, err := CheckTTL(item.TTL, time.Millisecond); err != nil {
			return NewError(ctx, b.Name(), "setmany", item.Key, nil, err)
		}
	}
	if b, ok := b.(MultiSetter); ok {
		return b.SetMany(ctx, distinct)
	}
	return each(len(distinct), func(i int) (string, error) {
		item := distinct[i]
		return item.Key, b.Set(ctx, item.Key, item.Value, item.TTL)
	})
}

// DeleteMany removes keys, each as Delete does.
//
// If some keys fail, the error is a [KeyErrors]. One invalid key, or a ctx that has
// ended, and nothing is done. Where b is not a [MultiDeleter], DeleteMany calls Delete
// for each key, several at a time.
func DeleteMany(ctx context.Context, b L2CacheBackend, keys []string) error {
	keys, err := distinctKeys(ctx, b, "deletemany", keys)
	if err != nil || len(keys) == 0 {
		return err
	}
	if b, ok := b.(MultiDeleter); ok {
		return b.DeleteMany(ctx, keys)
	}
	return each(len(keys), func(i int) (string, error) { return keys[i], b.Delete(ctx, keys[i]) })
}

// distinctKeys checks ctx and all keys, and returns each once, in a slice of its
// own.
func distinctKeys(ctx context.Context, b L2CacheBackend, op string, keys []string) ([]string, error) {
	if err := PreflightNoKey(ctx, b.Name(), op, false); err != nil {
		return nil, err
	}
	maxLen := ProfileOf(b).MaxKeyLen
	seen := make(map[string]struct{}, len(keys))
	distinct := make([]string, 0, len(keys))
	for i, key := range keys {
		if err := CheckKey(key, maxLen); err != nil {
			err = fmt.Errorf("key %d of %d: %w", i+1, len(keys), err)
			return nil, &Error{Op: op, Backend: b.Name(), Key: key, Kind: ErrInvalidKey, Err: err}
		}
		if _, again := seen[key]; !again {
			seen[key] = struct{}{}
			distinct = append(distinct, key)
		}
	}
	return distinct, nil
}

// each runs f(0) to f(n-1), some at a time, and collects the errors by the keys
// that f returns. A miss is none.
func each(n int, f func(i int) (string, error)) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  KeyErrors // guarded by mu
		slots = make(chan struct{}, fallbackConcurrency)
	)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			key, err := f(i)
			if err == nil || errors.Is(err, ErrNotFound) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if errs == nil {
				errs = KeyErrors{}
			}
			errs[key] = err
		})
	}
	wg.Wait()
	if errs == nil {
		return nil
	}
	return errs
}
