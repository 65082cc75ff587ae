package tiered_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// With Redis the promise does not depend on this machine's clock: the same with a wall
// clock that is an hour ahead, and one that is an hour behind. A program gets such a
// clock by a copy of package time that adds to it; the monotonic clock is as it was.
func TestFireWithAShiftedClock(t *testing.T) {
	if _, shifted := os.LookupEnv(shiftVariable); shifted {
		return // this is the program
	}
	redisServer(t)
	program := buildShifted(t)
	for _, shift := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(shift.String(), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.count=1", "-test.run=^(TestFire|TestClockIsShifted)$/^redis$", "-fire.share=5")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", shiftVariable, int(shift.Seconds())), fmt.Sprintf("L2CACHE_TEST_NOW=%d", time.Now().Unix()))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestFire/redis") || !strings.Contains(string(out), "--- PASS: TestClockIsShifted") {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "within") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

const shiftVariable = "L2CACHE_TEST_SHIFT"

// TestClockIsShifted is run by TestFireWithAShiftedClock.
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
