package memcached_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
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

// operations are the calls that go to a server.
var operations = []struct {
	name string
	call func(context.Context, l2cache.L2CacheBackend) error
}{
	{"get", func(ctx context.Context, c l2cache.L2CacheBackend) error { _, err := c.Get(ctx, "key"); return err }},
	{"getWithTTL", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := c.GetWithTTL(ctx, "key")
		return err
	}},
	{"set", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		return c.Set(ctx, "key", []byte("v"), time.Minute)
	}},
	{"large set", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		return c.Set(ctx, "key", largeValue, time.Minute)
	}},
	{"delete", func(ctx context.Context, c l2cache.L2CacheBackend) error { return c.Delete(ctx, "key") }},
	{"ping", func(ctx context.Context, c l2cache.L2CacheBackend) error { return c.Ping(ctx) }},
	{"getMany", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := l2cache.GetMany(ctx, c, []string{"key", "other key"})
		return err
	}},
	{"touch", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		return l2cache.Touch(ctx, c, "key", time.Minute)
	}},
	{"add", func(ctx context.Context, c l2cache.L2CacheBackend) error {
		_, err := l2cache.Add(ctx, c, "key", []byte("v"), time.Minute)
		return err
	}},
}

var largeValue = make([]byte, 1_000_000)

// atOnce makes n calls that are all under way together.
func atOnce(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// idle leaves n idle connections behind: the server stalls until that many calls
// have each opened one.
func idle(t *testing.T, cache l2cache.L2CacheBackend, server *servertest.Server, n int) {
	t.Helper()
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	done := make(chan []error, 1)
	go func() {
		done <- atOnce(n, func(i int) error {
			return cache.Set(context.Background(), fmt.Sprint("idle", i), nil, time.Minute)
		})
	}()
	awaitConns(t, cache, n)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-done...); err != nil {
		t.Fatal(err)
	}
}

// awaitConns waits until cache has opened n connections.
func awaitConns(t *testing.T, cache l2cache.L2CacheBackend, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got := memcached.OpenConns(cache.(*memcached.Cache), func(client *memcache.Client) int {
			dials, _ := dialsOf.Load(client)
			return int(dials.(*atomic.Int64).Load())
		})
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections after 10s, want %d", got, n)
		}
	}
}

// recovers waits until cache works again.
func recovers(t *testing.T, cache l2cache.L2CacheBackend) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := cache.Set(t.Context(), "recovers", []byte("v"), time.Minute)
		if value, getErr := cache.Get(t.Context(), "recovers"); err == nil && getErr == nil && string(value) == "v" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("Set 10s after the server is there = %v", err)
			return
		}
	}
}

func restart(server *servertest.Server) error {
	if err := server.Kill(); err != nil { // at once, where Stop takes memcached a second
		return err
	}
	return server.Start()
}

func TestRestart(t *testing.T) {
	const n = 100
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			server := servertest.Memcached(t)
			cache := open(t, "memcached://"+server.Addr+patient)
			idle(t, cache, server, n)
			if err := restart(server); err != nil {
				t.Fatal(err)
			}
			failed := 0
			for _, err := range atOnce(n, func(int) error { return op.call(context.Background(), cache) }) {
				if err != nil && err != l2cache.ErrNotFound {
					failed++
					t.Log(err)
				}
			}
			if failed > 0 {
				t.Errorf("%d of %d calls failed after the restart", failed, n)
			}
		})
	}
	t.Run("caller's client", func(t *testing.T) {
		server := servertest.Memcached(t)
		cache, err := memcached.New(newClient(t, server.Addr), &memcached.Options{OpTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		idle(t, cache, server, n)
		if err := restart(server); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := cache.Get(t.Context(), "key"); err != l2cache.ErrNotFound {
				t.Fatalf("Get %d after the restart = %v", i, err)
			}
		}
	})
}

func TestRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		server := servertest.Memcached(t)
		cache := open(server.Addr)
		mustSet(t, cache, "key", "v", time.Minute)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, op := range operations {
			quickest := time.Hour
			for range 3 {
				start := time.Now()
				err := op.call(context.Background(), cache)
				quickest = min(quickest, time.Since(start))
				if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, l2cache.ErrNotFound) {
					t.Errorf("%s = %v, want ErrUnavailable", op.name, err)
				}
			}
			if quickest > 100*time.Millisecond {
				t.Errorf("%s took %v to be refused", op.name, quickest)
			}
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for _, op := range operations {
			if err := op.call(t.Context(), cache); err != nil && err != l2cache.ErrNotFound {
				t.Errorf("%s after the server is back = %v", op.name, err)
			}
		}
	})
}

const (
	opTimeout = 400 * time.Millisecond
	endAfter  = 50 * time.Millisecond
)

// A way is one in which a call ends that the server does not answer.
type way struct {
	name  string
	ctx   func() (context.Context, context.CancelFunc)
	after time.Duration
	want  error
}

// ends are those by the caller's ctx, on a backend of patience.
var ends = []way{
	{"deadline", func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), endAfter)
	}, endAfter, context.DeadlineExceeded},
	{"cancel", func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(endAfter, cancel)
		return ctx, cancel
	}, endAfter, context.Canceled},
}

// timeouts are those by op_timeout, on a backend where it is opTimeout.
var timeouts = []way{
	{"op_timeout", func() (context.Context, context.CancelFunc) {
		return context.Background(), func() {}
	}, opTimeout, l2cache.ErrUnavailable},
	{"op_timeout before the deadline", func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Hour)
	}, opTimeout, l2cache.ErrUnavailable},
}

// wantEnds checks that each call ends in each way, and when. The server of cache
// does not answer.
func wantEnds(t *testing.T, cache l2cache.L2CacheBackend, ways []way) {
	t.Helper()
	var wg sync.WaitGroup
	for _, op := range operations {
		for _, way := range ways {
			repeat := 1
			if strings.HasPrefix(op.name, "get") {
				repeat = 4 // some share a round trip
			}
			for range repeat {
				wg.Go(func() {
					inTime(t, op.name+", "+way.name, way.after, func() {
						ctx, cancel := way.ctx()
						defer cancel()
						err := op.call(ctx, cache)
						if !errors.Is(err, way.want) || errors.Is(err, l2cache.ErrUnavailable) != (way.want == l2cache.ErrUnavailable) {
							t.Errorf("%s, %s = %v, want %v", op.name, way.name, err, way.want)
						}
					})
				})
			}
		}
	}
	wg.Wait()
}

// inTime checks that f takes d, and not 50 ms more than a timer of d does. As the
// machine may keep one of the two waiting, f has five attempts.
func inTime(t *testing.T, what string, d time.Duration, f func()) {
	t.Helper()
	const attempts = 5
	for attempt := range attempts {
		start := time.Now()
		late := make(chan time.Duration, 1)
		time.AfterFunc(d, func() { late <- time.Since(start) - d })
		f()
		took := time.Since(start)
		if took < d {
			t.Errorf("%s: took %v, want %v", what, took, d)
			return
		}
		if took <= d+50*time.Millisecond+<-late {
			return
		}
		if attempt == attempts-1 {
			t.Errorf("%s: took %v, the last of %d attempts; want %v", what, took, attempts, d)
		}
	}
}

func TestStalled(t *testing.T) {
	byURL := func(t *testing.T, addr string, timeout time.Duration) l2cache.L2CacheBackend {
		return open(t, fmt.Sprintf("memcached://%s?op_timeout=%v&lazy=true", addr, timeout))
	}
	byNew := func(t *testing.T, addr string, timeout time.Duration) l2cache.L2CacheBackend {
		cache, err := memcached.New(newClient(t, addr), &memcached.Options{OpTimeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cache.Close() })
		return cache
	}
	for _, test := range []struct {
		name      string
		connected bool
		open      func(t *testing.T, addr string, timeout time.Duration) l2cache.L2CacheBackend
	}{
		{"connections", true, byURL},
		{"no connections", false, byURL},
		{"caller's client", true, byNew},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := servertest.Memcached(t)
			long, short := test.open(t, server.Addr, patience), test.open(t, server.Addr, opTimeout)
			if test.connected {
				atOnce(30, func(int) error { recovers(t, long); recovers(t, short); return nil })
			}
			if err := server.Pause(); err != nil {
				t.Fatal(err)
			}
			wantEnds(t, long, ends)
			wantEnds(t, short, timeouts)
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
			recovers(t, long)
			recovers(t, short)
		})
	}
}

// The bound is on the answer as a whole, though it comes in time byte by byte.
func TestTrickle(t *testing.T) {
	server := shared(t)
	direct := open(t, "memcached://"+server.Addr)
	mustSet(t, direct, "trickle", strings.Repeat("v", 1000), time.Minute)
	addr := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		var b [1]byte
		for {
			if _, err := server.Read(b[:]); err != nil {
				return err
			}
			if _, err := client.Write(b[:]); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	cache := open(t, "memcached://"+addr+"?op_timeout=300ms&lazy=true")
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		inTime(t, "Get", 300*time.Millisecond, func() {
			_, err := cache.Get(ctx, "trickle")
			wantError(t, "Get", err, l2cache.ErrUnavailable)
		})
	}
}

// The end of the client's connection is all that a broken answer costs.
func TestCutMidReply(t *testing.T) {
	server := shared(t)
	direct := open(t, "memcached://"+server.Addr)
	mustSet(t, direct, "cut", strings.Repeat("v", 1000), time.Minute)
	var cut atomic.Bool
	addr := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		if cut.Load() {
			server = io.LimitReader(server, 500)
		}
		_, err := io.Copy(client, server)
		return err
	})
	cache := open(t, "memcached://"+addr+"?lazy=true")
	cut.Store(true)
	for range 10 {
		value, err := cache.Get(t.Context(), "cut")
		if !errors.Is(err, l2cache.ErrUnavailable) || value != nil {
			t.Errorf("Get of an answer that is cut off = %q, %v; want ErrUnavailable", value, err)
		}
	}
	cut.Store(false)
	wantGet(t, cache, "cut", strings.Repeat("v", 1000))
}

func TestTLS(t *testing.T) {
	issuer := httptest.NewTLSServer(nil) // for its certificate
	defer issuer.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	server := servertest.Memcached(t)
	config := &tls.Config{Certificates: issuer.TLS.Certificates}
	addr := proxy(t, server.Addr, config, func(client net.Conn, server io.Reader) error {
		_, err := io.Copy(client, server)
		return err
	})

	cache := open(t, "memcacheds://"+addr+patient+"&tls_ca="+ca)
	idle(t, cache, server, 20)
	large := strings.Repeat("v", 1_000_000)
	mustSet(t, cache, "tls", large, time.Minute)
	wantGet(t, cache, "tls", large)
	if err := restart(server); err != nil { // the proxy closes its connections
		t.Fatal(err)
	}
	for i, err := range atOnce(100, func(i int) error { return cache.Set(t.Context(), fmt.Sprint(i), nil, time.Minute) }) {
		if err != nil {
			t.Errorf("Set %d after the restart = %v", i, err)
		}
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	wantEnds(t, cache, ends)

	_, err := l2cache.Open(t.Context(), "memcacheds://"+addr+"?dial_timeout=5s") // who signed that?
	var unknown x509.UnknownAuthorityError
	if !errors.Is(err, l2cache.ErrUnavailable) || !errors.As(err, &unknown) {
		t.Errorf("Open without tls_ca = %v; want an unknown authority", err)
	}
}

// proxy listens in front of addr, with TLS if config is not nil. answer copies
// what the server says.
func proxy(t *testing.T, addr string, config *tls.Config, answer func(client net.Conn, server io.Reader) error) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		listener.Close()
		stop()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer server.Close()
				defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
				wg.Go(func() {
					io.Copy(server, client)
					server.Close()
				})
				answer(client, server)
			})
		}
	})
	return listener.Addr().String()
}

func TestNames(t *testing.T) {
	cache := open(t, "memcached://no-such-host.invalid?lazy=true")
	for _, op := range operations {
		err := op.call(context.Background(), cache)
		wantError(t, op.name, err, l2cache.ErrUnavailable)
		if dns := (*net.DNSError)(nil); !errors.As(err, &dns) {
			t.Errorf("%s = %v; want an error of the resolver", op.name, err)
		}
	}
	callers, err := memcached.New(memcache.New("no-such-host.invalid:11211"), nil) // ignores the name
	if err != nil {
		t.Fatal(err)
	}
	defer callers.Close()
	for _, op := range operations {
		wantError(t, op.name, op.call(context.Background(), callers), memcache.ErrNoServers)
		wantError(t, op.name, op.call(context.Background(), callers), l2cache.ErrUnavailable)
	}
}

// One of three servers fails: its keys fail, the others' neither fail nor wait.
func TestSeveralServers(t *testing.T) {
	for _, fault := range []string{"killed", "stalled"} {
		t.Run(fault, func(t *testing.T) {
			servers := []*servertest.Server{servertest.Memcached(t), servertest.Memcached(t), servertest.Memcached(t)}
			var addrs []string
			for _, s := range servers {
				addrs = append(addrs, s.Addr)
			}
			cache := open(t, "memcached://"+strings.Join(addrs, ",")+"?op_timeout=1s")
			selector, err := memcached.NewSelector(addrs...)
			if err != nil {
				t.Fatal(err)
			}
			const n = 300
			for i := range n {
				mustSet(t, cache, fmt.Sprint(i), fmt.Sprint("value ", i), time.Minute)
			}
			if fault == "killed" {
				err = servers[1].Kill()
			} else {
				err = servers[1].Pause()
			}
			if err != nil {
				t.Fatal(err)
			}
			missing := 1_000_000
			errs := atOnce(2*n, func(i int) error {
				key := fmt.Sprint(i)
				if i >= n {
					key = fmt.Sprint(missing + i)
				}
				addr, err := selector.PickServer(memcached.ItemKey(key))
				if err != nil {
					return err
				}
				value, err := cache.Get(context.Background(), key)
				switch {
				case addr.String() == addrs[1]:
					if !errors.Is(err, l2cache.ErrUnavailable) {
						return fmt.Errorf("Get(%s), on the server that is %s = %q, %v; want ErrUnavailable", key, fault, value, err)
					}
				case i >= n:
					if err != l2cache.ErrNotFound {
						return fmt.Errorf("Get(%s), which is missing = %q, %v; want ErrNotFound", key, value, err)
					}
				case err != nil || string(value) != fmt.Sprint("value ", i):
					return fmt.Errorf("Get(%s), on another server = %q, %v", key, value, err)
				}
				return nil
			})
			for _, err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
			wantError(t, "Ping", cache.Ping(t.Context()), l2cache.ErrUnavailable)
			if fault == "killed" {
				err = servers[1].Start()
			} else {
				err = servers[1].Resume()
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if _, err := cache.Get(t.Context(), fmt.Sprint(i)); err != nil && err != l2cache.ErrNotFound {
					t.Errorf("Get(%d) with the server back = %v", i, err)
				}
			}
		})
	}
}

func TestClose(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		server := servertest.Memcached(t)
		before := runtime.NumGoroutine()
		cache := open(server.Addr)
		mustSet(t, cache, "key", "v", time.Minute)
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		type result struct {
			op  string
			err error
			at  time.Time
		}
		results := make(chan result)
		calls := 0
		cancellable, cancel := context.WithCancel(context.Background())
		defer cancel()
		for _, op := range operations {
			for _, ctx := range []context.Context{context.Background(), cancellable} {
				for range 4 {
					calls++
					go func() {
						err := op.call(ctx, cache)
						results <- result{op.name, err, time.Now()}
					}()
				}
			}
		}
		awaitConns(t, cache, 30)
		closing := time.Now()
		closed := make(chan error)
		go func() { closed <- cache.Close() }()
		for range calls {
			r := <-results
			wantError(t, r.op+" under way at Close", r.err, l2cache.ErrClosed)
			if took := r.at.Sub(closing); took > clientTimeout/2 {
				t.Errorf("%s ended %v after Close", r.op, took)
			}
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		for _, op := range operations {
			wantError(t, op.name+" after Close", op.call(t.Context(), cache), l2cache.ErrClosed)
		}
		if err := cache.Close(); err != nil {
			t.Errorf("second Close = %v", err)
		}
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before Open:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestCloseLeavesTheCallersClient(t *testing.T) {
	client := newClient(t, shared(t).Addr)
	cache, err := memcached.New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, cache, "callers", "v", time.Minute)
	if err := cache.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get("kcallers"); err != nil {
		t.Errorf("the client after Close: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		client *memcache.Client
		o      *memcached.Options
		want   string
	}{
		{nil, nil, "client"},
		{&memcache.Client{Timeout: -1}, nil, "Timeout"},
		{memcache.New("localhost:11211"), &memcached.Options{OpTimeout: -1}, "OpTimeout"},
		{memcache.New("localhost:11211"), &memcached.Options{MaxValueLen: 999_999}, "MaxValueLen"},
	} {
		cache, err := memcached.New(test.client, test.o)
		if err == nil || cache != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("New(%v, %v) = %v, %v; want an error about %s", test.client, test.o, cache, err, test.want)
		}
	}
}

// A port may be somebody else's. The error says so, and quotes nothing.
func TestAnotherServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go http.Serve(listener, nil)
	_, err = l2cache.Open(t.Context(), "memcached://"+listener.Addr().String())
	if !errors.Is(err, l2cache.ErrUnavailable) || !strings.HasSuffix(fmt.Sprint(err), "unavailable: the reply is not of memcached's protocol; something else may be on this port") {
		t.Errorf("Open of an HTTP server = %v", err)
	}
}

func TestURLRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"memcached://":                                     "host",
		"memcached://user:canary@localhost":                "user",
		"memcached://localhost/0":                          "path",
		"memcached://localhost?max_value=999999":           "max_value",
		"memcached://localhost?pool_size=0":                "pool_size",
		"memcached://localhost?pool_size=10001":            "10000",
		"memcached://localhost?tls_ca=/etc/ca":             "tls_ca",
		"memcached://localhost,localhost:11211":            "twice",
		"memcached://localhost?database=3":                 "database",
		"memcacheds://localhost?lazy=true&tls_ca=/nowhere": "tls_ca",
	} {
		cache, err := l2cache.Open(t.Context(), url)
		if err == nil || cache != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("Open(%s) = %v, %v; want an error about %s", url, cache, err, want)
		}
	}
}
