package bolt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// What a row is decoded to makes the same row again.
func FuzzDecodeRow(f *testing.F) {
	for line := range strings.Lines(strings.TrimSpace(golden)) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		k, err := hex.DecodeString(key)
		stored, rowErr := hex.DecodeString(text)
		if err == nil && rowErr == nil && k[0] == 'e' {
			f.Add(string(k[1:]), stored)
		}
	}
	f.Fuzz(func(t *testing.T, key string, stored []byte) {
		h, body, err := bolt.DecodeRow(key, stored)
		if err != nil {
			if !errors.Is(err, l2cache.ErrCorrupt) {
				t.Fatalf("%v, want ErrCorrupt", err)
			}
			return
		}
		if again := row(key, h, string(body)); stored[0] == 1 && !bytes.Equal(again, stored) {
			t.Fatalf("%x, made again of what it says: %x", stored, again)
		}
	})
}

// Whatever is in a file, verifying it ends, without a panic, and bbolt reads all of one
// that passes.
func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "cache.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024})
	if err != nil {
		f.Fatal(err)
	}
	c, err := bolt.New(db, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range numbered(30) {
		if err := c.Set(f.Context(), key, pattern(100), time.Hour); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(c.Set(f.Context(), "long", pattern(20_000), l2cache.NoExpiry), c.Close(), db.Close()); err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add(file[:4096])
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := tempFile(t)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := bolt.Verify(t.Context(), path); err != nil {
			if !errors.Is(err, l2cache.ErrCorrupt) {
				t.Fatalf("%v, want ErrCorrupt", err)
			}
			return
		}
		if len(file) == 0 {
			return
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		err = db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(k, v []byte) error { return nil })
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
