package l2cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/mem"
)

func Example() {
	ctx := context.Background()
	cache, err := l2cache.Open(ctx, "mem://?prefix=app:") // redis://localhost:6379, bolt:///var/cache/app.db, …
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()

	if err := cache.Set(ctx, "user:1", []byte("Ada"), 90*time.Second); err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"user:1", "user:2"} {
		entry, err := cache.GetWithTTL(ctx, key)
		switch {
		case errors.Is(err, l2cache.ErrNotFound):
			fmt.Println(key, "is not there")
		case err != nil:
			log.Fatal(err) // the backend could not answer
		default:
			fmt.Printf("%s is %s, for %v\n", key, entry.Value, entry.TTL.Round(time.Second))
		}
	}
	// Output:
	// user:1 is Ada, for 1m30s
	// user:2 is not there
}

func open(rawURL string) l2cache.L2CacheBackend {
	cache, err := l2cache.Open(context.Background(), rawURL)
	if err != nil {
		log.Fatal(err)
	}
	return cache
}

func ExampleGetMany() {
	ctx, cache := context.Background(), open("mem://")
	defer cache.Close()
	err := l2cache.SetMany(ctx, cache, []l2cache.Item{
		{Key: "a", Value: []byte("1"), TTL: time.Minute},
		{Key: "b", Value: []byte("2"), TTL: l2cache.NoExpiry},
	})
	if err != nil {
		log.Fatal(err)
	}
	entries, err := l2cache.GetMany(ctx, cache, []string{"a", "b", "c"})
	if failed, ok := errors.AsType[l2cache.KeyErrors](err); ok {
		fmt.Println(len(failed), "keys could not be read") // entries has the others
	}
	_, found := entries["c"]
	fmt.Printf("a: %s, b: %s for ever: %v, c: %v\n",
		entries["a"].Value, entries["b"].Value, entries["b"].TTL == l2cache.NoExpiry, found)
	// Output: a: 1, b: 2 for ever: true, c: false
}

// A lock that ends by itself if its holder does not come back.
func ExampleAdd() {
	ctx, cache := context.Background(), open("mem://")
	defer cache.Close()
	for _, worker := range []string{"first", "second"} {
		won, err := l2cache.Add(ctx, cache, "lock:report", []byte(worker), 30*time.Second)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(worker, won)
	}
	// Output:
	// first true
	// second false
}

func ExampleTouch() {
	ctx, cache := context.Background(), open("mem://")
	defer cache.Close()
	if err := cache.Set(ctx, "session", []byte("v"), time.Minute); err != nil {
		log.Fatal(err)
	}
	if err := l2cache.Touch(ctx, cache, "session", time.Hour); err != nil {
		log.Fatal(err)
	}
	entry, err := cache.GetWithTTL(ctx, "session")
	fmt.Println(entry.TTL.Round(time.Minute), err)
	fmt.Println(errors.Is(l2cache.Touch(ctx, cache, "another", time.Hour), l2cache.ErrNotFound))
	// Output:
	// 1h0m0s <nil>
	// true
}

func ExampleDeletePattern() {
	ctx, cache := context.Background(), open("mem://")
	defer cache.Close()
	for _, key := range []string{"user:1:name", "user:1:mail", "user:12:name"} {
		if err := cache.Set(ctx, key, nil, time.Minute); err != nil {
			log.Fatal(err)
		}
	}
	user := "user:1" // from somewhere else: it may have a * in it
	if err := l2cache.DeletePattern(ctx, cache, l2cache.QuotePattern(user)+":*"); err != nil {
		log.Fatal(err)
	}
	for info, err := range l2cache.Scan(ctx, cache, "") {
		fmt.Println(info.Key, err)
	}
	// Output: user:12:name <nil>
}

func ExampleWatch() {
	ctx, cache := context.Background(), open("mem://")
	defer cache.Close()
	for event, err := range l2cache.Watch(ctx, cache, "user:") {
		switch {
		case err != nil:
			log.Fatal(err)
		case event.Gap: // the first event always is
			fmt.Println("drop all copies")
			if err := cache.Set(ctx, "user:1", nil, time.Minute); err != nil {
				log.Fatal(err)
			}
		default:
			fmt.Println("drop the copy of", event.Key)
			return
		}
	}
	// Output:
	// drop all copies
	// drop the copy of user:1
}

func ExampleProfileOf() {
	cache := open("mem://")
	defer cache.Close()
	p := l2cache.ProfileOf(cache)
	fmt.Println(p.Supports.Has(l2cache.CanTouch|l2cache.CanScan), p.Clock, p.Durable)
	// Output: true client clock false
}

func ExampleObserve() {
	ctx := context.Background()
	cache := l2cache.Observe(open("mem://"), func(_ context.Context, op l2cache.Op) {
		fmt.Println(op.Backend, op.Name, op.Outcome(), op.Bytes)
	})
	defer cache.Close()
	_ = cache.Set(ctx, "k", []byte("value"), time.Minute)
	_, _ = cache.Get(ctx, "k")
	_, _ = cache.Get(ctx, "another")
	// Output:
	// mem set ok 5
	// mem get hit 5
	// mem get miss 0
}

// A part of a program's own configuration.
func ExampleConfig() {
	var settings struct {
		Cache l2cache.Config `json:"cache"`
	}
	err := json.Unmarshal([]byte(`{"cache": {
		"url": "mem://",
		"prefix": "app:",
		"op_timeout": "250ms"
	}}`), &settings)
	if err != nil {
		log.Fatal(err)
	}
	cache, err := settings.Cache.Open(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	fmt.Println(settings.Cache)
	// Output: mem://?op_timeout=250ms&prefix=app%3A
}
