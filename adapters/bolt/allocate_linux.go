package bolt

import (
	"errors"
	"os"
	"syscall"
)

// allocate gives the file size bytes of the disk, where the file system can tell
// whether it has them.
func allocate(f *os.File, size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case err == nil, errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
		return nil
	case err == syscall.EINTR:
		return allocate(f, size)
	}
	return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}
