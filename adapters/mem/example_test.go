package mem_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/l2cache/l2cache/adapters/mem"
)

// Two handles on one store, in a test of a program that uses a cache.
func ExampleNew() {
	store := mem.NewStore()
	a, b := mem.New(store), mem.New(store)
	defer a.Close()
	defer b.Close()
	if err := a.Set(context.Background(), "key", []byte("value"), time.Minute); err != nil {
		log.Fatal(err)
	}
	value, err := b.Get(context.Background(), "key")
	fmt.Printf("%s %v\n", value, err)
	// Output: value <nil>
}
