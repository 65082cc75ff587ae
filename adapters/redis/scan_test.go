package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// TestGlob has the server match what the package matches.
func TestGlob(t *testing.T) {
	srv := servertest.Redis(t)
	client := newClient(t, redis.Options{Addr: srv.Addr})
	const letters = `ab*?\[]^-` + "\x00\xff"
	random := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte(letters[rand.IntN(len(letters))])
		}
		return b.String()
	}
	keys := []string{strings.Repeat("a", l2cache.MaxKeyLen)}
	for range 1000 {
		keys = append(keys, random(1+rand.IntN(6)))
	}
	pipe := client.Pipeline()
	for _, key := range keys {
		pipe.Set(t.Context(), key, "", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	patterns := []string{"[ab]", "[^a]*", "[a-b]", `\[a]`, `*\*`, strings.Repeat("*a", maxStars)}
	for range 1000 {
		patterns = append(patterns, random(rand.IntN(6)))
	}
	for _, pattern := range patterns {
		if strings.HasSuffix(pattern, `\`) {
			continue // whether it is bad is CheckPattern's to say
		}
		matched := map[string]bool{}
		// Not client.Scan: it leaves an empty pattern out.
		scan := redis.NewScanCmd(t.Context(), nil, "scan", 0, "match", glob(pattern), "count", 1_000_000)
		if err := client.Process(t.Context(), scan); err != nil {
			t.Fatal(err)
		}
		list, _ := scan.Val()
		for _, key := range list {
			matched[key] = true
		}
		for _, key := range keys {
			if want := l2cache.MatchPattern(pattern, key); matched[key] != want {
				t.Errorf("the server matches %q, for %q, to %q: %v, want %v", glob(pattern), pattern, key, matched[key], want)
			}
		}
	}
}

// TestManyStars deletes by a pattern that the server would not match to anything.
func TestManyStars(t *testing.T) {
	b := openURL(t, "redis://"+server(t).Addr)
	key := "stars:" + strings.Repeat("a", maxStars+1)
	for _, key := range []string{key, key + "b"} {
		if err := b.Set(t.Context(), key, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if err := l2cache.DeletePattern(t.Context(), b, "stars:"+strings.Repeat("*a", maxStars+1)); err != nil {
		t.Errorf("DeletePattern = %v", err)
	}
	if _, err := b.Get(t.Context(), key); err != l2cache.ErrNotFound {
		t.Errorf("Get of what matches = %v, want a miss", err)
	}
	if _, err := b.Get(t.Context(), key+"b"); err != nil {
		t.Errorf("Get of what does not match = %v", err)
	}
}

// TestScanForeign scans a database that other programs use, too.
func TestScanForeign(t *testing.T) {
	srv := servertest.Redis(t)
	client := newClient(t, redis.Options{Addr: srv.Addr})
	for _, args := range [][]any{
		{"set", "", "v"},
		{"set", strings.Repeat("k", l2cache.MaxKeyLen+1), "v"},
		{"rpush", "list", "v"},
		{"set", "never", "four"},
		{"set", "soon", "v", "px", 60_000},
	} {
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, b l2cache.L2CacheBackend) {
		t.Helper()
		got := map[string]l2cache.Info{}
		for info, err := range l2cache.Scan(t.Context(), b, "") {
			if err != nil {
				t.Fatalf("Scan = %v", err)
			}
			got[info.Key] = info
		}
		never, soon := got["never"], got["soon"]
		if len(got) != 2 || never.TTL != l2cache.NoExpiry || never.Size != 4 || soon.TTL > time.Minute || soon.TTL < 30*time.Second || soon.Size != 1 {
			t.Errorf("Scan = %+v, want never with 4 bytes and soon with 1", got)
		}
	}
	for name, open := range handles(srv.Addr, 4*time.Second) {
		t.Run(name, func(t *testing.T) { want(t, open(t)) })
	}
	t.Run("out of memory", func(t *testing.T) { // by script
		if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
			t.Fatal(err)
		}
		defer client.ConfigSet(t.Context(), "maxmemory", "0")
		want(t, openURL(t, "redis://"+srv.Addr))
	})
}

// TestScanSlowly has entries expire while the loop takes its time.
func TestScanSlowly(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr)
	const ttl = 300 * time.Millisecond
	for _, d := range []time.Duration{ttl, time.Hour} {
		for i := range 10 {
			if err := b.Set(t.Context(), fmt.Sprint(d, i), nil, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	set := time.Now()
	for info, err := range l2cache.Scan(t.Context(), b, "") {
		if err != nil {
			t.Fatal(err)
		}
		of := ttl
		if strings.HasPrefix(info.Key, time.Hour.String()) {
			of = time.Hour
		}
		if left := of - time.Since(set); info.TTL > left+20*time.Millisecond {
			t.Errorf("Scan yields %q with %v left, want at most %v", info.Key, info.TTL, left)
		}
		time.Sleep(ttl / 4)
	}
}

// TestScanRestart restarts the server in the middle of a scan, which gives a cursor
// another meaning.
func TestScanRestart(t *testing.T) {
	srv := servertest.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	const n = 20_000
	for name, open := range handles(srv.Addr, 4*time.Second) {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			fill(t, b, n)
			restart := func() {
				srv.Kill()
				if err := srv.Start(); err != nil {
					t.Error(err)
				}
				for range 50 { // connections that are found to be closed
					if b.Ping(t.Context()) == nil {
						return
					}
				}
			}
			seen := map[string]bool{}
			for info, err := range l2cache.Scan(t.Context(), b, "k") {
				if err != nil {
					t.Fatalf("Scan = %v", err)
				}
				if seen[info.Key] = true; len(seen) == n/2 {
					restart()
				}
			}
			if len(seen) != n {
				t.Errorf("Scan of %d keys yields %d of them", n, len(seen))
			}
		})
	}
}

// fill sets n keys.
func fill(t *testing.T, b l2cache.L2CacheBackend, n int) {
	t.Helper()
	items := make([]l2cache.Item, n)
	for i := range items {
		items[i] = l2cache.Item{Key: fmt.Sprint("k", i), Value: []byte("v"), TTL: time.Hour}
	}
	if err := l2cache.SetMany(t.Context(), b, items); err != nil {
		t.Fatal(err)
	}
}

// TestScanHundredThousand scans and deletes many keys in bounded memory, while others
// write.
func TestScanHundredThousand(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr+"?op_timeout=10s")
	const n = 100_000
	fill(t, b, n)
	var done atomic.Bool
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; !done.Load(); i++ {
				key := fmt.Sprintf("other:%d.%d", w, i%1000)
				if err := errors.Join(b.Set(t.Context(), key, []byte("v"), time.Minute), b.Delete(t.Context(), key)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := make(map[string]bool, n)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most uint64
	for info, err := range l2cache.Scan(t.Context(), b, "k") {
		if err != nil {
			t.Fatalf("Scan = %v", err)
		}
		seen[info.Key] = true
		if len(seen)%20_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
		}
	}
	// The keys of seen are 16 + 8 bytes each, and a page is 1000 keys.
	if len(seen) != n || most > 16<<20 {
		t.Errorf("Scan of %d keys yields %d, with %d MiB more on the heap; want all, with at most 16", n, len(seen), most>>20)
	}
	if err := l2cache.DeletePattern(t.Context(), b, "k*"); err != nil {
		t.Errorf("DeletePattern = %v", err)
	}
	done.Store(true)
	writers.Wait()
	for info, err := range l2cache.Scan(t.Context(), b, "k") {
		t.Fatalf("Scan after DeletePattern yields %+v, %v", info, err)
	}
}

// TestScanEnds ends a scan by its ctx between two keys and two pages.
func TestScanEnds(t *testing.T) {
	srv := servertest.Redis(t)
	b := openURL(t, "redis://"+srv.Addr)
	fill(t, b, 5000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n := 0
	for _, err := range l2cache.Scan(ctx, b, "") {
		if n++; n == 10 {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) || n != 11 {
		t.Errorf("Scan that was cancelled at 10 ends with %v after %d", last, n)
	}
	if err := l2cache.DeletePattern(ctx, b, "k*"); !errors.Is(err, context.Canceled) {
		t.Errorf("DeletePattern with an ended ctx = %v", err)
	}
	// A pool of one connection is free while the loop runs.
	b = openURL(t, "redis://"+srv.Addr+"?pool_size=1")
	n = 0
	for info, err := range l2cache.Scan(t.Context(), b, "k1") {
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1111 { // k1, k1x, k1xx, k1xxx
		t.Errorf("Scan yields %d of 1111 keys", n)
	}
}
