// Package natskv keeps entries in a NATS KV bucket, on nats-server 2.11 or later.
//
// # Mapping
//
// A key is a subject of the bucket's stream, in a form that other KV clients can
// list and watch: "user:42:profile" is the KV key "user=3A.42=3A.profile". The
// value has an envelope in front (package envelope of this module), which holds the
// deadline.
//
//	Get, GetWithTTL  $JS.API.DIRECT.GET.KV_<bucket>.$KV.<bucket>.<key>; where the bucket has
//	                 replicas, $JS.API.STREAM.MSG.GET.KV_<bucket>, which the leader answers
//	Set              what Get sends, then publish to $KV.<bucket>.<key>, headers Nats-TTL,
//	                 Nats-Rollup: sub, Nats-Expected-Last-Subject-Sequence: the sequence that was
//	                 read; again if it is no longer the last. With memory storage, and for an
//	                 entry that lives as long as the bucket admits, publish only
//	Delete           the same with KV-Operation: PURGE, without a value; if the store is full,
//	                 $JS.API.STREAM.PURGE.KV_<bucket> before
//	Ping             $JS.API.STREAM.INFO.KV_<bucket>
//	GetMany, SetMany, DeleteMany
//	                 what Get, Set and Delete send, without waiting for each reply: at most
//	                 256 requests, and 16 MB of requests or replies, are under way
//	Touch            what Get sends, then publish of the same value with another deadline,
//	                 header Nats-Expected-Last-Subject-Sequence: the sequence that was read;
//	                 again if it is no longer the last
//	Add              publish, header Nats-Expected-Last-Subject-Sequence: 0; if there is a
//	                 message, what Get sends; if that is a marker or expired, publish with its
//	                 sequence
//	Scan             $JS.API.STREAM.INFO.KV_<bucket> with subjects_filter, then what GetMany
//	                 sends: values are read, a thousand keys at a time, and dropped
//	DeletePattern    $JS.API.STREAM.INFO.KV_<bucket> with subjects_filter, then what
//	                 DeleteMany sends for the keys that match
//	Watch            $JS.API.CONSUMER.CREATE.KV_<bucket>: in memory, headers only; then
//	                 $JS.API.CONSUMER.MSG.NEXT.KV_<bucket>.<consumer> every two seconds
//
// Get and Ping are one round trip; Set, Delete and Touch are two, but with memory storage
// Set and Delete are one, and so is Set with NoExpiry; Add is one where there is no
// message. The first operation, and the first after a reconnect or a timeout, also asks
// for the stream's settings, as Ping does, and creates the bucket if it is missing, unless
// create=false. A bucket whose settings break the contract is refused, with an error that
// names the setting.
//
// Scan and DeletePattern ask the server for the subjects below the last ':', '/' or '.'
// of the prefix, or of what the pattern begins with, and sort out the rest themselves;
// without one, for all subjects. They hold the names of 100,000 at most. Watch has the
// server filter in the same way.
//
// Reads see all writes that were acknowledged before, through whatever server and
// handle. A bucket must not be mirrored with MirrorDirect on: its mirrors would answer
// reads too, and they lag.
//
// # Time
//
// The envelope's deadline decides, by the clock of the writer when it is written and
// by that of the reader when it is read: what the reader's clock is ahead, an entry
// ends early for it, and what it is behind, late. A reported TTL is never more than
// the TTL that was set. The server's clock only decides when space is reclaimed: one
// to two seconds after the deadline, or later. Unless that clock is set forward by more
// than a second, or differs by that much between replicas, it removes nothing early.
//
// With file storage the server keeps what replaces an entry for no less long than the
// entry: a shorter one, which nobody finds after its end, or the marker of a deletion.
// For a server that was killed brings back some of what had been replaced or deleted
// (nats-server 2.11.10, 2.15.2), and that must not be the last message of its key again. So a
// deletion takes effect at once, but something like 200 bytes stay for what the TTL was,
// and what has replaced an entry of a day stays for a day after the last write, if it is
// over by then, too. After an entry with NoExpiry the last message of the key stays for
// ever, or for the bucket's MaxAge: give a bucket in which such entries come and go a
// MaxAge.
//
// A bucket with a MaxAge keeps no entry longer: the profile's MaxTTL is one second
// less than MaxAge, or half of MaxAge if that is under two seconds.
//
// # Limits
//
// A value has at most max_payload (or the stream's MaxMsgSize) less 256 bytes:
// 1,048,320 with the server's default. A server that does not take 1,000,256 is
// refused. When the bucket or the server is full, Set is ErrFull and Delete works; if
// there is no room for its marker even then, a server that is killed may bring the entry
// back.
//
// Set copies the value. What Get returns is the caller's, and is not copied. GetMany
// takes each value to be as large as one may be, as the size shows only in the reply.
//
// # Failures
//
// A batch, and each page of a Scan, has op_timeout for each reply after the one before.
// Keys without a reply have an error, they are no misses.
//
// Watch makes a new consumer, and tells a Gap, when the connection was lost, when the
// server has removed the consumer, when a delivery is missing, and when it has not
// asked for half a second, because the process was stopped, say: the marker of a
// deletion may be gone then. That the consumer's server in a cluster is gone without
// a word shows after two seconds and op_timeout. A consumer that is left over, after
// Close or when a connection broke, is removed by the server after ten seconds. What
// removes messages without publishing, as a purge of the stream does, is not told.
//
// A write is sent once. A call that is under way when the connection breaks is
// ErrUnavailable at once, and so is every call until the client has reconnected,
// which it tries for ever, after 50 ms at first and four times in a second later. With
// file storage, entries survive a restart of the server, and its death; what a machine
// loses that dies is up to the server's sync_interval, two minutes by default. With
// memory storage the bucket itself does not survive, and is created again.
//
// A bucket with replicas has no leader, and is ErrUnavailable, for four to nine seconds
// after its leader has died or stalled: the server's election timeout. Meanwhile reads,
// and what begins a Watch or a Scan, are sent again each 200 ms, and a call that comes
// after another has timed out waits for the stream's settings before it sends anything.
// So calls succeed as soon as there is a leader, and those that fail before, but for the
// first, are not in doubt.
//
// When a call has timed out, and over a bucket with replicas also when nothing has come
// for a second, a server that has said nothing meanwhile is asked for a sign of life. If
// it gives none within op_timeout, a second at least, the connection is broken, and the
// next server tried. That is done to a connection that the backend has made, and not to
// one of the caller's: there a server that stalls is noticed by the driver, after three
// times nats.PingInterval, and a leader that was stopped for longer than an election
// takes may answer reads by what was there before, when it goes on.
//
// A server whose disk somebody else has filled answers no writes, deletes included, for
// as long as that lasts and after it (nats-server 2.15.2, until it is restarted): they
// are ErrUnavailable, and reads go on.
//
// # Opening
//
// The URL is nats://[user:password@]host[:4222][,host…]/bucket, or nats+tls://, or with
// a token nats://:token@host/bucket. Its options, besides those that every backend has:
//
//	max_age=24h      MaxAge of the bucket (see Options); none by default
//	replicas=3       replicas of the bucket, if it has to be created; 1 by default
//	storage=memory   where the bucket is, if it has to be created; file by default
//	create=false     a bucket that is missing is not created, one that exists not changed
//	creds=FILE       a file with a user's JWT and seed, as nsc writes it
//	nkey=FILE        a file with the seed of a user's nkey
//
// with TLS also tls_ca, tls_cert, tls_key and tls_server_name. The creds file is read for
// each connection, so that it may be replaced before the JWT in it expires.
//
// A backend that is opened by URL may turn on AllowMsgTTL in a bucket that exists, unless
// create=false, and takes its MaxAge as it is, unless lazy=true. With lazy=true nobody has
// asked the server: max_age says what the bucket has, and the profile declares neither a
// largest value nor durability.
//
// # Permissions
//
// A user needs those of every JetStream client to read replies, subscribe to
// _INBOX.>, and may need to publish to
//
//	$KV.<bucket>.>                            Set, Delete, Touch, Add
//	$JS.API.STREAM.INFO.KV_<bucket>           every operation, the first time; Scan, DeletePattern
//	$JS.API.DIRECT.GET.KV_<bucket>.>          all but Ping and Watch; without replicas
//	$JS.API.STREAM.MSG.GET.KV_<bucket>        all but Ping and Watch; with replicas
//	$JS.API.STREAM.PURGE.KV_<bucket>          Delete, if the store is full
//	$JS.API.CONSUMER.CREATE.KV_<bucket>       Watch
//	$JS.API.CONSUMER.DELETE.KV_<bucket>.>     Watch
//	$JS.API.CONSUMER.MSG.NEXT.KV_<bucket>.>   Watch
//	$JS.API.INFO                              to create the bucket
//	$JS.API.STREAM.CREATE.KV_<bucket>         to create the bucket
//	$JS.API.STREAM.UPDATE.KV_<bucket>         to turn on AllowMsgTTL
//
// What is refused for want of one is ErrUnavailable with nats.ErrPermissionViolation.
//
// [New] documents what it demands of a connection of the caller's.
package natskv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

const (
	name       = "nats" // in errors, and what Name returns
	resolution = time.Millisecond

	supports = l2cache.CanGetMany | l2cache.CanSetMany | l2cache.CanDeleteMany | l2cache.CanTouch | l2cache.CanAdd |
		l2cache.CanDeletePattern | l2cache.CanScan | l2cache.CanWatch
)

// Cache is a bucket.
type Cache struct {
	stream    jetstream.StreamConfig // to create it with
	subject   string                 // "$KV.<bucket>.", before a key
	create    bool                   // if it is missing
	repair    bool                   // the bucket's settings may be changed
	opTimeout time.Duration
	dial      dialFunc // nil if the caller brought the connection
	profile   l2cache.Profile

	bucket  atomic.Pointer[bucket] // nil until it has been checked
	closed  atomic.Bool
	closing chan struct{} // closed by Close
	close   sync.Once

	gate      chan struct{} // has room for the one who connects and checks, or has closed
	requester *requester    // guarded by gate; nil until there is a connection
	link      *link         // guarded by gate; what dial made
}

var (
	_ l2cache.L2CacheBackend = (*Cache)(nil)
	_ l2cache.Profiler       = (*Cache)(nil)
	_ l2cache.MultiGetter    = (*Cache)(nil)
	_ l2cache.MultiSetter    = (*Cache)(nil)
	_ l2cache.MultiDeleter   = (*Cache)(nil)
	_ l2cache.Toucher        = (*Cache)(nil)
	_ l2cache.Adder          = (*Cache)(nil)
	_ l2cache.PatternDeleter = (*Cache)(nil)
	_ l2cache.Scanner        = (*Cache)(nil)
	_ l2cache.Watcher        = (*Cache)(nil)
)

// Options are what New can be told. The zero value of each field is the default.
type Options struct {
	// OpTimeout bounds every operation; l2cache.DefaultOpTimeout by default.
	OpTimeout time.Duration

	// MaxAge is the bucket's, if it has one. A bucket that has to be created gets it,
	// and one whose MaxAge is shorter is refused. The profile's MaxTTL follows from it.
	MaxAge time.Duration

	// Replicas is for a bucket that has to be created; 1 by default.
	Replicas int

	// Storage is for a bucket that has to be created; jetstream.FileStorage by default.
	Storage jetstream.StorageType

	// NoCreate: a bucket that is missing is not created.
	NoCreate bool
}

// New returns a backend that keeps its entries in bucket, over a connection of the
// caller, which Close leaves open. It does no I/O: the first operation checks the
// bucket, and creates it if it is missing.
//
// The connection must have been made with nats.ReconnectBufSize(-1): what a client
// buffers while it is disconnected it sends later, long after the call has failed.
// New refuses another one, unless it never reconnects. nats.MaxReconnects(-1) is
// advisable: after 60 attempts, the default, the connection is closed for good. A
// server that stalls is left after three times nats.PingInterval, six minutes by default.
// A writer that the server does not read from holds the connection's lock for up to
// nats.FlusherTimeout, a minute by default. No call waits for it; Close does for
// OpTimeout at most, and then leaves a goroutine behind that ends when it has the lock.
//
// That the server has refused a call for want of a permission is learned from the
// connection's LastError, after a tenth of a second; of several at a time only one may
// have that error, and the others time out.
//
// The profile is what is known without asking the server: it declares neither a
// largest value nor durability.
func New(nc *nats.Conn, bucket string, o *Options) (*Cache, error) {
	if nc == nil {
		return nil, newError(errors.New("the connection is nil"))
	}
	if nc.Opts.AllowReconnect && nc.Opts.ReconnectBufSize >= 0 {
		return nil, newError(fmt.Errorf("the connection's ReconnectBufSize is %d, want -1: a write that has failed would be sent after a reconnect",
			nc.Opts.ReconnectBufSize))
	}
	c, err := newCache(bucket, o)
	if err != nil {
		return nil, newError(err)
	}
	c.requester = newRequester(nc, nil, c.closing, c.forget)
	return c, nil
}

func newError(err error) error { return &l2cache.Error{Op: "new", Backend: name, Err: err} }

func newCache(bucket string, o *Options) (*Cache, error) {
	if o == nil {
		o = new(Options)
	}
	if !isBucket(bucket) {
		return nil, errors.New("bucket: the name must have 1 to 200 letters, digits, '-' and '_'")
	}
	if o.OpTimeout < 0 || o.MaxAge < 0 || o.Replicas < 0 {
		return nil, errors.New("options: OpTimeout, MaxAge and Replicas must not be negative")
	}
	c := &Cache{
		subject:   "$KV." + bucket + ".",
		create:    !o.NoCreate,
		opTimeout: o.OpTimeout,
		closing:   make(chan struct{}),
		gate:      make(chan struct{}, 1),
		profile:   l2cache.Profile{Supports: supports, MaxTTL: bucketTTL(o.MaxAge)},
	}
	if c.opTimeout == 0 {
		c.opTimeout = l2cache.DefaultOpTimeout
	}
	c.stream = jetstream.StreamConfig{
		Name:              streamOf(bucket),
		Subjects:          []string{c.subject + ">"},
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		MaxAge:            o.MaxAge,
		Storage:           o.Storage,
		Replicas:          max(o.Replicas, 1),
		Discard:           jetstream.DiscardNew,
		DenyDelete:        true,
		AllowRollup:       true,
		AllowDirect:       o.Replicas <= 1,
		AllowMsgTTL:       true,
	}
	return c, nil
}

// isBucket: the server's limit on the name of a stream is 255, and the name is in a
// request's subject twice.
func isBucket(s string) bool {
	for i := range len(s) {
		if !isPlain(s[i]) || s[i] == '/' {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 200
}

// Name returns "nats".
func (c *Cache) Name() string { return name }

// Format writes the name, whatever the verb: what else there is changes all the time.
func (c *Cache) Format(f fmt.State, _ rune) { io.WriteString(f, name) }

// Profile says what is known of the bucket. The MaxTTL is less than the bucket's
// MaxAge: see the package documentation.
func (c *Cache) Profile() l2cache.Profile { return c.profile }

// Get returns the value.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.GetWithTTL(ctx, key)
	return e.Value, err
}

// GetWithTTL returns the value, and what is left until the deadline in its envelope.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, name, "get", key, c.closed.Load()); err != nil {
		return l2cache.Entry{}, err
	}
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return l2cache.Entry{}, c.fail(ctx, "get", key, err)
	}
	stored, err := c.read(ctx, limit, b, key)
	if err != nil {
		return l2cache.Entry{}, c.fail(ctx, "get", key, err)
	}
	e, err := stored.entry()
	return e, c.fail(ctx, "get", key, err)
}

// Set stores the value in an envelope.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "set", key, c.closed.Load()); err != nil {
		return err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return c.fail(ctx, "set", key, err)
	}
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return c.fail(ctx, "set", key, err)
	}
	if err := b.takes(value); err != nil {
		return c.fail(ctx, "set", key, err)
	}
	ttl = min(ttl, c.profile.MaxTTL)
	data := buffers.Get().(*[]byte)
	*data = appendEntry((*data)[:0], value, ttl)
	answered, err := c.overwrite(ctx, limit, b, key, entry, b.lifetimeOf(ttl), *data)
	if answered {
		buffers.Put(data) // otherwise it may yet be sent
	}
	return c.fail(ctx, "set", key, err)
}

// appendEntry appends an envelope and the value, which is set now.
func appendEntry(dst, value []byte, ttl time.Duration) []byte {
	return append(envelope.NewHeader(time.Now(), ttl).Append(dst), value...)
}

// buffers are what Set puts envelope and value into.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Delete replaces the entry by a marker that removes itself.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := l2cache.Preflight(ctx, name, "delete", key, c.closed.Load()); err != nil {
		return err
	}
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return c.fail(ctx, "delete", key, err)
	}
	_, err = c.overwrite(ctx, limit, b, key, marker, markerKept, nil)
	return c.fail(ctx, "delete", key, err)
}

// Ping checks the bucket, as the first operation does.
func (c *Cache) Ping(ctx context.Context) error {
	if err := l2cache.PreflightNoKey(ctx, name, "ping", c.closed.Load()); err != nil {
		return err
	}
	_, err := c.check(ctx, time.Now().Add(c.opTimeout), c.bucket.Load())
	return c.fail(ctx, "ping", "", err)
}

// Close ends the calls under way, and the connection unless it is the caller's.
func (c *Cache) Close() error {
	c.close.Do(func() {
		c.closed.Store(true)
		close(c.closing)
		c.gate <- struct{}{} // for ever
		if c.link != nil {
			c.link.hangUp()
		}
		if c.requester == nil {
			return
		}
		select {
		case <-c.requester.stopped:
		case <-time.After(c.opTimeout): // it waits for the lock of the caller's connection
		}
	})
	return nil
}

// fail returns err as the error of an operation, but nil and a miss as they are.
func (c *Cache) fail(ctx context.Context, op, key string, err error) error {
	if err == nil || err == l2cache.ErrNotFound {
		return err
	}
	if isGone(err) || errors.Is(err, errTimeout) { // the stream is not there, or has no leader
		c.forget()
	}
	k := kind(err)
	if c.closed.Load() { // a call under way may have learned it from the connection
		k = l2cache.ErrClosed
	}
	return l2cache.NewError(ctx, name, op, key, k, err)
}

// publish sends a message for key to the stream, which acknowledges it. What was
// answered has been sent, and is no longer in use.
func (c *Cache) publish(ctx context.Context, limit time.Time, b *bucket, key string, header nats.Header, data []byte) (answered bool, err error) {
	m, err := b.do(ctx, limit, request{c.subjectOf(key), header, data})
	if err != nil {
		return false, err
	}
	return true, c.acknowledged(m)
}

// acknowledged returns nil if m says that the stream has stored a message.
func (c *Cache) acknowledged(m *nats.Msg) error {
	if err := statusError(m); err != nil {
		return err
	}
	var ack struct {
		Stream string              `json:"stream"`
		Error  *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &ack); {
	case err != nil:
		return fmt.Errorf("acknowledgement: %w", err)
	case ack.Error != nil:
		return ack.Error
	case ack.Stream != c.stream.Name:
		return fmt.Errorf("acknowledgement of stream %q, not %q", ack.Stream, c.stream.Name)
	}
	return nil
}

func (c *Cache) subjectOf(key string) string {
	var buf [256]byte
	return string(appendKey(append(buf[:0], c.subject...), key))
}

// checked returns the bucket, after it has been checked since the last reconnect.
func (c *Cache) checked(ctx context.Context, limit time.Time) (*bucket, error) {
	if b := c.bucket.Load(); b != nil {
		return b, nil
	}
	return c.check(ctx, limit, nil)
}

// check connects if need be, and checks the bucket, unless somebody else has done so
// since the caller found known. Of several callers one does it at a time; if it
// fails, because its ctx ended perhaps, the next one tries.
func (c *Cache) check(ctx context.Context, limit time.Time, known *bucket) (*bucket, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, limit, errTimeout)
	defer cancel()
	select {
	case c.gate <- struct{}{}:
		defer func() { <-c.gate }()
	case <-c.closing:
		return nil, l2cache.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b := c.bucket.Load(); b != nil && b != known {
		return b, nil
	}
	if err := c.connectLocked(ctx); err != nil {
		return nil, err
	}
	r := c.requester
	config, err := r.openStream(ctx, limit, c.stream, c.create)
	if err != nil {
		return nil, err
	}
	b, err := newBucket(r, config, r.maxPayload.Load(), c.profile.MaxTTL)
	if err == errNoMessageTTL && c.repair {
		if config, err = r.mend(ctx, limit, *config); err == nil {
			b, err = newBucket(r, config, r.maxPayload.Load(), c.profile.MaxTTL)
		}
	}
	if err != nil {
		c.forget()
		return nil, fmt.Errorf("stream %s: %w", c.stream.Name, err)
	}
	if r.link != nil && b.config.Replicas > 1 {
		r.alive.Do(func() { go r.keepAlive() })
	}
	c.bucket.Store(b)
	return b, nil
}

// connectLocked makes the connection if there is none, or if the driver has closed
// it for good: it does so after some errors of the server.
func (c *Cache) connectLocked(ctx context.Context) error {
	if c.dial == nil || c.requester != nil && !c.requester.isLost() {
		return nil
	}
	link, err := c.dial(ctx, c.closing)
	if err != nil {
		return err
	}
	if c.link != nil {
		c.link.hangUp() // lets go of what the lost one has
	}
	c.link = link
	c.requester = newRequester(link.nc, link, c.closing, c.forget)
	return nil
}

// forget makes the next operation check the bucket.
func (c *Cache) forget() { c.bucket.Store(nil) }
