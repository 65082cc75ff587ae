// Package servertest runs real servers for tests: redis-server and memcached
// as the system has them, and the nats-server that tools.mod pins. Each has a
// free loopback port and a temporary folder of its own, so tests share nothing
// with each other or with a server that happens to run on the machine.
//
//	func TestGet(t *testing.T) {
//		srv := servertest.Redis(t)
//		client := dial(srv.Addr)
//		…
//		srv.Pause() // the server stalls, its connections stay open
//	}
//
// Arguments after t go to the server's command line, in its own words:
//
//	servertest.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
//	servertest.Redis(t, "--unixsocket", "redis.sock") // in srv.Dir
//
// A server starts in milliseconds, but a package with many tests may share
// one: see [Shared]. On Linux no server outlives the test process, however
// that ends.
//
// # When a server is not installed
//
// A test that asks for a server that is not there is skipped, and says so on
// the standard error of the go command, as go test ./... shows nothing that a
// passing package prints. (That is on Linux; elsewhere -v shows it.)
// L2CACHE_REQUIRE_SERVERS=1, which ./scripts/test sets, makes every such test
// fail.
package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 15 * time.Second // a start takes milliseconds; this is for a machine that is short of CPU
	stopTimeout  = 5 * time.Second  // from SIGTERM to SIGKILL
)

// Server is a server process that a test may stop, kill, stall and start
// again. It keeps its address and its folder through all of these. The methods
// may be called from any goroutine.
type Server struct {
	Addr string // host:port
	Dir  string // the server's working directory: its data and its logs

	kind *kind
	path string // of the executable
	args []string
	port *port

	mu     sync.Mutex
	proc   *process // guarded by mu; nil if not running
	starts int      // guarded by mu; numbers the logs
}

// kind is what there is to know about one server program.
type kind struct {
	name  string
	find  func() (path string, err error)
	args  func(host, port, dir string) []string
	ready func(net.Conn) error // asks on a new connection whether the server serves
}

type process struct {
	cmd    *exec.Cmd
	log    string        // the file that has its output
	exited chan struct{} // closed once the process is reaped
	paused bool          // guarded by Server.mu
}

// start makes a server and starts it, on another port for as long as somebody
// else is quicker to take the one that reserve found free.
func start(k *kind, args []string, reserve func() (*port, error)) (*Server, error) {
	path, err := k.find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "l2cache-"+k.name+"-")
	if err != nil {
		return nil, err
	}
	for range 10 {
		var p *port
		if p, err = reserve(); err != nil {
			break
		}
		s := &Server{Addr: p.addr(), Dir: dir, kind: k, path: path, port: p}
		s.args = append(k.args(p.host, p.number, dir), args...)
		if err = s.Start(); err == nil {
			return s, nil
		}
		p.release()
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	os.RemoveAll(dir)
	return nil, err
}

// Start starts the server where it was before, and returns once it serves.
// It does nothing if the server is running.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runningLocked() {
		return nil
	}
	s.starts++
	p := &process{
		cmd:    exec.Command(s.path, s.args...),
		log:    filepath.Join(s.Dir, fmt.Sprintf("%s.%d.log", s.kind.name, s.starts)),
		exited: make(chan struct{}),
	}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd.Dir = s.Dir
	p.cmd.Stdout = log
	p.cmd.Stderr = log
	if err := spawn(p.cmd); err != nil {
		return err
	}
	go func() {
		p.cmd.Wait() // its exit status says nothing that the log does not
		close(p.exited)
	}()
	if err := s.awaitReady(p); err != nil {
		p.kill()
		return fmt.Errorf("servertest: %s: %w", s.kind.name, err)
	}
	s.proc = p
	return nil
}

// awaitReady polls until p answers on the server's address.
func (s *Server) awaitReady(p *process) error {
	timeout := time.After(readyTimeout)
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		err := s.probe()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.exited:
			return p.exitError()
		case <-timeout:
			return fmt.Errorf("not ready after %v: %w\n%s", readyTimeout, err, p.logTail())
		}
	}
}

func (s *Server) probe() error {
	const timeout = 250 * time.Millisecond // not longer: a foreigner on our port may never answer
	conn, err := net.DialTimeout("tcp", s.Addr, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	return s.kind.ready(conn)
}

// Stop asks the server to end and waits until it has: what it acknowledged is
// on disk, if it keeps anything there. It does nothing if the server is not
// running.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return nil
	}
	s.proc.terminate()
	s.proc = nil
	return nil
}

// Kill ends the server as a crash does, with SIGKILL. It does nothing if the
// server is not running.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return nil
	}
	s.proc.kill()
	s.proc = nil
	return nil
}

// Restart is Stop and Start.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Pause stalls the server with SIGSTOP: connections stay open, new ones are
// accepted by the kernel, and nothing is answered from Pause's return until
// Resume.
func (s *Server) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.notRunning()
	}
	if s.proc.paused {
		return nil
	}
	err := pause(s.proc.cmd.Process)
	s.proc.paused = err == nil
	return err
}

// Resume lets a paused server go on, with SIGCONT.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return s.notRunning()
	}
	s.proc.paused = false
	return resume(s.proc.cmd.Process)
}

func (s *Server) notRunning() error {
	return fmt.Errorf("servertest: %s at %s: %w", s.kind.name, s.Addr, os.ErrProcessDone)
}

// Close kills the server, removes its folder and gives up its port. The server
// cannot be started again.
func (s *Server) Close() error {
	err := s.Kill()
	s.port.release()
	return errors.Join(err, os.RemoveAll(s.Dir))
}

// Running reports whether the server is running, paused or not.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runningLocked()
}

// runningLocked also notices a process that has ended by itself.
func (s *Server) runningLocked() bool {
	if s.proc == nil {
		return false
	}
	select {
	case <-s.proc.exited:
		s.proc = nil
		return false
	default:
		return true
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}

func (p *process) terminate() {
	p.cmd.Process.Signal(syscall.SIGTERM) // not on Windows, where the timeout below ends it
	resume(p.cmd.Process)                 // a paused process would not see the signal
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

// exitError says why p has ended. It is EADDRINUSE if p's port was taken,
// which only its log tells.
func (p *process) exitError() error {
	tail := p.logTail()
	if bytes.Contains(bytes.ToLower(tail), []byte("address already in use")) {
		return fmt.Errorf("%w\n%s", syscall.EADDRINUSE, tail)
	}
	return fmt.Errorf("%v\n%s", p.cmd.ProcessState, tail)
}

func (p *process) logTail() []byte {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-8000):]
}
