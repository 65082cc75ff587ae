package bolt_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// An hour of 10 writes per second. With 100 per second it is 360,000.
var churn = flag.Int("churn", 36_000, "how many writes TestBoundedChurn does")

// churnValue is the value of a key, of mixed sizes: nine of ten have up to 3,000 B, one
// in fifty has up to 550,000 B.
func churnValue(key string) []byte {
	h := fnv.New64a()
	h.Write([]byte(key))
	r := rand.New(rand.NewPCG(h.Sum64(), 0))
	n := r.IntN(3000)
	switch r.IntN(50) {
	case 0:
		n = 50_000 + r.IntN(500_000)
	case 1, 2, 3, 4:
		n = 10_000 + r.IntN(20_000)
	}
	return bytes.Repeat(fmt.Appendf(nil, "%s;", key), n/(len(key)+1)+1)[:n]
}

// A bounded file takes all that is written, stays within its bound, and has nothing
// wrong in it.
func TestBoundedChurn(t *testing.T) {
	t.Parallel()
	const bound = 32 << 20
	path := tempFile(t)
	c := open(t, path, fmt.Sprintf("sync=false&max_bytes=%d", bound))
	var written, bytesWritten, hits, misses atomic.Int64
	var wg sync.WaitGroup
	for g := range uint64(16) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 1))
			for i := written.Add(1); i <= int64(*churn); i = written.Add(1) {
				key := fmt.Sprint("key", r.IntN(20_000))
				if r.IntN(20) == 0 {
					if err := c.Delete(t.Context(), key); err != nil {
						t.Errorf("write %d: Delete = %v", i, err)
					}
					continue
				}
				value := churnValue(key)
				ttl := time.Duration(1+r.IntN(3_600_000)) * time.Millisecond
				if r.IntN(10) == 0 {
					ttl = l2cache.NoExpiry
				}
				if err := c.Set(t.Context(), key, value, ttl); err != nil {
					t.Errorf("write %d: Set of %d bytes = %v", i, len(value), err)
				}
				bytesWritten.Add(int64(len(value)))
				key = fmt.Sprint("key", r.IntN(20_000))
				switch got, err := c.Get(t.Context(), key); {
				case err == l2cache.ErrNotFound:
					misses.Add(1)
				case err == nil && bytes.Equal(got, churnValue(key)):
					hits.Add(1)
				default:
					t.Errorf("write %d: Get(%q) = %d bytes, %v", i, key, len(got), err)
				}
				if info, err := os.Stat(path); err != nil || info.Size() > bound {
					t.Errorf("write %d: the file has %d bytes, bound %d, %v", i, info.Size(), bound, err)
				}
			}
		})
	}
	wg.Wait()
	live := 0
	for info, err := range l2cache.Scan(t.Context(), c, "") {
		if err != nil {
			t.Errorf("Scan = %v", err)
		}
		live += info.Size
	}
	t.Logf("%d writes, %d MB; at the end %d MB of values; %d hits, %d misses",
		*churn, bytesWritten.Load()>>20, live>>20, hits.Load(), misses.Load())
	if written := bytesWritten.Load(); written > 4*bound && live < bound/2 {
		t.Errorf("%d bytes of values in a full file of %d", live, bound)
	}
}

// What has ended makes room first, and then what ends first.
func TestEvictionOrder(t *testing.T) {
	c := open(t, tempFile(t), fmt.Sprintf("sync=false&sweep_interval=1h&max_bytes=%d", 16<<20))
	if !l2cache.ProfileOf(c).Evicts {
		t.Error("the profile of a bounded file does not say Evicts")
	}
	const each = 300 // of 10 KB: three groups of them fit, four do not
	fill := func(group string, ttl time.Duration) {
		for i := range each {
			mustSet(t, c, fmt.Sprintf("%03d %s", i, group), pattern(10_000), ttl)
		}
	}
	wantGroups := func(when string, want map[string]int) {
		t.Helper()
		got := map[string]int{}
		for info, err := range l2cache.Scan(t.Context(), c, "") {
			if err != nil {
				t.Fatal(err)
			}
			_, group, _ := strings.Cut(info.Key, " ")
			got[group]++
		}
		for group, n := range want {
			if some := n < 0 && 0 < got[group] && got[group] < each; got[group] != n && !some {
				t.Errorf("%s there are %v, want %v, where -1 is some", when, got, want)
			}
		}
	}
	fill("ended", time.Millisecond)
	for end := time.Now().Add(opTimeout); ; { // the last of them
		if _, err := c.Get(t.Context(), fmt.Sprintf("%03d ended", each-1)); err == l2cache.ErrNotFound {
			break
		} else if time.Now().After(end) {
			t.Fatalf("Get = %v, want ErrNotFound", err)
		}
	}
	fill("hour", time.Hour)
	fill("forever", l2cache.NoExpiry)
	fill("day", 24*time.Hour)
	wantGroups("after what has ended", map[string]int{"hour": each, "day": each, "forever": each})
	fill("week", 7*24*time.Hour)
	wantGroups("after what ends first", map[string]int{"hour": -1, "day": each, "week": each, "forever": each})
}

// A file that is larger than max_bytes already stays usable, and does not grow.
func TestBoundOfALargerFile(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "sync=false")
	for i := range 3000 {
		mustSet(t, c, fmt.Sprint("old", i), pattern(10_000+i), time.Hour)
	}
	c.Close()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := open(t, path, fmt.Sprintf("sync=false&max_bytes=%d", 16<<20))
		for i := range 1000 {
			mustSet(t, c, fmt.Sprint("new", i), pattern(10_000+i), time.Hour)
		}
		wantValue(t, c, "new999", pattern(10_999))
		c.Close()
	}
	if after, err := os.Stat(path); err != nil || after.Size() > before.Size()+4<<20 {
		t.Errorf("the file has grown from %d to %d bytes, %v", before.Size(), after.Size(), err)
	}
}

func TestBoundedValueLen(t *testing.T) {
	c := open(t, tempFile(t), fmt.Sprintf("max_bytes=%d", 16<<20))
	limit := l2cache.ProfileOf(c).MaxValueLen
	if limit < 1_000_000 {
		t.Errorf("MaxValueLen = %d", limit)
	}
	for range 30 { // over each other, as many as are twice the file
		mustSet(t, c, "k", pattern(limit), time.Hour)
	}
	wantValue(t, c, "k", pattern(limit))
	if err := c.Set(t.Context(), "k", make([]byte, limit+1), time.Hour); !errors.Is(err, l2cache.ErrTooLarge) {
		t.Errorf("Set of %d bytes = %v, want ErrTooLarge", limit+1, err)
	}
}

// What was evicted while somebody reads is free when he has ended: Sets wait for that.
func TestBoundBesideReaders(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "sync=false")
	for i := range 1500 { // in long rows, which a bounded file would not have
		mustSet(t, c, fmt.Sprint("old", i), pattern(10_000+i), time.Hour)
	}
	c.Close()
	c = open(t, path, fmt.Sprintf("sync=false&max_bytes=%d", 16<<20))
	var done atomic.Bool
	var readers sync.WaitGroup
	readers.Go(func() {
		for !done.Load() {
			err := c.(*bolt.Cache).DB().View(func(*bbolt.Tx) error {
				<-time.After(100 * time.Millisecond)
				return nil
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer readers.Wait()
	defer done.Store(true)
	for i := range 600 {
		mustSet(t, c, fmt.Sprint("new", i), pattern(10_000+i), time.Hour)
	}
	wantValue(t, c, "new599", pattern(10_599))
}
