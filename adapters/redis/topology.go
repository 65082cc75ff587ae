package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache/internal/batch"
)

// A node is a server that has entries, and the reads that are under way to it.
type node struct {
	addr    string // as dialed; empty if there is but one server
	client  pipeliner
	newLink func() *conn // for Watch; knows the password, as no verb prints
	used    atomic.Int64 // when a call was sent to it last, in ns since 1970

	gets  *batch.Group[read]
	pairs *batch.Group[read]
}

// newNode returns a node that is talked to by client.
func (c *Cache) newNode(addr string, client pipeliner, newLink func() *conn) *node {
	n := &node{addr: addr, client: client, newLink: newLink}
	n.gets = c.group(func(ctx context.Context, deadline time.Time, reads []*read) {
		c.runGets(ctx, deadline, n, reads)
	})
	n.pairs = c.group(func(ctx context.Context, deadline time.Time, reads []*read) {
		c.runPairs(ctx, deadline, n, reads)
	})
	return n
}

func getsOf(n *node) *batch.Group[read]  { return n.gets }
func pairsOf(n *node) *batch.Group[read] { return n.pairs }

// A topology knows which server has a key.
type topology interface {
	// of returns the server that has key.
	of(ctx context.Context, deadline time.Time, key string) (*node, error)
	// masters returns the servers that have all keys between them, as they are now.
	masters(ctx context.Context, deadline time.Time) ([]*node, error)
	// instead returns who is to do what n, asked since begun, did not do for key, as err
	// proves, and whether to say ASKING first. It is nil if err proves no such thing.
	instead(ctx context.Context, begun, deadline time.Time, n *node, key string, err error) (to *node, asking bool)
	// close ends the calls under way to servers, if they are the handle's own.
	close()
}

// members is what a topology of a cluster has, too.
type members interface {
	// some returns servers that can be asked about the others.
	some(ctx context.Context, deadline time.Time) ([]*node, error)
	// at returns the server with an address, which others have told.
	at(addr string) *node
}

// alone is the topology of one server.
type alone struct{ *node }

func (a alone) of(context.Context, time.Time, string) (*node, error) { return a.node, nil }
func (a alone) masters(context.Context, time.Time) ([]*node, error)  { return []*node{a.node}, nil }
func (a alone) close()                                               { a.client.close() }
func (a alone) instead(context.Context, time.Time, time.Time, *node, string, error) (*node, bool) {
	return nil, false
}

// maxHops is how many times a call goes to another server. A redirection is old news
// if the next one comes from where it leads.
const maxHops = 5

// keyed has cmds done, which are about key, by the server that has it.
func (c *Cache) keyed(ctx context.Context, deadline time.Time, key string, cmds []redis.Cmder) error {
	n, err := c.servers.of(ctx, deadline, key)
	if err != nil {
		return failed(cmds, err)
	}
	asking := false
	for hop := 0; ; hop++ {
		all := cmds
		if asking {
			all = append([]redis.Cmder{newAsking()}, cmds...)
		}
		begun := time.Now()
		err := c.exec(ctx, deadline, n, all)
		if err == nil || hop == maxHops {
			return err
		}
		to, asks := c.servers.instead(ctx, begun, deadline, n, key, err)
		if to == nil {
			return err
		}
		n, asking = to, asks
	}
}

// newAsking returns what makes a server that a slot is moving to do the next command,
// or transaction.
func newAsking() redis.Cmder { return once{redis.NewStatusCmd(context.Background(), "asking")} }

// A call is what is to be done about one key, together with others.
type call struct {
	key    string
	to     *node // which has redirected it; nil to ask the topology
	asking bool
	err    error // the server's or go-redis's
}

func (c *call) target() *call { return c }

// scatter has do called for all, with those that a server has at a time, and again
// with those that it redirects. The error of do is that the server has not answered:
// no more is sent to it, and broken keeps why.
func scatter[T interface{ target() *call }](ctx context.Context, deadline time.Time, c *Cache, broken map[*node]error, all []T,
	do func(context.Context, time.Time, *node, []T) error,
) {
	for hop := 0; len(all) > 0; hop++ {
		begun := time.Now()
		parts := map[*node][]T{}
		for _, t := range all {
			call := t.target()
			n := call.to
			if n == nil {
				if n, call.err = c.servers.of(ctx, deadline, call.key); call.err != nil {
					continue
				}
			}
			if call.err = broken[n]; call.err == nil {
				parts[n] = append(parts[n], t)
			}
		}
		var mu sync.Mutex
		each(parts, func(n *node, part []T) {
			if err := do(ctx, deadline, n, part); err != nil {
				mu.Lock()
				defer mu.Unlock()
				broken[n] = err
			}
		})
		// Results that are there are not to be lost while somebody else is asked.
		patience := time.Now().Add(time.Until(deadline) / 2)
		all = nil
		for n, part := range parts {
			for _, t := range part {
				call := t.target()
				if call.err == nil || hop == maxHops {
					continue
				}
				if to, asking := c.servers.instead(ctx, begun, patience, n, call.key, call.err); to != nil {
					call.to, call.asking = to, asking
					all = append(all, t)
				}
			}
		}
	}
}

// each calls do for all parts at a time, and the last of them itself.
func each[K comparable, V any](parts map[K]V, do func(K, V)) {
	var others sync.WaitGroup
	defer others.Wait()
	left := len(parts)
	for k, v := range parts {
		if left--; left == 0 {
			do(k, v)
			return
		}
		others.Go(func() { do(k, v) })
	}
}
