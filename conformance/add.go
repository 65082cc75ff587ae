package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var addCases = []Case{
	{
		ID:         "add/first-wins",
		Law:        "Add stores an entry if there is none; another one returns false and changes neither value nor TTL",
		cause:      "an Add that overwrites, or gives the loser's TTL to the entry",
		Capability: l2cache.CanAdd,
		run: func(p *probe) {
			h := p.open()
			s := h.add("k", "first", time.Hour, true)
			for _, ttl := range []time.Duration{time.Minute, 24 * time.Hour, l2cache.NoExpiry} {
				h.add("k", "second", ttl, false)
				h.wantHit("k", "first")
				p.judgeTTL(h.entry("k"), s, time.Hour)
			}
			s = h.set("set", "by Set", l2cache.NoExpiry)
			h.add("set", "by Add", time.Minute, false)
			h.wantHit("set", "by Set")
			p.judgeTTL(h.entry("set"), s, l2cache.NoExpiry)
			h.add("empty", "", time.Hour, true)
			h.add("empty", "x", time.Hour, false)
			h.wantHit("empty", "")
		},
	},
	{
		ID:         "add/ttl",
		Law:        "an entry that was added has its TTL and ends by it, whatever the TTL",
		cause:      "a command for adding that has no TTL",
		Capability: l2cache.CanAdd,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(300 * time.Millisecond)
			s := h.add("k", "v", ttl, true)
			forever := h.add("forever", "v", l2cache.NoExpiry, true)
			h.wantHitDuring("k", "v", s, ttl)
			h.follow("k", s, ttl, readers...)
			p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
			h.spans(func(key string, ttl time.Duration) span { return h.add(key, "v", ttl, true) })
		},
	},
	{
		ID:         "add/after-expiry",
		Law:        "Add succeeds as soon as the entry has expired",
		cause:      "an expired entry that the server still has",
		Capability: l2cache.CanAdd,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 150 * time.Millisecond
			s := h.set("k", "old", ttl)
			for i := range 3 {
				p.gone(s, ttl)
				s = h.add("k", fmt.Sprint(i), ttl, true)
				h.wantHitDuring("k", fmt.Sprint(i), s, ttl)
			}
		},
	},
	{
		ID:         "add/after-delete",
		Law:        "Add succeeds right after a delete of any sort, through any handle",
		cause:      "a tombstone that is taken for an entry",
		Capability: l2cache.CanAdd,
		run: func(p *probe) {
			a, b := p.peers()
			deletes := []func(h *handle){
				func(h *handle) { h.delete("k") },
				func(h *handle) {
					if err := l2cache.DeleteMany(p.ctx, h.b, []string{"k", "k2"}); err != nil {
						p.failf("DeleteMany = %v | want nil", err)
					}
				},
			}
			if p.e.profile.Supports.Has(l2cache.CanDeletePattern) {
				deletes = append(deletes, func(h *handle) { h.deletePattern("k") })
			}
			for i := range 24 {
				a.add("k", fmt.Sprint(i), time.Hour, true)
				b.wantHit("k", fmt.Sprint(i))
				b.add("k", "another", time.Minute, false)
				deletes[i%len(deletes)](b)
				if i%2 == 0 {
					a, b = b, a
				}
			}
		},
	},
	{
		ID:         "add/one-winner",
		Law:        "of concurrent Adds of one key, through any handle, exactly one succeeds, and its value is stored, also on a key that has just expired or been deleted",
		cause:      "a check and a write, without a condition",
		Capability: l2cache.CanAdd,
		run: func(p *probe) {
			h, peer := p.peers()
			for round := range 40 {
				callers := []*handle{h, h}
				if round%2 == 1 {
					callers[1] = peer
				}
				key := fmt.Sprint("k", round)
				switch round % 3 {
				case 1:
					p.gone(h.set(key, "expired", time.Millisecond), time.Millisecond)
				case 2:
					h.set(key, "deleted", time.Hour)
					h.delete(key)
				}
				var winners atomic.Int32
				var winner atomic.Int32
				p.parallel(16, func(w int) {
					added, err := l2cache.Add(p.ctx, callers[w%2].b, key, []byte(fmt.Sprint("of ", w)), time.Hour)
					if err != nil {
						p.failf("Add beside 15 others = %v | want nil", err)
					}
					if added {
						winners.Add(1)
						winner.Store(int32(w))
					}
				})
				if n := winners.Load(); n != 1 {
					p.failf("%d of 16 Adds of %s succeeded | want 1", n, key)
				}
				h.wantHit(key, fmt.Sprint("of ", winner.Load()))
			}
		},
	},
	{
		ID:         "add/invalid",
		Law:        "Add with an invalid key or TTL, an ended ctx, or after Close is an error and not false, and stores nothing",
		cause:      "an error that is swallowed into false",
		Capability: l2cache.CanAdd,
		run: func(p *probe) {
			h := p.open()
			ended, cancel := context.WithCancel(p.ctx)
			cancel()
			for _, c := range []struct {
				ctx  context.Context
				key  string
				ttl  time.Duration
				want error
			}{
				{p.ctx, "", time.Hour, l2cache.ErrInvalidKey},
				{p.ctx, noise(p.e.profile.MaxKeyLen+1, 1), time.Hour, l2cache.ErrInvalidKey},
				{p.ctx, "k", 0, l2cache.ErrInvalidTTL},
				{p.ctx, "k", -1, l2cache.ErrInvalidTTL},
				{ended, "k", time.Hour, context.Canceled},
			} {
				added, err := l2cache.Add(c.ctx, h.b, c.key, []byte("v"), c.ttl)
				p.wantError(operation{name: "Add"}, outcome{err: err}, c.want)
				if added {
					p.failf("Add = true with %v | want false", err)
				}
			}
			h.wantMiss("k")
			h.close()
			_, err := l2cache.Add(p.ctx, h.b, "k", []byte("v"), time.Hour)
			p.wantError(operation{name: "Add"}, outcome{err: err}, l2cache.ErrClosed)
		},
	},
	{
		ID:         "add/linearizable",
		Law:        "Add and Touch take their place among concurrent operations on a key",
		cause:      "a check and a write, without a condition",
		Capability: l2cache.CanAdd,
		After:      []string{"concurrency/linearizable"},
		Busy:       true,
		run: func(p *probe) {
			a, b := p.peers()
			p.linearizable(a, b, p.e.profile.Supports)
		},
	},
	{
		ID:         "add/damaged",
		Law:        "Add does not overwrite what is not an entry: the key is taken, as ErrCorrupt",
		cause:      "a decoder's error that is taken for an expired entry",
		Capability: l2cache.CanAdd,
		needs:      needDamage,
		run: func(p *probe) {
			p.damaged(func(h *handle, key, name string) {
				added, err := l2cache.Add(p.ctx, h.b, key, []byte("new"), time.Hour)
				if added || err != nil && !errors.Is(err, l2cache.ErrCorrupt) {
					p.failf("Add on what was damaged (%s) = %v, %v | want false or ErrCorrupt", name, added, err)
				}
				for _, op := range operations[:2] {
					p.wantError(op, h.try(p.ctx, op, key), l2cache.ErrCorrupt)
				}
			})
		},
	},
}

// add tries to store an entry, and wants to be told whether it was.
func (h *handle) add(key, value string, ttl time.Duration, want bool) span {
	s := span{call: time.Now()}
	added, err := l2cache.Add(h.p.ctx, h.b, key, []byte(value), ttl)
	s.done = time.Now()
	h.note("Add(%s,%s)@%v:%v%s", brief(key), ttlText(ttl), h.p.at(s.call), added, failure(err))
	if err != nil || added != want {
		h.p.failf("Add(%s, %s) = %v, %v | want %v", brief(key), brief(value), added, err, want)
	}
	return s
}
