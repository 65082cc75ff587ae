package bolt_test

import (
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// A delete may be the first thing that a handle does, and bbolt needs pages for what it
// changes before any are free: the file grows for it, too.
func TestDeleteFirstGrowsFile(t *testing.T) {
	for n := 150; n < 200; n++ {
		path := tempFile(t)
		c := open(t, path, "sync=false")
		items := make([]l2cache.Item, n)
		for i := range items {
			items[i] = l2cache.Item{Key: fmt.Sprint("key", i), Value: pattern(15_000), TTL: time.Hour}
		}
		if err := l2cache.SetMany(t.Context(), c, items); err != nil { // one commit, so that few pages are free
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = open(t, path, "sync=false")
		for _, item := range items[:3] {
			if err := c.Delete(t.Context(), item.Key); err != nil {
				t.Errorf("of %d entries in a file that was just opened, Delete(%q) = %v", n, item.Key, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// While somebody reads, the pages that deletes free cannot be used again: more of them
// are needed than are kept for deletes.
func TestDeletesBesideReaderGrowFile(t *testing.T) {
	const n, deletes = 140, 20 // so few that bbolt need not map more of the file, which would wait for the reader
	c := open(t, tempFile(t), "sync=false").(*bolt.Cache)
	for i := range n {
		mustSet(t, c, fmt.Sprint("key", i), pattern(15_000), time.Hour)
	}
	err := c.DB().View(func(*bbolt.Tx) error {
		for i := range deletes {
			if err := c.Delete(t.Context(), fmt.Sprint("key", i)); err != nil {
				return fmt.Errorf("delete %d of %d: %w", i, deletes, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
