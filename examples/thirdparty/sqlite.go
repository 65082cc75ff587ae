// Package sqlitecache keeps l2cache entries in an SQLite database: an adapter that is
// no part of the l2cache module. docs/writing-an-adapter.md there explains it.
//
// Its URLs are sqlite:///absolute/file.db and sqlite:relative/file.db. The file is
// created if need be, and may be open in several processes of one machine. When the
// machine crashes, not the process, the latest writes can be lost; with the option
// sync=full they cannot, and each waits for the disk.
package sqlitecache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/l2cache/l2cache"
)

const (
	resolution  = time.Millisecond
	maxValueLen = 16 << 20
)

const schema = `
CREATE TABLE IF NOT EXISTS entries (
	key      BLOB PRIMARY KEY,
	value    BLOB NOT NULL,
	deadline INTEGER NOT NULL, -- in µs since 1970; 0: never
	ttl      INTEGER NOT NULL  -- as it was set, in ns
) STRICT;
CREATE INDEX IF NOT EXISTS entries_deadline ON entries (deadline)`

// Cache is a cache in a database. It is made by l2cache.Open.
type Cache struct {
	db        *sql.DB
	opTimeout time.Duration
	writer    chan struct{}      // holds one while a write is under way
	life      context.Context    // ends with Close
	end       context.CancelFunc // of life
	sweeper   sync.WaitGroup
}

func init() { l2cache.Register("sqlite", open) }

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	sync := p.OneOf("sync", "normal", "full")
	if len(p.Hosts) > 0 || p.User != "" || p.Password != (l2cache.Secret{}) || p.Path == "" {
		p.Fault("URL", "write sqlite:///absolute/file.db or sqlite:relative/file.db")
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	// With WAL readers and a writer do not wait for each other. A transaction that is
	// immediate has the only write lock, of all processes, from its beginning.
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_journal_mode=WAL&_synchronous=%s&_txlock=immediate&_busy_timeout=%d&_error_rc=true",
		(&url.URL{Path: p.Path}).EscapedPath(), sync, p.OpTimeout.Milliseconds()))
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		db.Close()
		return nil, l2cache.NewError(ctx, "sqlite", "open", "", kind(err), err)
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	c := &Cache{db: db, opTimeout: p.OpTimeout, writer: make(chan struct{}, 1)}
	c.life, c.end = context.WithCancel(context.Background())
	c.sweeper.Go(c.sweep)
	return c, nil
}

// Name returns "sqlite".
func (c *Cache) Name() string { return "sqlite" }

// Profile says that the store is a file of this machine.
func (c *Cache) Profile() l2cache.Profile {
	return l2cache.Profile{Supports: supports, MaxValueLen: maxValueLen, Durable: true, Embedded: true}
}

// Get returns the value.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := c.GetWithTTL(ctx, key)
	return e.Value, err
}

// GetWithTTL reads the row of key.
func (c *Cache) GetWithTTL(ctx context.Context, key string) (e l2cache.Entry, err error) {
	if err := c.check(ctx, "get", key); err != nil {
		return e, err
	}
	err = c.do(ctx, "get", key, func(ctx context.Context) error {
		// The clock comes first: nothing that is written later has expired then.
		e, err = find(ctx, c.db.QueryRowContext, key, time.Now())
		return err
	})
	return e, err
}

// A query is the QueryRowContext of a database or of a transaction.
type query func(ctx context.Context, query string, args ...any) *sql.Row

// find returns the entry of key as it is at now, or ErrNotFound.
func find(ctx context.Context, row query, key string, now time.Time) (e l2cache.Entry, err error) {
	var deadline, ttl int64
	err = row(ctx, `SELECT value, deadline, ttl FROM entries WHERE key = ?`, []byte(key)).Scan(&e.Value, &deadline, &ttl)
	if errors.Is(err, sql.ErrNoRows) {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	if err == nil {
		e.TTL, err = remaining(now, deadline, ttl)
	}
	if err != nil {
		return l2cache.Entry{}, err
	}
	return e, nil
}

// remaining is what an entry has left at now: ErrNotFound if nothing, ErrCorrupt if no
// Set can have stored it.
func remaining(now time.Time, deadline, ttl int64) (time.Duration, error) {
	forever := ttl == int64(l2cache.NoExpiry)
	if deadline < 0 || ttl <= 0 || forever != (deadline == 0) {
		return 0, fmt.Errorf("%w: deadline %d, TTL %d", l2cache.ErrCorrupt, deadline, ttl)
	}
	left, live := l2cache.Remaining(now, deadline, time.Duration(ttl), resolution)
	if !live {
		return 0, l2cache.ErrNotFound
	}
	return left, nil
}

// Set stores a row.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	ttl, err := c.checkWrite(ctx, "set", key, value, ttl)
	if err != nil {
		return err
	}
	return c.write(ctx, "set", key, func(ctx context.Context, tx *sql.Tx, now time.Time) error {
		return put(ctx, tx, key, value, ttl, now)
	})
}

func put(ctx context.Context, tx *sql.Tx, key string, value []byte, ttl time.Duration, now time.Time) error {
	if value == nil {
		value = []byte{} // nil would be NULL
	}
	_, err := tx.ExecContext(ctx, `REPLACE INTO entries (key, value, deadline, ttl) VALUES (?, ?, ?, ?)`,
		[]byte(key), value, l2cache.Deadline(now, ttl), int64(ttl))
	return err
}

// Delete removes the row of key.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := c.check(ctx, "delete", key); err != nil {
		return err
	}
	return c.write(ctx, "delete", key, func(ctx context.Context, tx *sql.Tx, _ time.Time) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE key = ?`, []byte(key))
		return err
	})
}

// check is what an operation on a key begins with.
func (c *Cache) check(ctx context.Context, op, key string) error {
	return l2cache.Preflight(ctx, "sqlite", op, key, c.life.Err() != nil)
}

// checkWrite is check for an operation that stores. It returns ttl as it is stored.
func (c *Cache) checkWrite(ctx context.Context, op, key string, value []byte, ttl time.Duration) (time.Duration, error) {
	if err := c.check(ctx, op, key); err != nil {
		return 0, err
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err == nil && len(value) > maxValueLen {
		err = fmt.Errorf("%w: %d bytes, at most %d are allowed", l2cache.ErrTooLarge, len(value), maxValueLen)
	}
	if err != nil {
		return 0, l2cache.NewError(ctx, "sqlite", op, key, nil, err)
	}
	return ttl, nil
}

// do calls f with a ctx that ends with the caller's, after the operation timeout or at
// Close, and makes its error one of the contract.
func (c *Cache) do(ctx context.Context, op, key string, f func(context.Context) error) error {
	if err := l2cache.PreflightNoKey(ctx, "sqlite", op, c.life.Err() != nil); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, c.opTimeout)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	err := f(bounded)
	switch {
	case err == nil:
		return nil
	case c.life.Err() != nil:
		return l2cache.NewError(ctx, "sqlite", op, key, l2cache.ErrClosed, nil)
	}
	return l2cache.NewError(ctx, "sqlite", op, key, kind(err), err)
}

// write does f in a transaction. Now is when f has the write lock: what f sees is what
// there is then.
func (c *Cache) write(ctx context.Context, op, key string, f func(ctx context.Context, tx *sql.Tx, now time.Time) error) error {
	return c.do(ctx, op, key, func(ctx context.Context) error {
		select {
		case c.writer <- struct{}{}: // in turn: for its lock SQLite only polls
			defer func() { <-c.writer }()
		case <-ctx.Done():
			return ctx.Err()
		}
		tx, err := c.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after Commit
		if err := f(ctx, tx, time.Now()); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// kind is what an error of the driver's means to the caller; nil leaves that to NewError.
func kind(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the rest is detail
		case sqlite3.SQLITE_FULL:
			return l2cache.ErrFull
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return l2cache.ErrCorrupt
		}
	}
	return nil
}

// Ping reads from the file.
func (c *Cache) Ping(ctx context.Context) error {
	return c.do(ctx, "ping", "", func(ctx context.Context) error {
		_, err := c.db.ExecContext(ctx, `SELECT 1 FROM entries LIMIT 1`)
		return err
	})
}

// Close ends the calls under way, and closes the file.
func (c *Cache) Close() error {
	c.end()
	c.sweeper.Wait()
	return c.db.Close()
}

// sweep removes rows that have expired, until Close.
func (c *Cache) sweep() {
	for {
		select {
		case <-time.After(time.Minute):
		case <-c.life.Done():
			return
		}
		// What fails is left to the next sweep.
		_ = c.write(c.life, "sweep", "", func(ctx context.Context, tx *sql.Tx, now time.Time) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE deadline BETWEEN 1 AND ?`, now.UnixMicro())
			return err
		})
	}
}
