package tiered_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/tiered"
)

func TestOptions(t *testing.T) {
	l2 := mem.New(mem.NewStore())
	for name, o := range map[string]*tiered.Options[int]{
		"MaxEntries":     {MaxEntries: -1},
		"MaxBytes":       {MaxBytes: -1},
		"both":           {MaxEntries: 1, MaxBytes: 1},
		"MaxL1TTL":       {MaxL1TTL: -1},
		"Jitter":         {Jitter: 1.5},
		"PromoteEvery":   {PromoteEvery: -1},
		"RefreshAhead":   {RefreshAhead: -0.1},
		"NegativeTTL":    {NegativeTTL: -1},
		"OnFailure":      {OnFailure: 7},
		"ServeStale":     {OnFailure: tiered.ServeStale},
		"StaleFor":       {StaleFor: -1},
		"L2Timeout":      {L2Timeout: -1},
		"BreakerOpenFor": {BreakerOpenFor: -1},
	} {
		if cache, err := tiered.New(l2, o); err == nil {
			cache.Close()
			t.Errorf("New with a bad %s: no error", name)
		}
	}
	_, err := tiered.New(l2, &tiered.Options[int]{MaxL1TTL: -1, Jitter: 2})
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 2 {
		t.Errorf("New with two faults: %v; want both", err)
	}
	if _, err := tiered.New[int](nil, nil); err == nil {
		t.Error("New without a backend: no error")
	}
	cache, err := tiered.New[int](l2, nil)
	if err != nil {
		t.Fatal(err)
	}
	cache.Close()
}

func TestCodecs(t *testing.T) {
	type user struct{ Name string }
	ctx := t.Context()
	l2 := mem.New(mem.NewStore())
	users := newCache(t, l2, &tiered.Options[user]{NoWatch: noWatch})
	raw := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
	if err := users.Set(ctx, "u", user{"Ann"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if r, err := raw.Get(ctx, "u"); err != nil || string(r.Value) != `{"Name":"Ann"}` {
		t.Errorf("stored as %q, %v", r.Value, err)
	}
	if err := raw.Set(ctx, "b", []byte(`{"Name":"Bob"}`), time.Minute); err != nil {
		t.Fatal(err)
	}
	if r, err := users.Get(ctx, "b"); err != nil || r.Value != (user{"Bob"}) {
		t.Errorf("Get = %+v, %v; want Bob", r, err)
	}
	funcs := newCache(t, l2, &tiered.Options[func()]{NoWatch: noWatch})
	var bad *tiered.EncodeError
	if err := funcs.Set(ctx, "f", nil, time.Minute); !errors.As(err, &bad) || bad.Key != "f" {
		t.Errorf("Set of what JSON cannot encode: %v; want an EncodeError", err)
	}
	if _, err := l2.Get(ctx, "f"); err != l2cache.ErrNotFound {
		t.Errorf("it was stored: %v", err)
	}
}

func TestL1IsBounded(t *testing.T) {
	ctx := t.Context()
	for name, test := range map[string]struct {
		o   tiered.Options[[]byte]
		max int
	}{
		"MaxEntries": {tiered.Options[[]byte]{MaxEntries: 100}, 100},
		"MaxBytes":   {tiered.Options[[]byte]{MaxBytes: 100 * (1000 + 3 + 128)}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.NoWatch = noWatch
			cache := newCache(t, newBackend(), &test.o)
			var keys []string
			for i := range 1000 {
				keys = append(keys, fmt.Sprintf("%03d", i))
				if err := cache.Set(ctx, keys[i], make([]byte, 1000), time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			for deadline := time.Now().Add(10 * time.Second); cache.Stats().Entries > test.max; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("L1 has %d entries, want at most %d", cache.Stats().Entries, test.max)
				}
			}
			if n := len(inL1(t, cache, keys)); n == 0 || n > test.max {
				t.Errorf("L1 answers %d keys, want some, and at most %d", n, test.max)
			}
		})
	}
}
