package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Proxy is a TCP proxy on the loopback interface in front of one server. It
// breaks the connections that go through it, as it is told:
//
//	proxy, err := conformance.NewProxy("127.0.0.1:6379")
//	…
//	defer proxy.Close()
//	conformance.Run(t, openAt(proxy.Addr()), &conformance.Options{Faults: proxy.Faults()})
//
// The server itself goes on running, and keeps what it has stored. All methods may
// be called at any time, from any goroutine.
type Proxy struct {
	server    string
	addr      string
	listeners chan net.Listener // to accept from, one after another
	ended     sync.WaitGroup    // goroutines

	mu       sync.Mutex
	listener net.Listener       // nil while connections are refused; guarded by mu
	links    map[*link]struct{} // guarded by mu
	stalled  chan struct{}      // closed by Resume; nil when not stalled; guarded by mu
	delay    time.Duration      // guarded by mu
	closed   bool               // guarded by mu
}

// A link is a connection through the proxy.
type link struct {
	client, server net.Conn
	cut            bool // after budget more bytes of replies; guarded by Proxy.mu
	budget         int  // guarded by Proxy.mu
	closing        sync.Once
	closed         chan struct{}
}

// dialTimeout bounds the connecting to the server, relisten the wait for a port
// that another process uses meanwhile.
const (
	dialTimeout = 5 * time.Second
	relisten    = 5 * time.Second
)

// NewProxy returns a proxy in front of server, host:port, which need not be up.
func NewProxy(server string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("conformance: proxy: %w", err)
	}
	p := &Proxy{
		server: server, addr: l.Addr().String(), listener: l,
		listeners: make(chan net.Listener, 1), links: map[*link]struct{}{},
	}
	p.listeners <- l
	p.ended.Go(func() {
		for l := range p.listeners {
			p.serve(l)
		}
	})
	return p, nil
}

// Addr is where the proxy listens, host:port. It never changes.
func (p *Proxy) Addr() string { return p.addr }

// Faults are all hooks, by way of the proxy: Down is Refuse and Up is Accept.
func (p *Proxy) Faults() *Faults {
	return &Faults{
		Down:        func(context.Context) error { p.Refuse(); return nil },
		Up:          func(context.Context) error { return p.Accept() },
		Stall:       func(context.Context) error { p.Stall(); return nil },
		Resume:      func(context.Context) error { p.Resume(); return nil },
		CutMidReply: func(_ context.Context, n int) error { p.CutMidReply(n); return nil },
	}
}

// Refuse resets all connections and refuses new ones, until Accept.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	l := p.listener
	p.listener = nil
	p.mu.Unlock()
	if l != nil {
		l.Close()
	}
	p.Reset()
}

// Accept ends Refuse. The error is that the port has been taken meanwhile.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.closed {
		return nil
	}
	var l net.Listener
	var err error
	for end := time.Now().Add(relisten); l == nil; time.Sleep(10 * time.Millisecond) {
		if l, err = net.Listen("tcp", p.addr); err != nil && time.Now().After(end) {
			return fmt.Errorf("conformance: proxy: %w", err)
		}
	}
	p.listener = l
	p.listeners <- l
	return nil
}

// Stall keeps and accepts connections, and forwards nothing, until Resume.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// Resume ends Stall: what was sent meanwhile is forwarded, late.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// Delay has each piece that is forwarded, in either direction, wait for d first;
// 0 ends it.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// CutMidReply forwards n more bytes of the server's on each connection that is
// open, and closes it in place of the next byte. With a negative n, connections
// for which that is still to come are left alone.
func (p *Proxy) CutMidReply(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut, l.budget = n >= 0, n
	}
}

// Reset resets all connections.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if c, ok := l.client.(*net.TCPConn); ok {
			c.SetLinger(0)
		}
		l.close()
	}
}

// Close closes all connections and waits until nothing of the proxy is left.
func (p *Proxy) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	if first {
		close(p.listeners)
	}
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for l := range p.links {
		l.close()
	}
	p.mu.Unlock()
	p.ended.Wait()
	return nil
}

func (p *Proxy) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // it was closed
		}
		p.ended.Go(func() { p.connect(client) })
	}
}

// connect links a client to the server, until one of them closes.
func (p *Proxy) connect(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.server, dialTimeout)
	if err != nil {
		if c, ok := client.(*net.TCPConn); ok {
			c.SetLinger(0)
		}
		client.Close()
		return
	}
	l := &link{client: client, server: server, closed: make(chan struct{})}
	defer l.close()
	p.mu.Lock()
	if p.closed || p.listener == nil {
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.forward(l, server, client, false) })
	both.Go(func() { p.forward(l, client, server, true) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// forward copies from one end of l to the other, and passes on that it is over.
func (p *Proxy) forward(l *link, to, from net.Conn, reply bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.wait(l) {
			return
		}
		whole := true
		if reply {
			n, whole = p.allow(l, n)
		}
		if _, failed := to.Write(buf[:n]); failed != nil || !whole {
			l.close()
			return
		}
		if err == io.EOF {
			to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			l.close()
			return
		}
	}
}

// wait waits for the delay, and while the proxy is stalled. It reports whether the
// link is still open.
func (p *Proxy) wait(l *link) bool {
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.closed:
			return false
		}
	}
	for {
		p.mu.Lock()
		stalled := p.stalled
		p.mu.Unlock()
		if stalled == nil {
			return true
		}
		select {
		case <-stalled:
		case <-l.closed:
			return false
		}
	}
}

// allow returns how many of n bytes of a reply may pass, and whether that is all.
func (p *Proxy) allow(l *link, n int) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.cut {
		return n, true
	}
	if n > l.budget {
		return l.budget, false
	}
	l.budget -= n
	return n, true
}

func (l *link) close() {
	l.closing.Do(func() {
		close(l.closed)
		l.client.Close()
		l.server.Close()
	})
}
