package tiered_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// With a wall clock that is an hour ahead, or an hour behind, of the servers' and of other
// machines'. A program gets such a clock by a copy of package time that adds to it; the
// monotonic clock is as it was.
func TestShiftedClock(t *testing.T) {
	if _, shifted := os.LookupEnv(shiftVariable); shifted {
		return // this is the program
	}
	program := buildShifted(t)
	for _, shift := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(shift.String(), func(t *testing.T) {
			t.Run("fire", func(t *testing.T) {
				t.Parallel()
				out := runShifted(t, program, shift, "^(TestFire|TestClockIsShifted)$", "-fire.share=5")
				for line := range strings.Lines(out) {
					if strings.Contains(line, "within") {
						t.Log(strings.TrimSpace(line))
					}
				}
				for name := range urls {
					if !strings.Contains(out, "--- PASS: TestFire/"+name+" ") {
						t.Errorf("TestFire/%s has not passed", name)
					}
				}
			})
			for name := range urls {
				t.Run("writer on "+name, func(t *testing.T) {
					t.Parallel()
					shiftedWriter(t, program, shift, name)
				})
			}
		})
	}
}

func runShifted(t *testing.T, program string, shift time.Duration, tests string, args ...string) (out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append(args, "-test.v", "-test.count=1", "-test.run="+tests)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", shiftVariable, int(shift.Seconds())), fmt.Sprintf("L2CACHE_TEST_NOW=%d", time.Now().Unix()))
	stdout, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(stdout), "--- PASS: TestClockIsShifted") {
		t.Fatalf("%v\n%s", err, stdout)
	}
	return string(stdout)
}

const (
	writtenKeys = 50
	writtenFor  = 5 * time.Second
)

var writeTo = flag.String("write", "", "the backend that TestWrite writes to")

// TestWrite is run by TestShiftedClock.
func TestWrite(t *testing.T) {
	if *writeTo == "" {
		return // an ordinary run
	}
	l2, err := l2cache.Open(t.Context(), *writeTo)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Close()
	for i := range writtenKeys {
		put(t, l2, fmt.Sprint(i), "v", writtenFor)
	}
}

// shiftedWriter reads what a program whose clock is another has written. Where the server's
// clock decides, that is as ever. Else its entries have ended an hour ago for this reader,
// or they end too late, and then L1 has none for longer than it was set for.
func shiftedWriter(t *testing.T, program string, shift time.Duration, name string) {
	url := urls[name](t)
	began := time.Now()
	runShifted(t, program, shift, "^(TestWrite|TestClockIsShifted)$", "-write="+url)
	written := time.Now()
	l2, err := l2cache.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Close()
	profile := l2cache.ProfileOf(l2)
	cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
	ended := profile.Clock == l2cache.ClientClock && shift < 0
	var hits atomic.Int32
	var wg sync.WaitGroup
	for i := range writtenKeys {
		wg.Go(func() {
			key := fmt.Sprint(i)
			r, err := cache.Get(t.Context(), key)
			if ended {
				wantMiss(t, key, r, err)
				return
			}
			if errors.Is(err, l2cache.ErrNotFound) && time.Since(began) > writtenFor {
				return
			}
			if err != nil || string(r.Value) != "v" || r.TTL > writtenFor {
				t.Errorf("Get(%q) = %q, %v, %v; want v, with %v left at most", key, r.Value, r.TTL, err, writtenFor)
				return
			}
			end := time.Now().Add(writtenFor)
			if profile.Clock == l2cache.ServerClock {
				end = written.Add(writtenFor + profile.Resolution)
			}
			for {
				asked := time.Now()
				r, err := cache.Get(t.Context(), key, tiered.SkipL2())
				if err != nil {
					return
				}
				hits.Add(1)
				if asked.Add(r.TTL).After(end) {
					t.Errorf("L1 has %q with %v left, %v before it has to be gone", key, r.TTL, end.Sub(asked))
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	t.Logf("L1 answered %d times", hits.Load())
	if hits.Load() == 0 && !ended {
		t.Error("L1 never had an entry")
	}
}

const shiftVariable = "L2CACHE_TEST_SHIFT"

// TestClockIsShifted is run by TestShiftedClock.
func TestClockIsShifted(t *testing.T) {
	shift, err := strconv.Atoi(os.Getenv(shiftVariable))
	if err != nil {
		return // an ordinary run
	}
	now, err := strconv.ParseInt(os.Getenv("L2CACHE_TEST_NOW"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Now().Unix() - now - int64(shift); off < 0 || off > 60 {
		t.Errorf("the clock is %d s off what it should be", off)
	}
}

// buildShifted builds this test with a package time whose wall clock is shiftVariable
// seconds ahead.
func buildShifted(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	patched := string(source)
	for _, p := range [][2]string{
		{"import (\n", "import (\n\t\"syscall\"\n"},
		{"sec, nsec, mono := runtimeNow()\n\tif mono == 0", "sec, nsec, mono := runtimeNow()\n\tsec += shift\n\tif mono == 0"},
	} {
		if strings.Count(patched, p[0]) != 1 {
			t.Fatalf("%s has %q %d times, want once", file, p[0], strings.Count(patched, p[0]))
		}
		patched = strings.Replace(patched, p[0], p[1], 1)
	}
	patched += `
var shift = func() int64 {
	s, _ := syscall.Getenv("` + shiftVariable + `")
	n, _ := atoi(s)
	return int64(n)
}()
`
	copied := filepath.Join(dir, "time.go")
	overlay := filepath.Join(dir, "overlay.json")
	for name, content := range map[string]string{copied: patched, overlay: fmt.Sprintf(`{"Replace":{%q:%q}}`, file, copied)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "shifted.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return program
}
