package memcached_test

import (
	"context"
	"log"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache/adapters/memcached"
)

// A client that the program has anyway, with a selector that keeps most keys where
// they are when a server is added.
func ExampleNew() {
	selector, err := memcached.NewSelector("cache1:11211", "cache2:11211")
	if err != nil {
		log.Fatal(err)
	}
	client := memcache.NewFromSelector(selector)
	defer client.Close()
	cache, err := memcached.New(client, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close() // leaves the client open
	if err := cache.Set(context.Background(), "key", []byte("value"), time.Minute); err != nil {
		log.Fatal(err)
	}
}
