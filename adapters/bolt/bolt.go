// Package bolt keeps entries in a file, in a bucket of a bbolt database: the
// embedded backend, for which nothing has to be installed or started.
//
// Its URLs are bolt:///absolute/file.db and bolt:relative/file.db.
//
// # Mapping
//
// An entry is one row: the envelope (deadline, TTL, value) and a CRC-32C of key
// and row. A value of more than 16,000 bytes is in rows of that length, which are
// replaced and deleted in one transaction with the entry.
//
//   - Get, GetWithTTL: a read transaction, one Get. The value is copied.
//   - Set: Put, in a commit that it shares with the other writes of the moment.
//   - Delete: Delete, likewise. A commit that would change nothing is not made.
//   - GetMany: read transactions of up to 1,000 keys.
//   - SetMany, DeleteMany: commits of up to 1,024 rows, shared likewise.
//   - Touch: a look at the row, and a Put of it with another deadline, in one commit.
//     Chunks are neither read nor written.
//   - Add: a look at the row, and a Put if there is none, in one commit.
//   - DeletePattern: read transactions of up to 20,000 entries of those that begin
//     with the pattern's literal beginning, and for what matches commits of up to
//     about 1,024 rows, shared likewise.
//   - Scan: read transactions of up to 1,000 entries, from the prefix on, in the order
//     of the keys. Chunks are not read.
//   - Watch: what the commits of all handles on the bucket in this process have
//     changed, told when they have ended. What the owner of a database writes into the
//     bucket without a handle is not seen.
//   - Ping: an empty read transaction.
//
// Compact is a function of its own, for a file that nobody has open.
//
// Commits are grouped without a timer. A write that finds no commit under way is
// committed at once, alone; those that come meanwhile are committed together when
// it has ended, up to 1,024 rows.
//
// # Expiry
//
// An expired entry is absent at once. Reads do not delete it: a sweeper goroutine
// does, which goes through the entries at most once per interval, and only when
// one of them has ended. It deletes what has ended still when its transaction
// runs, so a value that was set meanwhile stays. The file does not shrink; its
// free pages are used again, and Compact gives them back.
//
// Deadlines are on the wall clock of this machine, also while the file is open, and
// time counts while it is closed or the machine is suspended, which the monotonic clock
// leaves out. When the clock is set forward by an hour, entries end an hour early, those
// with less at once. When it is set back by an hour, those that were set before end an
// hour late; until then they report at most the TTL that they were set with. What is
// set afterwards is right.
//
// # Durability
//
// A write that has returned nil is on the disk. With sync=false it is on the disk
// 100 ms later at the latest, or when Close returns: a crash of the process loses
// nothing even so, but one of the machine can lose the last writes and, because
// pages reach the disk in any order, damage the file.
//
// # Consistency
//
// All handles on one database see each write as soon as it has returned. A batch
// is not one write: others can come between its commits, and GetMany has one instant
// for each 1,000 keys or 4 MiB. A file
// that was opened by URL has one handle only: a second one, in this process or
// another, is refused. The lock is a file of its own, with .lock after the name,
// so that it holds even when the database file is removed while it is open. The
// lock file stays.
//
// # Contexts and failures
//
// A write whose ctx ends while it waits for another commit is not done. A commit
// under way is not interrupted: a write whose ctx ends then returns, and lands. In
// the same way op_timeout bounds each write, as ErrUnavailable; except for one
// whose ctx cannot end and that finds no commit under way, which it makes in its
// own goroutine. Reads do not wait for commits, except for one that has to map a
// larger file.
//
// ErrFull: the disk or the database's MaxSize is full; nothing was changed. Deletes go
// on: a file that was opened by URL has its room on the disk before it is used, 1 MiB
// or an eighth of it, up to 16 MiB, at a time, and the last 512 KiB are for them. (On Linux, and not on
// every file system. Elsewhere, and with New, a Delete can find no room either.)
// ErrCorrupt: a row, or a page of bbolt's, is damaged. A Set replaces the damaged
// entry, and a Delete or DeletePattern removes it, if bbolt can still find its way.
// Touch and Add leave it alone. GetMany fails for its key only, and Scan yields the
// error of the first damaged row after all entries that are whole. An error of the
// disk while a commit is written is ErrUnavailable, and the write in doubt.
//
// In a batch or a DeletePattern each commit has an op_timeout of its own. After one
// that has timed out no other is begun.
//
// # Limits
//
// Keys have up to 1,024 bytes, values up to 16 MiB.
//
// # Bounded files
//
// With max_bytes the file has at most so many bytes. A write for which there is no room
// first has all entries deleted that have ended and, if there are none, those that end
// first of the next 2,048 in the order of the keys, half of them at most; and so on. So
// the backend may drop live entries, and its profile says Evicts; Watch does not tell of
// them. Deletes have 2 MiB of their own, so that they find room in a full file.
//
// Values of more than 1,900 bytes are in rows of that length there: long rows need many
// pages side by side, which a full file does not have. The longest value has a 16th of
// max_bytes. Of a full file of 32 MiB about 70 % were values of 10 KB, or 30 % values of
// 100 bytes. A file that is larger already stays so, and grows by 3 MiB at most.
//
// # Damaged files
//
// Open reads all of the file before bbolt does, and refuses one in which a page or an
// entry is damaged: ErrCorrupt. The file is left as it is. With on_damage=set-aside it
// is renamed instead, to its name with .damaged- and the time in UTC, and a new file
// begun. Cache.SetAside tells. Nothing is deleted.
//
// The time that this takes grows with the file, about 1 s for 1 GB that the system has
// in memory, and dial_timeout bounds it. verify=never spares it. Each read verifies
// what it returns all the same: there is no wrong value. But an entry can be missed,
// and a page that is damaged in the right way can make bbolt end the process, which
// cannot be prevented from within.
//
// # Options of the URL
//
//   - sync: false leaves the writing to the disk to a goroutine that does it every
//     100 ms; true by default.
//   - sweep_interval: 1m by default.
//   - open_timeout: how long to wait for whoever has the file open; shorter than
//     dial_timeout, and nine tenths of it by default.
//   - verify: never opens without reading all of the file; open by default.
//   - on_damage: set-aside renames a damaged file and begins a new one; fail by
//     default.
//   - max_bytes: the bound of the file, at least 16777216 (16 MiB); none by default.
//   - read_only: true opens for reading only, with any number of others that do, and
//     without a lock file. Every write is errors.ErrUnsupported. False by default.
//
// A file that does not exist is created, and its directory too, unless it is opened
// for reading only. An empty file is taken for one whose creation was interrupted. A
// file with the buckets of another program is refused, and never set aside: to share
// a database, open it yourself and use New.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
	"github.com/l2cache/l2cache/internal/batch"
)

const resolution = time.Millisecond

const defaultBucket = "l2cache"

// Options for New. The zero value of each field, and a nil *Options, is the
// default.
type Options struct {
	// Bucket is the name of the top-level bucket that the cache has for itself;
	// "l2cache" by default. The first write makes it.
	Bucket string

	// ReadOnly says that the database is open with ReadOnly: every write is
	// errors.ErrUnsupported then, and nothing is swept.
	ReadOnly bool

	// NoSync says that the database has NoSync set: the cache then syncs it 100 ms
	// after a write at the latest, and when it is closed.
	NoSync bool

	// SweepInterval is the least time between two walks through all entries to
	// delete those that have ended; 1 min by default.
	SweepInterval time.Duration

	// OpTimeout bounds a write, as the package documentation says; 1 s by default.
	OpTimeout time.Duration
}

// Cache is a cache in a bucket of a database. It is made by New, or by
// l2cache.Open.
type Cache struct {
	db            *bbolt.DB
	bucket        []byte
	readOnly      bool
	noSync        bool
	sweepInterval time.Duration
	release       func() error // closes what Open opened; nil after New
	setAside      string       // see SetAside

	bound         bound
	maxValueLen   int
	maxCommitRows int
	rowLen        int // see newRecord

	writes   batch.Group[[]*write]
	sooner   chan struct{} // signals that earliest was lowered
	earliest atomic.Int64  // no entry ends before, in µs since 1970
	unsynced chan struct{} // signals that there is a commit to sync
	syncErr  atomic.Pointer[error]
	broken   atomic.Pointer[error] // bbolt's locks are lost; see panicked

	closing    sync.Once
	closed     atomic.Bool
	hub        *l2cache.Hub       // of all caches on the bucket
	done       <-chan struct{}    // closed by stop
	stop       context.CancelFunc // ends background
	background sync.WaitGroup

	committing sync.Mutex // held during a commit, and by Close
}

var (
	_ l2cache.L2CacheBackend = (*Cache)(nil)
	_ l2cache.Profiler       = (*Cache)(nil)
)

// New returns a cache in a bucket of db, a database that the caller has open, may
// use for other things, and closes after the cache. Any number of caches can be
// open on one bucket. It has a sweeper goroutine, which Close ends.
//
// No operation of the cache may be called inside a transaction of the caller's:
// bbolt does not nest them. A read transaction that the caller leaves open blocks the
// cache as soon as a commit has to map a larger file: that commit waits for the end
// of the transaction, and all reads that begin meanwhile wait for the commit. What
// was deleted since it began is not used again before it ends.
//
// A database that is nil or ReadOnly, or whose NoSync is not what o says, is an error,
// and so is a bucket that something else has filled.
func New(db *bbolt.DB, o *Options) (*Cache, error) {
	c, err := newCache(db, o)
	if err == nil {
		err = c.view(func(tx *bbolt.Tx) error { return checkBucket(tx, c.bucket) })
	}
	if err != nil {
		return nil, &l2cache.Error{Op: "new", Backend: "bolt", Kind: kind(err), Err: err}
	}
	c.start()
	return c, nil
}

func newCache(db *bbolt.DB, o *Options) (*Cache, error) {
	var d Options
	if o != nil {
		d = *o
	}
	if d.Bucket == "" {
		d.Bucket = defaultBucket
	}
	if d.SweepInterval == 0 {
		d.SweepInterval = time.Minute
	}
	if d.OpTimeout == 0 {
		d.OpTimeout = l2cache.DefaultOpTimeout
	}
	switch {
	case db == nil:
		return nil, errors.New("the database is nil")
	case len(d.Bucket) > bbolt.MaxKeySize:
		return nil, fmt.Errorf("the name in Bucket has %d bytes, at most %d are allowed", len(d.Bucket), bbolt.MaxKeySize)
	case d.SweepInterval < 0:
		return nil, errors.New("SweepInterval is negative")
	case d.OpTimeout < 0:
		return nil, errors.New("OpTimeout is negative")
	case db.IsReadOnly() && !d.ReadOnly:
		return nil, errors.New("the database is open with ReadOnly; set Options.ReadOnly to accept that nothing can be written")
	case d.ReadOnly && !db.IsReadOnly():
		return nil, errors.New("Options.ReadOnly is set, but the database can be written")
	case db.NoSync && !d.NoSync:
		return nil, errors.New("the database has NoSync set; set Options.NoSync to accept that writes reach the disk later")
	case d.NoSync && !db.NoSync:
		return nil, errors.New("Options.NoSync is set, but not NoSync of the database")
	}
	c := &Cache{
		db:            db,
		bucket:        []byte(d.Bucket),
		readOnly:      d.ReadOnly,
		noSync:        d.NoSync,
		sweepInterval: d.SweepInterval,
		sooner:        make(chan struct{}, 1),
		unsynced:      make(chan struct{}, 1),
		maxValueLen:   maxValueLen,
		maxCommitRows: maxCommitRows,
		rowLen:        chunkLen,
	}
	c.writes = batch.Group[[]*write]{
		Run:      c.run,
		InFlight: 1,
		Max:      func() int { return c.maxCommitRows },
		Weight:   func(ws *[]*write) int { return rows(*ws) },
		Timeout:  d.OpTimeout,
	}
	return c, nil
}

// start starts the goroutines.
func (c *Cache) start() {
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	c.done = ctx.Done()
	c.hub = joinHub(c.place())
	if !c.readOnly {
		c.background.Go(func() { c.sweeper(ctx) })
	}
	if c.noSync {
		c.background.Go(func() { c.syncer(ctx) })
	}
}

// Name returns "bolt".
func (c *Cache) Name() string { return "bolt" }

// Format writes the name, whatever the verb: what else there is changes all the time.
func (c *Cache) Format(f fmt.State, _ rune) { io.WriteString(f, "bolt") }

// Profile says that the store is in this process, on disk, and has no other
// handle if it was opened by URL.
func (c *Cache) Profile() l2cache.Profile {
	p := l2cache.Profile{
		Supports:    l2cache.CanGetMany | l2cache.CanScan | l2cache.CanWatch,
		MaxValueLen: c.maxValueLen,
		Evicts:      c.bound.evicts,
		Durable:     true,
		Embedded:    true,
		Exclusive:   c.release != nil && !c.readOnly,
	}
	if !c.readOnly {
		p.Supports |= l2cache.CanSetMany | l2cache.CanDeleteMany | l2cache.CanTouch | l2cache.CanAdd | l2cache.CanDeletePattern
	}
	return p
}

// SetAside returns the name that Open has given to a damaged file in whose place it
// has begun a new one, as on_damage=set-aside asks for; empty if it has not.
func (c *Cache) SetAside() string { return c.setAside }

// Get returns a copy of the value.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.GetWithTTL(ctx, key)
	return e.Value, err
}

// GetWithTTL returns a copy of the value, and what is left of its TTL.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, "bolt", "get", key, c.closed.Load()); err != nil {
		return l2cache.Entry{}, err
	}
	var e l2cache.Entry
	err := c.view(func(tx *bbolt.Tx) (err error) {
		b := tx.Bucket(c.bucket)
		if b == nil {
			return l2cache.ErrNotFound
		}
		var buf [64]byte
		e, err = read(b.Cursor(), appendRowKey(buf[:0], key), time.Now())
		return err
	})
	switch {
	case err == l2cache.ErrNotFound:
		return l2cache.Entry{}, err
	case err != nil:
		return l2cache.Entry{}, l2cache.NewError(ctx, "bolt", "get", key, kind(err), err)
	}
	return e, nil
}

// read returns the entry under k as it is at now. It moves the cursor.
func read(c *bbolt.Cursor, k rowKey, now time.Time) (l2cache.Entry, error) {
	row, ok := seek(c, k)
	if !ok {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	h, kind, value, err := copyRow(k, row)
	if err != nil {
		return l2cache.Entry{}, err
	}
	left, live := h.Remaining(now, resolution)
	if !live {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	if kind == inChunks {
		if value, err = readChunks(c, k, value); err != nil {
			return l2cache.Entry{}, err
		}
	}
	return l2cache.Entry{Value: value, TTL: left}, nil
}

// live returns the row, bbolt's, of an entry that has not ended at now, or
// ErrNotFound. It moves the cursor.
func live(c *bbolt.Cursor, k rowKey, now time.Time) (row []byte, err error) {
	row, ok := seek(c, k)
	if !ok {
		return nil, l2cache.ErrNotFound
	}
	h, _, _, err := decodeRow(k, row)
	if err != nil {
		return nil, err
	}
	if _, live := h.Remaining(now, resolution); !live {
		return nil, l2cache.ErrNotFound
	}
	return row, nil
}

// seek moves the cursor to the row under k, if there is one. Bucket.Get does not
// tell a bucket under the key from nothing.
func seek(c *bbolt.Cursor, k rowKey) (row []byte, ok bool) {
	at, row := c.Seek(k)
	return row, bytes.Equal(at, k)
}

// Set stores a copy of value.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := c.preflightWrite(ctx, "set", key); err != nil {
		return err
	}
	w, err := c.newSet(key, value, ttl)
	if err == nil {
		err = c.do(ctx, w)
	}
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "set", key, kind(err), err)
	}
	return nil
}

var errReadOnly = fmt.Errorf("%w: the file is open for reading only", errors.ErrUnsupported)

// preflightWrite is what every write of one key begins with.
func (c *Cache) preflightWrite(ctx context.Context, op, key string) error {
	err := l2cache.Preflight(ctx, "bolt", op, key, c.closed.Load())
	if err == nil && c.readOnly {
		err = l2cache.NewError(ctx, "bolt", op, key, nil, errReadOnly)
	}
	return err
}

// preflightWrites is preflightWrite for an operation on many keys.
func (c *Cache) preflightWrites(ctx context.Context, op string) error {
	err := l2cache.PreflightNoKey(ctx, "bolt", op, c.closed.Load())
	if err == nil && c.readOnly {
		err = l2cache.NewError(ctx, "bolt", op, "", nil, errReadOnly)
	}
	return err
}

// newSet returns the write that stores a copy of value.
func (c *Cache) newSet(key string, value []byte, ttl time.Duration) (*write, error) {
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return nil, err
	}
	if len(value) > c.maxValueLen {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", l2cache.ErrTooLarge, len(value), c.maxValueLen)
	}
	h := envelope.NewHeader(time.Now(), ttl)
	r := newRecord(key, h, value, c.rowLen)
	return &write{
		key:      key,
		rows:     r.rows(),
		stores:   len(r.key) + len(r.row) + len(r.chunks),
		deadline: ends(h),
		apply:    func(b *bbolt.Bucket) (bool, error) { return true, r.put(b) },
	}, nil
}

// Delete removes key.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := c.preflightWrite(ctx, "delete", key); err != nil {
		return err
	}
	if err := c.do(ctx, newDelete(key, 1)); err != nil {
		return l2cache.NewError(ctx, "bolt", "delete", key, kind(err), err)
	}
	return nil
}

// newDelete returns the write that removes key, which has about as many rows.
func newDelete(key string, rows int) *write {
	k := newRowKey(key)
	return &write{
		key:      key,
		rows:     rows,
		deadline: never,
		apply:    func(b *bbolt.Bucket) (bool, error) { return remove(b, k) },
	}
}

// Ping begins and ends a read transaction. With NoSync it also reports that
// writing to the disk has failed since the cache was opened.
func (c *Cache) Ping(ctx context.Context) error {
	if err := l2cache.PreflightNoKey(ctx, "bolt", "ping", c.closed.Load()); err != nil {
		return err
	}
	err := c.view(func(*bbolt.Tx) error { return nil })
	if syncErr := c.syncErr.Load(); err == nil && syncErr != nil {
		err = *syncErr
	}
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "ping", "", kind(err), err)
	}
	return nil
}

// Close waits for the commit under way; writes that are queued are ErrClosed. It
// ends the sweeper. It closes the database if Open opened it.
func (c *Cache) Close() (err error) {
	c.closing.Do(func() {
		c.closed.Store(true)
		c.stop()
		c.background.Wait()
		c.committing.Lock()
		defer c.committing.Unlock()
		leaveHub(c.place())
		if c.noSync {
			err = c.db.Sync()
		}
		if c.release != nil {
			err = errors.Join(err, c.release())
		}
	})
	if err != nil {
		return l2cache.NewError(context.Background(), "bolt", "close", "", kind(err), err)
	}
	return nil
}
