package memcached_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var shared = servertest.Shared(servertest.StartMemcached)

// patience is an op_timeout for tests of something else, on a machine that may be
// busy. clientTimeout is that of callers' clients; a Close waits for it.
const (
	patience      = 30 * time.Second
	patient       = "?op_timeout=30s&dial_timeout=30s"
	clientTimeout = 3 * time.Second
)

// open opens a URL for the time of the test.
func open(t testing.TB, url string) l2cache.L2CacheBackend {
	t.Helper()
	cache, err := l2cache.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	return cache
}

// newClient returns a client as the documentation of New asks for.
func newClient(t testing.TB, addrs ...string) *memcache.Client {
	client := memcache.New(addrs...)
	client.MaxIdleConns = 128
	client.Timeout = clientTimeout
	dials := new(atomic.Int64)
	client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	dialsOf.Store(client, dials)
	t.Cleanup(func() { client.Close() })
	return client
}

var dialsOf sync.Map // of clients: *atomic.Int64

// eachWay runs a test on a backend that a URL opens, and on one over a caller's
// client.
func eachWay(t *testing.T, test func(t *testing.T, open func(addr string) l2cache.L2CacheBackend)) {
	t.Run("url", func(t *testing.T) {
		test(t, func(addr string) l2cache.L2CacheBackend { return open(t, "memcached://"+addr+patient+"&lazy=true") })
	})
	t.Run("caller's client", func(t *testing.T) {
		test(t, func(addr string) l2cache.L2CacheBackend {
			cache, err := memcached.New(newClient(t, addr), &memcached.Options{OpTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cache.Close() })
			return cache
		})
	})
}

func mustSet(t testing.TB, cache l2cache.L2CacheBackend, key, value string, ttl time.Duration) {
	t.Helper()
	if err := cache.Set(context.Background(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func wantGet(t testing.TB, cache l2cache.L2CacheBackend, key, want string) {
	t.Helper()
	got, err := cache.Get(context.Background(), key)
	if err != nil || string(got) != want {
		t.Errorf("Get(%.80q) = %.80q, %v; want %.80q", key, got, err, want)
	}
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v; want %v", what, err, want)
	}
}

func TestEveryTTLIsReadableAtOnce(t *testing.T) {
	t.Parallel()
	cache := open(t, "memcached://"+shared(t).Addr+patient+"&prefix=ttl:")
	const day = 24 * time.Hour
	for _, ttl := range []time.Duration{
		time.Millisecond, 10 * time.Millisecond, 300 * time.Millisecond, time.Second, 1500 * time.Millisecond, time.Hour,
		30*day - 7*time.Second, 30*day - 6*time.Second, 30*day - 5*time.Second, 30 * day, 30*day + time.Second, 31 * day,
		time.Until(time.Unix(1<<31-1, 0)) - 2*day, time.Until(time.Unix(1<<31-1, 0)), time.Until(time.Unix(1<<31, 0)) + day,
		l2cache.MaxTTL, l2cache.NoExpiry - 1, l2cache.NoExpiry,
	} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			want := min(ttl, l2cache.MaxTTL)
			if ttl == l2cache.NoExpiry {
				want = l2cache.NoExpiry
			}
			for range 100 { // until the machine is quick enough for the shortest
				called := time.Now()
				mustSet(t, cache, ttl.String(), "v", ttl)
				e, err := cache.GetWithTTL(t.Context(), ttl.String())
				took := time.Since(called)
				if took >= ttl {
					continue
				}
				if err != nil || e.TTL > want || e.TTL < want-took-time.Millisecond {
					t.Errorf("GetWithTTL %v after Set for %v = %v, %v; want %v or a little less", took, ttl, e.TTL, err, want)
				}
				return
			}
			t.Errorf("no read came within %v of its Set", ttl)
		})
	}
}

// A server that has stalled goes by an old time for an instant.
func TestSetAfterAStallIsNotDroppedEarly(t *testing.T) {
	t.Parallel()
	server := servertest.Memcached(t)
	cache := open(t, "memcached://"+server.Addr+patient)
	const conns, each, stall, ttl = 30, 20, 4 * time.Second, 2 * time.Second
	idle(t, cache, server, conns)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(stall)
	go server.Resume()
	var mu sync.Mutex
	ends := map[string]time.Time{}
	errs := atOnce(conns, func(i int) error {
		for j := range each {
			key, called := fmt.Sprint(i, ":", j), time.Now()
			if err := cache.Set(context.Background(), key, nil, ttl); err != nil {
				return err
			}
			mu.Lock()
			ends[key] = called.Add(ttl)
			mu.Unlock()
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for key, end := range ends {
		if _, err := cache.Get(t.Context(), key); err != nil && time.Now().Before(end) {
			t.Errorf("Get = %v, %v before the end of the entry", err, time.Until(end))
		}
	}
}

// An item is the server's to reclaim soon after its deadline, and not before.
func TestServerReclaims(t *testing.T) {
	t.Parallel()
	server := shared(t)
	cache := open(t, "memcached://"+server.Addr+patient)
	raw := newClient(t, server.Addr)
	for _, ttl := range []time.Duration{time.Millisecond, 1100 * time.Millisecond} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			key := "reclaim:" + ttl.String()
			called := time.Now()
			mustSet(t, cache, key, "v", ttl)
			for {
				_, err := raw.Get("k" + key)
				after := time.Since(called)
				if errors.Is(err, memcache.ErrCacheMiss) {
					if after < ttl {
						t.Errorf("the server dropped an item of %v after %v", ttl, after)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if after > ttl+20*time.Second {
					t.Fatalf("the server still has an item of %v after %v", ttl, after)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		cache := open(shared(t).Addr)
		keys := []string{
			" ", "a b", " a", "a ", "\r\n", "a\r\nset kb 0 0 1\r\nx\r\n", "\x00", "\x7f", "a\tb", "é", "\xff\xfe", "…", "k", "h",
			strings.Repeat("x", 248), strings.Repeat("x", 249), strings.Repeat("x", 250), strings.Repeat("x", 251),
			strings.Repeat("x", l2cache.MaxKeyLen), strings.Repeat(" ", l2cache.MaxKeyLen-1) + "y", strings.Repeat(" ", l2cache.MaxKeyLen),
			memcached.ItemKey("a b"), memcached.ItemKey("a b")[1:], memcached.ItemKey("a"), memcached.ItemKey(memcached.ItemKey("a b")),
		}
		for i, key := range keys {
			mustSet(t, cache, key, fmt.Sprint("value of ", i), time.Minute)
		}
		for i, key := range keys {
			wantGet(t, cache, key, fmt.Sprint("value of ", i))
		}
		for _, key := range keys {
			if err := cache.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete(%.80q) = %v", key, err)
			}
			if value, err := cache.Get(t.Context(), key); err != l2cache.ErrNotFound || value != nil {
				t.Errorf("Get(%.80q) after Delete = %q, %v; want ErrNotFound", key, value, err)
			}
		}
	})
}

func TestForeignItems(t *testing.T) {
	server := shared(t)
	cache := open(t, "memcached://"+server.Addr+patient)
	raw := newClient(t, server.Addr)
	mustSet(t, cache, "ours", "v", time.Hour)
	mustSet(t, cache, "ou rs", "v", time.Hour)
	for _, key := range []string{"ours", "ou rs"} {
		ours, err := raw.Get(memcached.ItemKey(key))
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range []memcache.Item{
			{Flags: 0, Value: ours.Value},
			{Flags: 0, Value: []byte("42")},
			{Flags: ours.Flags ^ 1, Value: ours.Value},
			{Flags: ours.Flags, Value: []byte("42")},
			{Flags: ours.Flags, Value: nil},
			{Flags: ours.Flags, Value: ours.Value[:len(ours.Value)-2]},
		} {
			item.Key = ours.Key
			if err := raw.Set(&item); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the read leaves it there
				e, err := cache.GetWithTTL(t.Context(), key)
				if !errors.Is(err, l2cache.ErrCorrupt) || e.Value != nil {
					t.Errorf("GetWithTTL(%q) of flags %#x, data %x = %v, %v; want ErrCorrupt", key, item.Flags, item.Value, e, err)
				}
			}
		}
		mustSet(t, cache, key, "new", time.Hour)
		wantGet(t, cache, key, "new")
	}
}

func TestTooLargeKeepsTheOldEntry(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		cache := open(shared(t).Addr)
		largest := l2cache.ProfileOf(cache).MaxValueLen
		if largest != memcached.DefaultMaxValueLen {
			t.Errorf("MaxValueLen = %d, want %d", largest, memcached.DefaultMaxValueLen)
		}
		for _, key := range []string{
			"x", strings.Repeat("x", 249), strings.Repeat("x", l2cache.MaxKeyLen), strings.Repeat(" ", l2cache.MaxKeyLen),
		} {
			value := bytes.Repeat([]byte{'v'}, largest+1)
			if err := cache.Set(t.Context(), key, value[:largest], time.Minute); err != nil {
				t.Fatalf("Set of the longest value, key of %d bytes: %v", len(key), err)
			}
			wantError(t, "Set of one byte more", cache.Set(t.Context(), key, value, time.Minute), l2cache.ErrTooLarge)
			wantGet(t, cache, key, string(value[:largest]))
		}
	})
}

// A server with a smaller limit than max_value deletes the old entry.
func TestServersOwnLimit(t *testing.T) {
	server := servertest.Memcached(t, "-I", "512k")
	cache := open(t, "memcached://"+server.Addr+patient)
	mustSet(t, cache, "k", "old", time.Minute)
	wantError(t, "Set", cache.Set(t.Context(), "k", make([]byte, 1<<20-4096), time.Minute), l2cache.ErrTooLarge)
	_, err := cache.Get(t.Context(), "k")
	wantError(t, "Get", err, l2cache.ErrNotFound)

	server = servertest.Memcached(t, "-I", "4m")
	cache = open(t, "memcached://"+server.Addr+patient+"&max_value=4000000")
	value := strings.Repeat("v", 4_000_000)
	mustSet(t, cache, "k", value, time.Minute)
	wantGet(t, cache, "k", value)
}

func TestFull(t *testing.T) {
	server := servertest.Memcached(t, "-m", "1", "-M", "-I", "512k")
	cache := open(t, "memcached://"+server.Addr+patient)
	ctx := t.Context()
	var err error
	stored := 0
	for err == nil && stored < 1000 {
		if err = cache.Set(ctx, fmt.Sprint(stored), make([]byte, 100_000), time.Minute); err == nil {
			stored++
		}
	}
	wantError(t, fmt.Sprintf("Set %d", stored), err, l2cache.ErrFull)
	for i := range stored {
		if _, err := cache.Get(ctx, fmt.Sprint(i)); err != nil {
			t.Errorf("Get of entry %d on the full server = %v", i, err)
		}
	}
	if err := cache.Delete(ctx, "0"); err != nil {
		t.Error(err)
	}
	mustSet(t, cache, "0", "there is room again", time.Minute)
}

// Value and TTL come from the same write, on its own and in a batch.
func TestNoTornPairs(t *testing.T) {
	cache := open(t, "memcached://"+shared(t).Addr+patient)
	states := []struct {
		value    string
		ttl, low time.Duration
	}{
		{"A", 10 * time.Second, 0},
		{"B", 1000 * time.Second, 900 * time.Second},
		{"never", l2cache.NoExpiry, l2cache.NoExpiry},
	}
	const key = "torn"
	mustSet(t, cache, key, states[0].value, states[0].ttl)
	reads := 100_000
	if testing.Short() {
		reads = 10_000
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for ctx.Err() == nil {
				s := states[rand.IntN(len(states))]
				if err := cache.Set(context.Background(), key, []byte(s.value), s.ttl); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const goroutines = 16
	var mu sync.Mutex
	seen := map[string]int{}
	for range goroutines {
		readers.Go(func() {
			counts := map[string]int{}
			for range reads / goroutines {
				e, err := cache.GetWithTTL(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				for _, s := range states {
					if s.value == string(e.Value) && (e.TTL > s.ttl || e.TTL < s.low) {
						t.Errorf("GetWithTTL = %q with %v left, was set for %v", e.Value, e.TTL, s.ttl)
						return
					}
				}
				counts[string(e.Value)]++
			}
			mu.Lock()
			defer mu.Unlock()
			for value, n := range counts {
				seen[value] += n
			}
		})
	}
	readers.Wait()
	stop()
	writers.Wait()
	if len(seen) != len(states) {
		t.Errorf("values seen: %v; want all three", seen)
	}
}

// A buffer goes to another Set only when the one before has done with it.
func TestCancelledSetsCorruptNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		cache := open(servertest.Memcached(t).Addr)
		const keys, rounds, goroutines = 50, 150, 16
		payload := func(key string, n int) []byte {
			return bytes.Repeat([]byte(key+"|"), 1+n%3000)
		}
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range rounds {
					key := fmt.Sprintf("key %d", rand.IntN(keys))
					if rand.IntN(2) == 0 {
						key = strings.ReplaceAll(key, " ", "-")
					}
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(300))*time.Microsecond)
					value := payload(key, rand.IntN(3000))
					err := cache.Set(ctx, key, value, time.Minute)
					cancel()
					for i := range value {
						value[i] = '#' // it is ours again
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Set = %v", err)
					}
					got, err := cache.Get(context.Background(), key)
					if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
						t.Errorf("Get = %v", err)
					}
					if n := len(got) / (len(key) + 1); err == nil && !bytes.Equal(got, payload(key, n-1)) {
						t.Errorf("Get(%q) = %.100q", key, got)
					}
				}
			})
		}
		wg.Wait()
	})
}

// Two callers that share a round trip for the same key do not share its value.
func TestSharedReadsAreCopies(t *testing.T) {
	cache := open(t, "memcached://"+shared(t).Addr+patient)
	mustSet(t, cache, "copies", "value", time.Minute)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 50 {
				value, err := cache.Get(context.Background(), "copies")
				if err != nil || string(value) != "value" {
					t.Errorf("Get = %q, %v", value, err)
					return
				}
				for i := range value {
					value[i] = '#'
				}
				_ = append(value, "and more"...)
			}
		})
	}
	wg.Wait()
	wantGet(t, cache, "copies", "value")
}
