package memcached

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache/internal/batch"
)

const (
	// batchesInFlight and batchKeys are how many reads of one server run at a
	// time, and how many keys one asks for.
	batchesInFlight = 4
	batchKeys       = 128
	// batchBytes is about how much one brings. With more, the first values of an
	// answer wait for the last ones, and the round trip that is saved is nothing
	// next to the time that they take.
	batchBytes = 256 << 10
)

// servers are the connections that the adapter makes itself.
type servers struct {
	selector *Selector
	list     []*server // in the order of the selector's
}

func newServers(life context.Context, selector *Selector, dial dialFunc, opTimeout time.Duration, poolSize int) *servers {
	ss := &servers{selector: selector}
	for _, addr := range selector.addrs {
		s := &server{
			addr: addr, dial: dial, life: life, opTimeout: opTimeout, maxIdle: poolSize,
			open: map[net.Conn]struct{}{},
		}
		s.reads = batch.Group[read]{
			Run: s.run, Alone: s.alone, InFlight: batchesInFlight, Max: func() int { return s.sizes.fit(batchBytes, batchKeys) }, Timeout: opTimeout,
		}
		ss.list = append(ss.list, s)
	}
	return ss
}

func (ss *servers) of(itemKey string) *server { return ss.list[ss.selector.pick(itemKey)] }

func (ss *servers) get(ctx context.Context, itemKey string) (*memcache.Item, error) {
	r := &read{key: itemKey}
	if err := ss.of(itemKey).reads.Do(ctx, r); err != nil {
		return nil, err
	}
	return r.item, r.err
}

func (ss *servers) getMany(ctx context.Context, reads []*read) {
	parts := make([][]*read, len(ss.list))
	for _, r := range reads {
		i := ss.selector.pick(r.key)
		parts[i] = append(parts[i], r)
	}
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { ss.list[i].getMany(ctx, part) })
	}
	wg.Wait()
}

func (ss *servers) write(ctx context.Context, itemKey string, f func(*memcache.Client) error) error {
	s := ss.of(itemKey)
	return s.call(ctx, time.Now().Add(s.opTimeout), f)
}

func (ss *servers) ping(ctx context.Context) error {
	return ss.pingUntil(ctx, time.Now().Add(ss.list[0].opTimeout))
}

// pingUntil asks each server, in the time that there is for all.
func (ss *servers) pingUntil(ctx context.Context, deadline time.Time) error {
	for _, s := range ss.list {
		if err := s.idempotent(ctx, deadline, (*memcache.Client).Ping); err != nil {
			return err
		}
	}
	return nil
}

func (ss *servers) close() {
	for _, s := range ss.list {
		s.close()
	}
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// A server has a pool of links, and reads that share round trips: a server that
// stalls does not hold up the others.
type server struct {
	addr      net.Addr // host:port
	dial      dialFunc
	life      context.Context
	opTimeout time.Duration
	maxIdle   int
	reads     batch.Group[read]
	sizes     sizes

	mu   sync.Mutex
	idle []*link               // guarded by mu; the last one was used last
	open map[net.Conn]struct{} // guarded by mu: of links, idle and in use; nil once closed
}

// PickServer and Each make a server the selector of its links' clients.

func (s *server) PickServer(string) (net.Addr, error) { return s.addr, nil }
func (s *server) Each(f func(net.Addr) error) error   { return f(s.addr) }

// call runs f, which is one call of the client, until ctx ends or the deadline has
// passed.
func (s *server) call(ctx context.Context, deadline time.Time, f func(*memcache.Client) error) error {
	l := s.take()
	l.begin(ctx, deadline)
	err := f(l.client)
	if l.end() {
		s.put(l)
	}
	return err
}

// idempotent is call, and once more if the connection was lost. That a server has
// closed a connection is noticed before; but one that has crashed and come back
// says so only when it is asked.
func (s *server) idempotent(ctx context.Context, deadline time.Time, f func(*memcache.Client) error) error {
	err := s.call(ctx, deadline, f)
	if dropped(err) {
		s.dropIdle() // they are as old
		err = s.call(ctx, deadline, f)
	}
	return err
}

func (s *server) take() *link {
	for {
		s.mu.Lock()
		last := len(s.idle) - 1
		if last < 0 {
			s.mu.Unlock()
			return newLink(s)
		}
		l := s.idle[last]
		s.idle[last] = nil
		s.idle = s.idle[:last]
		s.mu.Unlock()
		if quiet(l.raw) {
			return l
		}
		l.Close()
	}
}

func (s *server) put(l *link) {
	s.mu.Lock()
	if len(s.idle) < s.maxIdle && s.open != nil {
		s.idle = append(s.idle, l)
		l = nil
	}
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

func (s *server) dropIdle() {
	s.mu.Lock()
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, l := range idle {
		l.Close()
	}
}

// register is false if the server has been closed.
func (s *server) register(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

func (s *server) unregister(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
}

// close closes the connections, also those in use, and there will be no others.
func (s *server) close() {
	s.mu.Lock()
	open := s.open
	s.open, s.idle = nil, nil
	s.mu.Unlock()
	for conn := range open {
		conn.Close()
	}
}

// getMany does reads in chunks. After one has failed the others are not sent.
func (s *server) getMany(ctx context.Context, reads []*read) {
	for len(reads) > 0 {
		chunk := reads[:min(s.sizes.fit(manyBytes, manyKeys), len(reads))]
		reads = reads[len(chunk):]
		if err := s.ask(ctx, chunk); err != nil {
			answer(reads, nil, err)
			return
		}
	}
}

// alone does a read that shares nothing.
func (s *server) alone(ctx context.Context, r *read) {
	r.err = s.idempotent(ctx, time.Now().Add(s.opTimeout), func(client *memcache.Client) (err error) {
		r.item, err = client.Get(r.key)
		return err
	})
	s.sizes.measure([]*read{r})
}

// run does reads that share a round trip.
func (s *server) run(reads []*read) {
	if len(reads) == 1 {
		s.alone(context.Background(), reads[0])
		return
	}
	distinct := make([]*read, 0, len(reads))
	first := make(map[string]*read, len(reads)) // by key
	for _, r := range reads {
		if first[r.key] == nil {
			first[r.key] = r
			distinct = append(distinct, r)
		}
	}
	s.ask(context.Background(), distinct)
	for _, r := range reads {
		if twin := first[r.key]; twin != r {
			r.item, r.err = twin.item, twin.err
			if r.err == nil { // a value belongs to the one who gets it
				item := *twin.item
				item.Value = bytes.Clone(item.Value)
				r.item = &item
			}
		}
	}
}

// ask does reads, whose keys differ, by one gets, and returns the error that some of
// them have, if any.
func (s *server) ask(ctx context.Context, reads []*read) error {
	keys := keysOf(reads)
	var items map[string]*memcache.Item
	err := s.idempotent(ctx, time.Now().Add(s.opTimeout), func(client *memcache.Client) (err error) {
		items, err = client.GetMulti(keys)
		return err
	})
	answer(reads, items, err)
	s.sizes.measure(reads)
	return err
}
