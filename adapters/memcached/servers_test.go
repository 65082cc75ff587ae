package memcached_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/internal/servertest"
)

// threeServers returns their addresses, too.
func threeServers(t *testing.T) (servers []*servertest.Server, addrs []string) {
	t.Helper()
	for range 3 {
		s := servertest.Memcached(t)
		servers, addrs = append(servers, s), append(addrs, s.Addr)
	}
	return servers, addrs
}

// When a fourth server is added, a fourth of the keys move, and are missing. The
// others are where they were.
func TestServerIsAdded(t *testing.T) {
	t.Parallel()
	_, addrs := threeServers(t)
	before := open(t, "memcached://"+strings.Join(addrs, ",")+patient)
	const n = 2000
	var keys []string
	for i := range n {
		key := fmt.Sprint("user:", i)
		keys = append(keys, key)
		mustSet(t, before, key, "value of "+key, time.Hour)
	}
	added := servertest.Memcached(t).Addr
	after := open(t, "memcached://"+added+","+strings.Join(addrs, ",")+patient)
	got, err := l2cache.GetMany(t.Context(), after, keys)
	if err != nil {
		t.Fatal(err)
	}
	for key, e := range got {
		if string(e.Value) != "value of "+key || e.TTL > time.Hour || e.TTL < 59*time.Minute {
			t.Errorf("%s = %q for %v, want its value, for an hour", key, e.Value, e.TTL)
		}
	}
	if moved := n - len(got); moved < n/5 || moved > n*3/10 {
		t.Errorf("%d of %d keys have moved to the fourth server, want about a fourth", moved, n)
	}
	for _, key := range keys {
		mustSet(t, after, key, "value of "+key, time.Hour)
	}
	if got, err := l2cache.GetMany(t.Context(), after, keys); err != nil || len(got) != n {
		t.Errorf("GetMany after all were set again = %d entries, %v; want %d", len(got), err, n)
	}
}

// One of three servers is killed: in a batch of writes its keys fail, and no others.
func TestBatchesWithAServerKilled(t *testing.T) {
	t.Parallel()
	servers, addrs := threeServers(t)
	cache := open(t, "memcached://"+strings.Join(addrs, ",")+patient)
	selector, err := memcached.NewSelector(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	var keys []string
	var items []l2cache.Item
	failing := map[string]bool{}
	for i := range n {
		key := fmt.Sprint("user:", i)
		addr, err := selector.PickServer(memcached.ItemKey(key))
		if err != nil {
			t.Fatal(err)
		}
		failing[key] = addr.String() == addrs[1]
		keys = append(keys, key)
		items = append(items, l2cache.Item{Key: key, Value: []byte("v"), TTL: time.Hour})
	}
	if err := servers[1].Kill(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		var errs l2cache.KeyErrors
		if !errors.As(err, &errs) {
			t.Fatalf("%s = %v, want KeyErrors", what, err)
		}
		for _, key := range keys {
			if err := errs[key]; failing[key] != errors.Is(err, l2cache.ErrUnavailable) || !failing[key] && err != nil {
				t.Errorf("%s: %s = %v; its server is down: %v", what, key, err, failing[key])
			}
		}
	}
	check("SetMany", l2cache.SetMany(t.Context(), cache, items))
	got, err := l2cache.GetMany(t.Context(), cache, keys)
	check("GetMany", err)
	for _, key := range keys {
		if _, found := got[key]; found == failing[key] {
			t.Errorf("GetMany after SetMany finds %s: %v; its server is down: %v", key, found, failing[key])
		}
	}
	check("DeleteMany", l2cache.DeleteMany(t.Context(), cache, keys))
	if err := servers[1].Start(); err != nil {
		t.Fatal(err)
	}
	if got, err := l2cache.GetMany(t.Context(), cache, keys); err != nil || len(got) != 0 {
		t.Errorf("GetMany with the server back = %d entries, %v; want none", len(got), err)
	}
}

// A server that is short of memory drops entries, as the profile says. What it has is
// right, and it takes new ones.
func TestEviction(t *testing.T) {
	t.Parallel()
	server := servertest.Memcached(t, "-m", "1", "-I", "512k")
	cache := open(t, "memcached://"+server.Addr+patient)
	if !l2cache.ProfileOf(cache).Evicts {
		t.Error("the profile does not say that the server evicts")
	}
	const n = 20_000 // of 1 kB
	value := func(i int) string { return strings.Repeat(fmt.Sprintf("%05d", i), 200) }
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprint(i))
		mustSet(t, cache, keys[i], value(i), time.Hour)
		if i%1000 == 0 {
			wantGet(t, cache, keys[i], value(i))
		}
	}
	got, err := l2cache.GetMany(t.Context(), cache, keys)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || len(got) == n || stat(t, server.Addr, "evictions") == 0 {
		t.Errorf("%d of %d entries are there, want some", len(got), n)
	}
	for i, key := range keys {
		if e, found := got[key]; found && (string(e.Value) != value(i) || e.TTL > time.Hour || e.TTL < 50*time.Minute) {
			t.Errorf("entry %d = %.10q… for %v, want its own value, for an hour", i, e.Value, e.TTL)
		}
	}
}

// Opening has dial_timeout, however short op_timeout is.
func TestOpenHasDialTimeout(t *testing.T) {
	t.Parallel()
	server := servertest.Memcached(t)
	slow := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		time.Sleep(500 * time.Millisecond) // a long way to the server, when it is dialled
		_, err := io.Copy(client, server)
		return err
	})
	// A quarter of a second, for the ping over the connection that is there by then.
	cache := open(t, "memcached://"+slow+"?op_timeout=250ms&dial_timeout=30s")
	if err := cache.Ping(t.Context()); err != nil {
		t.Errorf("Ping = %v, want nil", err)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts in the kernel, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	_, err = l2cache.Open(t.Context(), "memcached://"+silent.Addr().String()+"?op_timeout=50ms&dial_timeout=500ms")
	wantError(t, "Open of a silent server", err, l2cache.ErrUnavailable)
	if took := time.Since(begin); took < 500*time.Millisecond || !strings.Contains(err.Error(), "dial_timeout") {
		t.Errorf("Open of a silent server = %v after %v, want an error of dial_timeout, 500ms", err, took)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err = l2cache.Open(t.Context(), "memcached://"+server.Addr)
	var failed *l2cache.Error
	if !errors.As(err, &failed) || failed.Op != "open" || failed.Backend != "memcached" || failed.Kind != l2cache.ErrUnavailable {
		t.Errorf("Open without a server = %v, want memcached: open: unavailable", err)
	}
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	cert, key := servertest.Certificate(t)
	server := servertest.MemcachedTLS(t, cert, key)
	ca := "&tls_ca=" + cert
	cache := open(t, "memcacheds://"+server.Addr+patient+ca+"&tls_cert="+cert+"&tls_key="+key)
	large := strings.Repeat("v", 1_000_000)
	mustSet(t, cache, "k", large, time.Minute)
	wantGet(t, cache, "k", large)
	errs := atOnce(100, func(i int) error { return cache.Set(t.Context(), fmt.Sprint(i), nil, time.Minute) })
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if err := restart(server); err != nil {
		t.Fatal(err)
	}
	mustSet(t, cache, "k", large, time.Minute)
	wantGet(t, cache, "k", large)

	for what, options := range map[string]string{"a certificate": ca, "tls_ca": "&tls_cert=" + cert + "&tls_key=" + key} {
		_, err := l2cache.Open(t.Context(), "memcacheds://"+server.Addr+patient+options)
		wantError(t, "Open without "+what, err, l2cache.ErrUnavailable)
	}
	_, err := l2cache.Open(t.Context(), "memcached://"+server.Addr+"?dial_timeout=10s")
	wantError(t, "Open without TLS", err, l2cache.ErrUnavailable)
	_, err = l2cache.Open(t.Context(), "memcacheds://"+shared(t).Addr+"?dial_timeout=10s"+ca)
	wantError(t, "Open with TLS of a server without", err, l2cache.ErrUnavailable)
}
