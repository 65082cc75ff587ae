package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// open opens the file by URL, and closes it with the test.
func open(t *testing.T, path, options string) l2cache.L2CacheBackend {
	t.Helper()
	c, err := l2cache.Open(t.Context(), "bolt:"+path+"?"+options)
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
	c, err := bolt.New(db, o)
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

func TestValueSizes(t *testing.T) {
	c := open(t, tempFile(t), "")
	const limit = 16 << 20
	sizes := []int{
		0, 1, 100, 15_999, 16_000, 16_001, 31_999, 32_000, 32_001, 48_000, 1_000_000,
		15_000, 320_001, 0, limit, 16_000, limit - 1, 32_001, // over each other, larger and smaller
	}
	for i, size := range sizes {
		value := randomBytes(uint64(i), size)
		mustSet(t, c, "k", value, time.Hour)
		wantValue(t, c, "k", value)
	}
	before := randomBytes(0, 20_000)
	mustSet(t, c, "k", before, time.Hour)
	if err := c.Set(t.Context(), "k", make([]byte, limit+1), time.Hour); !errors.Is(err, l2cache.ErrTooLarge) {
		t.Errorf("Set of %d bytes = %v, want ErrTooLarge", limit+1, err)
	}
	wantValue(t, c, "k", before)
}

func TestNewRefuses(t *testing.T) {
	path := tempFile(t)
	openDB(t, path, nil).Close()
	readOnly := openDB(t, path, &bbolt.Options{ReadOnly: true})
	if _, err := bolt.New(readOnly, nil); err == nil {
		t.Error("New of a database that is ReadOnly: no error")
	} else {
		t.Log(err)
	}
	_ = context.Background()
}
