package servertest

import (
	"fmt"
	"os/exec"
)

// MissingError reports a server program that this machine does not have.
type MissingError struct {
	Server  string
	Install string // the command that brings it
	Err     error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed; run ./scripts/test, or: %s (%v)", e.Server, e.Install, e.Err)
}

func (e *MissingError) Unwrap() error { return e.Err }

// installed finds a program that a Debian package brings.
func installed(program, debian string) func() (string, error) {
	return func() (string, error) {
		path, err := exec.LookPath(program)
		if err != nil {
			return "", &MissingError{Server: program, Install: "apt-get install " + debian, Err: err}
		}
		return path, nil
	}
}
