package natskv_test

import (
	"context"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache/adapters/natskv"
)

// A connection that the program has anyway.
func ExampleNew() {
	nc, err := nats.Connect("nats://localhost:4222", nats.ReconnectBufSize(-1), nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	cache, err := natskv.New(nc, "cache", nil)
	if err != nil {
		log.Fatal(err) // a setting of the connection's with which the contract cannot be kept
	}
	defer cache.Close() // leaves the connection open
	if err := cache.Set(context.Background(), "key", []byte("value"), time.Minute); err != nil {
		log.Fatal(err)
	}
}
