// Metrics runs a small workload on a tiered cache, and shows on a page how well it does:
// hit rates by tier, and how long the entries still had when they were read. Prometheus
// finds the same numbers under /metrics.
//
//	go run .
//	go run . -url redis://localhost:6379
//
// Without -url, L2 is a bbolt file in the user's cache directory; no server is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/tiered"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/mem"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

func main() {
	backend := flag.String("url", "", "the `URL` of L2; by default a file in the user's cache directory")
	addr := flag.String("addr", "127.0.0.1:2112", "where the page is served")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *addr, *backend); err != nil {
		fmt.Fprintln(os.Stderr, "metrics:", err)
		os.Exit(1)
	}
}

// run serves the page until ctx ends.
func run(ctx context.Context, w io.Writer, addr, backend string) error {
	if backend == "" {
		file, err := defaultFile()
		if err != nil {
			return err
		}
		backend = "bolt://" + (&url.URL{Path: file}).EscapedPath()
	}
	l2, err := l2cache.Open(ctx, backend)
	if err != nil {
		return err
	}
	defer l2.Close()

	// All the wiring that there is.
	m := l2prom.New(&l2prom.Options{Cache: "shop"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	l2 = l2cache.Observe(l2cache.WithPrefix(l2, "metrics:"), m.Op)
	cache, err := tiered.New(l2, &tiered.Options[string]{
		Observer:   m.Event,
		MaxEntries: 300,              // less than there are, so that there is something to promote
		MaxL1TTL:   10 * time.Second, // and again
		NoWatch:    true,             // this process is the only one
	})
	if err != nil {
		return err
	}
	defer cache.Close()
	m.SetStats(cache.Stats)

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another with -addr)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", pageOf(registry, l2.Name()))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(w, "A tiered cache on %s. Look at http://%s, and at http://%[2]s/metrics; stop with Ctrl-C.\n", l2.Name(), listener.Addr())

	failed := work(ctx, cache)
	server.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return failed
}

func defaultFile() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for the default backend, try -url: %w", err)
	}
	file := filepath.ToSlash(filepath.Join(dir, "l2cache", "metrics.db"))
	if !strings.HasPrefix(file, "/") {
		file = "/" + file // C:/…
	}
	return file, nil
}
