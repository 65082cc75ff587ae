package bolt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

// golden is every row of a bucket with three entries that were set at midnight of
// 1 January 2000, UTC, when a synctest bubble begins: key and row in hexadecimal;
// chunk stands for 16,000 bytes of pattern. Every later version reads these bytes.
const golden = `
6300056c6172676500000000 chunk
6300056c6172676500000001 bb
65656d707479 01c54c0100000e912ff2fb6000000b342eb7c380002745a13a
656c61726765 02c54c01000000000000000000000000000000000000003e818480925499f56cbc
6573686f7274 01c54c010000035d0140952a8000000000055d4a8076616c7565c8e84677
76 01
`

// pattern is n bytes that do not repeat in steps of a chunk or a page.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestGoldenWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, nil)
		mustSet(t, c, "short", []byte("value"), 90*time.Second)
		mustSet(t, c, "empty", nil, l2cache.MaxTTL)
		mustSet(t, c, "large", pattern(16_001), l2cache.NoExpiry)
		var got strings.Builder
		err := db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("l2cache")).ForEach(func(k, row []byte) error {
				text := hex.EncodeToString(row)
				if bytes.Equal(row, pattern(16_000)) {
					text = "chunk"
				}
				fmt.Fprintf(&got, "\n%x %s", k, text)
				return nil
			})
		})
		if got := got.String() + "\n"; err != nil || got != golden {
			t.Errorf("rows:%s%v\nwant:%s", got, err, golden)
		}
	})
}

func TestGoldenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("l2cache"))
			for line := range strings.Lines(strings.TrimSpace(golden)) {
				key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
				row := pattern(16_000)
				if text != "chunk" {
					row = unhex(t, text)
				}
				err = errors.Join(err, b.Put(unhex(t, key), row))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		c := newCache(t, db, nil)
		time.Sleep(30 * time.Second)
		for _, want := range []struct {
			key   string
			value []byte
			ttl   time.Duration
		}{
			{"short", []byte("value"), time.Minute},
			{"empty", []byte{}, l2cache.MaxTTL - 30*time.Second},
			{"large", pattern(16_001), l2cache.NoExpiry},
		} {
			got, err := c.GetWithTTL(t.Context(), want.key)
			if err != nil || !bytes.Equal(got.Value, want.value) || got.TTL != want.ttl {
				t.Errorf("GetWithTTL(%q) = %d bytes, %v, %v; want %d bytes, %v",
					want.key, len(got.Value), got.TTL, err, len(want.value), want.ttl)
			}
		}
	})
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
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

// A key that ends in bytes like those of a chunk's number, or begins with another
// key, has chunks of its own.
func TestChunksOfSimilarKeys(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	keys := []string{"k", "k\x00\x00\x00\x00", "k\x00\x00\x00\x01", "\x00\x01k", "kk", "c\x00\x01k\x00\x00\x00\x00", "v"}
	for i, key := range keys {
		mustSet(t, c, key, randomBytes(uint64(i), 40_000), time.Hour)
	}
	for i, key := range keys {
		wantValue(t, c, key, randomBytes(uint64(i), 40_000))
		if err := c.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q) = %v", key, err)
		}
		wantMiss(t, c, key)
	}
	wantRows(t, db, "after all was deleted", 0)
}

// wantRows wants the bucket to have n rows besides that of the version.
func wantRows(t *testing.T, db *bbolt.DB, when string, n int) {
	t.Helper()
	err := db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte("l2cache")).Stats().KeyN - 1; got != n {
			t.Errorf("%d rows %s, want %d", got, when, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestShrinkingLeavesNoRows(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	for _, step := range []struct{ size, rows int }{
		{80_000, 6}, {32_001, 4}, {32_000, 3}, {16_000, 1}, {160_000, 11}, {0, 1},
	} {
		mustSet(t, c, "k", pattern(step.size), time.Hour)
		wantRows(t, db, fmt.Sprintf("for %d bytes", step.size), step.rows)
	}
}

func TestDamagedChunks(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	chunk := func(i byte) []byte { return []byte{'c', 0, 1, 'k', 0, 0, 0, i} }
	for name, damage := range map[string]func(b *bbolt.Bucket) error{
		"first missing": func(b *bbolt.Bucket) error { return b.Delete(chunk(0)) },
		"one missing":   func(b *bbolt.Bucket) error { return b.Delete(chunk(1)) },
		"last missing":  func(b *bbolt.Bucket) error { return b.Delete(chunk(2)) },
		"truncated":     func(b *bbolt.Bucket) error { return b.Put(chunk(1), b.Get(chunk(1))[:15_999]) },
		"longer":        func(b *bbolt.Bucket) error { return b.Put(chunk(2), pattern(16_000)) },
		"bit flip": func(b *bbolt.Bucket) error {
			row := bytes.Clone(b.Get(chunk(1)))
			row[77] ^= 1
			return b.Put(chunk(1), row)
		},
		"of an older value": func(b *bbolt.Bucket) error { return b.Put(chunk(0), randomBytes(7, 16_000)) },
		"all missing": func(b *bbolt.Bucket) error {
			return errors.Join(b.Delete(chunk(0)), b.Delete(chunk(1)), b.Delete(chunk(2)))
		},
	} {
		mustSet(t, c, "k", pattern(40_000), time.Hour)
		err := db.Update(func(tx *bbolt.Tx) error { return damage(tx.Bucket([]byte("l2cache"))) })
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrCorrupt) || got != nil {
			t.Errorf("chunk %s: Get = %d bytes, %v; want ErrCorrupt", name, len(got), err)
		}
		if e, err := c.GetWithTTL(t.Context(), "k"); !errors.Is(err, l2cache.ErrCorrupt) || e.Value != nil || e.TTL != 0 {
			t.Errorf("chunk %s: GetWithTTL = %d bytes, %v, %v; want ErrCorrupt", name, len(e.Value), e.TTL, err)
		}
	}
	mustSet(t, c, "k", []byte("whole"), time.Hour)
	wantRows(t, db, "after a Set over what was damaged", 1)
}

// What a row whose damage hides that it had chunks leaves behind is removed, too.
func TestChunksOfADamagedRow(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	for name, write := range map[string]func() error{
		"Set":    func() error { return c.Set(t.Context(), "k", nil, time.Hour) },
		"Delete": func() error { return errors.Join(c.Delete(t.Context(), "k"), c.Set(t.Context(), "k", nil, time.Hour)) },
	} {
		mustSet(t, c, "k", pattern(40_000), time.Hour)
		err := db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("l2cache"))
			row := bytes.Clone(b.Get([]byte("ek")))
			row[0] = 1
			return b.Put([]byte("ek"), row)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Errorf("%s over a damaged row = %v", name, err)
		}
		wantRows(t, db, "after "+name+" over a damaged row", 1)
	}
}

// TestTornPairs reads while others write values of all forms, each of which tells
// its TTL: short ones, and ones in chunks.
func TestTornPairs(t *testing.T) {
	c := open(t, tempFile(t), "sync=false")
	pairs := []struct {
		value []byte
		ttl   time.Duration
	}{
		{[]byte("A"), 10 * time.Second},
		{[]byte("B"), 1000 * time.Second},
		{[]byte("C"), l2cache.NoExpiry},
		{bytes.Repeat([]byte("D"), 50_000), 5000 * time.Second},
		{bytes.Repeat([]byte("E"), 33_000), 20_000 * time.Second},
	}
	mustSet(t, c, "k", pairs[0].value, pairs[0].ttl)
	const reads = 100_000
	var done atomic.Int64
	var readers, writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := w; done.Load() < reads; i++ {
				pair := pairs[i%len(pairs)]
				if err := c.Set(t.Context(), "k", pair.value, pair.ttl); err != nil {
					t.Errorf("Set = %v", err)
					return
				}
			}
		})
	}
	for range 4 {
		readers.Go(func() {
			for done.Add(1) <= reads {
				e, err := c.GetWithTTL(t.Context(), "k")
				if err != nil {
					t.Errorf("GetWithTTL = %v", err)
					return
				}
				for _, pair := range pairs {
					if e.Value[0] != pair.value[0] {
						continue
					}
					// Half of the TTL is more time than the test takes, and less than
					// the next shorter TTL.
					if !bytes.Equal(e.Value, pair.value) || e.TTL > pair.ttl || e.TTL < pair.ttl/2 {
						t.Errorf("torn: value %c of %d bytes with TTL %v, want %d bytes, %v",
							e.Value[0], len(e.Value), e.TTL, len(pair.value), pair.ttl)
					}
				}
			}
		})
	}
	readers.Wait()
	writers.Wait()
}

// A result that was memory of the map would be gone with the file: a fault.
func TestResultsOutliveTheFile(t *testing.T) {
	c := open(t, tempFile(t), "")
	var got [][]byte
	sizes := []int{0, 100, 10_000, 100_000}
	for i, size := range sizes {
		key := fmt.Sprint(i)
		mustSet(t, c, key, pattern(size), time.Hour)
		value, err := c.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, value)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		if !bytes.Equal(got[i], pattern(size)) {
			t.Errorf("the value of %d bytes has changed with Close", size)
		}
	}
}
