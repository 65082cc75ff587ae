//go:build unix

package memcached

import "syscall"

// quiet reports whether the connection is open and the server has sent nothing on
// it. It does not wait. Between requests a server has nothing to say, so what there
// is to read then is the end of the stream, a TLS alert in front of it, or the rest
// of an answer that somebody left.
func quiet(c syscall.RawConn) bool {
	var err error
	// Control, as Read would look at the deadline of the last request.
	if c.Control(func(fd uintptr) {
		var b [1]byte
		_, err = syscall.Read(int(fd), b[:])
	}) != nil {
		return false
	}
	return err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
}
