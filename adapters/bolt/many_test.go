package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
	"github.com/l2cache/l2cache/envelope"
)

func numbered(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint("k", i))
	}
	return keys
}

func itemsOf(keys []string, value []byte) (items []l2cache.Item) {
	for _, key := range keys {
		items = append(items, l2cache.Item{Key: key, Value: value, TTL: time.Hour})
	}
	return items
}

func mustSetMany(t *testing.T, c l2cache.L2CacheBackend, items []l2cache.Item) {
	t.Helper()
	if err := l2cache.SetMany(t.Context(), c, items); err != nil {
		t.Fatalf("SetMany of %d items = %v", len(items), err)
	}
}

func TestBatchesShareTransactions(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	keys := numbered(2500)
	for _, step := range []struct {
		name           string
		do             func() error
		commits, reads int
	}{
		{"SetMany of 2,500 short values", func() error { return l2cache.SetMany(t.Context(), c, itemsOf(keys, []byte("v"))) }, 3, 0},
		{"GetMany of 2,500 short values", func() error {
			got, err := l2cache.GetMany(t.Context(), c, keys)
			if len(got) != 2500 {
				t.Errorf("GetMany = %d entries, want 2500", len(got))
			}
			return err
		}, 0, 3},
		// 26 rows each: 39 of them fit into a commit.
		{"SetMany of 40 long values", func() error { return l2cache.SetMany(t.Context(), c, itemsOf(keys[:40], pattern(400_000))) }, 2, 0},
		// 11 of them are more than 4 MiB.
		{"GetMany of 40 long values", func() error { _, err := l2cache.GetMany(t.Context(), c, keys[:40]); return err }, 0, 4},
		{"DeleteMany", func() error { return l2cache.DeleteMany(t.Context(), c, keys[:1024]) }, 1, 0},
		{"DeleteMany of absent keys", func() error { return l2cache.DeleteMany(t.Context(), c, keys[:1024]) }, 0, 0},
	} {
		commits, reads := txID(t, db), db.Stats().TxN
		if err := step.do(); err != nil {
			t.Errorf("%s = %v", step.name, err)
		}
		reads = db.Stats().TxN - reads
		commits = txID(t, db) - commits
		if commits != step.commits || reads != step.reads {
			t.Errorf("%s: %d commits and %d read transactions, want %d and %d", step.name, commits, reads, step.commits, step.reads)
		}
	}
}

// wantFailed wants err to be of kind for keys, and for no others.
func wantFailed(t *testing.T, op string, err, kind error, keys ...string) {
	t.Helper()
	var failed l2cache.KeyErrors
	if !errors.As(err, &failed) || len(failed) != len(keys) {
		t.Errorf("%s = %v, want KeyErrors for %q", op, err, keys)
	}
	for _, key := range keys {
		var e *l2cache.Error
		if !errors.Is(failed[key], kind) || !errors.As(failed[key], &e) || e.Key != key {
			t.Errorf("%s: %q = %v, want %v", op, key, failed[key], kind)
		}
	}
}

// What does not fit fails alone, also in one commit with the others.
func TestSetManyFailsPerKey(t *testing.T) {
	c := newCache(t, smallDB(t), nil)
	mustSet(t, c, "k1", []byte("old"), time.Hour)
	items := itemsOf(numbered(6), []byte("new"))
	items[1].Value = make([]byte, 16<<20+1)
	wantFailed(t, "SetMany", l2cache.SetMany(t.Context(), c, items), l2cache.ErrTooLarge, "k1")
	items[1].Value = pattern(4_000_000)
	items[4].Value = pattern(3_000_000)
	wantFailed(t, "SetMany", l2cache.SetMany(t.Context(), c, items), l2cache.ErrFull, "k1", "k4")
	for i, want := range []string{"new", "old", "new", "new", "new", "new"} {
		wantValue(t, c, fmt.Sprint("k", i), []byte(want))
	}
}

// A batch whose commit has to wait for too long fails for all keys, and does not
// wait again for each of its commits.
func TestSetManyTimeout(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, &bolt.Options{OpTimeout: time.Second})
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	keys := numbered(6000)
	start := time.Now()
	err = l2cache.SetMany(t.Context(), c, itemsOf(keys, nil))
	if waited := time.Since(start); waited < time.Second || waited > 5*time.Second {
		t.Errorf("SetMany of 6 commits gave up after %v, want 1s", waited)
	}
	wantFailed(t, "SetMany", err, l2cache.ErrUnavailable, keys...)
	tx.Rollback()
	mustSet(t, newCache(t, db, nil), "last", nil, time.Hour) // after the commit that was under way
	wantMiss(t, c, keys[5999])
}

// The row after Touch is that of a Set at the same time; chunks are not written.
func TestTouchRewritesTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, nil)
		touch := func(key string, ttl time.Duration) {
			if err := l2cache.Touch(t.Context(), c, key, ttl); err != nil {
				t.Errorf("Touch(%q, %v) = %v", key, ttl, err)
			}
		}
		mustSet(t, c, "short", []byte("value"), time.Hour)
		time.Sleep(time.Minute)
		for _, ttl := range []time.Duration{90 * time.Second, l2cache.NoExpiry, l2cache.MaxTTL} {
			touch("short", ttl)
			want := row("short", envelope.NewHeader(time.Now(), ttl), "value")
			err := db.View(func(tx *bbolt.Tx) error {
				if got := tx.Bucket([]byte("l2cache")).Get(rowKey("short")); !bytes.Equal(got, want) {
					t.Errorf("row after Touch(%v) = %x, want %x", ttl, got, want)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}

		mustSet(t, c, "long", pattern(1_000_000), time.Hour)
		before := db.Stats()
		touch("long", time.Minute)
		after := db.Stats()
		if written := after.TxStats.GetPageAlloc() - before.TxStats.GetPageAlloc(); written > 100_000 {
			t.Errorf("Touch of 1,000,000 bytes has written %d", written)
		}
		time.Sleep(59 * time.Second)
		wantValue(t, c, "long", pattern(1_000_000))
		time.Sleep(time.Second)
		wantMiss(t, c, "long")
	})
}

func TestTouchAndAddOfADamagedRow(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	for name, damage := range map[string]func(b *bbolt.Bucket) error{
		"bit flip": func(b *bbolt.Bucket) error {
			v := bytes.Clone(b.Get([]byte("ek")))
			v[9] ^= 1
			return b.Put([]byte("ek"), v)
		},
		"empty row": func(b *bbolt.Bucket) error { return b.Put([]byte("ek"), nil) },
		"bucket":    func(b *bbolt.Bucket) error { _, err := b.CreateBucket([]byte("ek")); return err },
	} {
		mustSet(t, c, "k", []byte("v"), time.Hour)
		if name == "bucket" {
			if err := c.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Update(func(tx *bbolt.Tx) error { return damage(tx.Bucket([]byte("l2cache"))) }); err != nil {
			t.Fatal(err)
		}
		before := txID(t, db)
		if err := l2cache.Touch(t.Context(), c, "k", time.Minute); !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("%s: Touch = %v, want ErrCorrupt", name, err)
		}
		if added, err := l2cache.Add(t.Context(), c, "k", nil, time.Minute); added || !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("%s: Add = %v, %v; want ErrCorrupt", name, added, err)
		}
		if after := txID(t, db); after != before {
			t.Errorf("%s: %d commits, want none", name, after-before)
		}
	}
}

// Adds of one key that share a commit see each other.
func TestAddsInOneCommit(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSet(t, c, "other", nil, time.Hour)
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	before := txID(t, db)
	var winners atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		ctx := newWaited(t.Context())
		wg.Go(func() {
			added, err := l2cache.Add(ctx, c, "k", []byte(fmt.Sprint(i)), time.Hour)
			if err != nil {
				t.Errorf("Add = %v", err)
			}
			if added {
				winners.Add(1)
				mustTouch(t, c, "k")
			}
		})
		<-ctx.asked
	}
	tx.Rollback()
	wg.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d of 16 Adds succeeded, want 1", n)
	}
	// The first Add alone, the others, of which none writes, and the Touch.
	if commits := txID(t, db) - before; commits > 3 {
		t.Errorf("%d commits, want 3 at most", commits)
	}
}

func mustTouch(t *testing.T, c l2cache.L2CacheBackend, key string) {
	t.Helper()
	if err := l2cache.Touch(t.Context(), c, key, time.Hour); err != nil {
		t.Errorf("Touch(%q) = %v", key, err)
	}
}
