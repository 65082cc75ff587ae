//go:build !linux

package bolt

import "os"

// allocate does nothing: that the disk is full is found out when the file is written.
func allocate(*os.File, int64) error { return nil }
