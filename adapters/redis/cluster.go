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
)

const (
	// mapAge is how old the map of slots is at least when it is loaded again, however
	// many calls fail.
	mapAge = 20 * time.Millisecond

	// unused is for how long no call has gone to a server without slots whose idle
	// connections are closed.
	unused = time.Minute
)

// A cluster is the topology of a Redis Cluster: a map from slot to master. It is
// loaded when it is needed first, and again after a redirection and when a master does
// not answer.
type cluster struct {
	c     *Cache
	reach func(addr string) *node // makes a node
	seeds []string

	load *inquiry // of the map

	mu     sync.RWMutex
	nodes  map[string]*node // by address; none is ever removed, for calls go on with what they have begun with; guarded by mu
	owners []*node          // by slot; nil before there is a map; guarded by mu
	known  [2][]string      // addresses that the map has: masters, replicas; guarded by mu
	doubt  bool             // a master has not answered: new calls wait for the map; guarded by mu
	closed bool             // guarded by mu
}

func newCluster(c *Cache, seeds []string, reach func(addr string) *node) *cluster {
	t := &cluster{c: c, seeds: seeds, reach: reach, nodes: map[string]*node{}}
	t.load = &inquiry{c: c, fresh: mapAge, do: t.fetch}
	return t
}

func (t *cluster) of(ctx context.Context, deadline time.Time, key string) (*node, error) {
	slot := slotOf(key)
	n, doubt := t.owner(slot)
	if n != nil && !doubt {
		return n, nil
	}
	err := t.load.wait(ctx, deadline)
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
	return t.owners[slot], t.doubt
}

func (t *cluster) masters(ctx context.Context, deadline time.Time) ([]*node, error) {
	if err := t.load.wait(ctx, deadline); err != nil {
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

func (t *cluster) instead(ctx context.Context, _, deadline time.Time, n *node, key string, err error) (*node, bool) {
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
		t.load.begin(time.Now())
		if to != n {
			return to, false
		}
	case redis.IsClusterDownError(err) || redis.IsLoadingError(err):
		t.load.begin(time.Now())
	case unsent(err):
		if t.load.wait(ctx, deadline) == nil {
			if to, _ := t.owner(slot); to != n && to != nil {
				return to, false
			}
		}
	case !answered(err) && ctx.Err() == nil:
		t.suspect()
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
		t.nodes[addr] = n
		if t.closed {
			n.client.close()
		}
	}
	return n
}

func (t *cluster) some(context.Context, time.Time) ([]*node, error) {
	var all []*node
	for _, addr := range t.candidates() {
		all = append(all, t.at(addr))
	}
	return all, nil
}

func (t *cluster) moved(slot int, to *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owners != nil {
		t.owners[slot] = to
	}
}

// suspect has new calls wait for another map.
func (t *cluster) suspect() {
	t.mu.Lock()
	t.doubt = true
	t.mu.Unlock()
	t.load.begin(time.Now())
}

// fetch gets the map.
func (t *cluster) fetch(deadline time.Time) error {
	m, err := askAny(t.c, t.candidates(), func(addr string) (slotMap, error) { return t.ask(deadline, addr) })
	t.mu.Lock()
	t.doubt = false
	var old []*node
	if err == nil {
		old = t.installLocked(m)
	}
	t.mu.Unlock()
	for _, n := range old {
		n.client.rest()
	}
	return err
}

// A slotMap is what a server knows of the slots.
type slotMap struct {
	from   *node
	ranges []redis.ClusterSlot
}

func (t *cluster) ask(deadline time.Time, addr string) (slotMap, error) {
	n := t.at(addr)
	cmd := redis.NewClusterSlotsCmd(context.Background(), "cluster", "slots")
	err := t.c.exec(context.Background(), deadline, n, []redis.Cmder{once{cmd}})
	switch {
	case err == nil && len(cmd.Val()) == 0:
		err = fmt.Errorf("%s: %w", addr, errNoMaster)
	case redis.HasErrorPrefix(err, "This instance has cluster support disabled"):
		err = fmt.Errorf("%s: %w; for a server that is not part of a cluster, it is redis://", addr, err)
	}
	return slotMap{n, cmd.Val()}, err
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

// installLocked puts a map in place, and returns the servers that are not used any more.
func (t *cluster) installLocked(m slotMap) (old []*node) {
	t.owners = make([]*node, slots)
	t.known = [2][]string{}
	keep := map[*node]bool{}
	for _, r := range m.ranges {
		for i, server := range r.Nodes {
			addr := reachable(server.Addr, m.from.addr)
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
	for _, n := range t.nodes {
		if !keep[n] && time.Since(time.Unix(0, n.used.Load())) > unused {
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
