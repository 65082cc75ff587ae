package bolt_test

import (
	"bytes"
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

// wantReadOnly wants c to hold k, and every write to be ErrUnsupported.
func wantReadOnly(t *testing.T, c l2cache.L2CacheBackend) {
	t.Helper()
	ctx := t.Context()
	_, addErr := l2cache.Add(ctx, c, "new", nil, time.Hour)
	for op, err := range map[string]error{
		"Set":           c.Set(ctx, "k", []byte("w"), time.Hour),
		"Delete":        c.Delete(ctx, "k"),
		"Add":           addErr,
		"Touch":         l2cache.Touch(ctx, c, "k", time.Minute),
		"SetMany":       l2cache.SetMany(ctx, c, []l2cache.Item{{Key: "k", TTL: time.Hour}}),
		"DeleteMany":    l2cache.DeleteMany(ctx, c, []string{"k"}),
		"DeletePattern": l2cache.DeletePattern(ctx, c, "k"),
	} {
		var e *l2cache.Error
		if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(err.Error(), "reading only") {
			t.Errorf("%s = %v, want ErrUnsupported that says why", op, err)
		}
	}
	wantValue(t, c, "k", []byte("v"))
	if entries, err := l2cache.GetMany(ctx, c, []string{"k", "absent"}); err != nil || len(entries) != 1 {
		t.Errorf("GetMany = %v, %v; want k", entries, err)
	}
	for info, err := range l2cache.Scan(ctx, c, "") {
		if err != nil || info.Key != "k" {
			t.Errorf("Scan = %+v, %v; want k", info, err)
		}
	}
	p := l2cache.ProfileOf(c)
	if p.Supports != l2cache.CanGetMany|l2cache.CanScan|l2cache.CanWatch || p.Exclusive {
		t.Errorf("profile %+v", p)
	}
	if err := c.Ping(ctx); err != nil {
		t.Errorf("Ping = %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	path := tempFile(t)
	if c, err := l2cache.Open(t.Context(), "bolt:"+path+"?read_only=true"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of no file = %v, %v; want ErrNotExist", c, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); len(files) > 0 || err != nil {
		t.Errorf("Open of no file has made %v, %v", files, err)
	}

	writer := open(t, path, "")
	mustSet(t, writer, "k", []byte("v"), time.Hour)
	if c, err := l2cache.Open(t.Context(), "bolt:"+path+"?read_only=true&open_timeout=1ms"); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open while there is a writer = %v, %v; want ErrUnavailable", c, err)
	}
	writer.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	first := open(t, path, "read_only=true")
	wantReadOnly(t, first)
	wantReadOnly(t, open(t, path, "read_only=true")) // any number
	if c, err := l2cache.Open(t.Context(), "bolt:"+path+"?open_timeout=1ms"); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open for writing while there are readers = %v, %v; want ErrUnavailable", c, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, or %v", err)
	}
}

func TestReadOnlyOfADatabase(t *testing.T) {
	path := tempFile(t)
	db := openDB(t, path, nil)
	mustSet(t, newCache(t, db, nil), "k", []byte("v"), time.Hour)
	if _, err := bolt.New(db, &bolt.Options{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "ReadOnly") {
		t.Errorf("New with ReadOnly and a database that can be written = %v, want an error that says so", err)
	}
	db.Close()
	wantReadOnly(t, newCache(t, openDB(t, path, &bbolt.Options{ReadOnly: true}), &bolt.Options{ReadOnly: true}))
}

// A file that is not damaged but somebody else's is never set aside.
func TestSetAsideSparesForeignFiles(t *testing.T) {
	foreign, newer := tempFile(t), tempFile(t)
	for path, bucket := range map[string]string{foreign: "accounts", newer: "l2cache"} {
		db := openDB(t, path, nil)
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte(bucket))
			return errors.Join(err, b.Put([]byte("v"), []byte{2}))
		})
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		c, err := l2cache.Open(t.Context(), "bolt:"+path+"?on_damage=set-aside")
		if !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("Open of a file with the bucket %s = %v, %v; want ErrCorrupt", bucket, c, err)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); len(files) != 1 || err != nil {
			t.Errorf("beside the file with the bucket %s: %v, %v; want nothing", bucket, files, err)
		}
	}
}
