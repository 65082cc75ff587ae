package bolt_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache/adapters/bolt"
)

// A bucket in a database that the program has anyway.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := bbolt.Open(filepath.Join(dir, "app.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	cache, err := bolt.New(db, &bolt.Options{Bucket: "cache"})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close() // leaves the database open
	if err := cache.Set(context.Background(), "key", []byte("value"), time.Minute); err != nil {
		log.Fatal(err)
	}
	value, err := cache.Get(context.Background(), "key")
	fmt.Printf("%s %v\n", value, err)
	// Output: value <nil>
}
