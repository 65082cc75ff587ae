//go:build !linux

package servertest

import "os"

// goStderr is known on Linux only.
func goStderr() *os.File { return nil }
