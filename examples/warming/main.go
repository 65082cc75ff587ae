// Warming fills a first level before the first request: the entries with the longest to
// live first, within bounds.
//
//	go run ./examples/warming
//	go run ./examples/warming -url redis://localhost:6379
//
// Without -url the second level is a bbolt file in a temporary folder.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

func main() {
	backend := flag.String("url", "", "the `URL` of a backend that can be scanned; by default a file in a temporary folder")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *backend); err != nil {
		fmt.Fprintln(os.Stderr, "warming:", err)
		os.Exit(1)
	}
}

const (
	articles = 2000
	room     = 1000 // entries in L1
	warm     = 500  // of them to be there from the start
)

func run(ctx context.Context, w io.Writer, backend string) error {
	if backend == "" {
		dir, err := os.MkdirTemp("", "warming-example-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		backend = "bolt://" + filepath.ToSlash(filepath.Join(dir, "l2.db"))
	}
	l2, err := l2cache.Open(ctx, backend)
	if err != nil {
		return err
	}
	defer l2.Close()
	l2 = l2cache.WithPrefix(l2, "warming-example:")

	// What an earlier process has left: TTLs from 1 to 2,000 seconds.
	items := make([]l2cache.Item, articles)
	keys := make([]string, articles)
	for i := range items {
		keys[i] = fmt.Sprintf("article:%04d", i+1)
		items[i] = l2cache.Item{Key: keys[i], Value: fmt.Appendf(nil, "the text of article %d", i+1), TTL: time.Duration(i+1) * time.Second}
	}
	if err := l2cache.SetMany(ctx, l2, items); err != nil {
		return err
	}
	defer l2cache.DeleteMany(ctx, l2, keys)

	cache, err := tiered.New(l2, &tiered.Options[[]byte]{MaxEntries: room, MaxL1TTL: time.Hour, NoWatch: true})
	if err != nil {
		return err
	}
	defer cache.Close()
	began := time.Now()
	p, err := cache.Warm(ctx, &tiered.WarmOptions{
		Prefix: "article:",
		MinTTL: 10 * time.Minute, MaxEntries: warm,
		Progress: func(p tiered.WarmProgress) {
			fmt.Fprintf(w, "  %3d of %d read, %d bytes in L1\n", p.Read, p.Chosen, p.Bytes)
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Warm listed %d entries and took %d with at least 10 minutes left in %v.\n\n", p.Scanned, p.Stored, time.Since(began).Round(time.Millisecond))

	for _, key := range []string{keys[articles-1], keys[articles-warm/2], keys[articles/2]} {
		began := time.Now()
		r, err := cache.Get(ctx, key)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s comes from %v in %v, with %v left\n", key, r.Tier, time.Since(began), r.TTL.Round(time.Millisecond))
	}
	return nil
}
