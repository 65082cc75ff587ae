package servertest

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawn starts cmd so that the kernel kills it when this process dies.
//
// What the kernel takes for the parent is the thread that forked, and Go ends
// threads as it likes. So one goroutine, which keeps its thread for as long as
// the process lives, starts them all.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	errc := make(chan error)
	spawner() <- func() { errc <- cmd.Start() }
	return <-errc
}

var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})
