//go:build !linux

package servertest

import "os/exec"

// spawn starts cmd. Where a parent's death is not signalled, a test process
// that crashes leaves its servers behind.
func spawn(cmd *exec.Cmd) error { return cmd.Start() }
