package memcached_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/memcached"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestGetManyThousands(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) l2cache.L2CacheBackend) {
		cache := open(servertest.Memcached(t).Addr)
		const n = 2500
		long := strings.Repeat("x", 240)
		var keys []string
		var items []l2cache.Item
		for i := range n {
			key := fmt.Sprint(i, ":", long[:i%200])
			switch i % 3 {
			case 1:
				key += " hashed"
			case 2:
				key += long[len(key):] // nearly the longest that is not
			}
			keys = append(keys, key)
			if i%5 != 0 {
				items = append(items, l2cache.Item{Key: key, Value: []byte("value of " + key), TTL: time.Hour})
			}
		}
		if err := l2cache.SetMany(t.Context(), cache, items); err != nil {
			t.Fatal(err)
		}
		got, err := l2cache.GetMany(t.Context(), cache, keys)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(items) {
			t.Errorf("GetMany of %d keys = %d entries, want %d", n, len(got), len(items))
		}
		for _, item := range items {
			if e := got[item.Key]; string(e.Value) != string(item.Value) || e.TTL > time.Hour || e.TTL < 59*time.Minute {
				t.Errorf("GetMany: %q = %.40q for %v, want %.40q for an hour", item.Key, e.Value, e.TTL, item.Value)
			}
		}
	})
}

// One of three servers fails. Its keys do; a key of another server does not, and is
// there or missing as before.
func TestGetManySeveralServers(t *testing.T) {
	for _, fault := range []string{"killed", "stalled"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			servers := []*servertest.Server{servertest.Memcached(t), servertest.Memcached(t), servertest.Memcached(t)}
			var addrs []string
			for _, s := range servers {
				addrs = append(addrs, s.Addr)
			}
			selector, err := memcached.NewSelector(addrs...)
			if err != nil {
				t.Fatal(err)
			}
			byURL := open(t, "memcached://"+strings.Join(addrs, ",")+"?op_timeout=3s&dial_timeout=30s")
			client := memcache.NewFromSelector(selector)
			client.Timeout = 2 * time.Second
			byNew, err := memcached.New(client, &memcached.Options{OpTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			defer byNew.Close()

			const n = 1800
			var keys, failing []string
			want := 0 // keys that are there, on the others
			for i := range n {
				key := fmt.Sprint("key ", i)
				if i%2 == 0 {
					key = fmt.Sprint("key-", i)
				}
				keys = append(keys, key)
				addr, err := selector.PickServer(memcached.ItemKey(key))
				if err != nil {
					t.Fatal(err)
				}
				fails := addr.String() == addrs[1]
				if fails {
					failing = append(failing, key)
				}
				if i%3 == 0 {
					continue
				}
				mustSet(t, byURL, key, "value of "+key, time.Minute)
				if !fails {
					want++
				}
			}
			if fault == "killed" {
				err = servers[1].Kill()
			} else {
				err = servers[1].Pause()
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, cache := range map[string]l2cache.L2CacheBackend{"url": byURL, "caller's client": byNew} {
				start := time.Now()
				got, err := l2cache.GetMany(t.Context(), cache, keys)
				if took := time.Since(start); name == "url" && took > 8*time.Second {
					t.Errorf("%s: GetMany took %v: the server that is %s was waited for again", name, took, fault)
				}
				var errs l2cache.KeyErrors
				if !errors.As(err, &errs) {
					t.Fatalf("%s: GetMany = %v, want KeyErrors", name, err)
				}
				if name == "url" && len(errs) != len(failing) {
					t.Errorf("%s: %d keys fail, want the %d on the server that is %s", name, len(errs), len(failing), fault)
				}
				for _, key := range failing {
					if !errors.Is(errs[key], l2cache.ErrUnavailable) || got[key].Value != nil {
						t.Errorf("%s: GetMany: %q, on the server that is %s: %v; want ErrUnavailable", name, key, fault, errs[key])
					}
					delete(errs, key)
				}
				for key, err := range errs { // these the client cannot tell from those
					if _, err := byURL.Get(t.Context(), key); err == nil {
						t.Errorf("%s: GetMany: %q fails, and is there on a server that works", name, key)
					}
					if !errors.Is(err, l2cache.ErrUnavailable) {
						t.Errorf("%s: GetMany: %q = %v, want ErrUnavailable", name, key, err)
					}
				}
				if len(got) != want {
					t.Errorf("%s: GetMany = %d entries, want the %d on the other servers", name, len(got), want)
				}
				for key, e := range got {
					if string(e.Value) != "value of "+key {
						t.Errorf("%s: GetMany: %q = %q", name, key, e.Value)
					}
				}
			}
		})
	}
}

// What came before the connection was lost is there, and the rest has failed.
func TestGetManyCutMidAnswer(t *testing.T) {
	server := shared(t)
	direct := open(t, "memcached://"+server.Addr+patient+"&prefix=cutmany:")
	const n = 100
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprint(i))
		mustSet(t, direct, keys[i], strings.Repeat("v", 1000), time.Minute)
	}
	var cut atomic.Bool
	addr := proxy(t, server.Addr, nil, func(client net.Conn, server io.Reader) error {
		if cut.Load() {
			server = io.LimitReader(server, 50_000)
		}
		_, err := io.Copy(client, server)
		return err
	})
	cache := open(t, "memcached://"+addr+patient+"&lazy=true&prefix=cutmany:")
	cut.Store(true)
	got, err := l2cache.GetMany(t.Context(), cache, keys)
	var errs l2cache.KeyErrors
	if !errors.As(err, &errs) || len(got) == 0 || len(errs) == 0 || len(got)+len(errs) != n {
		t.Fatalf("GetMany of %d keys, cut after 50 kB = %d entries, %d errors (%v)", n, len(got), len(errs), err)
	}
	for key, err := range errs {
		if !errors.Is(err, l2cache.ErrUnavailable) || got[key].Value != nil {
			t.Errorf("GetMany: %q = %q, %v; want ErrUnavailable", key, got[key].Value, err)
		}
	}
	cut.Store(false)
	if got, err := l2cache.GetMany(t.Context(), cache, keys); err != nil || len(got) != n {
		t.Errorf("GetMany afterwards = %d entries, %v; want all", len(got), err)
	}
}
