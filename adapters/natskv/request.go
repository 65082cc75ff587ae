package natskv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
)

// A requester sends requests over a connection and gives each caller its reply.
//
// nats.Conn could do that by itself (RequestMsgWithContext), but it holds its lock
// while it dials, and while it writes to a socket that the server does not read
// from: for Options.Timeout and Options.FlusherTimeout, whatever the ctx of those
// who wait for the lock. So only a goroutine of the requester publishes, and a
// caller waits for nothing but its reply and its ctx. It is also told at once when
// the connection breaks, where nats.Conn would let it wait.
type requester struct {
	nc      *nats.Conn
	link    *link           // has nc; nil if nc is the caller's
	inbox   string          // before the token of a reply
	changed func()          // called when the connection breaks and when it is back
	closing <-chan struct{} // closed when the backend is
	wake    chan struct{}   // has an element if the queue may have one
	stopped chan struct{}   // closed when run has returned

	alive      sync.Once    // keepAlive runs
	maxPayload atomic.Int64 // of the server; known once there was a reply

	mu          sync.Mutex
	first, last *call                      // guarded by mu; the queue of what run has to send
	pending     map[uint64]*call           // guarded by mu; by token; whoever removes a call ends it
	token       uint64                     // guarded by mu; given out last
	listeners   map[string]func(*nats.Msg) // guarded by mu; by the name of a consumer
	lost        bool                       // guarded by mu; the connection is closed for good
	heard       uint64                     // guarded by mu; counts what comes
	probing     bool                       // guarded by mu; see probeLocked
	away        bool                       // guarded by mu; the connection is broken, and not back
	looking     bool                       // guarded by mu; see lookLaterLocked
	deaf        bool                       // guarded by mu; the server has refused the subscription
	violation   error                      // guarded by mu; see refused
	violatedAt  uint64                     // guarded by mu; the token given out last before that
}

// A call is a request under way.
type call struct {
	request
	index int // in a batch
	token uint64
	heard uint64     // requester.heard when it was queued
	done  chan reply // has room for the one reply; what does not fit in is not waited for

	sent bool  // guarded by requester.mu
	next *call // guarded by requester.mu; in the queue
}

// reply gives the call its reply, or the error in place of one.
func (c *call) reply(m *nats.Msg, err error) {
	select {
	case c.done <- reply{c.index, m, err}:
	default:
	}
}

type request struct {
	subject string
	header  nats.Header // may be shared
	data    []byte      // may be read until run has sent it, also after the caller has left
}

type reply struct {
	index int // of the call in its batch
	msg   *nats.Msg
	err   error
}

var (
	errTimeout      = errors.New("no answer within op_timeout")
	errDisconnected = errors.New("not connected")
)

// newRequester returns a requester, whose goroutine ends when closing or the
// connection is closed. The connection is that of link, or else the caller's.
func newRequester(nc *nats.Conn, link *link, closing <-chan struct{}, changed func()) *requester {
	r := &requester{
		nc:        nc,
		link:      link,
		inbox:     nc.NewInbox() + ".",
		changed:   changed,
		closing:   closing,
		wake:      make(chan struct{}, 1),
		stopped:   make(chan struct{}),
		pending:   map[uint64]*call{},
		listeners: map[string]func(*nats.Msg){},
	}
	go r.run()
	return r
}

// do sends q and returns the reply. It returns when ctx ends, at limit (with
// errTimeout) and when the backend is closed, in each case at once.
func (r *requester) do(ctx context.Context, limit time.Time, q request) (*nats.Msg, error) {
	c := &call{request: q, done: make(chan reply, 1)}
	r.enqueue(c)
	m, err := r.await(ctx, limit, c.done)
	if err != nil {
		err = r.abandon(c, err)
	}
	return m, err
}

// repeatAfter is how long doAgain waits for a reply.
const repeatAfter = 200 * time.Millisecond

// doAgain is do for a request that changes nothing: it is sent again until one has a
// reply. What is asked of a stream while it has no leader, nobody answers.
func (r *requester) doAgain(ctx context.Context, limit time.Time, q request) (*nats.Msg, error) {
	done := make(chan reply, 1)
	var calls []*call
	for {
		c := &call{request: q, done: done}
		calls = append(calls, c)
		r.enqueue(c)
		until := time.Now().Add(repeatAfter)
		if limit.Before(until) {
			until = limit
		}
		m, err := r.await(ctx, until, done)
		if err == errTimeout && until != limit {
			continue
		}
		for _, c := range calls {
			err = r.abandon(c, err)
		}
		return m, err
	}
}

// patiently calls f, and again as long as the server says that its part of the cluster
// has no leader just now, until ctx ends or limit. Another server may know of one.
func (r *requester) patiently(ctx context.Context, limit time.Time, f func() error) error {
	for {
		err := f()
		if !isCode(err, codeNotAvailable) || time.Until(limit) < leaderlessFor {
			return err
		}
		select {
		case <-time.After(leaderlessFor):
		case <-ctx.Done():
			return err
		case <-r.closing:
			return err
		}
	}
}

// leaderlessFor is the pause of patiently.
const leaderlessFor = 50 * time.Millisecond

// await returns the reply that comes from done, or else why there is none.
func (r *requester) await(ctx context.Context, limit time.Time, done <-chan reply) (*nats.Msg, error) {
	var expired <-chan time.Time
	if deadline, ok := ctx.Deadline(); !ok || limit.Before(deadline) {
		timer := time.NewTimer(time.Until(limit))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case reply := <-done:
		return reply.msg, reply.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-expired:
		return nil, errTimeout
	case <-r.closing:
		return nil, l2cache.ErrClosed
	}
}

// A batch is requests that are sent without waiting for the replies of those before.
type batch struct {
	n       int
	request func(i int) request // called once for each, in order
	size    func(i int) int     // in bytes, of request or reply, whichever is large
	reply   func(i int, m *nats.Msg, err error)
}

// What a batch has under way at a time. A server ends the connection of a client
// that it has too much to write to (max_pending, 64 MB by default), and holds what
// a stream has not stored yet in memory.
const (
	maxCalls = 256
	maxBytes = 16 << 20
)

// doAll sends a batch, and hands on the reply or the error of each request, in the
// goroutine of the caller. When ctx ends, when for timeout there was no reply, and
// when the backend is closed, all that is left has that error at once; what was not
// sent will not be.
func (r *requester) doAll(ctx context.Context, timeout time.Duration, b batch) {
	calls := make([]*call, b.n) // nil before and after they are under way
	done := make(chan reply, maxCalls)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	sent, bytes := 0, 0
	for answered := 0; answered < b.n; {
		for sent < b.n && sent-answered < maxCalls {
			size := b.size(sent)
			if bytes+size > maxBytes && sent > answered {
				break
			}
			bytes += size
			calls[sent] = &call{request: b.request(sent), index: sent, done: done}
			r.enqueue(calls[sent])
			sent++
		}
		var err error
		select {
		case reply := <-done:
			calls[reply.index] = nil
			bytes -= b.size(reply.index)
			answered++
			timer.Reset(timeout)
			b.reply(reply.index, reply.msg, reply.err)
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-timer.C:
			err = errTimeout
		case <-r.closing:
			err = l2cache.ErrClosed
		}
		for i, c := range calls {
			switch {
			case c != nil:
				b.reply(i, nil, r.abandon(c, err))
			case i >= sent:
				b.reply(i, nil, err)
			}
		}
		return
	}
}

func (r *requester) enqueue(c *call) {
	r.mu.Lock()
	if r.lost {
		r.mu.Unlock()
		c.reply(nil, nats.ErrConnectionClosed)
		return
	}
	r.token++
	c.token, c.heard = r.token, r.heard
	r.pending[c.token] = c
	r.lookLaterLocked()
	if r.first == nil {
		r.first = c
	} else {
		r.last.next = c
	}
	r.last = c
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// abandon gives c up because of err, which it returns, or an error that says more. If
// c has not been sent, it will not be.
func (r *requester) abandon(c *call, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, c.token)
	c.request = request{} // it stays in the queue, its value need not
	r.probeLocked(c.heard)
	if err == errTimeout && r.violatedAt >= c.token {
		return fmt.Errorf("%w, since on the connection: %w", errTimeout, r.violation)
	}
	return err
}

// next takes the oldest call from the queue that somebody still waits for.
func (r *requester) next() (request, uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := r.first; c != nil; c = r.first {
		r.first, c.next = c.next, nil
		if r.pending[c.token] == c {
			c.sent = true
			return c.request, c.token, true
		}
	}
	r.last = nil
	return request{}, 0, false
}

// end ends the call with that token, if it is still under way.
func (r *requester) end(token uint64, m *nats.Msg, err error) {
	r.mu.Lock()
	if m != nil {
		r.heard++
	}
	c := r.pending[token]
	delete(r.pending, token)
	r.mu.Unlock()
	if c != nil {
		c.reply(m, err)
	}
}

// endAll ends the calls that have been sent, or all of them and all to come if the
// connection is lost.
func (r *requester) endAll(err error, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = lost
	for token, c := range r.pending {
		if c.sent || lost {
			delete(r.pending, token)
			c.reply(nil, err)
		}
	}
}

func (r *requester) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// run sends what is queued until closing or the connection is closed.
func (r *requester) run() {
	defer close(r.stopped)
	status := r.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer r.nc.RemoveStatusListener(status)
	r.maxPayload.Store(r.nc.MaxPayload())
	r.listenForViolations()

	var m nats.Msg
	var replies *nats.Subscription
	defer func() {
		if replies != nil {
			replies.Unsubscribe() // fails if the connection is closed, and has none
		}
	}()
	for {
		// A connection that broke before a call came broke for those before it, and
		// not for that one: so the status is looked at first.
		select {
		case s := <-status:
			if r.statusChanged(s); s == nats.CLOSED {
				return
			}
			continue
		default:
		}
		q, token, ok := r.next()
		if !ok {
			select {
			case <-r.closing:
				return
			case s := <-status:
				if r.statusChanged(s); s == nats.CLOSED {
					return
				}
			case <-r.wake:
			}
			continue
		}
		var err error
		if r.takeDeaf() {
			replies.Unsubscribe()
			replies = nil
		}
		if replies == nil {
			replies, err = r.subscribe()
		}
		if err == nil {
			m.Subject, m.Header, m.Data = q.subject, q.header, q.data
			m.Reply = r.inbox + strconv.FormatUint(token, 36)
			err = r.nc.PublishMsg(&m)
		}
		if errors.Is(err, nats.ErrReconnectBufExceeded) { // is what the driver says, as the limit is -1
			err = fmt.Errorf("%w: %w", errDisconnected, err)
		}
		if err != nil {
			r.end(token, nil, err)
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			r.statusChanged(nats.CLOSED)
			return
		}
	}
}

func (r *requester) subscribe() (*nats.Subscription, error) {
	replies, err := r.nc.Subscribe(r.inbox+"*", func(m *nats.Msg) {
		token, isReply := strings.CutPrefix(m.Subject, r.inbox)
		if !isReply { // what a consumer delivers keeps its subject
			r.deliver(m)
			return
		}
		if token, err := strconv.ParseUint(token, 36, 64); err == nil {
			r.end(token, m, nil)
		}
	})
	if err != nil {
		return nil, err
	}
	// There is one reply to a call, so the calls are the limit. What a consumer delivers
	// is taken as fast as it comes.
	return replies, replies.SetPendingLimits(-1, -1)
}

// listen makes f get what a consumer delivers, before the reply to the request for it;
// a nil f ends that.
func (r *requester) listen(consumer string, f func(*nats.Msg)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f == nil {
		delete(r.listeners, consumer)
	} else {
		r.listeners[consumer] = f
	}
}

func (r *requester) deliver(m *nats.Msg) {
	from, err := m.Metadata()
	if err != nil {
		return
	}
	r.mu.Lock()
	r.heard++
	f := r.listeners[from.Consumer]
	r.mu.Unlock()
	if f != nil {
		f(m)
	}
}

func (r *requester) statusChanged(s nats.Status) {
	r.mu.Lock()
	r.away = s != nats.CONNECTED
	r.mu.Unlock()
	switch s {
	case nats.CONNECTED:
		r.maxPayload.Store(r.nc.MaxPayload())
	case nats.CLOSED:
		r.endAll(nats.ErrConnectionClosed, true)
	default:
		r.endAll(errDisconnected, false)
	}
	r.changed()
}
