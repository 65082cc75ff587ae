package servertest

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestMissing runs tests of this package where no server is to be found.
func TestMissing(t *testing.T) {
	for _, test := range []struct {
		require string
		run     string
		want    string // what the output has
		pass    bool
	}{
		{"", "TestServers", "--- SKIP: TestServers/redis", true},
		{"", "TestServers", "\nSKIPPED: redis-server is not installed; run ./scripts/test, or: apt-get install redis-server", true},
		{"", "TestServers", "\nSKIPPED: memcached is not installed; run ./scripts/test, or: apt-get install memcached", true},
		{"", "TestServers", "\nSKIPPED: nats-server is not installed; run ./scripts/test, or: ", true},
		{"1", "TestServers", "--- FAIL: TestServers/memcached", false},
	} {
		cmd := runSelf(t, test.run, "PATH=", "L2CACHE_NATS_SERVER=", "L2CACHE_REQUIRE_SERVERS="+test.require)
		cmd.Dir = t.TempDir() // from where no tools.mod is found
		out, err := cmd.CombinedOutput()
		if _, failed := errors.AsType[*exec.ExitError](err); failed == test.pass {
			t.Errorf("L2CACHE_REQUIRE_SERVERS=%s: %s: %v, want success: %v", test.require, test.run, err, test.pass)
		}
		if !strings.Contains(string(out), test.want) {
			t.Errorf("L2CACHE_REQUIRE_SERVERS=%s: %s printed\n%s\nwant %q", test.require, test.run, out, test.want)
		}
	}
}

// TestMissingIsSeen runs go test as one runs it on a machine without servers.
func TestMissingIsSeen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells where the go command prints")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	// Two packages: of one alone, go test shows all output.
	cmd := exec.Command(goTool, "test", "-count=1", "-run=^TestServers$/^(redis|memcached)$", ".", "../batch")
	cmd.Env = append(os.Environ(), "PATH=", "L2CACHE_REQUIRE_SERVERS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go test: %v\n%s", err, out)
	}
	for _, server := range []string{"redis-server", "memcached"} {
		if !strings.Contains(string(out), "SKIPPED: "+server+" is not installed") {
			t.Errorf("go test printed\n%s\nwant that the tests of %s were skipped", out, server)
		}
	}
}

// runSelf returns a command that runs one test of this binary.
func runSelf(t *testing.T, test string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.v", "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each takes a second to exit
	cmd.Env = append(cmd.Env, env...)
	return cmd
}
