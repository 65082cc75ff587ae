//go:build unix

package servertest

import (
	"os"
	"syscall"
)

// pause stops a running child, and waits until it has stopped: kill(2) returns
// before the threads of a process that is on another CPU have seen SIGSTOP.
func pause(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.Pid, &status, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err == nil && status.Stopped():
			return nil
		default:
			return os.ErrProcessDone // it died first; whether its exit was reaped here or by Wait is all the same
		}
	}
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
