package servertest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestServersDieWithTheTest kills a test process and wants the server that it
// started gone.
func TestServersDieWithTheTest(t *testing.T) {
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			if _, err := d.kind.find(); err != nil {
				SkipOrFail(t, err)
			}
			cmd := runSelf(t, "TestStarter", "SERVERTEST_START="+name)
			addr, dir := started(t, cmd)
			defer os.RemoveAll(dir)
			if _, err := net.Dial("tcp", addr); err != nil {
				t.Fatal(err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			for deadline := time.Now().Add(10 * time.Second); ; {
				conn, err := net.Dial("tcp", addr)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err == nil {
					conn.Close()
				}
				if time.Now().After(deadline) {
					t.Fatalf("dial of a server whose test was killed: %v, want %v", err, syscall.ECONNREFUSED)
				}
			}
		})
	}
}

// started starts a TestStarter and returns what it says of its server.
func started(t *testing.T, cmd *exec.Cmd) (addr, dir string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "started %s %s", &addr, &dir); n == 2 {
			return addr, dir
		}
	}
	t.Fatalf("the test process did not start its server: %v", cmd.Wait())
	return
}

// TestStarter is the process to be killed.
func TestStarter(t *testing.T) {
	name := os.Getenv("SERVERTEST_START")
	if name == "" {
		return
	}
	s := own(t, dialects[name].start, nil)
	fmt.Printf("started %s %s\n", s.Addr, s.Dir)
	select {}
}
