package memcached_test

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// blackHole returns an address that answers no dial: Linux drops the SYN when the
// queue of connections that wait to be accepted is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*syscall.SockaddrInet4).Port}).String()
	for range 10 {
		conn, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue takes 10 connections, where it should take 1")
	return ""
}

func TestBlackHole(t *testing.T) {
	addr := blackHole(t)
	wantEnds(t, open(t, "memcached://"+addr+"?op_timeout=30s&lazy=true"), ends)
	wantEnds(t, open(t, "memcached://"+addr+"?op_timeout=400ms&lazy=true"), timeouts)
}
