package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/tiered"
)

type User struct{ Name, Version string }

func Example() {
	ctx := context.Background()
	l2, err := l2cache.Open(ctx, "mem://") // redis://localhost:6379, say
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l2.Close()
	cache, err := tiered.New(l2, &tiered.Options[User]{MaxL1TTL: 10 * time.Second, NoWatch: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close() // before L2

	load := func(ctx context.Context, key string, _ *User) (tiered.Loaded[User], error) {
		if key != "user:1" {
			return tiered.Loaded[User]{}, l2cache.ErrNotFound
		}
		return tiered.Loaded[User]{Value: User{Name: "Ann"}, TTL: 5 * time.Minute}, nil
	}
	for _, key := range []string{"user:1", "user:1", "user:2"} {
		user, err := cache.GetOrLoad(ctx, key, load)
		switch {
		case errors.Is(err, l2cache.ErrNotFound):
			fmt.Println(key, "does not exist")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(key, user.Value.Name, "from", user.Tier, "for", user.TTL.Round(time.Minute))
		}
	}
	// Output:
	// user:1 Ann from loader for 5m0s
	// user:1 Ann from l1 for 5m0s
	// user:2 does not exist
}

// A loader that asks only whether the value has changed: Options.StaleFor keeps the old one
// for it.
func ExampleLoader() {
	l2, err := l2cache.Open(context.Background(), "mem://")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l2.Close()
	cache, err := tiered.New(l2, &tiered.Options[User]{StaleFor: time.Hour, NoWatch: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close()

	fetch := func(ctx context.Context, key string, stale *User) (tiered.Loaded[User], error) {
		if stale != nil && stale.Version == "v1" { // the server says: not modified
			fmt.Println("not modified")
			return tiered.Loaded[User]{Value: *stale, TTL: time.Minute}, nil
		}
		fmt.Println("fetched")
		return tiered.Loaded[User]{Value: User{Name: "Ann", Version: "v1"}, TTL: time.Minute}, nil
	}
	for range 2 {
		if _, err := cache.GetOrLoad(context.Background(), "user:1", fetch, tiered.Refresh()); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// fetched
	// not modified
}
