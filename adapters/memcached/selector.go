package memcached

import (
	"errors"
	"fmt"
	"net"

	"github.com/bradfitz/gomemcache/memcache"
)

// Selector spreads keys evenly over servers by rendezvous hashing: a key is on the
// server that scores highest for it. When a server is added to n, 1/(n+1) of the
// keys move, all of them to the new one; when one is removed, only its keys move.
//
// Which server a key is on follows from the addresses as they are written, and not
// from their order. It is the same in every process and every version of this
// package, so that programs which share servers find each other's entries; for a
// client of their own they use
//
//	memcache.NewFromSelector(selector)
type Selector struct {
	addrs []net.Addr
	seeds []uint64 // of addrs
}

var _ memcache.ServerSelector = (*Selector)(nil)

// NewSelector returns a selector of the servers at addrs, each host:port. Names are
// resolved when a connection is made, so that a failing resolver is an error of the
// call that needed it, and a new address is found without a restart.
func NewSelector(addrs ...string) (*Selector, error) {
	if len(addrs) == 0 {
		return nil, errors.New("memcached: no server")
	}
	s := &Selector{}
	seen := map[string]bool{}
	for _, addr := range addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("memcached: %w", err)
		}
		if seen[addr] {
			return nil, fmt.Errorf("memcached: server %s is listed twice", addr)
		}
		seen[addr] = true
		s.addrs = append(s.addrs, hostPort(addr))
		s.seeds = append(s.seeds, mix(fnv1a(addr)))
	}
	return s, nil
}

// PickServer returns the address of the server that has key, an item's key.
func (s *Selector) PickServer(key string) (net.Addr, error) {
	return s.addrs[s.pick(key)], nil
}

// Each calls f with the address of each server, until it returns an error.
func (s *Selector) Each(f func(net.Addr) error) error {
	for _, addr := range s.addrs {
		if err := f(addr); err != nil {
			return err
		}
	}
	return nil
}

func (s *Selector) pick(key string) int {
	if len(s.seeds) == 1 {
		return 0
	}
	hash := fnv1a(key)
	best, highest := 0, uint64(0)
	for i, seed := range s.seeds {
		if score := mix(hash ^ seed); score > highest {
			best, highest = i, score
		}
	}
	return best
}

// fnv1a is hash/fnv's New64a, which allocates.
func fnv1a(s string) uint64 {
	hash := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		hash = (hash ^ uint64(s[i])) * 0x100000001b3
	}
	return hash
}

// mix is the finalizer of SplitMix64: each bit of x changes about half of the
// result's. FNV's upper bits hardly depend on the last byte of a key.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hostPort is a net.Addr that is not resolved.
type hostPort string

func (hostPort) Network() string  { return "tcp" }
func (a hostPort) String() string { return string(a) }
