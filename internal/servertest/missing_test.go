package servertest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestInstalled is the one test that fails on a machine without the servers:
// the package doc says why.
func TestInstalled(t *testing.T) {
	accepted := os.Getenv("L2CACHE_REQUIRE_SERVERS") == "0"
	for name, d := range dialects {
		_, err := d.kind.find()
		switch {
		case err == nil:
		case accepted:
			t.Log(err)
		default:
			t.Errorf("tests of %s were skipped: %v\n"+
				"Run them with go test -count=1 ./... once it is there, or accept the skips with L2CACHE_REQUIRE_SERVERS=0.", name, err)
		}
	}
}

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
		{"", "TestInstalled", "--- FAIL: TestInstalled", false},
		{"0", "TestServers", "--- SKIP: TestServers/nats", true},
		{"0", "TestInstalled", "--- PASS: TestInstalled", true},
		{"1", "TestServers", "--- FAIL: TestServers/memcached", false},
		{"1", "TestInstalled", "--- FAIL: TestInstalled", false},
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
