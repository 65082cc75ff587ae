package bolt_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

func TestSweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, &bolt.Options{SweepInterval: 10 * time.Second})
		for i := range 700 { // more than one page of a sweep
			mustSet(t, c, fmt.Sprint("short", i), []byte("v"), 15*time.Second)
		}
		mustSet(t, c, "large", pattern(100_000), 15*time.Second)
		mustSet(t, c, "long", pattern(20_000), time.Hour)
		mustSet(t, c, "forever", []byte("v"), l2cache.NoExpiry)
		const live, dead = 3 + 1, 700 + 8

		for _, step := range []struct {
			at   time.Duration
			rows int
		}{
			{10*time.Second + time.Millisecond, live + dead}, // nothing has ended
			{19 * time.Second, live + dead},                  // they have, but the interval has not passed
			{21 * time.Second, live},
			{59 * time.Minute, live},
			{61 * time.Minute, 1},
			{100 * 365 * 24 * time.Hour, 1},
		} {
			time.Sleep(time.Until(epoch.Add(step.at)))
			synctest.Wait()
			wantRows(t, db, fmt.Sprint("after ", step.at), step.rows)
		}
		wantValue(t, c, "forever", []byte("v"))

		// What is written later wakes the sweeper, but not sooner than the interval.
		mustSet(t, c, "later", []byte("v"), time.Millisecond)
		time.Sleep(11 * time.Second)
		mustSet(t, c, "later still", []byte("v"), time.Millisecond)
		synctest.Wait()
		wantRows(t, db, "after 11 s", 2)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantRows(t, db, "after 21 s", 1)
	})
}

// epoch is when a synctest bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// A sweep finds what was left in the file before it was opened.
func TestSweepAfterReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tempFile(t)
		c := open(t, path, "")
		mustSet(t, c, "short", []byte("v"), time.Second)
		mustSet(t, c, "long", []byte("v"), time.Hour)
		c.Close()
		time.Sleep(time.Minute)
		c = open(t, path, "sweep_interval=10s")
		wantMiss(t, c, "short")
		if e, err := c.GetWithTTL(t.Context(), "long"); err != nil || e.TTL != 59*time.Minute {
			t.Errorf("GetWithTTL after a minute closed = %v, %v; want 59m", e.TTL, err)
		}
		db := c.(*bolt.Cache).DB()
		wantRows(t, db, "after opening", 2)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		wantRows(t, db, "after a sweep", 1)
	})
}

// A sweep that has found an entry ended does not delete what was set meanwhile.
func TestSweepSparesWhatWasRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, openDB(t, tempFile(t), nil), nil)
		mustSet(t, c, "renewed", pattern(40_000), time.Second)
		mustSet(t, c, "shortened", []byte("old"), time.Second)
		mustSet(t, c, "ended", []byte("old"), time.Second)
		time.Sleep(2 * time.Second)
		err := c.Sweep(t.Context(), func() {
			mustSet(t, c, "renewed", pattern(50_000), time.Hour)
			mustSet(t, c, "shortened", []byte("new"), time.Millisecond)
		})
		if err != nil {
			t.Errorf("sweep = %v", err)
		}
		wantValue(t, c, "renewed", pattern(50_000))
		wantValue(t, c, "shortened", []byte("new"))
		wantRows(t, c.DB(), "after the sweep", 1+4+1)
	})
}

// A row that is damaged may have ended or not: a sweep leaves it alone.
func TestSweepSparesWhatIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, nil)
		mustSet(t, c, "k", []byte("v"), time.Hour)
		err := db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("l2cache"))
			row := append([]byte{}, b.Get([]byte("ek"))...)
			row[6] = 0 // in 1970
			return b.Put([]byte("ek"), row)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Sweep(t.Context(), func() {}); err != nil {
			t.Errorf("sweep = %v", err)
		}
		wantRows(t, db, "after the sweep", 1)
	})
}

// TestFreshValuesSurvive has entries expire and be set again while reads and a
// sweeper that never rests are at work.
func TestFreshValuesSurvive(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "sync=false&sweep_interval=1us")
	const writers, rounds = 8, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			key := fmt.Sprint("k", w)
			for i := range rounds {
				mustSet(t, c, key, pattern(w*5000), time.Millisecond)
				for _, err := c.Get(t.Context(), key); err == nil; _, err = c.Get(t.Context(), key) {
				}
				// It has just ended, and the sweeper is after it.
				mustSet(t, c, key, pattern(w*5000+i), time.Hour)
				for range 10 {
					wantValue(t, c, key, pattern(w*5000+i))
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		wantValue(t, c, fmt.Sprint("k", w), pattern(w*5000+rounds-1))
	}
}
