//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package bolt

import (
	"errors"
	"os"
	"syscall"
)

// A lockFile is locked for as long as it is open.
type lockFile struct {
	*os.File
	isNew bool
}

// drop gives the lock up, and removes the file if it was not there before. Who has
// opened it meanwhile finds that out.
func (l lockFile) drop() {
	if l.isNew {
		os.Remove(l.Name())
	}
	l.Close()
}

// tryLock opens the file and locks it. It is errLocked if the file is locked
// already, also by this process.
func tryLock(path string) (lockFile, error) {
	for {
		f, isNew, err := create(path)
		if err != nil {
			return lockFile{}, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			f.Close()
			if err == syscall.EWOULDBLOCK {
				return lockFile{}, errLocked
			}
			return lockFile{}, &os.PathError{Op: "flock", Path: path, Err: err}
		}
		// Who removed it between the two made room for a lock on another file.
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return lockFile{}, err
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(locked, named) {
			return lockFile{f, isNew}, nil
		}
		f.Close()
	}
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// abandon unlocks and closes a file that bbolt has mapped and cannot be asked to
// close any more. The map stays, and without the first it would keep the lock.
func abandon(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
