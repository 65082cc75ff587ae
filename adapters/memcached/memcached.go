// Package memcached keeps entries in memcached servers, through
// github.com/bradfitz/gomemcache.
//
// # URL
//
//	memcached://host[:11211][,host…]
//	memcacheds://…                      over TLS
//
// With several servers each key lives on one, by rendezvous hashing: see
// [Selector]. The options besides the common ones:
//
//	max_value=1046528   the longest value in bytes; raise it together with the server's -I
//	pool_size=128       idle connections kept per server, 10,000 at most: no less than the
//	                    calls at a time
//	tls_ca= tls_cert= tls_key= tls_server_name=
//
// gomemcache has no authentication, so a user in the URL is an error.
//
// # Mapping
//
//	Get, GetWithTTL   gets
//	Set               set
//	Delete            delete
//	Ping              version, on each server
//	GetMany           gets of up to 1,000 keys and about 4 MiB, on all servers at a time
//	Touch             gets, then cas of the same value with another deadline
//	Add               add; on an item whose entry has ended: gets, cas
//
// Touch and Add begin again when the cas finds that another has changed the item.
// Add leaves what is no entry of ours alone, and returns ErrCorrupt.
//
// SetMany and DeleteMany are the package's, by single calls at a time: gomemcache
// waits for the answer to each write. DeletePattern and Scan are unsupported.
// memcached's one command that lists keys, lru_crawler metadump, now and then leaves
// live ones out, refuses a second caller meanwhile, and has only digests of the keys
// that are hashed. Watch is unsupported: memcached announces nothing.
//
// The value is stored in the form of package envelope, and the deadline in there
// decides, to the millisecond. memcached's own exptime, which goes in steps of a
// second, only reclaims the memory, five to seven seconds after the deadline: the
// server's clock may be behind by some seconds when it has stalled. Beyond 30 days
// exptime is a date by that clock, and is set a day late, for a clock that is ahead.
// After January 2038, which is as far as gomemcache's int32 reaches, there is none
// for such long TTLs: the deadline ends the entry, and eviction takes it.
//
// A key that memcached accepts, of up to 249 bytes, is stored as k+key. Any other
// is stored as h+base64url(SHA-256 of it), with the key itself in front of the
// envelope, where a read compares it. The item's flags tell the two forms from
// each other and from what other programs stored, which reads as ErrCorrupt.
//
// # Clock
//
// The clock is the client's. The deadline comes from the clock of the machine
// that sets the entry, so a reader whose clock is ahead of the writer's by d loses
// the entry d early, and one whose clock is behind by d keeps it for d longer. The
// remaining TTL is wrong by as much, but never more than the TTL that was set. Add
// and Touch read as Get does. Keep the machines on NTP, and use no TTL that is short
// compared with the skew.
//
// # Limits
//
// A server takes items of 1 MiB by default, in which key and header count. A value
// of more than max_value is ErrTooLarge before anything is sent, because memcached
// deletes the old entry when it refuses an item that is too large. It does the same
// when it is out of memory and runs with -M: Set is ErrFull then, and the old entry
// is gone. A Touch that is ErrFull leaves it. Without -M it evicts, at any time, the
// entries used least.
//
// A server that was started with -C has no CAS. A backend that a URL opens asks for
// that, and has neither Touch nor Add if one of its servers says so. With lazy=true
// and with New nobody asks: Touch, and Add where an entry has ended, are
// errors.ErrUnsupported then although the profile has them.
//
// # Consistency
//
// A key is on one server, and each operation takes effect by one command, so the
// operations on it are linearizable. Programs that list different servers disagree
// on where the keys are. A server that is down is not replaced by another: its keys,
// also in a GetMany, are ErrUnavailable until it is back, which is empty then, and
// the keys of the others are unaffected.
//
// # Contexts and failures
//
// gomemcache takes no ctx, and bounds each read and write for itself. So a backend
// that a URL opens gives each connection a gomemcache client of its own, by which a
// call knows its connection: one deadline of op_timeout bounds the dial, the
// requests and the whole answers, and the end of ctx closes the connection. A write
// that was ended so may still take effect. The first connections, which are made when
// the backend is opened, have dial_timeout, unless lazy=true. GetMany has op_timeout for each gets of a
// server.
//
// Gets that come while others are under way to the same server share a round trip;
// what ends one of them does not end the others. A value that was read is handed
// out as it came. A value to be set is copied.
//
// A connection that the server has closed is noticed before a request is sent on
// it, and replaced. If it is lost later, a read is sent again, once. A write, be it
// set, delete, add or cas, is not: it is in doubt.
//
// # A caller's client
//
// [New] takes a *memcache.Client that the caller made. It cannot be seen which
// connection or server a call of it uses. So each call takes a goroutine, which runs
// on when ctx or OpTimeout ends the call, for as long as the client's Timeout lets
// it; Gets do not share round trips; and a write fails when it meets a connection
// that the server has closed. When one of several servers fails, a GetMany cannot
// tell its keys from those that are missing on the others, and all of them fail.
// Prefer the URL.
//
// MaxIdleConns, 2 by default, should be no less than the number of calls at a time,
// or most of them dial. The client's selector decides on the servers, and
// memcache.New ignores names that it cannot resolve: with no server left, every
// operation is ErrUnavailable.
package memcached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
)

const (
	name       = "memcached"
	resolution = time.Millisecond
)

// DefaultMaxValueLen is the longest value, in bytes, unless the options say
// otherwise. A server's default limit is 1 MiB for the whole item: the stored key,
// the envelope and, with memcached 1.6, 63 bytes of its own. That is 1,153 bytes
// besides the value for the longest key; the rest is left to other versions.
const DefaultMaxValueLen = 1<<20 - 2048

// Options are for New.
type Options struct {
	// OpTimeout bounds each call; 1 s by default.
	OpTimeout time.Duration

	// MaxValueLen is the longest value in bytes, at least 1,000,000;
	// DefaultMaxValueLen by default.
	MaxValueLen int
}

// Cache is a handle on memcached servers.
type Cache struct {
	store     store
	opTimeout time.Duration
	maxValue  int
	noCAS     bool // so a server said when the backend was opened

	life context.Context // ends with Close
	end  context.CancelFunc
}

// A store sends the requests: on connections of its own (servers), or through the
// caller's client (callers). Each call is bounded by op_timeout, ends with its ctx,
// and fails when the life of the Cache has ended.
type store interface {
	// get is client.Get, and may share a round trip. The item is the caller's.
	get(ctx context.Context, itemKey string) (*memcache.Item, error)
	// getMany does reads, whose keys differ.
	getMany(ctx context.Context, reads []*read)
	// write runs f once, or not at all, with a client that knows the server of
	// itemKey. f may still be running when write has returned an error.
	write(ctx context.Context, itemKey string, f func(*memcache.Client) error) error
	// ping asks each server.
	ping(ctx context.Context) error
	// close ends the calls under way. The life of the Cache has ended before.
	close()
}

var (
	_ l2cache.L2CacheBackend = (*Cache)(nil)
	_ l2cache.Profiler       = (*Cache)(nil)
)

// New returns a handle that uses client, which stays the caller's: closing the
// handle leaves it open. No server is asked. The package documentation says what
// to set on the client.
func New(client *memcache.Client, o *Options) (*Cache, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if err := opts.check(client); err != nil {
		return nil, &l2cache.Error{Op: "new", Backend: name, Err: err}
	}
	c := newCache(opts.OpTimeout, opts.MaxValueLen)
	c.store = &callers{client: client, life: c.life, opTimeout: opts.OpTimeout}
	return c, nil
}

// check fills in the defaults.
func (o *Options) check(client *memcache.Client) error {
	if o.OpTimeout == 0 {
		o.OpTimeout = l2cache.DefaultOpTimeout
	}
	if o.MaxValueLen == 0 {
		o.MaxValueLen = DefaultMaxValueLen
	}
	switch {
	case client == nil:
		return errors.New("the client is nil")
	case client.Timeout < 0:
		return fmt.Errorf("the client's Timeout is %v: every call would fail", client.Timeout)
	case o.OpTimeout < 0:
		return fmt.Errorf("Options.OpTimeout is %v", o.OpTimeout)
	case o.MaxValueLen < minMaxValueLen:
		return fmt.Errorf("Options.MaxValueLen is %d: at least %d are promised", o.MaxValueLen, minMaxValueLen)
	}
	return nil
}

// minMaxValueLen is what the contract promises of every backend.
const minMaxValueLen = 1_000_000

func newCache(opTimeout time.Duration, maxValue int) *Cache {
	c := &Cache{opTimeout: opTimeout, maxValue: maxValue}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Name returns "memcached".
func (c *Cache) Name() string { return name }

// Format writes the name, whatever the verb: what else there is changes all the time.
func (c *Cache) Format(f fmt.State, _ rune) { io.WriteString(f, name) }

// Profile says that the servers evict and forget, and how long a value may be.
// Without Touch and Add it is that of servers with -C.
func (c *Cache) Profile() l2cache.Profile {
	supports := l2cache.CanGetMany
	if !c.noCAS {
		supports |= l2cache.CanTouch | l2cache.CanAdd
	}
	return l2cache.Profile{Supports: supports, Evicts: true, MaxValueLen: c.maxValue}
}

// Get sends a gets, alone or with other callers' keys.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.GetWithTTL(ctx, key)
	return e.Value, err
}

// GetWithTTL is Get: the deadline comes with the value.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, name, "get", key, c.closed()); err != nil {
		return l2cache.Entry{}, err
	}
	item, err := c.store.get(ctx, itemKey(key))
	if err != nil {
		return l2cache.Entry{}, c.fail(ctx, "get", key, err)
	}
	e, err := entry(item, key, time.Now())
	if err == nil || err == l2cache.ErrNotFound {
		return e, err
	}
	return l2cache.Entry{}, c.fail(ctx, "get", key, err)
}

// Set sends a set.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "set", key, c.closed()); err != nil {
		return err
	}
	ttl, err := c.check(value, ttl)
	if err != nil {
		return c.fail(ctx, "set", key, err)
	}
	item := encode(key, value, time.Now(), ttl)
	err = c.store.write(ctx, item.Key, func(client *memcache.Client) error {
		defer item.free() // here: a set that was left to itself still reads it
		return client.Set(&item.Item)
	})
	if err != nil {
		return c.fail(ctx, "set", key, err)
	}
	return nil
}

// check returns the TTL as it is stored.
func (c *Cache) check(value []byte, ttl time.Duration) (time.Duration, error) {
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err == nil && len(value) > c.maxValue {
		err = fmt.Errorf("%w: %d bytes, max_value is %d", l2cache.ErrTooLarge, len(value), c.maxValue)
	}
	return ttl, err
}

// Delete sends a delete.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := l2cache.Preflight(ctx, name, "delete", key, c.closed()); err != nil {
		return err
	}
	itemKey := itemKey(key)
	err := c.store.write(ctx, itemKey, func(client *memcache.Client) error { return client.Delete(itemKey) })
	if err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
		return c.fail(ctx, "delete", key, err)
	}
	return nil
}

// Ping asks every server for its version, one after the other.
func (c *Cache) Ping(ctx context.Context) error {
	if err := l2cache.PreflightNoKey(ctx, name, "ping", c.closed()); err != nil {
		return err
	}
	err := c.store.ping(ctx)
	if err != nil {
		return c.fail(ctx, "ping", "", err)
	}
	return nil
}

// Close ends the calls under way. With a caller's client it waits until those of
// the client have ended, which its Timeout bounds.
func (c *Cache) Close() error {
	c.end()
	c.store.close()
	return nil
}

func (c *Cache) closed() bool { return c.life.Err() != nil }

func (c *Cache) fail(ctx context.Context, op, key string, err error) error {
	kind := c.kind(err)
	if kind == nil && foreign(err) {
		err = notMemcached{err}
	}
	return l2cache.NewError(ctx, name, op, key, kind, err)
}

// foreign reports whether err is gomemcache's about a reply that memcached does not give.
// There is no type of it.
func foreign(err error) bool {
	text, unexpected := strings.CutPrefix(err.Error(), "memcache: unexpected ")
	_, reply, _ := strings.Cut(text, `: "`)
	for _, answer := range []string{"ERROR", "CLIENT_ERROR ", "SERVER_ERROR "} {
		unexpected = unexpected && !strings.HasPrefix(reply, answer)
	}
	return unexpected
}

// notMemcached does not quote the reply, as gomemcache does: who knows what that quotes.
type notMemcached struct{ err error }

func (notMemcached) Error() string {
	return "the reply is not of memcached's protocol; something else may be on this port"
}
func (e notMemcached) Unwrap() error { return e.err }

// kind returns nil for an error that already is of a kind, or is none of the
// below, and so ErrUnavailable.
func (c *Cache) kind(err error) error {
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return l2cache.ErrNotFound
	// gomemcache has the server's line in the text of the error, and nowhere else.
	case strings.Contains(err.Error(), "SERVER_ERROR object too large for cache"):
		return l2cache.ErrTooLarge
	case strings.Contains(err.Error(), "SERVER_ERROR out of memory storing object"):
		return l2cache.ErrFull
	case c.closed() && !errors.Is(err, l2cache.ErrCorrupt):
		return l2cache.ErrClosed
	}
	return nil
}

// dropped reports whether err is what a request gets on a connection that the
// server had closed before, or has reset.
func dropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
