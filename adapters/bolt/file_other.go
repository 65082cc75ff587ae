//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package bolt

import "os"

// tryLock opens the file. The lock that bbolt has on the database is enough where
// an open file cannot be removed.
func tryLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

func syncDir(string) error { return nil }

// abandon closes a file that bbolt has mapped and cannot be asked to close any
// more. The map stays.
func abandon(f *os.File) error { return f.Close() }
