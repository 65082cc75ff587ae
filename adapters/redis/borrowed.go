package redis

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

// borrowed is the topology of a cluster client that a caller has made. It has the map of
// slots and the connections; what it does about redirections and retries is not used.
type borrowed struct {
	c      *Cache
	client *redis.ClusterClient
	lend   func(*redis.Client) *node // makes a node
	loaded atomic.Bool               // client has a map, so that it can be asked without I/O

	mu     sync.Mutex
	nodes  map[*redis.Client]*node // guarded by mu
	owned  []*redis.Client         // of servers that client does not know; guarded by mu
	closed bool                    // guarded by mu
}

func (b *borrowed) of(ctx context.Context, deadline time.Time, key string) (*node, error) {
	if b.loaded.Load() {
		return b.ofMap(ctx, key)
	}
	return slowly(ctx, deadline, b.c, func(ctx context.Context) (*node, error) {
		n, err := b.ofMap(ctx, key)
		if err == nil {
			b.loaded.Store(true)
		}
		return n, err
	})
}

func (b *borrowed) ofMap(ctx context.Context, key string) (*node, error) {
	client, err := b.client.MasterForKey(ctx, key)
	if err != nil {
		return nil, err
	}
	return b.node(client), nil
}

// node returns the node of a client of b.client's.
func (b *borrowed) node(client *redis.Client) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.nodes[client]
	if n == nil {
		n = b.lend(client)
		b.nodes[client] = n
	}
	return n
}

func (b *borrowed) masters(ctx context.Context, deadline time.Time) ([]*node, error) {
	return slowly(ctx, deadline, b.c, func(ctx context.Context) (list []*node, err error) {
		var mu sync.Mutex
		err = b.client.ForEachMaster(ctx, func(_ context.Context, client *redis.Client) error { // loads the map
			mu.Lock()
			defer mu.Unlock()
			list = append(list, b.node(client))
			return nil
		})
		return list, err
	})
}

func (b *borrowed) instead(ctx context.Context, deadline time.Time, n *node, key string, err error) (*node, bool) {
	if err == nil || err == redis.Nil {
		return nil, false
	}
	addr, asking, ok := redirection(err)
	switch {
	case ok:
		if !asking {
			b.client.ReloadState(ctx) // in a goroutine of its own
		}
		if to := b.at(reachable(addr, n.addr)); to != n {
			return to, asking
		}
	case errors.Is(err, redis.ErrClosed) || unsent(err): // client gives up servers that have no slots
		if _, err := b.masters(ctx, deadline); err != nil {
			return nil, false
		}
		if to, err := b.of(ctx, deadline, key); err == nil && to != n {
			return to, false
		}
	case ctx.Err() == nil && (!answered(err) || redis.IsClusterDownError(err) || redis.IsLoadingError(err)):
		b.client.ReloadState(ctx)
	}
	return nil, false
}

// at returns the server with an address. It has a client of its own if the cluster
// client does not know it, for it has no slots yet.
func (b *borrowed) at(addr string) *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var some *redis.Client
	for client, n := range b.nodes {
		if o := client.Options(); o.Addr == addr || o.NodeAddress == addr {
			return n
		}
		some = client
	}
	o := *some.Options() // of a server that has redirected here
	o.Addr, o.NodeAddress = addr, ""
	client := redis.NewClient(&o)
	b.owned = append(b.owned, client)
	if b.closed {
		client.Close()
	}
	n := b.lend(client)
	b.nodes[client] = n
	return n
}

func (b *borrowed) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, client := range b.owned {
		client.Close() // it could say that it is closed
	}
}

// slowly returns what do does, which may take longer than ctx and the deadline allow.
func slowly[T any](ctx context.Context, deadline time.Time, c *Cache, do func(context.Context) (T, error)) (T, error) {
	var none T
	if !c.begin() {
		return none, l2cache.ErrClosed
	}
	type result struct {
		t   T
		err error
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	stop := context.AfterFunc(c.closing, cancel)
	done := make(chan result, 1)
	go func() {
		defer c.calls.Done()
		defer cancel()
		defer stop()
		t, err := do(ctx)
		done <- result{t, err}
	}()
	select {
	case r := <-done:
		return r.t, r.err
	case <-ctx.Done():
		return none, batch.ErrTimeout
	}
}
