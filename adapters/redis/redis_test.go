package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// server is shared by the tests that neither stop nor configure it.
var server = servertest.Shared(servertest.StartRedis)

func TestMain(m *testing.M) {
	redis.SetLogger(discard{}) // callers' clients with go-redis's defaults print
	servertest.Main(m)
}

// open opens a handle on srv for the time of the test.
func openURL(t testing.TB, url string) l2cache.L2CacheBackend {
	t.Helper()
	b, err := l2cache.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return b
}

// newClient is a caller's client. Its defaults are go-redis's.
func newClient(t testing.TB, o redis.Options) *redis.Client {
	client := redis.NewClient(&o)
	t.Cleanup(func() { client.Close() })
	return client
}

func newCache(t testing.TB, client *redis.Client, o *Options) *Cache {
	t.Helper()
	c, err := New(client, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// handles are the kinds of handle on a server, opened when they are tried.
func handles(addr string, timeout time.Duration) map[string]func(*testing.T) l2cache.L2CacheBackend {
	return map[string]func(*testing.T) l2cache.L2CacheBackend{
		"url": func(t *testing.T) l2cache.L2CacheBackend {
			return openURL(t, fmt.Sprintf("redis://%s?op_timeout=%v", addr, timeout))
		},
		"new": func(t *testing.T) l2cache.L2CacheBackend {
			return newCache(t, newClient(t, redis.Options{Addr: addr}), &Options{OpTimeout: timeout})
		},
		"new with ContextTimeoutEnabled": func(t *testing.T) l2cache.L2CacheBackend {
			client := newClient(t, redis.Options{Addr: addr, ContextTimeoutEnabled: true})
			return newCache(t, client, &Options{OpTimeout: timeout})
		},
	}
}

// operations are all that can wait, on a key of each test's.
func operations(key string) map[string]func(context.Context, l2cache.L2CacheBackend) error {
	return map[string]func(context.Context, l2cache.L2CacheBackend) error{
		"Get": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			_, err := b.Get(ctx, key)
			return err
		},
		"GetWithTTL": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			_, err := b.GetWithTTL(ctx, key)
			return err
		},
		"Set": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return b.Set(ctx, key, []byte("v"), time.Minute)
		},
		"Delete": func(ctx context.Context, b l2cache.L2CacheBackend) error { return b.Delete(ctx, key) },
		"Ping":   func(ctx context.Context, b l2cache.L2CacheBackend) error { return b.Ping(ctx) },
		"GetMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			_, err := l2cache.GetMany(ctx, b, []string{key, key + "2"})
			return err
		},
		"SetMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return l2cache.SetMany(ctx, b, []l2cache.Item{{Key: key, TTL: time.Minute}, {Key: key + "2", TTL: time.Minute}})
		},
		"DeleteMany": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return l2cache.DeleteMany(ctx, b, []string{key, key + "2"})
		},
		"Touch": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return l2cache.Touch(ctx, b, key, time.Minute)
		},
		"Touch NoExpiry": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return l2cache.Touch(ctx, b, key, l2cache.NoExpiry)
		},
		"Add": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			_, err := l2cache.Add(ctx, b, key, []byte("v"), time.Minute)
			return err
		},
		"DeletePattern": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			return l2cache.DeletePattern(ctx, b, key+"*")
		},
		"Scan": func(ctx context.Context, b l2cache.L2CacheBackend) (last error) {
			for _, err := range l2cache.Scan(ctx, b, key) {
				last = err
			}
			return last
		},
		"Watch": func(ctx context.Context, b l2cache.L2CacheBackend) error {
			for _, err := range l2cache.Watch(ctx, b, key) {
				return err
			}
			return errors.New("Watch tells nothing")
		},
	}
}

// recorder is a dialer that keeps what is sent.
type recorder struct {
	mu   sync.Mutex
	sent bytes.Buffer // guarded by mu
}

func (r *recorder) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return recorded{conn, r}, err
}

// take returns what was sent since it was called last.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.sent.Reset()
	return r.sent.String()
}

type recorded struct {
	net.Conn
	r *recorder
}

func (c recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	c.r.sent.Write(b)
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}

// wire is a command as it is sent.
func wire(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}

func TestCommands(t *testing.T) {
	var r recorder
	client := newClient(t, redis.Options{Addr: server(t).Addr, Dialer: r.dial, PipelinePoolSize: -1})
	c := newCache(t, client, &Options{OpTimeout: 10 * time.Second})
	if err := c.Ping(t.Context()); err != nil { // connects
		t.Fatal(err)
	}
	r.take()
	set := func(value string, ttl time.Duration) func() error {
		return func() error { return c.Set(t.Context(), "k", []byte(value), ttl) }
	}
	add := func(ttl time.Duration) func() error {
		return func() error { _, err := c.Add(t.Context(), "k", []byte("v"), ttl); return err }
	}
	for _, test := range []struct {
		name string
		call func() error
		err  error
		want string
	}{
		{"Set 1ns", set("v", 1), nil, wire("set", "k", "v", "px", "1")},
		{"Set 1ms", set("v", time.Millisecond), nil, wire("set", "k", "v", "px", "1")},
		{"Set 1.5ms", set("v", 1500*time.Microsecond), nil, wire("set", "k", "v", "px", "2")},
		{"Set 1h", set("", time.Hour), nil, wire("set", "k", "", "px", "3600000")},
		{"Set MaxTTL+1ns", set("v", l2cache.MaxTTL+1), nil, wire("set", "k", "v", "px", "3153600000000")},
		{"Set NoExpiry", set("v", l2cache.NoExpiry), nil, wire("set", "k", "v")},
		{"Set 0", set("v", 0), l2cache.ErrInvalidTTL, ""},
		{"Set -1ns", set("v", -1), l2cache.ErrInvalidTTL, ""}, // go-redis: keep the TTL
		{"Set -1s", set("v", -time.Second), l2cache.ErrInvalidTTL, ""},
		{"Set too large", func() error {
			return c.Set(t.Context(), "k", make([]byte, maxValueLen+1), time.Hour)
		}, l2cache.ErrTooLarge, ""},
		{"Get", func() error { _, err := c.Get(t.Context(), "k"); return err }, nil, wire("get", "k")},
		{
			"GetWithTTL", func() error { _, err := c.GetWithTTL(t.Context(), "k"); return err }, nil,
			wire("multi") + wire("get", "k") + wire("pttl", "k") + wire("exec"),
		},
		{"Delete", func() error { return c.Delete(t.Context(), "k") }, nil, wire("del", "k")},
		{"Touch 1.5ms", func() error { return c.Touch(t.Context(), "k", 1500*time.Microsecond) }, l2cache.ErrNotFound, wire("pexpire", "k", "2")},
		{
			"Touch NoExpiry", func() error { return c.Touch(t.Context(), "k", l2cache.NoExpiry) }, l2cache.ErrNotFound,
			wire("multi") + wire("exists", "k") + wire("persist", "k") + wire("exec"),
		},
		{"Touch -1ns", func() error { return c.Touch(t.Context(), "k", -1) }, l2cache.ErrInvalidTTL, ""},
		{"Add 1.5ms", add(1500 * time.Microsecond), nil, wire("set", "k", "v", "px", "2", "nx")},
		{"Add NoExpiry", add(l2cache.NoExpiry), nil, wire("set", "k", "v", "nx")},
		{"Add 0", add(0), l2cache.ErrInvalidTTL, ""},
		{
			"SetMany", func() error {
				return c.SetMany(t.Context(), []l2cache.Item{{Key: "k", Value: []byte("v"), TTL: 1}, {Key: "l", TTL: l2cache.NoExpiry}})
			}, nil, wire("set", "k", "v", "px", "1") + wire("set", "l", ""),
		},
		{
			"GetMany", func() error { _, err := c.GetMany(t.Context(), []string{"k", "l"}); return err }, nil,
			wire("multi") + wire("mget", "k", "l") + wire("pttl", "k") + wire("pttl", "l") + wire("exec"),
		},
		{"DeleteMany", func() error { return c.DeleteMany(t.Context(), []string{"k", "l"}) }, nil, wire("unlink", "k", "l")},
	} {
		if err := test.call(); !errors.Is(err, test.err) {
			t.Errorf("%s = %v, want %v", test.name, err, test.err)
		}
		if sent := r.take(); sent != test.want {
			t.Errorf("%s sent %q, want %q", test.name, sent, test.want)
		}
	}
}

// TestPairs reads what PTTL can say, of keys that another program has set.
func TestPairs(t *testing.T) {
	client := newClient(t, redis.Options{Addr: server(t).Addr})
	b := openURL(t, "redis://"+server(t).Addr)
	for _, test := range []struct {
		name     string
		set      []any
		min, max time.Duration
	}{
		{"never", []any{"set", "pairs", "v"}, l2cache.NoExpiry, l2cache.NoExpiry},
		{"minute", []any{"set", "pairs", "v", "px", 60_000}, 50 * time.Second, time.Minute},
		{"longer than a Duration", []any{"set", "pairs", "v", "px", int64(math.MaxInt64 / 2)}, l2cache.MaxTTL, l2cache.MaxTTL},
	} {
		if err := client.Do(t.Context(), test.set...).Err(); err != nil {
			t.Fatal(err)
		}
		e, err := b.GetWithTTL(t.Context(), "pairs")
		if err != nil || string(e.Value) != "v" || e.TTL < test.min || e.TTL > test.max {
			t.Errorf("%s: GetWithTTL = %q, %v, %v; want v, %v to %v", test.name, e.Value, e.TTL, err, test.min, test.max)
		}
	}
	if got, _, err := pair(reply{'$', []byte("v")}, reply{':', []byte("0")}); err != nil || got.TTL != 1 {
		t.Errorf("PTTL 0 with a value = %v, %v; want 1ns", got.TTL, err)
	}
	if _, _, err := pair(reply{'$', []byte("v")}, reply{':', []byte("-2")}); kind(err) != l2cache.ErrNotFound {
		t.Errorf("PTTL -2 with a value = %v, want a miss", err)
	}
}

// TestTornPairs has writers flip between entries, and readers look for a value with
// the TTL of another.
func TestTornPairs(t *testing.T) {
	entries := []l2cache.Entry{
		{Value: bytes.Repeat([]byte("A"), 100), TTL: 10 * time.Second},
		{Value: bytes.Repeat([]byte("B"), 3000), TTL: 1000 * time.Second},
		{Value: []byte("C"), TTL: l2cache.NoExpiry},
	}
	fits := func(e l2cache.Entry) bool {
		switch {
		case bytes.Equal(e.Value, entries[0].Value):
			return e.TTL > 0 && e.TTL <= 10*time.Second
		case bytes.Equal(e.Value, entries[1].Value):
			return e.TTL > 500*time.Second && e.TTL <= 1000*time.Second
		case bytes.Equal(e.Value, entries[2].Value):
			return e.TTL == l2cache.NoExpiry
		}
		return false
	}
	b := openURL(t, "redis://"+server(t).Addr+"?op_timeout=10s")
	const key, reads, readers = "torn", 100_000, 32
	if err := b.Set(t.Context(), key, entries[0].Value, entries[0].TTL); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	var writers, all sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := w; !done.Load(); i++ {
				e := entries[i%len(entries)]
				if err := b.Set(t.Context(), key, e.Value, e.TTL); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var torn, seen atomic.Int64
	for range readers {
		all.Go(func() {
			for range reads / readers {
				e, err := b.GetWithTTL(t.Context(), key)
				if err != nil {
					t.Error(err)
					return
				}
				seen.Add(1)
				if !fits(e) {
					torn.Add(1)
				}
			}
		})
	}
	all.Wait()
	done.Store(true)
	writers.Wait()
	if torn.Load() != 0 || seen.Load() != reads {
		t.Errorf("%d of %d pairs are torn, want 0 of %d", torn.Load(), seen.Load(), reads)
	}
}

func TestForeignType(t *testing.T) {
	client := newClient(t, redis.Options{Addr: server(t).Addr})
	b := openURL(t, "redis://"+server(t).Addr)
	if err := client.RPush(t.Context(), "list", "a").Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Get", "GetWithTTL"} {
		if err := operations("list")[name](t.Context(), b); !errors.Is(err, l2cache.ErrCorrupt) {
			t.Errorf("%s of a list = %v, want ErrCorrupt", name, err)
		}
	}
	if n, err := client.LLen(t.Context(), "list").Result(); n != 1 || err != nil {
		t.Errorf("LLEN after the reads = %d, %v; want 1", n, err)
	}
	if err := b.Set(t.Context(), "list", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set over a list = %v", err)
	}
	if v, err := b.Get(t.Context(), "list"); string(v) != "v" || err != nil {
		t.Errorf("Get = %q, %v; want v", v, err)
	}
}

func TestNewRefuses(t *testing.T) {
	clientOf := func(o redis.Options) *redis.Client { return newClient(t, o) }
	clusterOf := func(o redis.ClusterOptions) *redis.ClusterClient {
		o.Addrs = []string{"127.0.0.1:1"}
		client := redis.NewClusterClient(&o)
		t.Cleanup(func() { client.Close() })
		return client
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	for _, test := range []struct {
		client redis.UniversalClient
		o      *Options
		want   string
	}{
		{nil, nil, "<nil>"},
		{(*redis.Client)(nil), nil, "the client is nil"},
		{(*redis.ClusterClient)(nil), nil, "the client is nil"},
		{clusterOf(redis.ClusterOptions{ReadOnly: true}), nil, "ReadOnly"},
		{clusterOf(redis.ClusterOptions{RouteByLatency: true}), nil, "ReadOnly"},
		{clusterOf(redis.ClusterOptions{RouteRandomly: true}), nil, "ReadOnly"},
		{clusterOf(redis.ClusterOptions{
			ClusterSlots: func(context.Context) ([]redis.ClusterSlot, error) { return nil, nil },
		}), nil, "ClusterSlots"},
		{ring, nil, "*redis.Ring"},
		{clientOf(redis.Options{ClientSideCacheConfig: &redis.ClientSideCacheConfig{}}), nil, "ClientSideCacheConfig"},
		{clientOf(redis.Options{}), &Options{OpTimeout: -1}, "OpTimeout"},
	} {
		c, err := New(test.client, test.o)
		if err == nil || c != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New(%T, %+v) = %v, %v; want an error about %s", test.client, test.o, c, err, test.want)
		}
	}
}

// TestNewDoesNoIO makes a Cache over a client of a server that is not there.
func TestNewDoesNoIO(t *testing.T) {
	client := newClient(t, redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			t.Error("New or Close dials")
			return nil, net.ErrClosed
		},
	})
	c, err := New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
}

func TestCloseLeavesTheCallersClient(t *testing.T) {
	client := newClient(t, redis.Options{Addr: server(t).Addr})
	c := newCache(t, client, nil)
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the caller's client after Close: %v", err)
	}
	// The other way round, the handle says so.
	c = newCache(t, client, nil)
	client.Close()
	for name, op := range operations("k") {
		if name == "Watch" {
			continue // it has a connection of its own
		}
		if err := op(t.Context(), c); !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("%s through a closed client = %v, want ErrClosed", name, err)
		}
	}
}

// TestCloseOfTheCallersCluster: a cluster client that its owner has closed is not mistaken
// for one that has given up a server.
func TestCloseOfTheCallersCluster(t *testing.T) {
	node, _ := oneNodeCluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{node.Addr}})
	c, err := New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.Close()
	for name, op := range operations("k") {
		if err := op(t.Context(), c); !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("%s through a closed client = %v, want ErrClosed", name, err)
		}
	}
}

func TestBatchSize(t *testing.T) {
	b := openURL(t, "redis://"+server(t).Addr)
	c := b.(*Cache)
	for _, test := range []struct{ size, most, least int }{
		{10, 128, 128},
		{1 << 20, 1, 1},
		{64 << 10, 17, 15},
	} {
		for range 100 {
			c.measure([]*read{{entry: l2cache.Entry{Value: make([]byte, test.size)}}})
		}
		if n := c.batchSize(); n < test.least || n > test.most {
			t.Errorf("batchSize() after values of %d bytes = %d, want %d to %d", test.size, n, test.least, test.most)
		}
	}
}
