package l2cache

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"
)

// The methods of this file forward the capabilities of the backend behind the
// prefix, by the package's own functions: what it lacks is unsupported, or done by
// a fallback, as without the prefix.

var (
	_ MultiGetter    = (*prefixed)(nil)
	_ MultiSetter    = (*prefixed)(nil)
	_ MultiDeleter   = (*prefixed)(nil)
	_ Toucher        = (*prefixed)(nil)
	_ Adder          = (*prefixed)(nil)
	_ PatternDeleter = (*prefixed)(nil)
	_ Scanner        = (*prefixed)(nil)
	_ Watcher        = (*prefixed)(nil)
)

func (p *prefixed) GetMany(ctx context.Context, keys []string) (map[string]Entry, error) {
	full, err := GetMany(ctx, p.b, p.fullKeys(keys))
	entries := make(map[string]Entry, len(full))
	for key, entry := range full {
		entries[strings.TrimPrefix(key, p.prefix)] = entry
	}
	return entries, p.shortenMany(err)
}

func (p *prefixed) SetMany(ctx context.Context, items []Item) error {
	full := make([]Item, len(items))
	for i, item := range items {
		full[i] = Item{Key: p.full(item.Key), Value: item.Value, TTL: item.TTL}
	}
	return p.shortenMany(SetMany(ctx, p.b, full))
}

func (p *prefixed) DeleteMany(ctx context.Context, keys []string) error {
	return p.shortenMany(DeleteMany(ctx, p.b, p.fullKeys(keys)))
}

func (p *prefixed) Touch(ctx context.Context, key string, ttl time.Duration) error {
	return p.shorten(Touch(ctx, p.b, p.full(key), ttl), key)
}

func (p *prefixed) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	added, err := Add(ctx, p.b, p.full(key), value, ttl)
	return added, p.shorten(err, key)
}

func (p *prefixed) DeletePattern(ctx context.Context, pattern string) error {
	full := QuotePattern(p.prefix) + pattern
	err := DeletePattern(ctx, p.b, full)
	if e, ok := err.(*Error); ok && e.Key == full {
		short := *e
		short.Key = pattern
		return &short
	}
	return err
}

func (p *prefixed) Scan(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for info, err := range Scan(ctx, p.b, p.prefix+prefix) {
			info.Key = strings.TrimPrefix(info.Key, p.prefix)
			if !yield(info, p.shortenAny(err)) {
				return
			}
		}
	}
}

func (p *prefixed) Watch(ctx context.Context, prefix string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for event, err := range Watch(ctx, p.b, p.prefix+prefix) {
			event.Key = strings.TrimPrefix(event.Key, p.prefix)
			if !yield(event, p.shortenAny(err)) {
				return
			}
		}
	}
}

func (p *prefixed) fullKeys(keys []string) []string {
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = p.full(key)
	}
	return full
}

// shortenMany puts the caller's keys into the error of a batch.
func (p *prefixed) shortenMany(err error) error {
	var full KeyErrors
	if !errors.As(err, &full) {
		return p.shortenAny(err)
	}
	short := make(KeyErrors, len(full))
	for key, err := range full {
		key = strings.TrimPrefix(key, p.prefix)
		short[key] = p.shorten(err, key)
	}
	return short
}

// shortenAny is shorten for an error whose key only the error tells.
func (p *prefixed) shortenAny(err error) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	if e.Key == p.prefix { // a Scan or Watch of everything
		short := *e
		short.Key = ""
		return &short
	}
	return p.shorten(err, strings.TrimPrefix(e.Key, p.prefix))
}
