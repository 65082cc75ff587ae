package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// smallDisk, in the environment, makes the test binary a process that fills a disk in
// the directory of that name.
const smallDisk = "L2CACHE_TEST_BOLT_SMALL_DISK"

func init() {
	children[smallDisk] = fillDisk
}

// onSmallDisk are the ways to a small disk, which hold for the process that takes them.
var onSmallDisk = map[string]func(dir string) error{
	// No file may be longer than 8 MiB: EFBIG, as on a file system that has a limit.
	"rlimit": func(string) error {
		signal.Ignore(syscall.SIGXFSZ)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 8 << 20, Max: 8 << 20})
	},
	// ENOSPC, in a mount namespace of its own.
	"tmpfs": func(dir string) error {
		return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m")
	},
}

// fillDisk fills a small disk, and says what it finds wrong.
func fillDisk(dir string) (status int) {
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		status = 1
	}
	if err := onSmallDisk[os.Getenv(smallDisk+"_BY")](dir); err != nil {
		fail("no small disk: %v", err)
		return status
	}
	ctx, url := context.Background(), "bolt:"+filepath.Join(dir, "cache.db")+patience
	c, err := l2cache.Open(ctx, url)
	if err != nil {
		fail("Open = %v", err)
		return status
	}
	stored := map[string][]byte{}
	full, size := 0, 0
	for i := 0; full < 20; i++ {
		key, value := fmt.Sprint("key", i), randomBytes(uint64(i), 100+i*997%30_000)
		switch err := c.Set(ctx, key, value, time.Hour); {
		case err == nil:
			stored[key] = value
			size += len(value)
		case errors.Is(err, l2cache.ErrFull):
			full++
		default:
			fail("Set on a full disk = %v, want ErrFull", err)
			return status
		}
	}
	wantStored := func(when string) {
		for key, want := range stored {
			if got, err := c.Get(ctx, key); err != nil || !bytes.Equal(got, want) {
				fail("%s: Get(%q) = %d bytes, %v; want %d", when, key, len(got), err, len(want))
			}
		}
		for info, err := range l2cache.Scan(ctx, c, "") {
			if err != nil || len(stored[info.Key]) != info.Size {
				fail("%s: Scan = %+v, %v; want %d bytes", when, info, err, len(stored[info.Key]))
			}
		}
	}
	wantStored("full")
	n := len(stored)
	for key := range stored {
		if len(stored) <= n/2 {
			break
		}
		if err := c.Delete(ctx, key); err != nil {
			fail("Delete on a full disk = %v", err)
		}
		delete(stored, key)
	}
	wantStored("after deletes")
	if err := c.Set(ctx, "last", []byte("v"), time.Hour); err != nil {
		fail("Set after deletes = %v", err)
	}
	stored["last"] = []byte("v")
	if err := c.Close(); err != nil {
		fail("Close = %v", err)
	}
	if c, err = l2cache.Open(ctx, url); err != nil {
		fail("Open again = %v", err)
		return status
	}
	wantStored("reopened")
	if err := l2cache.DeletePattern(ctx, c, "key*"); err != nil {
		fail("DeletePattern = %v", err)
	}
	fmt.Printf("%d entries, %d MB\n", n, size>>20)
	return status
}

// TestDiskFull fills a disk: a limit of the process, which needs no privilege, and a
// file system, where one may be mounted.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for by := range onSmallDisk {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), smallDisk+"="+t.TempDir(), smallDisk+"_BY="+by)
		if by == "tmpfs" {
			child.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			if os.Getuid() == 0 {
				child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			}
		}
		out, err := child.CombinedOutput()
		// Only a file system can be forbidden; the limit is always there.
		if by == "tmpfs" && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) ||
			strings.HasPrefix(string(out), "no small disk: operation not permitted")) {
			t.Logf("tmpfs: it may not be mounted here (%v %s): the limit has to do", err, bytes.TrimSpace(out))
			continue
		}
		if err != nil {
			t.Errorf("%s: %v: %.1000s", by, err, out)
		}
		t.Logf("%s: %s", by, bytes.TrimSpace(out))
	}
}
