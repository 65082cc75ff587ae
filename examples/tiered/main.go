// Tiered runs two processes on one backend, each with a first level in its own memory,
// and shows how what one of them writes reaches the other.
//
//	go run ./examples/tiered
//	go run ./examples/tiered -url nats://localhost:4222/cache
//
// Without -url it starts a redis-server of its own for the time of the run.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"

	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

// A price is what the cache keeps.
type price struct{ Cents int }

// key of the one entry of the example.
const key = "price:espresso"

func main() {
	backend := flag.String("url", "", "the `URL` of a backend that two processes can share; by default a redis-server of its own")
	reader := flag.Bool("reader", false, "be the second process, which reads")
	flag.Parse()
	ctx := context.Background()
	err := error(nil)
	if *reader {
		err = read(ctx, os.Stdin, os.Stdout, *backend)
	} else {
		err = run(ctx, os.Stdout, *backend, os.Args[0], "-reader", "-url")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiered:", err)
		os.Exit(1)
	}
}

// open returns a cache of prices on the backend.
func open(ctx context.Context, backend string) (*tiered.Cache[price], func(), error) {
	l2, err := l2cache.Open(ctx, backend)
	if err != nil {
		return nil, nil, err
	}
	cache, err := tiered.New(l2cache.WithPrefix(l2, "tiered-example:"), &tiered.Options[price]{MaxL1TTL: 2 * time.Second})
	if err != nil {
		l2.Close()
		return nil, nil, err
	}
	return cache, func() { cache.Close(); l2.Close() }, nil
}

// run is the first process: it writes. The second is started by reader and the URL.
func run(ctx context.Context, w io.Writer, backend string, reader ...string) error {
	if backend == "" {
		var stop func()
		var err error
		if backend, stop, err = startRedis(ctx); err != nil {
			return err
		}
		defer stop()
	}
	cache, closeCache, err := open(ctx, backend)
	if err != nil {
		return err
	}
	defer closeCache()
	if err := cache.Delete(ctx, key); err != nil {
		return err
	}

	second := exec.CommandContext(ctx, reader[0], append(reader[1:], backend)...)
	second.Stderr = os.Stderr
	stdin, err := second.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := second.StdoutPipe()
	if err != nil {
		return err
	}
	if err := second.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdout)
	// heard prints what the reader says until it says want.
	heard := func(want string) error {
		for lines.Scan() {
			fmt.Fprintf(w, "    reader  %s\n", lines.Text())
			if strings.Contains(lines.Text(), want) {
				return nil
			}
		}
		return fmt.Errorf("the reader ended before it said %q: %w", want, second.Wait())
	}
	steps := []struct {
		say  string
		do   func() error
		want string
	}{
		{"", func() error { return nil }, "nothing"},
		{"Set 250 for a minute", func() error { return cache.Set(ctx, key, price{250}, time.Minute) }, "250 from l1"},
		{"Set 280 for 3 s", func() error { return cache.Set(ctx, key, price{280}, 3*time.Second) }, "280 from l1"},
		{"(nothing, until it has expired)", func() error { return nil }, "nothing"},
		{"Set 300 for a minute", func() error { return cache.Set(ctx, key, price{300}, time.Minute) }, "300 from l1"},
		{"Delete", func() error { return cache.Delete(ctx, key) }, "nothing"},
	}
	for _, step := range steps {
		if step.say != "" {
			fmt.Fprintf(w, "writer  %s\n", step.say)
		}
		if err := step.do(); err != nil {
			return err
		}
		if err := heard(step.want); err != nil {
			return err
		}
	}
	stdin.Close()
	for lines.Scan() {
		fmt.Fprintf(w, "    reader  %s\n", lines.Text())
	}
	return second.Wait()
}

// read is the second process: it reads all the time, and says what has changed, until
// stdin ends.
func read(ctx context.Context, stdin io.Reader, w io.Writer, backend string) error {
	cache, closeCache, err := open(ctx, backend)
	if err != nil {
		return err
	}
	defer closeCache()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		io.Copy(io.Discard, stdin)
	}()
	said := ""
	for ctx.Err() == nil {
		r, err := cache.Get(ctx, key)
		what := fmt.Sprintf("%d from %v", r.Value.Cents, r.Tier)
		switch {
		case errors.Is(err, l2cache.ErrNotFound):
			what = "nothing"
		case errors.Is(err, context.Canceled):
			continue
		case err != nil:
			return err
		}
		if what != said {
			left := ""
			if err == nil {
				left = fmt.Sprintf(", %v left", r.TTL.Round(time.Millisecond))
			}
			fmt.Fprintln(w, what+left)
			said = what
		}
		time.Sleep(time.Millisecond)
	}
	s := cache.Stats()
	fmt.Fprintf(w, "%d reads from l1, %d from l2, %d changes heard of\n", s.L1Hits, s.L2Hits+s.L2Misses, s.Invalidations)
	return nil
}

// startRedis starts a redis-server that listens on nothing but a socket in a folder of
// its own.
func startRedis(ctx context.Context) (backend string, stop func(), err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errors.New("there is no redis-server here: give the -url of a backend")
	}
	dir, err := os.MkdirTemp("", "tiered-example-")
	if err != nil {
		return "", nil, err
	}
	server := exec.CommandContext(ctx, path, "--port", "0", "--unixsocket", filepath.Join(dir, "redis.sock"), "--save", "", "--dir", dir)
	if err := server.Start(); err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	stop = func() {
		server.Process.Kill()
		server.Wait()
		os.RemoveAll(dir)
	}
	backend = "redis+unix://" + filepath.Join(dir, "redis.sock")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l2, err := l2cache.Open(ctx, backend)
		if err == nil {
			return backend, stop, l2.Close()
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, err
		}
	}
}
