package tiered_test

import (
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache/envelope"
	"github.com/l2cache/l2cache/tiered"
)

// Where the clients' clocks decide, one that is an hour off moves an entry's end, but L1
// keeps nothing for longer than the TTL that was set. The writer here is one whose clock
// shows another hour: memcached has what the adapter would have stored there.
func TestSkewedWriter(t *testing.T) {
	ctx := t.Context()
	cache := newCache(t, open(t, "memcached"), &tiered.Options[[]byte]{NoWatch: noWatch})
	client := memcache.New(memcachedServer(t).Addr)
	defer client.Close()
	const ttl = 400 * time.Millisecond
	write := func(key string, skew time.Duration) {
		stored := envelope.NewHeader(time.Now().Add(skew), ttl).Append(nil)
		if err := client.Set(&memcache.Item{Key: "k" + key, Flags: 0xC54C0100, Value: append(stored, 'v')}); err != nil {
			t.Fatal(err)
		}
	}

	write("behind", -time.Hour)
	wantGone(t, cache, "behind")

	write("ahead", time.Hour)
	began := time.Now()
	r, err := cache.Get(ctx, "ahead")
	if err != nil || string(r.Value) != "v" || r.TTL > ttl {
		t.Fatalf("Get = %q, %v, %v; want v for at most %v", r.Value, r.TTL, err, ttl)
	}
	promoted := time.Now()
	for hits := 0; ; hits++ {
		asked := time.Now()
		r, err := cache.Get(ctx, "ahead", tiered.SkipL2())
		if err != nil {
			if asked.Sub(began) < ttl {
				t.Errorf("L1 has nothing after %v", asked.Sub(began))
			}
			if hits == 0 {
				t.Error("L1 never had it")
			}
			return
		}
		if asked.Sub(promoted) >= ttl || r.TTL > ttl {
			t.Fatalf("L1 has it with %v left, %v after it was promoted; it was set for %v", r.TTL, asked.Sub(promoted), ttl)
		}
		time.Sleep(time.Millisecond)
	}
}
