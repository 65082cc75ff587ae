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
)

// What is damaged does not hide the rest, and is not hidden by it.
func TestScanOfDamagedRows(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSetMany(t, c, itemsOf(numbered(2500), pattern(20)))
	err := db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("l2cache"))
		for _, key := range []string{"k1", "k2000"} {
			row := bytes.Clone(b.Get(rowKey(key)))
			row[len(row)-5] ^= 1
			if err := b.Put(rowKey(key), row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var last error
	for info, err := range l2cache.Scan(t.Context(), c, "") {
		if last != nil {
			t.Fatalf("Scan goes on after %v", last)
		}
		if last = err; err == nil {
			seen++
		}
		if info.Key == "k1" || info.Key == "k2000" {
			t.Errorf("Scan = %+v, which is damaged", info)
		}
	}
	var e *l2cache.Error
	if seen != 2498 || !errors.Is(last, l2cache.ErrCorrupt) || !errors.As(last, &e) || e.Key != "k1" {
		t.Errorf("Scan = %d keys, then %v; want 2498, then ErrCorrupt for k1", seen, last)
	}
	if err := l2cache.DeletePattern(t.Context(), c, "k*"); err != nil {
		t.Errorf("DeletePattern = %v", err)
	}
	wantRows(t, db, "after DeletePattern", 0)
}

// The time that the loop takes counts.
func TestScanInASlowLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, openDB(t, tempFile(t), nil), nil)
		for i, key := range numbered(10) {
			mustSet(t, c, key, nil, time.Duration(11-i)*time.Minute)
		}
		seen := 0
		for info, err := range l2cache.Scan(t.Context(), c, "k") {
			want := time.Duration(11-2*seen) * time.Minute
			if err != nil || info.Key != fmt.Sprint("k", seen) || info.TTL != want {
				t.Errorf("entry %d = %+v, %v; want %v left", seen, info, err, want)
			}
			seen++
			time.Sleep(time.Minute)
		}
		if seen != 6 { // the next one would have ended
			t.Errorf("Scan = %d entries, want 6", seen)
		}
	})
}

func TestScanReadsNoChunks(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSet(t, c, "k", pattern(100_000), time.Hour)
	err := db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("l2cache")).Delete([]byte("c\x00\x01k\x00\x00\x00\x03"))
	})
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range l2cache.Scan(t.Context(), c, "") {
		if err != nil || info.Key != "k" || info.Size != 100_000 {
			t.Errorf("Scan = %+v, %v; want k with 100,000 bytes", info, err)
		}
	}
}

// Scan and DeletePattern of many keys go in pages, while others write.
func TestManyKeys(t *testing.T) {
	db := openDB(t, tempFile(t), &bbolt.Options{NoSync: true})
	c := newCache(t, db, &bolt.Options{NoSync: true})
	const n = 100_000
	items := itemsOf(numbered(n), pattern(50))
	mustSetMany(t, c, items)
	mustSet(t, c, "stays", []byte("v"), time.Hour)

	var stop atomic.Bool
	var written atomic.Int64
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop.Store(true)
	for w := range 2 {
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				mustSet(t, c, fmt.Sprint("comes", w, ".", i%500), pattern(i%20_000), time.Hour)
				written.Add(1)
			}
		})
	}

	before, reads := written.Load(), db.Stats().TxN
	seen := map[string]bool{}
	for info, err := range l2cache.Scan(t.Context(), c, "k") {
		if err != nil {
			t.Fatalf("Scan = %v", err)
		}
		seen[info.Key] = true
	}
	reads = db.Stats().TxN - reads
	if len(seen) != n || reads < n/1000 {
		t.Errorf("Scan = %d keys in %d transactions, want %d in %d at least", len(seen), reads, n, n/1000)
	}
	t.Logf("Scan: %d read transactions, %d writes of others meanwhile", reads, written.Load()-before)

	before, commits := written.Load(), txID(t, db)
	if err := l2cache.DeletePattern(t.Context(), c, "k*"); err != nil {
		t.Fatalf("DeletePattern = %v", err)
	}
	commits = txID(t, db) - commits
	if commits < n/1024 {
		t.Errorf("DeletePattern of %d keys made %d commits, want %d at least", n, commits, n/1024)
	}
	for info, err := range l2cache.Scan(t.Context(), c, "k") {
		t.Errorf("Scan after DeletePattern = %+v, %v; want nothing", info, err)
	}
	wantValue(t, c, "stays", []byte("v"))
	t.Logf("DeletePattern: %d commits, %d writes of others meanwhile", commits, written.Load()-before)
}
