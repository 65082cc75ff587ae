package redis

import (
	"context"
	"errors"
	"iter"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// slotsPage is for how many slots keys are asked for at a time.
	slotsPage = 10

	// slotKeys is how many keys of a slot are asked for. One that has more is scanned.
	slotKeys = 10_000

	// maxRounds is how many times slots are listed again because they moved meanwhile.
	maxRounds = 20
)

var errMoving = errors.New("slots of the cluster move on and on")

// clusterPages yields the keys of all masters.
//
// A key that moves while masters are scanned one after another may be on none of them
// at its time. So the keys of each slot that moved, or was moving at the beginning or
// the end, are listed once more: from the server that they move from and then from the
// one that they move to, so that a key which the first no longer has is found on the
// second. If meanwhile the slot moves on, so again; and so if no server says that
// it has the slot, for the one that has it may not be in the map yet.
func (c *Cache) clusterPages(ctx context.Context, match string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		before, err := c.askLayout(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, n := range before.masters {
			for keys, err := range c.pagesOf(ctx, n, match) {
				if !yield(keys, err) || err != nil {
					return
				}
			}
		}
		now, err := c.askLayout(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		var moving []int
		for slot, p := range now.places {
			if p != before.places[slot] || p.to != nil || p.n == nil {
				moving = append(moving, slot)
			}
		}
		for rounds := 0; len(moving) > 0; rounds++ {
			if rounds == maxRounds {
				yield(nil, errMoving)
				return
			}
			if slices.ContainsFunc(moving, func(slot int) bool { return now.places[slot].n == nil }) {
				select {
				case <-time.After(mapAge): // so that the map is another one
				case <-ctx.Done(): // askLayout says so
				}
			}
			for some := range slices.Chunk(moving, slotsPage) {
				keys, large, err := c.keysIn(ctx, now, some)
				if !yield(keys, err) || err != nil {
					return
				}
				for keys, err := range c.pagesIn(ctx, now, large, match) {
					if !yield(keys, err) || err != nil {
						return
					}
				}
			}
			then := now
			if now, err = c.askLayout(ctx); err != nil {
				yield(nil, err)
				return
			}
			moving = slices.DeleteFunc(moving, func(slot int) bool { return now.places[slot] == then.places[slot] && now.places[slot].n != nil })
		}
	}
}

// A layout is where slots are, as their masters say.
type layout struct {
	masters []*node
	places  [slots]place
}

// A place is where a slot is, and where its keys are moving to.
type place struct {
	n     *node
	epoch uint64 // of n's configuration: a slot that was away and is back has another one
	to    *node  // nil if the keys do not move
}

// askLayout asks all masters.
func (c *Cache) askLayout(ctx context.Context) (*layout, error) {
	l := &layout{}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		nodes, err := c.servers.masters(ctx, deadline)
		if err != nil {
			return err
		}
		cmds := map[*node]*redis.StringCmd{}
		for _, n := range nodes {
			cmds[n] = redis.NewStringCmd(ctx, "cluster", "nodes")
		}
		each(cmds, func(n *node, cmd *redis.StringCmd) { c.exec(ctx, deadline, n, []redis.Cmder{once{cmd}}) })
		l.masters = nodes
		for n, cmd := range cmds {
			if err := cmd.Err(); err != nil {
				return err
			}
			l.add(n, cmd.Val(), c.servers.(members).at)
		}
		return nil
	})
	return l, err
}

// add takes what n says of itself in a reply to CLUSTER NODES: a word for each range of
// slots that it has, and [slot->-id] for a slot that moves to another server.
func (l *layout) add(n *node, reply string, at func(addr string) *node) {
	all := parseNodes(reply, n.addr)
	i := slices.IndexFunc(all, func(m member) bool { return m.is("myself") })
	if i < 0 {
		return
	}
	own := &all[i]
	for _, word := range own.slots {
		if slot, id, ok := strings.Cut(strings.Trim(word, "[]"), "->-"); ok {
			to := slices.IndexFunc(all, func(m member) bool { return m.id == id })
			if i, err := strconv.Atoi(slot); err == nil && i >= 0 && i < slots && to >= 0 {
				l.places[i].to = at(all[to].addr)
			}
			continue
		}
		first, last, ok := strings.Cut(word, "-")
		if !ok {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil { // a slot that comes: [slot-<-id]
			continue
		}
		for i := max(from, 0); i <= min(to, slots-1); i++ {
			if p := &l.places[i]; p.n == nil || p.epoch < own.epoch { // for a moment, two may claim it
				p.n, p.epoch = n, own.epoch
			}
		}
	}
}

// A member is a server as another one, or itself, knows it.
type member struct {
	id, addr string
	flags    []string
	epoch    uint64 // of the configuration
	slots    []string
}

func (m *member) is(flag string) bool { return slices.Contains(m.flags, flag) }

// parseNodes returns what the server at an address says to CLUSTER NODES. A line is
//
//	id ip:port@bus[,hostname[,…]] flags master ping pong epoch link [slots…]
//
// The addresses are those that the cluster tells its clients in redirections: with the
// host names if the server's own, in the map of slots, has one
// (cluster-preferred-endpoint-type).
func parseNodes(reply, from string) []member {
	var all []member
	var hosts []string
	named := false
	fromHost, _, _ := net.SplitHostPort(from)
	for line := range strings.Lines(reply) {
		words := strings.Fields(line)
		if len(words) < 8 {
			continue
		}
		m := member{id: words[0], flags: strings.Split(words[2], ","), slots: words[8:]}
		m.epoch, _ = strconv.ParseUint(words[6], 10, 64) // it is a number
		addr, rest, _ := strings.Cut(words[1], "@")
		_, rest, _ = strings.Cut(rest, ",")
		host, _, _ := strings.Cut(rest, ",")
		m.addr = addr
		all, hosts = append(all, m), append(hosts, host)
		named = named || m.is("myself") && host != "" && host == fromHost
	}
	for i := range all {
		m := &all[i]
		if port := strings.LastIndexByte(m.addr, ':'); named && hosts[i] != "" && port >= 0 {
			m.addr = hosts[i] + m.addr[port:]
		}
		m.addr = reachable(m.addr, from)
	}
	return all
}

// sides are where a slot's keys are looked for, in this order.
var sides = []func(place) *node{
	func(p place) *node { return p.n },
	func(p place) *node { return p.to },
}

// keysIn returns the keys of some slots, or some of the keys of those that have too many,
// which it returns, too.
func (c *Cache) keysIn(ctx context.Context, l *layout, some []int) ([]string, map[int]bool, error) {
	var keys []string
	large := map[int]bool{}
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		for _, side := range sides {
			parts := map[*node][]redis.Cmder{}
			for _, slot := range some {
				if n := side(l.places[slot]); n != nil {
					parts[n] = append(parts[n], once{redis.NewStringSliceCmd(ctx, "cluster", "getkeysinslot", slot, slotKeys)})
				}
			}
			each(parts, func(n *node, cmds []redis.Cmder) { c.exec(ctx, deadline, n, cmds) })
			for _, cmds := range parts {
				for _, cmd := range cmds {
					if err := cmd.Err(); err != nil {
						return err
					}
					list := cmd.(once).Cmder.(*redis.StringSliceCmd).Val()
					if keys = append(keys, list...); len(list) == slotKeys {
						large[cmd.Args()[2].(int)] = true
					}
				}
			}
		}
		return nil
	})
	if err != nil { // and keys may still be written to
		return nil, nil, err
	}
	return validKeys(keys), large, nil
}

// pagesIn yields the keys of some slots by SCAN, which is as good as keysIn: what has left
// a server before it came to it was on the other one when that is scanned.
func (c *Cache) pagesIn(ctx context.Context, l *layout, some map[int]bool, match string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for _, side := range sides {
			servers := map[*node]bool{}
			for slot := range some {
				if n := side(l.places[slot]); n != nil {
					servers[n] = true
				}
			}
			for n := range servers {
				for keys, err := range c.pagesOf(ctx, n, match) {
					keys = slices.DeleteFunc(keys, func(key string) bool { return !some[slotOf(key)] })
					if !yield(keys, err) || err != nil {
						return
					}
				}
			}
		}
	}
}
