package mem_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

// A value tells the TTL that it was set with: no read may see that of another.
func TestTornPairs(t *testing.T) {
	ttls := map[string]time.Duration{
		"A": 10 * time.Second,
		"B": 1000 * time.Second,
		"C": l2cache.NoExpiry,
	}
	c := mem.New(nil)
	defer c.Close()
	set := func(value string) {
		if err := c.Set(t.Context(), "k", []byte(value), ttls[value]); err != nil {
			t.Errorf("Set(%q) = %v", value, err)
		}
	}
	set("A")
	const reads = 100_000
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for done.Load() < reads {
				set("A")
				set("B")
				set("C")
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for done.Add(1) <= reads {
				e, err := c.GetWithTTL(t.Context(), "k")
				whole := false
				switch string(e.Value) {
				case "A":
					whole = e.TTL <= ttls["A"]
				case "B":
					whole = ttls["A"] < e.TTL && e.TTL <= ttls["B"]
				case "C":
					whole = e.TTL == l2cache.NoExpiry
				}
				if err != nil || !whole {
					t.Errorf("GetWithTTL = %q, %v, %v; want %v", e.Value, e.TTL, err, ttls[string(e.Value)])
				}
			}
		})
	}
	wg.Wait()
}

// Without a store of the caller's, each handle has one of its own.
func TestNewWithoutAStore(t *testing.T) {
	a, b := mem.New(nil), mem.New(nil)
	if err := a.Set(t.Context(), "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, err := a.Get(t.Context(), "k"); err != nil || string(v) != "v" {
		t.Errorf("Get = %q, %v; want v", v, err)
	}
	if v, err := b.Get(t.Context(), "k"); err != l2cache.ErrNotFound {
		t.Errorf("Get from another store = %q, %v; want ErrNotFound", v, err)
	}
}
