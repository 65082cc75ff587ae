package redis_test

import (
	"context"
	"log"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/redis"
)

// A client that the program has anyway.
func ExampleNew() {
	client := goredis.NewClient(&goredis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	cache, err := redis.New(client, nil)
	if err != nil {
		log.Fatal(err) // a setting of the client's with which the contract cannot be kept
	}
	defer cache.Close() // leaves the client open
	app := l2cache.WithPrefix(cache, "app:")
	if err := app.Set(context.Background(), "key", []byte("value"), time.Minute); err != nil {
		log.Fatal(err)
	}
}
