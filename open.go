package l2cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// An OpenFunc opens a backend as p says. It reads every option that it knows
// through p's methods, then returns p.Err() if that is not nil, and only then
// touches the store. ctx bounds the opening, not the life of the backend; it
// has a deadline of p.DialTimeout at most. Open applies the prefix, and pings.
type OpenFunc func(ctx context.Context, p *Params) (L2CacheBackend, error)

var (
	registryMu sync.RWMutex
	registry   = map[string]OpenFunc{} // by scheme
)

// Register makes a backend available to Open under a URL scheme, in lower case.
// Adapters call it in init. It panics if the scheme is taken or open is nil.
func Register(scheme string, open OpenFunc) {
	registryMu.Lock()
	defer registryMu.Unlock()
	if open == nil {
		panic("l2cache: Register of " + scheme + " with a nil OpenFunc")
	}
	if !isScheme(scheme) {
		panic("l2cache: Register of an invalid scheme " + scheme)
	}
	if _, taken := registry[scheme]; taken {
		panic("l2cache: Register called twice for " + scheme)
	}
	registry[scheme] = open
}

// Schemes returns the registered schemes, sorted.
func Schemes() []string {
	registryMu.RLock()
	defer registryMu.RUnlock()
	return slices.Sorted(maps.Keys(registry))
}

// Open opens the backend that rawURL names, by the adapter that is registered for
// its scheme: import the adapter's package, blank if need be.
//
// The form is scheme://[user[:password]@]host[:port][,host…][/path][?options].
// What may not stand literally in a part is percent-encoded. The options prefix,
// op_timeout, dial_timeout and lazy go with every scheme; the adapter's package
// documents others. Unless lazy=true, Open pings, and fails when there is no
// answer within dial_timeout (5 s by default).
//
// A + stands for itself. For a password with many such characters see [Config], or
// let url.UserPassword encode it.
//
// No error of Open shows a part of rawURL that could be a secret.
func Open(ctx context.Context, rawURL string) (L2CacheBackend, error) {
	if contextErr(ctx) != nil {
		return nil, NewError(ctx, "l2cache", "open", "", nil, nil)
	}
	p, err := parseURL(rawURL)
	if err != nil {
		return nil, &Error{Op: "open", Backend: "l2cache", Err: err}
	}
	return open(ctx, p)
}

// open opens the backend that p stands for.
func open(ctx context.Context, p *Params) (L2CacheBackend, error) {
	opener, err := opener(p)
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeout(ctx, p.DialTimeout)
	defer cancel()
	b, err := opener(dialCtx, p)
	if err == nil {
		err = p.Err() // in case the adapter did not ask
		if err == nil && !p.Lazy {
			err = b.Ping(dialCtx)
		}
		if err != nil {
			b.Close() // the error that led here is the one to report
		}
	}
	if err != nil {
		return nil, openErr(ctx, p, err)
	}
	return WithPrefix(b, p.prefix), nil
}

// validate returns what open would find wrong with p before it opens anything.
func validate(p *Params) error {
	opener, err := opener(p)
	if err != nil {
		return err
	}
	p.dry = true
	b, err := opener(context.Background(), p)
	if err == nil { // the adapter did not ask
		b.Close()
		err = p.Err()
	}
	if errors.Is(err, errValid) {
		return nil
	}
	return openErr(context.Background(), p, err)
}

func opener(p *Params) (OpenFunc, error) {
	registryMu.RLock()
	defer registryMu.RUnlock()
	if open := registry[p.Scheme]; open != nil {
		return open, nil
	}
	return nil, &Error{Op: "open", Backend: "l2cache", Err: unknownSchemeLocked(p)}
}

// openErr makes err an *Error, and sees to it that a dial_timeout, which ended
// the ctx that open had, is not taken for the end of the caller's ctx.
func openErr(ctx context.Context, p *Params, err error) error {
	if contextErr(ctx) == nil && isContextErr(err) {
		err = fmt.Errorf("no answer within dial_timeout (%v)", p.DialTimeout)
		return &Error{Op: "open", Backend: p.Scheme, Kind: ErrUnavailable, Err: err}
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Op: "open", Backend: p.Scheme, Err: err}
}

// adapters names the packages of this module by the schemes that they register,
// for the hint in the error of a scheme that nobody registered.
var adapters = map[string]string{
	"bolt":       "bolt",
	"mem":        "mem",
	"memcached":  "memcached",
	"memcacheds": "memcached",
	"nats":       "natskv",
	"nats+tls":   "natskv",
	"redis":      "redis",
	"rediss":     "redis",
	"redis+unix": "redis",

	"redis+cluster":   "redis",
	"rediss+cluster":  "redis",
	"redis+sentinel":  "redis",
	"rediss+sentinel": "redis",
}

// unknownSchemeLocked is the error of a scheme that is not registered. It does not quote
// one of nobody's: that may be a user or a password.
func unknownSchemeLocked(p *Params) error {
	if pkg, ours := adapters[p.Scheme]; ours {
		return fmt.Errorf("scheme %q is not registered: import _ \"github.com/l2cache/l2cache/adapters/%s\"", p.Scheme, pkg)
	}
	known := strings.Join(slices.Sorted(maps.Keys(registry)), ", ")
	if known == "" {
		known = "none; import the package of an adapter"
	}
	if !strings.HasPrefix(p.Path, "/") && len(p.Hosts) == 0 { // localhost:6379
		return fmt.Errorf("URL: it must begin with a scheme, as in redis://localhost:6379 (registered: %s)", known)
	}
	return fmt.Errorf("URL: unknown scheme (registered: %s)", known)
}
