package l2cache

import (
	"context"
	"fmt"
	"time"
)

// WithPrefix returns a backend that stores each key of b under prefix+key, plain
// concatenation, so that other programs can still read the keys. Two prefixes
// keep their users apart only if neither begins with the other.
//
// A key has 1 to MaxKeyLen−len(prefix) bytes then, as the profile says; the
// empty key stays invalid. Errors speak of the caller's key. Closing it closes b.
func WithPrefix(b L2CacheBackend, prefix string) L2CacheBackend {
	if prefix == "" {
		return b
	}
	return &prefixed{b, prefix}
}

type prefixed struct {
	b      L2CacheBackend
	prefix string
}

var (
	_ L2CacheBackend = (*prefixed)(nil)
	_ Profiler       = (*prefixed)(nil)
)

func (p *prefixed) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := p.b.Get(ctx, p.full(key))
	return value, p.shorten(err, key)
}

func (p *prefixed) GetWithTTL(ctx context.Context, key string) (Entry, error) {
	entry, err := p.b.GetWithTTL(ctx, p.full(key))
	return entry, p.shorten(err, key)
}

func (p *prefixed) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return p.shorten(p.b.Set(ctx, p.full(key), value, ttl), key)
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	return p.shorten(p.b.Delete(ctx, p.full(key)), key)
}

// String is that of the backend without the prefix, and the prefix.
func (p *prefixed) String() string { return fmt.Sprintf("%s with prefix %q", printed(p.b), p.prefix) }

// printed is what b says of itself. Fmt would print the fields of one that says nothing, and
// a password may be among them.
func printed(b L2CacheBackend) string {
	if s, ok := b.(fmt.Stringer); ok {
		return s.String()
	}
	return b.Name()
}

func (p *prefixed) Ping(ctx context.Context) error { return p.b.Ping(ctx) }
func (p *prefixed) Name() string                   { return p.b.Name() }
func (p *prefixed) Close() error                   { return p.b.Close() }

func (p *prefixed) Profile() Profile {
	profile := ProfileOf(p.b)
	if profile.MaxKeyLen -= len(p.prefix); profile.MaxKeyLen <= 0 {
		profile.MaxKeyLen = -1 // zero would be the default
	}
	return profile
}

// Unwrap returns the backend without the prefix.
func (p *prefixed) Unwrap() L2CacheBackend { return p.b }

// full returns the key that p.b knows. The empty key stays empty, and so invalid:
// with the prefix in front it would be a key. One that is too long together with
// the prefix is too long for p.b as well, so invalid keys are refused there, after
// what comes before them.
func (p *prefixed) full(key string) string {
	if key == "" {
		return ""
	}
	return p.prefix + key
}

// shorten puts the caller's key into an error that speaks of p.b's.
func (p *prefixed) shorten(err error, key string) error {
	e, ok := err.(*Error)
	if !ok || key == "" || e.Key != p.prefix+key {
		return err
	}
	short := *e
	short.Key = key
	if e.Kind == ErrInvalidKey {
		short.Err = CheckKey(key, p.Profile().MaxKeyLen)
	}
	return &short
}
