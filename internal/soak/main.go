// Command soak lets real servers stall, die and come back, and connections break,
// for a while, under random calls, and holds every answer against the contract: no entry early or
// late, none torn, lost or wrong, no call that hangs, no goroutine and no file
// descriptor left at the end. It prints a line for each backend, and fails if
// one of these is not zero.
//
// Each backend has a process of its own, so that what leaks can be told. Every
// key has one writer and eight readers, through two handles where the backend
// admits two. Values say which they are, and for a write that failed both of its
// outcomes are admitted, at any time after its call: see history.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

func main() {
	duration := flag.Duration("for", 10*time.Minute, "how long")
	names := flag.String("backends", "mem,bolt,redis,memcached,nats,nats-r3", "which, separated by commas")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random choices; the order of events is not repeated")
	one := flag.Bool("one", false, "in this process; for itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *one {
		err = soak(ctx, *names, *duration, *seed)
	} else {
		fmt.Printf("%v, seed %d\n%s\n", *duration, *seed, strings.Join(columns, " "))
		err = each(ctx, strings.Split(*names, ","), *duration, *seed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// columns head the lines of the report; those from early on must be zero.
var columns = []string{
	"backend   ", "operations", "errors", "doubtful", "faults", "early", "late", "torn", "lost", "wrong", "hung", "goroutines", "descriptors",
}

var kinds = []string{"early", "late", "torn", "lost", "wrong", "hung"}

// each soaks all backends at a time.
func each(ctx context.Context, names []string, d time.Duration, seed uint64) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, os.Args[0], "-one", "-backends", name, "-for", d.String(), "-seed", fmt.Sprint(seed))
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.Stderr = os.Stderr
			line, err := cmd.Output()
			os.Stdout.Write(line)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// soak soaks one backend and prints its line.
func soak(ctx context.Context, name string, d time.Duration, seed uint64) error {
	dir, err := os.MkdirTemp("", "l2cache-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := start(name, dir)
	if err != nil {
		return err
	}
	defer b.close()
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()

	var handles []l2cache.L2CacheBackend
	for range b.copies {
		h, err := l2cache.Open(ctx, b.url)
		if err != nil {
			return err
		}
		handles = append(handles, h)
	}
	r := newRun(name, handles...)
	err = r.live(ctx, b.faults, d, seed)
	for i := range r.handles {
		err = errors.Join(err, (*r.handles[i].Load()).Close())
	}
	leaked := [2]int{}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the kernel and finished goroutines take their time
		leaked = [2]int{max(0, runtime.NumGoroutine()-goroutines), max(0, openFiles()-descriptors)}
		if leaked == [2]int{} || time.Now().After(deadline) {
			break
		}
	}
	return errors.Join(err, r.print(leaked))
}

// live lets workers and faults go on for d.
func (r *run) live(ctx context.Context, faults []fault, d time.Duration, seed uint64) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() { r.work(ctx, n, seed) })
	}
	err := r.harass(ctx, faults, rand.New(rand.NewPCG(seed, 0)))
	if err != nil {
		cancel()
	}
	<-ctx.Done()
	wg.Wait()
	return err
}

// print prints the line of the report, and what was wrong.
func (r *run) print(leaked [2]int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cells := []any{r.name, r.ops.Load(), r.seen.Load(), r.doubts.Load(), r.faults.Load()}
	bad := leaked[0] + leaked[1]
	for _, kind := range kinds {
		cells = append(cells, r.counts[kind])
		bad += r.counts[kind]
	}
	cells = append(cells, leaked[0], leaked[1])
	var line strings.Builder
	for i, cell := range cells {
		if i == 0 {
			fmt.Fprintf(&line, "%-*v", len(columns[i]), cell)
			continue
		}
		fmt.Fprintf(&line, " %*v", len(columns[i]), cell)
	}
	fmt.Println(line.String())
	if bad == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d violations\n%s", r.name, bad, strings.Join(r.examples, "\n"))
}

// openFiles counts the file descriptors of this process; 0 where /proc does not
// tell.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
