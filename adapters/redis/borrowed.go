package redis

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache/internal/batch"
)

// borrowed is the topology of a cluster client that a caller has made. It has the map of
// slots and the connections; what it does about redirections and retries is not used.
type borrowed struct {
	c      *Cache
	client *redis.ClusterClient
	load   *inquiry    // has client load its map
	loaded atomic.Bool // client has a map, so that it can be asked without I/O

	mu     sync.Mutex
	nodes  map[string]*node // by address; guarded by mu
	list   []*node          // the masters of the map; guarded by mu
	closed bool             // guarded by mu
}

func newBorrowed(c *Cache, client *redis.ClusterClient) *borrowed {
	b := &borrowed{c: c, client: client, nodes: map[string]*node{}}
	b.load = &inquiry{c: c, fresh: mapAge, do: b.fetch}
	return b
}

// lent is a server's client of the cluster client's. That closes it a minute after the
// server has lost its last slot, and makes another one when it has slots again. In
// between, a server that calls go to has one of the handle's own, with the same settings.
type lent struct {
	b *borrowed
	o redis.Options // of own

	mu     sync.Mutex
	client *redis.Client // nil if the cluster client has none; guarded by mu
	clone  *redis.Client // of client: see (*Cache).clone; guarded by mu
	own    *redis.Client // nil while it was not needed; guarded by mu
	closed bool          // guarded by mu
}

func (l *lent) pipeline(ctx context.Context, deadline time.Time, cmds []redis.Cmder) error {
	client := l.current()
	err := shared{client}.pipeline(ctx, deadline, cmds)
	if !errors.Is(err, redis.ErrClosed) { // which go-redis says before it sends anything
		return err
	}
	if l.b.load.wait(ctx, deadline) != nil {
		return err
	}
	another := l.current()
	if another == client { // the caller has closed the cluster client
		return err
	}
	return shared{another}.pipeline(ctx, deadline, cmds)
}

// current returns a client that is open, as far as is known.
func (l *lent) current() *redis.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.client != nil:
		return l.clone
	case l.own == nil:
		o := l.o
		if c := l.b.c; !c.bounded { // as in clone
			o.ReadTimeout, o.WriteTimeout = c.opTimeout, c.opTimeout
		}
		l.own = redis.NewClient(&o)
		if l.closed {
			l.own.Close()
		}
	}
	return l.own
}

// set takes the client of the cluster client's, or that there is none.
func (l *lent) set(client *redis.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == client {
		return
	}
	l.client, l.clone = client, nil
	if client != nil {
		l.clone = l.b.c.clone(client)
	}
}

func (l *lent) rest() {}

func (l *lent) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.own != nil {
		l.own.Close() // it could say that it is closed
	}
}

func (b *borrowed) of(ctx context.Context, deadline time.Time, key string) (*node, error) {
	if !b.loaded.Load() {
		if err := b.load.wait(ctx, deadline); err != nil {
			return nil, err
		}
	}
	return b.ofMap(ctx, key)
}

func (b *borrowed) ofMap(ctx context.Context, key string) (*node, error) {
	client, err := b.client.MasterForKey(ctx, key)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodeLocked(client), nil
}

// nodeLocked returns the server of a client of b.client's.
func (b *borrowed) nodeLocked(client *redis.Client) *node {
	n := b.nodes[client.Options().Addr]
	if n == nil {
		n = b.addLocked(*client.Options())
	}
	n.client.(*lent).set(client)
	return n
}

func (b *borrowed) addLocked(o redis.Options) *node {
	n := b.c.newNode(o.Addr, &lent{b: b, o: o, closed: b.closed}, newLink(o))
	b.nodes[o.Addr] = n
	return n
}

// fetch has b.client load its map, and takes from it who the masters are. That may go on
// after the deadline, for as long as the client's settings say.
func (b *borrowed) fetch(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(b.c.closing, deadline)
	defer cancel()
	done := make(chan error, 1)
	b.c.calls.Add(1) // the caller is counted, too
	go func() {
		defer b.c.calls.Done()
		done <- b.reload(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return batch.ErrTimeout
	}
}

func (b *borrowed) reload(ctx context.Context) error {
	var mu sync.Mutex
	var clients []*redis.Client
	err := b.client.ForEachMaster(ctx, func(_ context.Context, client *redis.Client) error { // loads the map
		mu.Lock()
		defer mu.Unlock()
		clients = append(clients, client)
		return nil
	})
	if err == nil && len(clients) == 0 {
		err = errNoMaster
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = nil
	gone := maps.Clone(b.nodes)
	for _, client := range clients {
		n := b.nodeLocked(client)
		b.list = append(b.list, n)
		delete(gone, n.addr)
	}
	for _, n := range gone {
		n.client.(*lent).set(nil)
	}
	b.loaded.Store(true)
	return nil
}

func (b *borrowed) masters(ctx context.Context, deadline time.Time) ([]*node, error) {
	if err := b.load.wait(ctx, deadline); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list, nil
}

func (b *borrowed) some(ctx context.Context, deadline time.Time) ([]*node, error) {
	return b.masters(ctx, deadline)
}

func (b *borrowed) instead(ctx context.Context, _, deadline time.Time, n *node, key string, err error) (*node, bool) {
	if err == nil || err == redis.Nil {
		return nil, false
	}
	addr, asking, ok := redirection(err)
	switch {
	case ok:
		if !asking {
			b.load.begin(time.Now())
		}
		if to := b.at(reachable(addr, n.addr)); to != n {
			return to, asking
		}
	case unsent(err):
		if b.load.wait(ctx, deadline) != nil {
			return nil, false
		}
		if to, err := b.ofMap(ctx, key); err == nil && to != n {
			return to, false
		}
	case ctx.Err() == nil && (!answered(err) || redis.IsClusterDownError(err) || redis.IsLoadingError(err)):
		b.load.begin(time.Now())
	}
	return nil, false
}

// at returns the server with an address.
func (b *borrowed) at(addr string) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var some *node
	for _, n := range b.nodes {
		o := n.client.(*lent).o
		if o.Addr == addr || o.NodeAddress == addr {
			return n
		}
		some = n
	}
	o := some.client.(*lent).o // of a server that has named this one
	o.Addr, o.NodeAddress = addr, ""
	return b.addLocked(o)
}

func (b *borrowed) close() {
	b.mu.Lock()
	b.closed = true
	nodes := slices.Collect(maps.Values(b.nodes))
	b.mu.Unlock()
	for _, n := range nodes {
		n.client.close()
	}
}
