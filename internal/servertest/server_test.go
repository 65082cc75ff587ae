package servertest

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestServers(t *testing.T) {
	for name, d := range dialects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own(t, d.start, d.keep) // may build it, or read it from a slow disk: no part of its start

			t.Run("start", func(t *testing.T) { testStart(t, d) })
			t.Run("restart", func(t *testing.T) { testRestart(t, d, (*Server).Restart) })
			t.Run("kill", func(t *testing.T) {
				testRestart(t, d, func(s *Server) error { return errors.Join(s.Kill(), s.Start()) })
			})
			t.Run("pause", func(t *testing.T) { testPause(t, d) })
			t.Run("died", func(t *testing.T) { testDied(t, d) })
			t.Run("port taken", func(t *testing.T) { testPortTaken(t, d) })
			t.Run("bad argument", func(t *testing.T) { testBadArgument(t, d) })
		})
	}
}

func testStart(t *testing.T, d dialect) {
	var s *Server
	var process *os.Process
	t.Run("server", func(t *testing.T) {
		quickest := time.Hour
		for range 3 { // a busy machine slows down some, not all
			begin := time.Now()
			s = own(t, d.start, d.keep)
			quickest = min(quickest, time.Since(begin))
		}
		t.Logf("ready after %v", quickest)
		if quickest > time.Second {
			t.Errorf("ready after %v, want less than 1s", quickest)
		}
		process = s.proc.cmd.Process
		check(t, d, s, false)
	})
	if err := process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the process after the test: %v, want %v", err, os.ErrProcessDone)
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder after the test: %v, want that it does not exist", err)
	}
}

// check fails the test unless a new connection finds the entry, or does not.
func check(t *testing.T, d dialect, s *Server, want bool) {
	t.Helper()
	found, err := d.get(dial(t, s))
	if found != want || err != nil {
		t.Errorf("get = %v, %v; want %v", found, err, want)
	}
}

func testRestart(t *testing.T, d dialect, restart func(*Server) error) {
	t.Parallel()
	s := own(t, d.start, d.keep)
	addr := s.Addr
	if err := d.set(dial(t, s)); err != nil {
		t.Fatal("set:", err)
	}
	check(t, d, s, true)
	if err := restart(s); err != nil {
		t.Fatal(err)
	}
	if s.Addr != addr {
		t.Errorf("the address went from %s to %s", addr, s.Addr)
	}
	check(t, d, s, d.keeps)
}

func testPause(t *testing.T, d dialect) {
	t.Parallel()
	s := own(t, d.start, d.keep)
	w := dial(t, s)
	if err := d.set(w); err != nil {
		t.Fatal("set:", err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal("Pause:", err)
	}
	if _, err := d.get(w); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("get from a paused server: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	if err := s.Resume(); err != nil {
		t.Fatal("Resume:", err)
	}
	check(t, d, s, true)

	if err := s.Pause(); err != nil {
		t.Fatal("Pause:", err)
	}
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Fatal("Stop of a paused server:", err)
	}
	if took := time.Since(begin); took >= stopTimeout {
		t.Errorf("Stop of a paused server took %v: it did not end by itself", took)
	}
}

func testDied(t *testing.T, d dialect) {
	t.Parallel()
	s := own(t, d.start, d.keep)
	p := s.proc
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if err := s.Pause(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Pause of a server that died = %v, want %v", err, os.ErrProcessDone)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("Stop of a server that died = %v, want nil", err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	check(t, d, s, false)
}

func testPortTaken(t *testing.T, d dialect) {
	t.Parallel()
	var taken string
	s, err := start(d.kind, d.keep, func() (*port, error) {
		p, err := reserve()
		if err == nil && taken == "" {
			taken = p.addr()
			ln, err := net.Listen("tcp", taken)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}
		return p, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Addr == taken {
		t.Errorf("the server is at %s, which is taken", s.Addr)
	}
	check(t, d, s, false)
}

func testBadArgument(t *testing.T, d dialect) {
	t.Parallel()
	s, err := d.start("--no-such-argument")
	if err == nil {
		s.Close()
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), "no-such-argument") {
		t.Errorf("the error does not say what the server says: %v", err)
	}
}

func TestReserveExcludesOthers(t *testing.T) {
	p, err := reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	if lock, err := net.ListenPacket("udp", p.addr()); err == nil {
		lock.Close()
		t.Errorf("a reserved port can be reserved again")
	}
}

func TestShared(t *testing.T) {
	server := Shared(StartRedis)
	var first *Server
	t.Run("first", func(t *testing.T) { first = server(t) })
	t.Run("second", func(t *testing.T) {
		second := server(t)
		if second != first {
			t.Errorf("got %p, want the server of the first test, %p", second, first)
		}
		check(t, dialects["redis"], second, false)
	})
}
