// Quickstart stores entries in a second-level cache, reads them back with the
// time that they have left, and finds on its next run what this one leaves.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -url redis://localhost:6379
//
// Without -url the cache is a bbolt file in the user's cache directory; no server
// is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/l2cache/l2cache"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/mem"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

func main() {
	backend := flag.String("url", "", "the `URL` of the cache; by default a file in the user's cache directory")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *backend); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, backend string) error {
	where, defaultURL := "at the URL given", ""
	if backend == "" {
		file, err := defaultFile()
		if err != nil {
			return err
		}
		defaultURL, where = "bolt://"+(&url.URL{Path: file}).EscapedPath(), "in "+file
		backend = defaultURL
	}
	cache, err := l2cache.Open(ctx, backend)
	if err != nil {
		return err
	}
	defer cache.Close()
	cache = l2cache.WithPrefix(cache, "quickstart:")
	fmt.Fprintf(w, "A cache on %s %s\n\n", cache.Name(), where)

	if err := lookBack(ctx, w, cache); err != nil {
		return err
	}
	if err := store(ctx, w, cache); err != nil {
		return err
	}
	if err := countDown(ctx, w, cache, "flash"); err != nil {
		return err
	}
	if backend != defaultURL {
		// On a server of others nothing is left that does not end by itself.
		fmt.Fprintln(w, "\nRun it again within 5 minutes: the session will be there if the store is, with less time.")
		return cache.Delete(ctx, "motto")
	}
	fmt.Fprintln(w, "\nRun it again: the session will be there, with less time.")
	return nil
}

// lookBack shows what an earlier run has left.
func lookBack(ctx context.Context, w io.Writer, cache l2cache.L2CacheBackend) error {
	fmt.Fprintln(w, "Left by an earlier run:")
	found := 0
	for _, key := range []string{"session", "motto", "flash"} {
		entry, err := cache.GetWithTTL(ctx, key)
		if errors.Is(err, l2cache.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		show(w, key, entry)
		found++
	}
	if found == 0 {
		fmt.Fprintln(w, "  nothing")
	}
	return nil
}

// store sets three entries. The session is only begun if there is none, so that
// its time runs on from one run to the next.
func store(ctx context.Context, w io.Writer, cache l2cache.L2CacheBackend) error {
	items := []struct {
		key, value string
		ttl        time.Duration
	}{
		{"session", "begun at " + time.Now().Format(time.TimeOnly), 5 * time.Minute},
		{"motto", "a value and its exact remaining time to live", l2cache.NoExpiry},
		{"flash", "gone in a moment", 1500 * time.Millisecond},
	}
	fmt.Fprintln(w, "\nNow:")
	for _, item := range items {
		if _, err := cache.Get(ctx, item.key); item.key == "session" && !errors.Is(err, l2cache.ErrNotFound) {
			if err != nil {
				return err
			}
		} else if err := cache.Set(ctx, item.key, []byte(item.value), item.ttl); err != nil {
			return err
		}
		entry, err := cache.GetWithTTL(ctx, item.key)
		if err != nil {
			return err
		}
		show(w, item.key, entry)
	}
	return nil
}

// countDown reads key until it is gone.
func countDown(ctx context.Context, w io.Writer, cache l2cache.L2CacheBackend, key string) error {
	const width = 30
	fmt.Fprintf(w, "\nThe time that %s has left:\n", key)
	var full time.Duration
	for range 20 {
		entry, err := cache.GetWithTTL(ctx, key)
		if errors.Is(err, l2cache.ErrNotFound) {
			fmt.Fprintf(w, "  %s  expired\n", strings.Repeat("·", width))
			return nil
		}
		if err != nil {
			return err
		}
		full = max(full, entry.TTL)
		filled := int(width * entry.TTL / full)
		fmt.Fprintf(w, "  %s%s  %6.3f s\n", strings.Repeat("█", filled), strings.Repeat("·", width-filled), entry.TTL.Seconds())
		time.Sleep(150 * time.Millisecond)
	}
	return fmt.Errorf("%s is still there", key)
}

func show(w io.Writer, key string, entry l2cache.Entry) {
	left := "never expires"
	if entry.TTL != l2cache.NoExpiry {
		left = entry.TTL.String() + " left"
	}
	fmt.Fprintf(w, "  %-8s %-46q %s\n", key, entry.Value, left)
}

func defaultFile() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for the default backend, try -url: %w", err)
	}
	file := filepath.ToSlash(filepath.Join(dir, "l2cache", "quickstart.db"))
	if !strings.HasPrefix(file, "/") {
		file = "/" + file // C:/…
	}
	return file, nil
}
