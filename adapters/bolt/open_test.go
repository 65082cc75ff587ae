package bolt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

func TestOpenRefusesURLs(t *testing.T) {
	t.Chdir(t.TempDir())
	for url, want := range map[string]string{
		"bolt://relative/file.db":            "bolt:relative/file.db",
		"bolt://user@host/file.db":           "no user and no password",
		"bolt://:secret@/file.db":            "no host",
		"bolt://":                            "names no file",
		"bolt:///":                           "names no file",
		"bolt:directory/":                    "names no file",
		"bolt:c.db?sync=off":                 "sync",
		"bolt:c.db?sweep_interval=0s":        "sweep_interval",
		"bolt:c.db?open_timeout=5s":          "open_timeout",
		"bolt:c.db?bucket=b":                 "unknown option bucket",
		"bolt:c.db?open_timeout=1s&sync=yes": "sync",
	} {
		c, err := l2cache.Open(t.Context(), url)
		if err == nil {
			c.Close()
			t.Errorf("Open(%q): no error", url)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want a mention of %q", url, err, want)
		}
	}
	if files, err := os.ReadDir("."); len(files) != 0 || err != nil {
		t.Errorf("URLs that were refused have made %v, %v", files, err)
	}
}

func TestFilePath(t *testing.T) {
	for _, test := range []struct {
		path    string
		windows bool
		want    string
	}{
		{"/C:/cache/file.db", true, "C:/cache/file.db"},
		{"/c:file.db", true, "c:file.db"},
		{"C:/cache/file.db", true, "C:/cache/file.db"},
		{"/cache/file.db", true, "/cache/file.db"},
		{"cache/file.db", true, "cache/file.db"},
		{"/C:/cache/file.db", false, "/C:/cache/file.db"},
		{"/", true, "/"},
	} {
		if got := bolt.FilePath(test.path, test.windows); got != test.want {
			t.Errorf("the file of path %q, Windows %v = %q, want %q", test.path, test.windows, got, test.want)
		}
	}
}

func TestOpenMakesFileAndDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "cache.db")
	mustSet(t, open(t, path, ""), "k", []byte("v"), time.Hour)
	for name, want := range map[string]fs.FileMode{
		"a": 0o700 | fs.ModeDir, "a/b": 0o700 | fs.ModeDir, "a/b/cache.db": 0o600, "a/b/cache.db.lock": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("mode of %s = %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	t.Chdir(dir)
	mustSet(t, open(t, "relative/cache.db", ""), "k", []byte("v"), time.Hour)
	if _, err := os.Stat(filepath.Join(dir, "relative", "cache.db")); err != nil {
		t.Error(err)
	}
}

// wantLocked wants an Open of path to fail because the file is open, within the
// open_timeout of 200 ms and the lateness that a loaded machine may add.
func wantLocked(t *testing.T, path, when string) {
	t.Helper()
	start := time.Now()
	c, err := l2cache.Open(t.Context(), "bolt:"+path+patience+"open_timeout=200ms")
	if err == nil {
		c.Close()
		t.Fatalf("a second Open %s: no error", when)
	}
	if !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "open") {
		t.Errorf("a second Open %s = %v, want ErrUnavailable that names the file", when, err)
	}
	if took := time.Since(start); took < 200*time.Millisecond || took > 15*time.Second {
		t.Errorf("a second Open %s took %v, want 200ms", when, took)
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	path := tempFile(t)
	first := open(t, path, "")
	mustSet(t, first, "k", []byte("v"), time.Hour)
	wantLocked(t, path, "of an open file")

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantLocked(t, path, "of a file that was removed while it is open")
	wantValue(t, first, "k", []byte("v"))
	mustSet(t, first, "k", []byte("w"), time.Hour)

	if err := first.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	wantMiss(t, open(t, path, ""), "k")
}

// Somebody who uses bbolt without this package has a lock on the database only.
func TestOpenByAnotherProgram(t *testing.T) {
	path := tempFile(t)
	db := openDB(t, path, nil)
	wantLocked(t, path, "of a file that bbolt has open")
	db.Close()
	mustSet(t, open(t, path, ""), "k", nil, time.Hour)
	if db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Millisecond}); err == nil {
		db.Close()
		t.Error("bbolt opens a file that a cache has open")
	}
}

func TestOpenWaitsForTheFile(t *testing.T) {
	path := tempFile(t)
	first := open(t, path, "")
	mustSet(t, first, "k", []byte("v"), time.Hour)
	ctx := newWaited(t.Context())
	go func() {
		<-ctx.asked // the second is waiting
		first.Close()
	}()
	second, err := l2cache.Open(ctx, "bolt:"+path+"?dial_timeout=30s")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	wantValue(t, second, "k", []byte("v"))
}

func TestOpenHonoursContext(t *testing.T) {
	path := tempFile(t)
	open(t, path, "")
	ctx, cancel := context.WithCancel(t.Context())
	w := newWaited(ctx)
	go func() {
		<-w.asked
		cancel()
	}()
	c, err := l2cache.Open(w, "bolt:"+path+"?dial_timeout=1h")
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, context.Canceled) || errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open with a ctx that was cancelled = %v, want context.Canceled", err)
	}
}

func TestOpenEmptyFile(t *testing.T) {
	path := tempFile(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, path, "")
	mustSet(t, c, "k", []byte("v"), time.Hour)
	wantValue(t, c, "k", []byte("v"))
}

func TestOpenForeignDatabase(t *testing.T) {
	path := tempFile(t)
	db := openDB(t, path, nil)
	err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("accounts"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	wantCorrupt(t, path, "accounts")
}

func TestOpenNewerVersion(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "")
	mustSet(t, c, "k", nil, time.Hour)
	c.Close()
	db := openDB(t, path, nil)
	err := db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("l2cache")).Put([]byte("v"), []byte{2})
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	wantCorrupt(t, path, "version 2")
}

// wantCorrupt wants Open to fail with an ErrCorrupt that names the file and says
// text, twice, and to leave the file as it is.
func wantCorrupt(t *testing.T, path, text string) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(path + ".lock")
	locked := err == nil // by one that has had the file open before
	for range 2 {        // the second time the file must not be locked
		c, err := l2cache.Open(t.Context(), "bolt:"+path+patience+"open_timeout=1ms")
		if err == nil {
			c.Close()
			t.Errorf("Open of a damaged file (%s): no error", text)
			return
		}
		if !errors.Is(err, l2cache.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), text) {
			t.Errorf("Open = %v, want ErrCorrupt with %s and %q", err, path, text)
		}
	}
	if _, err := os.Stat(path + ".lock"); !locked && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open has left a lock file beside one that it refused: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("Open has changed a file that it refused: %d bytes, %v; there were %d", len(after), err, len(before))
	}
}

func TestOpenGarbage(t *testing.T) {
	path := tempFile(t)
	for _, size := range []int{1, 100, 4096, 16_384, 100_000} {
		if err := os.WriteFile(path, randomBytes(1, size), 0o600); err != nil {
			t.Fatal(err)
		}
		wantCorrupt(t, path, "")
	}
	dir := t.TempDir()
	if c, err := l2cache.Open(t.Context(), "bolt:"+dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open of a directory = %v, %v; want an error that names it", c, err)
	}
	if _, err := os.Stat(dir + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open has left a lock file beside a directory: %v", err)
	}
}

// filled returns the bytes of a file with values of several forms, by key.
func filled(t *testing.T) (file []byte, values map[string][]byte) {
	path := tempFile(t)
	c := open(t, path, "sync=false")
	values = map[string][]byte{}
	for i := range 200 {
		values[fmt.Sprint("short", i)] = randomBytes(uint64(i), 100)
	}
	for i := range 5 {
		values[fmt.Sprint("large", i)] = randomBytes(uint64(i), 50_000)
	}
	for key, value := range values {
		mustSet(t, c, key, value, time.Hour)
	}
	for i := range 50 {
		if err := c.Delete(t.Context(), fmt.Sprint("short", i)); err != nil {
			t.Fatal(err)
		}
		delete(values, fmt.Sprint("short", i))
	}
	c.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file, values
}

// used is the length of the part of the file that has pages in use.
func used(t *testing.T, file []byte) int {
	path := tempFile(t)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, path, &bbolt.Options{ReadOnly: true})
	var size int64
	if err := db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	return int(size)
}

func TestOpenTruncated(t *testing.T) {
	file, _ := filled(t)
	n := used(t, file)
	path := tempFile(t)
	for _, size := range []int{1, 100, 4095, 4096, 4097, 8191, 8192, 8193, 12_288, 16_384, 20_480, n / 4, n / 2, n - 4096, n - 1} {
		if err := os.WriteFile(path, file[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		wantCorrupt(t, path, "")
	}
}

// A file that is truncated while it is open makes the memory map fault: under the
// pages of the tree, or also under those that bbolt reads when it holds its locks.
func TestTruncatedWhileOpen(t *testing.T) {
	file, values := filled(t)
	for _, size := range []int64{2 * pageSize, 0} {
		path := tempFile(t)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, path, "")
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		for key := range values {
			if got, err := c.Get(t.Context(), key); !errors.Is(err, l2cache.ErrCorrupt) {
				t.Errorf("Get after truncation to %d = %d bytes, %v; want ErrCorrupt", size, len(got), err)
			}
		}
		for range 3 {
			if err := c.Set(t.Context(), "k", nil, time.Hour); !errors.Is(err, l2cache.ErrCorrupt) {
				t.Errorf("Set after truncation to %d = %v, want ErrCorrupt", size, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close after truncation to %d = %v", size, err)
		}
		if size > 0 {
			wantCorrupt(t, path, "")
		} else {
			mustSet(t, open(t, path, ""), "k", nil, time.Hour)
		}
	}
}

// TestDamagedPages changes a few bytes in the pages of the tree, and opens the file
// without verifying it: no value that is
// read may be wrong, and no read may panic or hang. (A miss may be: that a page of
// bbolt's is damaged shows only where its structure does not hold.)
func TestDamagedPages(t *testing.T) {
	file, values := filled(t)
	pages := treePages(file)
	outcomes := map[string]int{}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		damaged := bytes.Clone(file)
		for range 1 + r.IntN(8) {
			page := damaged[pages[r.IntN(len(pages))]:][:pageSize]
			if seed%3 == 0 {
				page = page[:64] // where it has its structure
			}
			page[r.IntN(len(page))] ^= byte(1 + r.IntN(255))
		}
		path := tempFile(t)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := l2cache.Open(t.Context(), "bolt:"+path+patience+"verify=never")
		if err != nil {
			outcomes["refused"]++
			if !errors.Is(err, l2cache.ErrCorrupt) {
				t.Errorf("seed %d: Open = %v, want ErrCorrupt", seed, err)
			}
			continue
		}
		for key, want := range values {
			got, err := c.Get(t.Context(), key)
			switch {
			case err == nil && bytes.Equal(got, want):
				outcomes["hits"]++
			case err == l2cache.ErrNotFound:
				outcomes["misses"]++
			case errors.Is(err, l2cache.ErrCorrupt):
				outcomes["corrupt"]++
			default:
				t.Errorf("seed %d: Get(%q) = %d bytes that differ, %v", seed, key, len(got), err)
			}
		}
		entries, err := l2cache.GetMany(t.Context(), c, slices.Collect(maps.Keys(values)))
		if err != nil && !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("seed %d: GetMany = %v, want ErrCorrupt", seed, err)
		}
		for key, e := range entries {
			if !bytes.Equal(e.Value, values[key]) {
				t.Errorf("seed %d: GetMany of %q = %d bytes that differ", seed, key, len(e.Value))
			}
		}
		for info, err := range l2cache.Scan(t.Context(), c, "") {
			if err != nil && !errors.Is(err, l2cache.ErrCorrupt) {
				t.Errorf("seed %d: Scan = %v, want ErrCorrupt", seed, err)
			}
			if want, ours := values[info.Key]; err == nil && (!ours || info.Size != len(want)) {
				t.Errorf("seed %d: Scan = %q with %d bytes, want %d", seed, info.Key, info.Size, len(want))
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("seed %d: Close = %v", seed, err)
		}
	}
	t.Log(outcomes)
}

// A page that makes bbolt panic is an error of those who need it, also when they
// share a commit with others.
func TestDamagedPageOnWrite(t *testing.T) {
	file, values := filled(t)
	tested := false
	for _, at := range treePages(file) {
		damaged := bytes.Clone(file)
		damaged[at] ^= 0xff // the number of the page
		path := tempFile(t)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := l2cache.Open(t.Context(), "bolt:"+path+patience+"sync=false&verify=never")
		if err != nil {
			continue // a page that is needed to open the file
		}
		t.Cleanup(func() { c.Close() })
		on, off := "", "" // keys on the page, and on another
		for key := range values {
			if _, err := c.Get(t.Context(), key); err == nil {
				off = key
			} else {
				on = key
			}
		}
		if on == "" || off == "" {
			continue // a page that is not in use, or that all are under
		}
		tested = true
		tx, err := c.(*bolt.Cache).DB().Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		errs := map[string]chan error{on: make(chan error), off: make(chan error)}
		for key, err := range errs {
			ctx := newWaited(t.Context())
			go func() { err <- c.Set(ctx, key, []byte("new"), time.Hour) }()
			<-ctx.asked
		}
		tx.Rollback()
		if err := <-errs[on]; !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("Set on a damaged page = %v, want ErrCorrupt", err)
		}
		if err := <-errs[off]; err != nil {
			t.Errorf("Set on another page = %v", err)
		}
		wantValue(t, c, off, []byte("new"))
	}
	if !tested {
		t.Error("no page has some of the keys")
	}
}

const pageSize = 4096

// treePages returns the offsets of what looks like branch and leaf pages.
func treePages(file []byte) (offsets []int) {
	for at := 2 * pageSize; at < len(file); at += pageSize {
		const branch, leaf = 1, 2 // the flags, after the number of the page
		if flags := binary.NativeEndian.Uint16(file[at+8:]); flags == branch || flags == leaf {
			offsets = append(offsets, at)
		}
	}
	return offsets
}
