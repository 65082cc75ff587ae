//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package bolt

import "os"

// A lockFile is open. The lock that bbolt has on the database is enough where an
// open file cannot be removed.
type lockFile struct {
	*os.File
	isNew bool
}

// drop closes the file, and removes it if it was not there before.
func (l lockFile) drop() {
	l.Close()
	if l.isNew {
		os.Remove(l.Name())
	}
}

func tryLock(path string) (lockFile, error) {
	f, isNew, err := create(path)
	return lockFile{f, isNew}, err
}

func syncDir(string) error { return nil }

// abandon closes a file that bbolt has mapped and cannot be asked to close any
// more. The map stays.
func abandon(f *os.File) error { return f.Close() }
