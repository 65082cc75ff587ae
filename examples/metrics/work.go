package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// kinds are what a shop could have in its cache.
var kinds = []struct {
	name string
	keys int
	ttl  time.Duration
	load time.Duration // that the loader takes
}{
	{"price", 200, 3 * time.Second, 5 * time.Millisecond},
	{"stock", 100, 15 * time.Second, 10 * time.Millisecond},
	{"page", 200, 2 * time.Minute, 25 * time.Millisecond},
	{"session", 300, 30 * time.Minute, 2 * time.Millisecond},
	{"country", 20, l2cache.NoExpiry, 2 * time.Millisecond},
}

// work reads until ctx ends, or until a read fails: some keys often, most of them seldom.
func work(ctx context.Context, cache *tiered.Cache[string]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var customers sync.WaitGroup
	for seed := range uint64(8) {
		customers.Go(func() {
			if err := customer(ctx, cache, rand.New(rand.NewPCG(seed, 0))); ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	customers.Wait()
	if err := context.Cause(ctx); err != ctx.Err() {
		return err
	}
	return nil
}

func customer(ctx context.Context, cache *tiered.Cache[string], random *rand.Rand) error {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		kind := kinds[random.IntN(len(kinds))]
		n := rand.NewZipf(random, 1.2, 4, uint64(kind.keys-1)).Uint64()
		load := func(ctx context.Context, key string, _ *string) (tiered.Loaded[string], error) {
			select {
			case <-time.After(kind.load):
				return tiered.Loaded[string]{Value: "the value of " + key, TTL: kind.ttl}, nil
			case <-ctx.Done():
				return tiered.Loaded[string]{}, ctx.Err()
			}
		}
		if _, err := cache.GetOrLoad(ctx, fmt.Sprintf("%s:%d", kind.name, n), load); err != nil {
			return err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
