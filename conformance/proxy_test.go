package conformance_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l2cache/l2cache/conformance"
)

// echoServer answers each line with the same line, until the test ends.
func echoServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// A line is a client of an echo server.
type line struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialLine(t *testing.T, addr string) *line {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &line{t, c, bufio.NewReader(c)}
}

// ask sends text and returns what comes back, up to its last byte, within d.
func (l *line) ask(text string, d time.Duration) (string, error) {
	l.t.Helper()
	l.SetDeadline(time.Now().Add(d))
	if _, err := io.WriteString(l, text); err != nil {
		return "", err
	}
	got := make([]byte, len(text))
	n, err := io.ReadFull(l.r, got)
	return string(got[:n]), err
}

func (l *line) wantEcho(text string) {
	l.t.Helper()
	if got, err := l.ask(text, 10*time.Second); got != text || err != nil {
		l.t.Fatalf("echo of %d bytes = %d bytes, %v; want them back", len(text), len(got), err)
	}
}

func newProxy(t *testing.T) *conformance.Proxy {
	t.Helper()
	p, err := conformance.NewProxy(echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestProxyForwards(t *testing.T) {
	p := newProxy(t)
	a, b := dialLine(t, p.Addr()), dialLine(t, p.Addr())
	a.wantEcho(strings.Repeat("a", 100_000))
	b.wantEcho("b")
	// The end of what a client sends ends what it gets.
	a.Conn.(*net.TCPConn).CloseWrite()
	if n, err := a.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read after CloseWrite = %d, %v; want EOF", n, err)
	}
	b.wantEcho("b")
}

func TestProxyRefuses(t *testing.T) {
	p := newProxy(t)
	a := dialLine(t, p.Addr())
	a.wantEcho("a")
	for range 3 {
		p.Refuse()
		p.Refuse()
		if got, err := a.ask("a", 10*time.Second); err == nil {
			t.Errorf("echo through a proxy that refuses = %q, want an error", got)
		}
		if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial = %v, %v; want it refused", c, err)
		}
		for range 2 {
			if err := p.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		a = dialLine(t, p.Addr())
		a.wantEcho("a")
	}
}

func TestProxyResets(t *testing.T) {
	p := newProxy(t)
	a := dialLine(t, p.Addr())
	a.wantEcho("a")
	p.Reset()
	a.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := a.r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read of a connection that was reset = %v, want ECONNRESET", err)
	}
	dialLine(t, p.Addr()).wantEcho("b")
}

func TestProxyStalls(t *testing.T) {
	p := newProxy(t)
	a := dialLine(t, p.Addr())
	a.wantEcho("a")
	p.Stall()
	p.Stall()
	b := dialLine(t, p.Addr()) // accepted all the same
	for _, l := range []*line{a, b} {
		if got, err := l.ask("x", 50*time.Millisecond); err == nil || got != "" {
			t.Errorf("echo through a stalled proxy = %q, %v; want a timeout", got, err)
		}
	}
	p.Resume()
	p.Resume()
	for _, l := range []*line{a, b} {
		l.SetDeadline(time.Now().Add(10 * time.Second))
		if c, err := l.r.ReadByte(); c != 'x' || err != nil {
			t.Errorf("Read after Resume = %q, %v; want what was sent before", c, err)
		}
		l.wantEcho("y")
	}
}

func TestProxyDelays(t *testing.T) {
	p := newProxy(t)
	a := dialLine(t, p.Addr())
	const d = 40 * time.Millisecond
	p.Delay(d)
	begin := time.Now()
	a.wantEcho("a")
	if took := time.Since(begin); took < 2*d {
		t.Errorf("a round trip took %v, want at least two delays of %v", took, d)
	}
	p.Delay(0)
	a.wantEcho("b")
}

func TestProxyCuts(t *testing.T) {
	p := newProxy(t)
	const text = "0123456789"
	for n := range len(text) {
		a, b := dialLine(t, p.Addr()), dialLine(t, p.Addr())
		a.wantEcho(text)
		b.wantEcho(text)
		p.CutMidReply(n)
		after := dialLine(t, p.Addr())
		for _, l := range []*line{a, b} {
			if got, err := l.ask(text, 10*time.Second); got != text[:n] || err == nil {
				t.Errorf("echo cut after %d bytes = %q, %v; want %q and an error", n, got, err, text[:n])
			}
		}
		after.wantEcho(text)
	}
	// The bytes count over several replies.
	a := dialLine(t, p.Addr())
	a.wantEcho(text)
	p.CutMidReply(len(text) + 3)
	a.wantEcho(text)
	if got, err := a.ask(text, 10*time.Second); got != text[:3] || err == nil {
		t.Errorf("the second echo = %q, %v; want %q and an error", got, err, text[:3])
	}
	b := dialLine(t, p.Addr())
	b.wantEcho(text)
	p.CutMidReply(0)
	p.CutMidReply(-1)
	b.wantEcho(text)
}

func TestProxyOfADeadServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p, err := conformance.NewProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return // it was reset at once
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("Read = %d bytes of a server that is not there, want an error", n)
	}
}

func TestProxyCloses(t *testing.T) {
	p := newProxy(t)
	a := dialLine(t, p.Addr())
	a.wantEcho("a")
	p.Stall()
	a.ask("a", time.Millisecond) // something to forward
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	}
	if got, err := a.ask("a", 10*time.Second); err == nil {
		t.Errorf("echo through a closed proxy = %q, want an error", got)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		c.Close()
		t.Error("Dial of a closed proxy = nil, want an error")
	}
}
