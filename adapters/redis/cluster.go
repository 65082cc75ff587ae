package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

const (
	// mapAge is how old the map of slots is at least when it is loaded again, however
	// many calls fail.
	mapAge = 20 * time.Millisecond

	// asked is how many servers are asked for the map at a time, as one of them may
	// have stalled.
	asked = 3

	// forgotten is for how long a server without slots is kept after its last call: a
	// loop over a Scan takes its time, and goes on with the server it has begun with.
	forgotten = time.Hour
)

// A cluster is the topology of a Redis Cluster: a map from slot to master. It is
// loaded when it is needed first, and again after a redirection and when a master does
// not answer.
type cluster struct {
	c     *Cache
	reach func(addr string) *node // makes a node
	seeds []string

	mu      sync.RWMutex
	nodes   map[string]*node // by address; guarded by mu
	owners  []*node          // by slot; nil before there is a map; guarded by mu
	known   [2][]string      // addresses that the map has: masters, replicas; guarded by mu
	loaded  time.Time        // when the map was; guarded by mu
	loading *loading         // nil while the map is not being loaded; guarded by mu
	closed  bool             // guarded by mu
}

func newCluster(c *Cache, seeds []string, reach func(addr string) *node) *cluster {
	return &cluster{c: c, seeds: seeds, reach: reach, nodes: map[string]*node{}}
}

// loading is a map of slots on its way.
type loading struct {
	done  chan struct{}
	err   error // set before done is closed
	doubt bool  // a master has not answered: new calls wait for the map; guarded by mu
}

func (t *cluster) of(ctx context.Context, deadline time.Time, key string) (*node, error) {
	slot := slotOf(key)
	n, doubt := t.owner(slot)
	if n != nil && !doubt {
		return n, nil
	}
	err := t.load(ctx, deadline)
	if n, _ = t.owner(slot); n != nil {
		return n, nil
	}
	return nil, cmp.Or(err, errNoMaster)
}

var errNoMaster = errors.New("a slot of the cluster has no master")

// owner returns the master of slot, or nil if there is none or no map, and whether
// there is doubt about it.
func (t *cluster) owner(slot int) (n *node, doubt bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.owners == nil {
		return nil, false
	}
	return t.owners[slot], t.loading != nil && t.loading.doubt
}

func (t *cluster) masters(ctx context.Context, deadline time.Time) ([]*node, error) {
	if err := t.load(ctx, deadline); err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	seen := map[*node]bool{}
	for _, n := range t.owners {
		seen[n] = true
	}
	if seen[nil] {
		return nil, errNoMaster
	}
	return slices.Collect(maps.Keys(seen)), nil
}

func (t *cluster) instead(ctx context.Context, deadline time.Time, n *node, key string, err error) (*node, bool) {
	if err == nil || err == redis.Nil {
		return nil, false
	}
	slot := slotOf(key)
	addr, ask, ok := redirection(err)
	switch {
	case ok && ask:
		return t.at(reachable(addr, n.addr)), true
	case ok:
		to := t.at(reachable(addr, n.addr))
		t.moved(slot, to)
		t.reload(time.Now(), false)
		if to != n {
			return to, false
		}
	case redis.IsClusterDownError(err) || redis.IsLoadingError(err):
		t.reload(time.Now(), false)
	case unsent(err):
		if t.load(ctx, deadline) == nil {
			if to, _ := t.owner(slot); to != n && to != nil {
				return to, false
			}
		}
	case !answered(err) && ctx.Err() == nil:
		t.reload(time.Now(), true)
	}
	return nil, false
}

// redirection returns where err, an answer, sends a command: for all that is about its
// slot, or for this once, with ASKING.
func redirection(err error) (addr string, ask, ok bool) {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return "", false, false
	}
	words := strings.Fields(answer.Error()) // MOVED 3999 127.0.0.1:6381
	if len(words) != 3 || words[0] != "MOVED" && words[0] != "ASK" {
		return "", false, false
	}
	return words[2], words[0] == "ASK", true
}

// unsent reports whether err proves that nothing was sent.
func unsent(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "dial"
}

// reachable makes an address of what a server at from calls one. The host is empty if
// the server does not know its own, and 127.0.0.1 if it was told only that; the port is
// 0 in the map of a server that has TLS only. (go-redis does the same.) An IPv6 address
// has no brackets in a redirection and in CLUSTER NODES: ::1:6379.
func reachable(addr, from string) string {
	i := strings.LastIndexByte(addr, ':')
	fromHost, fromPort, err := net.SplitHostPort(from)
	if i < 0 || err != nil {
		return addr
	}
	host, port := strings.Trim(addr[:i], "[]"), addr[i+1:]
	ip := net.ParseIP(host)
	fromIP := net.ParseIP(fromHost)
	if host == "" || ip.IsLoopback() && fromHost != "localhost" && !fromIP.IsLoopback() {
		host = fromHost
	}
	if port == "0" {
		port = fromPort
	}
	return net.JoinHostPort(host, port)
}

// at returns the server with an address.
func (t *cluster) at(addr string) *node {
	t.mu.RLock()
	n := t.nodes[addr]
	t.mu.RUnlock()
	if n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.atLocked(addr)
}

func (t *cluster) atLocked(addr string) *node {
	n := t.nodes[addr]
	if n == nil {
		n = t.reach(addr)
		n.used.Store(time.Now().UnixNano())
		t.nodes[addr] = n
		if t.closed {
			n.client.close()
		}
	}
	return n
}

func (t *cluster) moved(slot int, to *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owners != nil {
		t.owners[slot] = to
	}
}

// load loads the map unless it is fresh, or waits for it until ctx ends or the
// deadline.
func (t *cluster) load(ctx context.Context, deadline time.Time) error {
	l := t.reload(deadline, false)
	if l == nil {
		return nil
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-l.done:
		return l.err
	case <-timer.C:
		return batch.ErrTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reload begins to load the map, unless that is under way already or the map is fresh:
// then it returns nil. It takes as long as an operation may, or until the deadline.
func (t *cluster) reload(deadline time.Time, doubt bool) *loading {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.loading != nil:
		t.loading.doubt = t.loading.doubt || doubt
		return t.loading
	case t.owners != nil && time.Since(t.loaded) < mapAge:
		return nil
	}
	l := &loading{done: make(chan struct{}), doubt: doubt}
	if !t.c.begin() {
		l.err = l2cache.ErrClosed
		close(l.done)
		return l
	}
	t.loading = l
	if least := time.Now().Add(t.c.opTimeout); deadline.Before(least) {
		deadline = least
	}
	go func() {
		defer t.c.calls.Done()
		t.fetch(l, deadline)
	}()
	return l
}

// fetch gets the map.
func (t *cluster) fetch(l *loading, deadline time.Time) {
	ranges, from, err := t.ask(deadline)
	var old []*node
	t.mu.Lock()
	if err == nil {
		old = t.installLocked(ranges, from)
	}
	t.loading = nil
	t.mu.Unlock()
	for _, n := range old {
		n.client.close()
	}
	l.err = err
	close(l.done)
}

// ask returns the map of the server that answers first.
func (t *cluster) ask(deadline time.Time) ([]redis.ClusterSlot, *node, error) {
	type answer struct {
		cmd *redis.ClusterSlotsCmd
		n   *node
		err error
	}
	var errs []error
	for some := range slices.Chunk(t.candidates(), asked) {
		answers := make(chan answer, len(some))
		for _, addr := range some {
			go func() {
				a := answer{cmd: redis.NewClusterSlotsCmd(context.Background(), "cluster", "slots"), n: t.at(addr)}
				a.err = t.c.exec(context.Background(), deadline, a.n, []redis.Cmder{once{a.cmd}})
				answers <- a
			}()
		}
		for range some {
			a := <-answers
			if a.err == nil && len(a.cmd.Val()) > 0 {
				return a.cmd.Val(), a.n, nil
			}
			switch {
			case a.err == nil:
				a.err = fmt.Errorf("%s: %w", a.n.addr, errNoMaster)
			case redis.HasErrorPrefix(a.err, "This instance has cluster support disabled"):
				a.err = fmt.Errorf("%s: %w; for a server that is not part of a cluster, it is redis://", a.n.addr, a.err)
			}
			errs = append(errs, a.err)
		}
	}
	return nil, nil, errors.Join(errs...)
}

// candidates returns whom to ask for the map: masters, replicas, and who was named at
// the opening.
func (t *cluster) candidates() (list []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, part := range [][]string{t.known[0], t.known[1], t.seeds} {
		for _, i := range rand.Perm(len(part)) {
			if !slices.Contains(list, part[i]) {
				list = append(list, part[i])
			}
		}
	}
	return list
}

// installLocked puts a map in place, and returns the servers that are to be closed.
func (t *cluster) installLocked(ranges []redis.ClusterSlot, from *node) (old []*node) {
	t.owners = make([]*node, slots)
	t.known = [2][]string{}
	keep := map[*node]bool{}
	for _, r := range ranges {
		for i, server := range r.Nodes {
			addr := reachable(server.Addr, from.addr)
			role := min(i, 1)
			if !slices.Contains(t.known[role], addr) {
				t.known[role] = append(t.known[role], addr)
			}
			if i > 0 {
				continue
			}
			n := t.atLocked(addr)
			keep[n] = true
			for slot := max(r.Start, 0); slot <= min(r.End, slots-1); slot++ {
				t.owners[slot] = n
			}
		}
	}
	t.loaded = time.Now()
	for addr, n := range t.nodes {
		if !keep[n] && t.loaded.Sub(time.Unix(0, n.used.Load())) > forgotten {
			delete(t.nodes, addr)
			old = append(old, n)
		}
	}
	return old
}

func (t *cluster) close() {
	t.mu.Lock()
	t.closed = true
	nodes := slices.Collect(maps.Values(t.nodes))
	t.mu.Unlock()
	for _, n := range nodes {
		n.client.close()
	}
}
