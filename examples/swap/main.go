// Swap runs one workload on backends that a YAML file names, and prints the same
// lines for each: what differs is the URL.
//
//	go run ./examples/swap                    the two that need no server
//	go run ./examples/swap redis memcached    others of backends.yaml
//	go run ./examples/swap -config my.yaml    all of another file
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/l2cache/l2cache"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/mem"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

//go:embed backends.yaml
var builtin []byte

func main() {
	file := flag.String("config", "", "the YAML `file` that names the backends; by default the example's own")
	flag.Parse()
	if err := run(os.Stdout, *file, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "swap:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, file string, names []string) error {
	config := builtin
	if file != "" {
		var err error
		if config, err = os.ReadFile(file); err != nil {
			return err
		}
	}
	backends, err := load(config)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(backends))
		if file == "" {
			names = []string{"mem", "bolt"}
		}
	}
	// The bolt file of the example goes to a folder of its own.
	if file == "" {
		dir, err := os.MkdirTemp("", "swap")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := os.Chdir(dir); err != nil {
			return err
		}
	}
	var first string
	for _, name := range names {
		backend, known := backends[name]
		if !known {
			return fmt.Errorf("no backend %q in the configuration (known: %s)", name, strings.Join(slices.Sorted(maps.Keys(backends)), ", "))
		}
		var result strings.Builder
		if err := workload(context.Background(), &result, backend); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(w, "%s  %v\n%s", name, backend, &result)
		if first == "" {
			first = result.String()
		}
		if result.String() != first {
			return fmt.Errorf("%s gives other results than %s", name, names[0])
		}
	}
	fmt.Fprintf(w, "The same results on %s.\n", strings.Join(names, ", "))
	return nil
}

// load reads the backends by name. A key that Config does not have is an error.
func load(config []byte) (map[string]l2cache.Config, error) {
	backends := map[string]l2cache.Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(config))
	decoder.KnownFields(true)
	return backends, decoder.Decode(&backends)
}

// workload does a bit of everything that every backend has, and writes what came
// of it.
func workload(ctx context.Context, w io.Writer, config l2cache.Config) error {
	cache, err := config.Open(ctx)
	if err != nil {
		return err
	}
	defer cache.Close()

	items := []l2cache.Item{
		{Key: "user:1", Value: []byte("Ada"), TTL: 90 * time.Second},
		{Key: "user:2", Value: []byte("Grace"), TTL: l2cache.NoExpiry},
		{Key: "a key with spaces, / and *", Value: nil, TTL: 40 * 24 * time.Hour},
		{Key: "flash", Value: []byte("soon gone"), TTL: 400 * time.Millisecond},
	}
	keys := []string{"user:3"}
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	if err := l2cache.DeleteMany(ctx, cache, keys); err != nil {
		return err
	}
	if err := l2cache.SetMany(ctx, cache, items); err != nil {
		return err
	}
	entries, err := l2cache.GetMany(ctx, cache, keys)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(w, "  %-28q %-12q %s\n", key, entries[key].Value, about(entries[key].TTL))
	}

	added, err := l2cache.Add(ctx, cache, "user:1", []byte("Alan"), time.Hour)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "  adding user:1, which is there:", added)
	if added, err = l2cache.Add(ctx, cache, "user:3", []byte("Alan"), time.Hour); err != nil {
		return err
	}
	fmt.Fprintln(w, "  adding user:3, which is not:  ", added)
	if err := l2cache.Touch(ctx, cache, "user:1", 2*time.Hour); err != nil {
		return err
	}
	time.Sleep(410 * time.Millisecond)
	for _, key := range []string{"user:1", "flash"} {
		entry, err := cache.GetWithTTL(ctx, key)
		switch {
		case errors.Is(err, l2cache.ErrNotFound):
			fmt.Fprintf(w, "  %s has expired\n", key)
		case err != nil:
			return err
		default:
			fmt.Fprintf(w, "  %s, touched: %s\n", key, about(entry.TTL))
		}
	}
	if err := cache.Set(ctx, "user:1", nil, 0); errors.Is(err, l2cache.ErrInvalidTTL) {
		fmt.Fprintln(w, "  a TTL of zero is refused")
	}
	return l2cache.DeleteMany(ctx, cache, keys)
}

// about is a remaining TTL without the moments that have passed since Set.
func about(ttl time.Duration) string {
	if ttl == l2cache.NoExpiry {
		return "never expires"
	}
	if ttl < time.Second {
		return "less than a second left"
	}
	return "about " + ttl.Round(10*time.Second).String() + " left"
}
