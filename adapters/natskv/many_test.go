package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// A server ends the connection of a client for which more than 64 MB wait.
func TestGetManyOfLargeValues(t *testing.T) {
	b := open(t, servertest.NATS(t), "large", "storage=memory")
	ctx := context.Background()
	value := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 1_000_000) }
	const n = 100
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprint("k", i))
	}
	for i := 0; i < n; i += 10 {
		var items []l2cache.Item
		for j := i; j < i+10; j++ {
			items = append(items, l2cache.Item{Key: keys[j], Value: []byte(value(j)), TTL: time.Hour})
		}
		if err := l2cache.SetMany(ctx, b, items); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l2cache.GetMany(ctx, b, keys)
	if err != nil {
		t.Errorf("GetMany of %d MB = %v, want nil", n, err)
	}
	for i, key := range keys {
		if e, ok := got[key]; !ok || string(e.Value) != value(i) {
			t.Errorf("GetMany of %d MB: %s has %d bytes, there: %v; want its value", n, key, len(e.Value), ok)
		}
	}
}

// A key that got no reply has an error: it is not a miss.
func TestBatchTimeout(t *testing.T) {
	srv := servertest.NATS(t)
	b, err := l2cache.Open(context.Background(), "nats://"+srv.Addr+"/b?op_timeout=100ms&dial_timeout=20s")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	await(t, "there is an entry", func() bool { return b.Set(context.Background(), "k0", []byte("v"), time.Hour) == nil })
	const n = 1000 // more than are under way at a time
	var keys []string
	var items []l2cache.Item
	for i := range n {
		keys = append(keys, fmt.Sprint("k", i))
		items = append(items, l2cache.Item{Key: keys[i], Value: []byte("w"), TTL: time.Hour})
	}
	if err := srv.Pause(); err != nil {
		t.Fatal(err)
	}
	got, getErr := l2cache.GetMany(context.Background(), b, keys)
	batches := map[string]error{
		"GetMany":    getErr,
		"SetMany":    l2cache.SetMany(context.Background(), b, items),
		"DeleteMany": l2cache.DeleteMany(context.Background(), b, keys),
	}
	if err := srv.Resume(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 0 {
		t.Errorf("GetMany of a server that stalls = %d entries, want none", len(got))
	}
	for name, err := range batches {
		var failed l2cache.KeyErrors
		if !errors.As(err, &failed) || len(failed) != n {
			t.Errorf("%s on a server that stalls = %d errors, want one for each of %d keys", name, len(failed), n)
		}
		for key, err := range failed {
			if !errors.Is(err, l2cache.ErrUnavailable) {
				t.Fatalf("%s on a server that stalls: %q: %v, want %v", name, key, err, l2cache.ErrUnavailable)
			}
		}
	}
}

// A value that is too large fails alone.
func TestSetManyTooLarge(t *testing.T) {
	b := open(t, server(t), "toolarge", "storage=memory")
	set(t, b, "large", "old", time.Hour)
	err := l2cache.SetMany(context.Background(), b, []l2cache.Item{
		{Key: "a", Value: []byte("a"), TTL: time.Hour},
		{Key: "large", Value: make([]byte, l2cache.ProfileOf(b).MaxValueLen+1), TTL: time.Hour},
		{Key: "b", Value: []byte("b"), TTL: time.Hour},
	})
	var failed l2cache.KeyErrors
	if !errors.As(err, &failed) || len(failed) != 1 || !errors.Is(failed["large"], l2cache.ErrTooLarge) {
		t.Errorf("SetMany with a value that is too large = %v, want %v for its key alone", err, l2cache.ErrTooLarge)
	}
	want(t, b, "a", "a")
	want(t, b, "b", "b")
	want(t, b, "large", "old")
}

// Touch and Add bring the largest value, and the header that each needs, through.
func TestTouchAndAddOfTheLargest(t *testing.T) {
	b := open(t, server(t), "largest", "storage=memory")
	ctx := context.Background()
	value := strings.Repeat("x", l2cache.ProfileOf(b).MaxValueLen)
	if added, err := l2cache.Add(ctx, b, "k", []byte(value), time.Hour); !added || err != nil {
		t.Errorf("Add of %d bytes = %v, %v; want true", len(value), added, err)
	}
	if err := l2cache.Touch(ctx, b, "k", l2cache.MaxTTL); err != nil {
		t.Errorf("Touch of %d bytes = %v, want nil", len(value), err)
	}
	want(t, b, "k", value)
	if added, err := l2cache.Add(ctx, b, "other", []byte(value+"x"), time.Hour); added || !errors.Is(err, l2cache.ErrTooLarge) {
		t.Errorf("Add of %d bytes = %v, %v; want %v", len(value)+1, added, err, l2cache.ErrTooLarge)
	}
}

// Handles that touch and add one key at the same time wait for no one's mistake:
// each call ends with what it is for.
func TestTouchContended(t *testing.T) {
	srv := server(t)
	a, b := open(t, srv, "contended", "storage=memory"), open(t, srv, "contended", "storage=memory")
	set(t, a, "k", "v", time.Hour)
	var wg sync.WaitGroup
	for i := range 16 {
		h := []l2cache.L2CacheBackend{a, b}[i%2]
		wg.Go(func() {
			for range 20 {
				if err := l2cache.Touch(context.Background(), h, "k", time.Hour); err != nil {
					t.Errorf("Touch beside 15 others = %v, want nil", err)
				}
				if added, err := l2cache.Add(context.Background(), h, "k", []byte("w"), time.Hour); added || err != nil {
					t.Errorf("Add of what is there = %v, %v; want false", added, err)
				}
			}
		})
	}
	wg.Wait()
	want(t, a, "k", "v")
}
