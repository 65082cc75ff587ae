package mutants

import (
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
)

// A server holds the entries of all namespaces. It can be taken down and
// stalled, as conformance.Faults wants it, and looked into from behind.
type server struct {
	keepsData bool          // over a restart
	lazy      bool          // it never gives back the space of what has expired
	goesDown  func(rs rows) // what going down does to a namespace; nil: nothing more
	memo      sync.Map      // for mutants whose handles share something
	hubs      sync.Map      // *l2cache.Hub, by namespace

	mu       sync.Mutex
	spaces   map[string]rows // by namespace; guarded by mu
	down     bool            // guarded by mu
	stalled  chan struct{}   // closed by resume; nil when it is not stalled; guarded by mu
	restarts int             // guarded by mu
	warmUp   time.Duration   // how long it refuses connections after Up; guarded by mu
	ready    time.Time       // guarded by mu
	replay   []func()        // to run when it is up again; guarded by mu
	cuts     int             // how often CutMidReply was called; guarded by mu
	cutAfter int             // how many bytes it lets pass; guarded by mu
	locked   map[string]bool // namespaces that an exclusive handle has open; guarded by mu
}

// rows are the entries of a namespace.
type rows map[string]row

// A row is an entry as it is stored. Its value is never written to once it is here.
type row struct {
	value    []byte
	sum      uint32        // of value
	foreign  bool          // of a type that is not the client's
	ttl      time.Duration // as stored
	deadline time.Time     // zero: never
}

func newServer(keepsData bool) *server {
	return &server{keepsData: keepsData, spaces: map[string]rows{}, locked: map[string]bool{}}
}

var (
	errRefused   = errors.New("connection refused")
	errNoReply   = errors.New("no reply in time")
	errWrongType = errors.New("the key holds a value of another type")
	errDamaged   = errors.New("the checksum does not fit")
	errCut       = errors.New("unexpected EOF")
)

// do runs f on the rows of a namespace in one atomic step, once the server
// answers.
func (s *server) do(q request, namespace string, f func(rows, time.Time)) error {
	for {
		stalled, err := s.try(namespace, f)
		if stalled == nil {
			return err
		}
		if err := q.wait(stalled, 0); err != nil {
			return err
		}
	}
}

// try is do, unless the server is stalled: then it returns what to wait for.
func (s *server) try(namespace string, f func(rows, time.Time)) (stalled chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down || time.Now().Before(s.ready):
		return nil, errRefused
	case s.stalled != nil:
		return s.stalled, nil
	}
	if s.spaces[namespace] == nil {
		s.spaces[namespace] = rows{}
	}
	f(s.spaces[namespace], time.Now())
	return nil, nil
}

// behind has the server run f without a handle, unless it is down or stalled.
func (c *client) behind(f func(rows, time.Time)) { c.s.try(c.namespace, f) }

// A request is a call on its way to the server and back.
type request struct {
	ctx     context.Context // the caller's
	closed  <-chan struct{} // of the handle
	expires time.Time       // by the client's own timeout
}

// wait waits for ready, or for d if that is not zero, unless the request ends.
func (q request) wait(ready <-chan struct{}, d time.Duration) error {
	expired := time.NewTimer(time.Until(q.expires))
	defer expired.Stop()
	var passed <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		passed = timer.C
	}
	select {
	case <-ready:
		return nil
	case <-passed:
		return nil
	case <-q.ctx.Done():
		return q.ctx.Err()
	case <-q.closed:
		return l2cache.ErrClosed
	case <-expired.C:
		return errNoReply
	}
}

func (s *server) faults() *conformance.Faults {
	locked := func(f func()) func(context.Context) error {
		return func(context.Context) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			f()
			return nil
		}
	}
	return &conformance.Faults{
		Down: locked(func() {
			s.down = true
			if !s.keepsData {
				clear(s.spaces)
			}
			for _, rs := range s.spaces {
				if s.goesDown != nil {
					s.goesDown(rs)
				}
			}
		}),
		Up: locked(func() {
			s.down = false
			s.ready = time.Now().Add(s.warmUp)
			s.restarts++
			s.reconnected()
			for _, f := range s.replay {
				go f()
			}
			s.replay = nil
		}),
		Stall: locked(func() { s.stalled = make(chan struct{}) }),
		Resume: locked(func() {
			if s.stalled != nil { // the watchdog of a case may have been here
				close(s.stalled)
				s.stalled = nil
			}
		}),
		CutMidReply: func(_ context.Context, n int) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.cuts++
			s.cutAfter = n
			return nil
		},
	}
}

// replyLen is how many bytes the simulated connection needs for any reply.
const replyLen = 64

// reply is the way back of a request that was done: it fails if the connection of c
// is cut before the reply is over.
func (c *client) reply() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.cuts != c.s.cuts {
		c.cuts, c.passed = c.s.cuts, 0
		c.armed = c.s.cutAfter >= 0
	}
	if !c.armed {
		return nil
	}
	c.passed += replyLen
	if c.passed > c.s.cutAfter {
		c.armed = false // the next connection is whole
		return errCut
	}
	return nil
}

func (s *server) raw() *conformance.Raw {
	damage := func(name string, f func(*row)) conformance.Damage {
		return conformance.Damage{Name: name, Do: func(_ context.Context, namespace, key string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			r, ok := s.spaces[namespace][key]
			if !ok {
				return errors.New("there is no such key")
			}
			f(&r)
			s.spaces[namespace][key] = r
			return nil
		}}
	}
	return &conformance.Raw{
		Stored: func(_ context.Context, namespace, key string) (bool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.lazy {
				s.reclaimLocked(namespace)
			}
			_, ok := s.spaces[namespace][key]
			return ok, nil
		},
		Damage: []conformance.Damage{
			damage("foreign type", func(r *row) { *r = row{foreign: true} }),
			damage("foreign writer", func(r *row) { *r = row{value: []byte("plain text")} }),
			damage("truncated", func(r *row) { r.value = r.value[:len(r.value)/2] }),
			damage("bit flip", func(r *row) {
				r.value = append([]byte{}, r.value...)
				r.value[0] ^= 1
			}),
		},
	}
}

// reclaimLocked drops what has expired. A server would do so from time to time;
// nobody can tell that this one does it when asked.
func (s *server) reclaimLocked(namespace string) {
	now := time.Now()
	for name, r := range s.spaces[namespace] {
		if !isLive(r, now) {
			delete(s.spaces[namespace], name)
		}
	}
}

// lock takes a namespace for one handle, false if another has it.
func (s *server) lock(namespace string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked[namespace] {
		return false
	}
	s.locked[namespace] = true
	return true
}

func (s *server) unlock(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locked, namespace)
}

func isLive(r row, now time.Time) bool { return r.deadline.IsZero() || now.Before(r.deadline) }

func checksum(value []byte) uint32 { return crc32.ChecksumIEEE(value) + 1 } // of nothing it is not 0
