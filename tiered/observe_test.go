package tiered_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache/tiered"
)

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var mu sync.Mutex
		var events []string
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, Observer: func(_ context.Context, e tiered.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprintf("%v %v %v %q ttl %v consumed %.2f took %v", e.Kind, e.Outcome, e.Tier, e.Key, e.TTL, e.Consumed, e.Duration))
		}})
		want := func(want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(events) != fmt.Sprint(want) {
				t.Errorf("the events are\n%q, want\n%q", events, want)
			}
			events = nil
		}
		l2.setAfter(func(op, _ string) { time.Sleep(10 * time.Millisecond) })
		cache.Get(ctx, "k")
		want(`read miss l1 "k" ttl 0s consumed -1.00 took 0s`, `read miss l2 "k" ttl 0s consumed -1.00 took 10ms`)
		cache.Set(ctx, "k", []byte("v"), 100*time.Second)
		time.Sleep(25 * time.Second)
		cache.Get(ctx, "k")
		want(`read hit l1 "k" ttl 1m14.99s consumed 0.25 took 0s`)
		time.Sleep(35 * time.Second)
		cache.Get(ctx, "k") // MaxL1TTL is a minute
		want(`read miss l1 "k" ttl 0s consumed -1.00 took 0s`, `read hit l2 "k" ttl 39.99s consumed -1.00 took 10ms`,
			`promotion stored none "k" ttl 39.99s consumed -1.00 took 0s`)
		cache.GetOrLoad(ctx, "new", func(context.Context, string, *[]byte) (tiered.Loaded[[]byte], error) {
			time.Sleep(time.Second)
			return tiered.Loaded[[]byte]{Value: nil, TTL: time.Minute}, nil
		})
		want(`read miss l1 "new" ttl 0s consumed -1.00 took 0s`, `read miss l2 "new" ttl 0s consumed -1.00 took 10ms`,
			`load stored none "new" ttl 1m0s consumed -1.00 took 1s`)
	})
}
