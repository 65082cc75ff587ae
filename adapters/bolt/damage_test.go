package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

var damages = flag.Int("damages", 200, "how many damaged files TestDamagedFiles opens")

// damagedFile, in the environment, makes the test binary a process that uses the
// damaged file of that name, and prints what came of it.
const damagedFile = "L2CACHE_TEST_BOLT_DAMAGED_FILE"

const (
	damagedShort = 600 // entries of 100 B
	damagedLong  = 6   // of 50,000 B
)

// damagedValues is what the file held before it was damaged.
func damagedValues() map[string][]byte {
	values := map[string][]byte{}
	for i := range damagedShort {
		values[fmt.Sprint("short", i)] = randomBytes(uint64(i), 100)
	}
	for i := range damagedLong {
		values[fmt.Sprint("long", i)] = randomBytes(uint64(i), 50_000)
	}
	return values
}

// useDamaged opens a damaged file and uses it in every way. It returns 0 if the file
// was refused, set aside, or is whole.
func useDamaged(path string) (status int) {
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		status = 1
	}
	ctx := context.Background()
	c, err := l2cache.Open(ctx, "bolt:"+path+patience+os.Getenv(damagedFile+"_OPTIONS"))
	if err != nil {
		fmt.Println("refused:", err)
		if !errors.Is(err, l2cache.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			fail("want an ErrCorrupt that names the file")
		}
		return status
	}
	values := damagedValues()
	if c.(*bolt.Cache).SetAside() == "" {
		fmt.Println("whole")
	} else {
		fmt.Println("set aside:", c.(*bolt.Cache).SetAside())
		clear(values)
	}
	for key, want := range damagedValues() {
		got, err := c.Get(ctx, key)
		if _, there := values[key]; there && (err != nil || !bytes.Equal(got, want)) || !there && err != l2cache.ErrNotFound {
			fail("Get(%q) = %d bytes, %v", key, len(got), err)
		}
	}
	seen := 0
	for info, err := range l2cache.Scan(ctx, c, "") {
		if err != nil || len(values[info.Key]) != info.Size {
			fail("Scan = %+v, %v", info, err)
		}
		seen++
	}
	if seen != len(values) {
		fail("Scan = %d entries, want %d", seen, len(values))
	}
	// So many commits that a page which is free by mistake is written.
	for i := range 20 {
		key := fmt.Sprint("new", i)
		if err := c.Set(ctx, key, randomBytes(uint64(i), 30_000), time.Hour); err != nil {
			fail("Set(%q) = %v", key, err)
		}
		values[key] = randomBytes(uint64(i), 30_000)
	}
	if err := l2cache.DeletePattern(ctx, c, "short1*"); err != nil {
		fail("DeletePattern = %v", err)
	}
	entries, err := l2cache.GetMany(ctx, c, slices.Collect(maps.Keys(values)))
	if err != nil {
		fail("GetMany = %v", err)
	}
	for key, want := range values {
		if e, there := entries[key]; there == strings.HasPrefix(key, "short1") || there && !bytes.Equal(e.Value, want) {
			fail("GetMany of %q = %d bytes, %v", key, len(e.Value), there)
		}
	}
	if err := c.Close(); err != nil {
		fail("Close = %v", err)
	}
	return status
}

// damage changes bytes of a file, of which the first n are in use.
func damage(file []byte, n int, seed uint64) (name string, damaged []byte) {
	r := rand.New(rand.NewPCG(seed, 7))
	damaged = bytes.Clone(file)
	switch seed % 4 {
	case 0:
		flips := 1 + r.IntN(8)
		for range flips {
			damaged[r.IntN(n)] ^= 1 << r.IntN(8)
		}
		return fmt.Sprintf("%d bits flipped", flips), damaged
	case 1:
		at, length := r.IntN(n), 1+r.IntN(2*pageSize)
		garbage := randomBytes(seed, length)
		copy(damaged[at:n], garbage)
		return fmt.Sprintf("%d bytes of garbage at %d", length, at), damaged
	case 2:
		page, pages := r.IntN(n/pageSize), 1+r.IntN(4)
		clear(damaged[page*pageSize : min((page+pages)*pageSize, n)])
		return fmt.Sprintf("%d pages zeroed from %d on", pages, page), damaged
	}
	length := 1 + r.IntN(n)
	return fmt.Sprintf("truncated to %d bytes", length), damaged[:length]
}

// TestDamagedFiles damages copies of a file, each in another way, and has a process of
// its own use each: no value may be wrong, and no process may die or hang. A file that
// is not refused has all entries still.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	path := tempFile(t)
	c := open(t, path, "sync=false")
	for key, value := range damagedValues() {
		mustSet(t, c, key, value, time.Hour)
	}
	for i := range 300 { // leave free pages behind
		mustSet(t, c, fmt.Sprint("gone", i), randomBytes(uint64(i), 1000), time.Hour)
	}
	if err := l2cache.DeletePattern(t.Context(), c, "gone*"); err != nil {
		t.Fatal(err)
	}
	mustSet(t, c, "short0", damagedValues()["short0"], time.Hour)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := used(t, whole)

	var mu sync.Mutex
	outcomes := map[string]int{} // guarded by mu
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for seed := range uint64(*damages) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name, damaged := damage(whole, n, seed)
			options := "on_damage=fail"
			if seed/4%2 == 1 {
				options = "on_damage=set-aside"
			}
			outcome := tryDamaged(t, fmt.Sprintf("seed %d: %s: %s", seed, name, options), damaged, options)
			mu.Lock()
			outcomes[outcome]++
			mu.Unlock()
		})
	}
	wg.Wait()
	t.Logf("of %d files, %v", *damages, outcomes)
	if *damages >= 200 && (outcomes["refused"] == 0 || outcomes["set aside"] == 0) {
		t.Errorf("of %d files, %v", *damages, outcomes)
	}
}

// tryDamaged has a process use a damaged file, and looks at what is left of it.
func tryDamaged(t *testing.T, name string, damaged []byte, options string) (outcome string) {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Error(err)
		return "not tried"
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "cache.db")
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Error(err)
		return "not tried"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // by then it hangs
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), damagedFile+"="+path, damagedFile+"_OPTIONS="+options)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %.1000s", name, err, out)
		return "failed"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	outcome, rest, _ := strings.Cut(line, ": ")
	kept := path
	switch outcome {
	case "whole":
		return outcome
	case "set aside":
		kept = rest
	}
	if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, damaged) {
		t.Errorf("%s: %s: %d bytes are left of it, %v; want the %d as they were", name, outcome, len(got), err, len(damaged))
	}
	return outcome
}
