package bolt_test

import (
	"bytes"
	"cmp"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// With many tests at work, a disk can take long for one commit.
const (
	opTimeout = 30 * time.Second
	patience  = "?op_timeout=30s&dial_timeout=30s&"
)

// open opens the file by URL, and closes it with the test.
func open(t *testing.T, path, options string) l2cache.L2CacheBackend {
	t.Helper()
	c, err := l2cache.Open(t.Context(), "bolt:"+path+patience+options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tempFile(t *testing.T) string { return filepath.Join(t.TempDir(), "cache.db") }

// openDB opens a database for New, and closes it with the test.
func openDB(t *testing.T, path string, o *bbolt.Options) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newCache(t *testing.T, db *bbolt.DB, o *bolt.Options) *bolt.Cache {
	t.Helper()
	patient := bolt.Options{OpTimeout: opTimeout}
	if o != nil {
		patient = *o
		patient.OpTimeout = cmp.Or(o.OpTimeout, opTimeout)
	}
	c, err := bolt.New(db, &patient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustSet(t *testing.T, c l2cache.CacheBackend, key string, value []byte, ttl time.Duration) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, ttl); err != nil {
		t.Fatalf("Set(%q, %d bytes, %v) = %v", key, len(value), ttl, err)
	}
}

func wantValue(t *testing.T, c l2cache.CacheBackend, key string, want []byte) {
	t.Helper()
	got, err := c.Get(t.Context(), key)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Get(%q) = %d bytes, %v; want the %d that were set", key, len(got), err, len(want))
	}
}

func wantMiss(t *testing.T, c l2cache.CacheBackend, key string) {
	t.Helper()
	if got, err := c.Get(t.Context(), key); err != l2cache.ErrNotFound || got != nil {
		t.Errorf("Get(%q) = %q, %v; want ErrNotFound", key, got, err)
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

func TestNewRefuses(t *testing.T) {
	path := tempFile(t)
	db := openDB(t, path, nil)
	noSync := openDB(t, tempFile(t), &bbolt.Options{NoSync: true})
	closed := openDB(t, tempFile(t), nil)
	closed.Close()
	foreign := openDB(t, tempFile(t), nil)
	newer := openDB(t, tempFile(t), nil)
	for db, version := range map[*bbolt.DB][]byte{foreign: nil, newer: {2}} {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("l2cache"))
			if version == nil {
				return errors.Join(err, b.Put([]byte("key"), []byte("another program's")))
			}
			return errors.Join(err, b.Put([]byte("v"), version))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		db   *bbolt.DB
		o    *bolt.Options
		text string // what the error says
		kind error
	}{
		{"no database", nil, nil, "nil", nil},
		{"a database with NoSync", noSync, nil, "NoSync", nil},
		{"NoSync, and a database without", db, &bolt.Options{NoSync: true}, "NoSync", nil},
		{"a negative interval", db, &bolt.Options{SweepInterval: -1}, "SweepInterval", nil},
		{"a negative timeout", db, &bolt.Options{OpTimeout: -1}, "OpTimeout", nil},
		{"a bucket name that is too long", db, &bolt.Options{Bucket: strings.Repeat("b", 40_000)}, "Bucket", nil},
		{"a database that is closed", closed, nil, "closed", l2cache.ErrClosed},
		{"a bucket of another program", foreign, nil, `"l2cache"`, l2cache.ErrCorrupt},
		{"a bucket of a newer version", newer, nil, "version 2", l2cache.ErrCorrupt},
	} {
		c, err := bolt.New(test.db, test.o)
		if err == nil {
			c.Close()
			t.Errorf("New with %s: no error", test.name)
			continue
		}
		var e *l2cache.Error
		if !errors.As(err, &e) || e.Op != "new" || e.Backend != "bolt" {
			t.Errorf("New with %s = %#v, want an *Error of new", test.name, err)
		}
		if !strings.Contains(err.Error(), test.text) || test.kind != nil && !errors.Is(err, test.kind) {
			t.Errorf("New with %s = %v; want %v and a mention of %s", test.name, err, test.kind, test.text)
		}
	}

	db.Close()
	readOnly := openDB(t, path, &bbolt.Options{ReadOnly: true})
	if _, err := bolt.New(readOnly, nil); err == nil || !strings.Contains(err.Error(), "ReadOnly") {
		t.Errorf("New with a database that is ReadOnly = %v, want an error that says so", err)
	}
}

func TestNewLeavesTheDatabaseOpen(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	before := txID(t, db)
	c := newCache(t, db, &bolt.Options{Bucket: "mine"})
	if after := txID(t, db); after != before {
		t.Errorf("New has written: transaction %d, was %d", after, before)
	}
	wantMiss(t, c, "k")
	mustSet(t, c, "k", []byte("v"), time.Hour)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrClosed) {
		t.Errorf("Get after Close = %v, want ErrClosed", err)
	}
	wantValue(t, newCache(t, db, &bolt.Options{Bucket: "mine"}), "k", []byte("v"))
	wantMiss(t, newCache(t, db, &bolt.Options{Bucket: "other"}), "k")
}

func TestDatabaseClosedUnderneath(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSet(t, c, "k", []byte("v"), time.Hour)
	db.Close()
	_, err := c.Get(t.Context(), "k")
	for op, err := range map[string]error{
		"Get":    err,
		"Set":    c.Set(t.Context(), "k", nil, time.Hour),
		"Delete": c.Delete(t.Context(), "k"),
		"Ping":   c.Ping(t.Context()),
	} {
		if !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("%s after the database was closed = %v, want ErrClosed", op, err)
		}
	}
}

func TestProfile(t *testing.T) {
	byURL := l2cache.ProfileOf(open(t, tempFile(t), ""))
	if !byURL.Embedded || !byURL.Durable || !byURL.Exclusive || byURL.Clock != l2cache.ClientClock || byURL.MaxValueLen != 16<<20 {
		t.Errorf("profile by URL: %+v", byURL)
	}
	byNew := l2cache.ProfileOf(newCache(t, openDB(t, tempFile(t), nil), nil))
	byURL.Exclusive = false
	if byNew != byURL {
		t.Errorf("profile of New: %+v, want %+v", byNew, byURL)
	}
}

// txID is the number of the last transaction that was committed.
func txID(t *testing.T, db *bbolt.DB) (id int) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return id
}
