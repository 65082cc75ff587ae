//go:build !unix

package memcached

import "syscall"

// quiet is true: what the server has closed shows when it is used.
func quiet(syscall.RawConn) bool { return true }
