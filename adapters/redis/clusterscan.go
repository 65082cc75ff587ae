package redis

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// slotsPage is for how many slots keys are asked for at a time.
	slotsPage = 100

	// maxRounds is how many times slots are listed again because they moved meanwhile.
	maxRounds = 20
)

var errMoving = errors.New("slots of the cluster move on and on")

// clusterPages yields the keys of all masters.
//
// A key that moves while masters are scanned one after another may be on none of them
// at its time. So the keys of each slot that moved, or was moving at the beginning or
// the end, are listed once more: by a single command each from the server that they
// move from and then from the one that they move to, so that a key which the first no
// longer has is found on the second. If meanwhile the slot moves on, so again.
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
			if p != before.places[slot] || p.to != nil {
				moving = append(moving, slot)
			}
		}
		for rounds := 0; len(moving) > 0; rounds++ {
			if rounds == maxRounds {
				yield(nil, errMoving)
				return
			}
			for some := range slices.Chunk(moving, slotsPage) {
				keys, err := c.keysIn(ctx, now, some)
				if !yield(keys, err) || err != nil {
					return
				}
			}
			then := now
			if now, err = c.askLayout(ctx); err != nil {
				yield(nil, err)
				return
			}
			moving = slices.DeleteFunc(moving, func(slot int) bool { return now.places[slot] == then.places[slot] })
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

// servers returns all that may have keys. One that the first of its slots is moving to
// is not a master yet.
func (l *layout) servers() []*node {
	all := slices.Clone(l.masters)
	for _, p := range l.places {
		if p.to != nil && !slices.Contains(all, p.to) {
			all = append(all, p.to)
		}
	}
	return all
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
			l.add(n, cmd.Val(), c.servers.(interface{ at(string) *node }).at)
		}
		return nil
	})
	return l, err
}

// add takes what n says of itself in a reply to CLUSTER NODES, in the line with the
// flag myself: id, address@bus, flags, master, ping, pong, epoch, link, and then a word
// for each range of slots, and [slot->-id] for a slot that moves to another server.
func (l *layout) add(n *node, reply string, at func(addr string) *node) {
	addrs := map[string]string{} // by id
	var own []string
	for line := range strings.Lines(reply) {
		words := strings.Fields(line)
		if len(words) < 8 {
			continue
		}
		addrs[words[0]], _, _ = strings.Cut(words[1], "@")
		if slices.Contains(strings.Split(words[2], ","), "myself") {
			own = words
		}
	}
	if own == nil {
		return
	}
	epoch, _ := strconv.ParseUint(own[6], 10, 64) // it is a number
	for _, word := range own[8:] {
		if slot, id, ok := strings.Cut(strings.Trim(word, "[]"), "->-"); ok {
			if i, err := strconv.Atoi(slot); err == nil && i >= 0 && i < slots {
				l.places[i].to = at(reachable(addrs[id], n.addr))
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
			if p := &l.places[i]; p.n == nil || p.epoch < epoch { // for a moment, two may claim it
				p.n, p.epoch = n, epoch
			}
		}
	}
}

// keysIn returns the keys of some slots.
func (c *Cache) keysIn(ctx context.Context, l *layout, some []int) ([]string, error) {
	var keys []string
	err := c.await(ctx, func(ctx context.Context, deadline time.Time) error {
		for _, server := range []func(place) *node{
			func(p place) *node { return p.n },
			func(p place) *node { return p.to },
		} {
			parts := map[*node][]redis.Cmder{}
			for _, slot := range some {
				if n := server(l.places[slot]); n != nil {
					parts[n] = append(parts[n], once{redis.NewStringSliceCmd(ctx, "cluster", "getkeysinslot", slot, 1<<30)})
				}
			}
			each(parts, func(n *node, cmds []redis.Cmder) { c.exec(ctx, deadline, n, cmds) })
			for _, cmds := range parts {
				for _, cmd := range cmds {
					if err := cmd.Err(); err != nil {
						return err
					}
					keys = append(keys, cmd.(once).Cmder.(*redis.StringSliceCmd).Val()...)
				}
			}
		}
		return nil
	})
	if err != nil { // and keys may still be written to
		return nil, err
	}
	return validKeys(keys), nil
}
