package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

func TestCompact(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "sync=false&sweep_interval=1h")
	want := map[string]l2cache.Entry{}
	for i := range 3000 {
		key, e := fmt.Sprint("k", i), l2cache.Entry{Value: pattern(i), TTL: time.Duration(i+1) * time.Hour}
		switch {
		case i%1000 == 7:
			e.Value = pattern(100_000 + i)
		case i%1000 == 8:
			e.TTL = l2cache.NoExpiry
		case i%3 == 0: // will have ended
			mustSet(t, c, key, pattern(20_000), time.Millisecond)
			continue
		}
		mustSet(t, c, key, e.Value, e.TTL)
		want[key] = e
	}
	for i := range 1000 {
		mustSet(t, c, fmt.Sprint("gone", i), pattern(10_000), time.Hour)
	}
	if err := l2cache.DeletePattern(t.Context(), c, "gone*"); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Compact(t.Context(), path); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Compact of an open file = %v, want ErrUnavailable", err)
	}
	for end := time.Now().Add(opTimeout); ; { // the last of them
		if _, err := c.Get(t.Context(), "k2997"); err == l2cache.ErrNotFound {
			break
		} else if time.Now().After(end) {
			t.Fatalf("Get = %v, want ErrNotFound", err)
		}
	}
	c.Close()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bolt.Compact(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Compact with a ctx that has ended = %v", err)
	}
	// What a Compact that was killed has left.
	if err := os.WriteFile(path+".compact", randomBytes(1, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Compact(t.Context(), path); err != nil {
		t.Fatalf("Compact = %v", err)
	}
	after, err := os.Stat(path)
	if err != nil || after.Size() > before.Size()/2 {
		t.Errorf("the file has %d bytes, it had %d, %v", after.Size(), before.Size(), err)
	}
	if _, err := os.Stat(path + ".compact"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new file is there under its first name too: %v", err)
	}
	c = open(t, path, "sweep_interval=1h")
	for key, e := range want {
		wantValue(t, c, key, e.Value)
		got, err := c.GetWithTTL(t.Context(), key)
		if err != nil || got.TTL > e.TTL || e.TTL != l2cache.NoExpiry && got.TTL < e.TTL-10*time.Minute ||
			e.TTL == l2cache.NoExpiry && got.TTL != e.TTL {
			t.Errorf("GetWithTTL(%q) = %v, %v; want %v", key, got.TTL, err, e.TTL)
		}
	}
	err = c.(*bolt.Cache).DB().View(func(tx *bbolt.Tx) error {
		rows := 1 + len(want) + 3*7 // the version, the entries, the chunks
		if got := tx.Bucket([]byte("l2cache")).Stats().KeyN; got != rows {
			t.Errorf("%d rows, want %d", got, rows)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("from %d to %d bytes", before.Size(), after.Size())
}

func TestCompactLeavesWhatItCannotRead(t *testing.T) {
	path := tempFile(t)
	if err := bolt.Compact(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Compact of no file = %v, want ErrNotExist", err)
	}
	garbage := randomBytes(1, 10_000)
	if err := os.WriteFile(path, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Compact(t.Context(), path); !errors.Is(err, l2cache.ErrCorrupt) {
		t.Errorf("Compact of garbage = %v, want ErrCorrupt", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(garbage) {
		t.Errorf("Compact has changed what it refused, or %v", err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("Compact has left %v, %v; want the file alone", files, err)
	}
}

// An empty cache, and a file that was made and never written to.
func TestCompactOfNothing(t *testing.T) {
	path := tempFile(t)
	open(t, path, "").Close()
	for range 2 {
		if err := bolt.Compact(t.Context(), path); err != nil {
			t.Fatalf("Compact = %v", err)
		}
		c := open(t, path, "")
		wantMiss(t, c, "k")
		mustSet(t, c, "k", nil, time.Hour)
		if err := c.Delete(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func TestCompactSparesOtherBuckets(t *testing.T) {
	path := tempFile(t)
	db := openDB(t, path, nil)
	mustSet(t, newCache(t, db, nil), "k", []byte("v"), time.Hour)
	err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("accounts"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := bolt.Compact(t.Context(), path); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "accounts") {
		t.Errorf("Compact = %v, want ErrUnsupported that names the bucket", err)
	}
	wantValue(t, open(t, path, ""), "k", []byte("v"))
}
