package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/l2cache/l2cache"
)

var touchCases = []Case{
	{
		ID:         "touch/extends",
		Law:        "Touch gives an entry a longer TTL, counted from the call, and leaves its value alone",
		cause:      "a TTL that is added to what is left, or never goes up",
		Capability: l2cache.CanTouch,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			short := p.longer(300 * time.Millisecond)
			old := h.set("k", "value", short)
			s := h.touchBefore(old.call.Add(short), "k", 3*short)
			h.wantHitDuring("k", "value", s, 3*short)
			h.follow("k", s, 3*short, readers...)
		},
	},
	{
		ID:         "touch/shortens",
		Law:        "Touch gives an entry a shorter TTL",
		cause:      "the later of two deadlines is kept",
		Capability: l2cache.CanTouch,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			for _, before := range []time.Duration{time.Hour, l2cache.NoExpiry} {
				h.set("k", "value", before)
				ttl := p.longer(300 * time.Millisecond)
				s := h.touch("k", ttl)
				h.wantHitDuring("k", "value", s, ttl)
				h.follow("k", s, ttl, readers...)
			}
		},
	},
	{
		ID:         "touch/to-no-expiry",
		Law:        "Touch with NoExpiry takes the deadline away, and is no error for an entry that has none",
		cause:      "a command that says nothing was changed, which is taken for a missing key",
		Capability: l2cache.CanTouch,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(300 * time.Millisecond)
			old := h.set("k", "value", ttl)
			h.touchBefore(old.call.Add(ttl), "k", l2cache.NoExpiry)
			s := h.touch("k", l2cache.NoExpiry)
			p.judgeTTL(h.entry("k"), s, l2cache.NoExpiry)
			p.gone(old, ttl)
			h.wantHit("k", "value")
			h.touch("k", time.Hour)
			h.wantHit("k", "value")
		},
	},
	{
		ID:         "touch/remaining",
		Law:        "after Touch the remaining TTL is the new one, and the entry ends by it, for short values, long ones and none, whatever the TTL",
		cause:      "a deadline that is kept apart from the value",
		Capability: l2cache.CanTouch,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			for i, n := range []int{0, 10, 40_000, 300_000, guaranteedValueLen} {
				value := noise(n, uint64(i))
				h.set("k", value, time.Minute)
				for _, ttl := range []time.Duration{time.Hour, 10 * time.Minute, 90500*time.Millisecond + 1, l2cache.MaxTTL, l2cache.NoExpiry, 48 * time.Hour} {
					s := h.touch("k", ttl)
					p.judgeTTL(h.entry("k"), s, ttl)
				}
				h.wantHit("k", value)
			}
			h.spans(func(key string, ttl time.Duration) span {
				h.set(key, "v", time.Hour)
				return h.touch(key, ttl)
			})
		},
	},
	{
		ID:         "touch/peer",
		Law:        "a Touch is seen by every other handle at once",
		cause:      "a TTL that a handle keeps for itself beside the value",
		Capability: l2cache.CanTouch,
		needs:      needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			a.set("k", "v", time.Hour)
			for _, ttl := range []time.Duration{2 * time.Hour, time.Minute, l2cache.NoExpiry, 30 * time.Minute, time.Hour} {
				b.wantHit("k", "v")
				s := a.touch("k", ttl)
				p.judgeTTL(b.entry("k"), s, ttl)
				s = a.set("k", "v", 3*time.Hour) // nor does an equal value hide a new TTL
				p.judgeTTL(b.entry("k"), s, 3*time.Hour)
				a, b = b, a
			}
		},
	},
	{
		ID:         "touch/missing",
		Law:        "Touch of a missing, deleted or expired key is ErrNotFound, and creates nothing",
		cause:      "a write that creates an entry, or one that finds what has expired",
		Capability: l2cache.CanTouch,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 100 * time.Millisecond
			s := h.set("expired", "v", ttl)
			h.set("deleted", "v", time.Hour)
			h.delete("deleted")
			p.gone(s, ttl)
			for _, key := range []string{"missing", "deleted", "expired"} {
				for _, ttl := range []time.Duration{time.Hour, l2cache.NoExpiry} {
					p.wantError(operation{name: "Touch"}, outcome{err: l2cache.Touch(p.ctx, h.b, key, ttl)}, l2cache.ErrNotFound)
					h.wantMiss(key)
				}
			}
		},
	},
	{
		ID:         "touch/invalid",
		Law:        "Touch with a TTL of zero or less is ErrInvalidTTL, and changes nothing",
		cause:      "a TTL that the server takes for a delete",
		Capability: l2cache.CanTouch,
		run: func(p *probe) {
			h := p.open()
			s := h.set("k", "v", time.Hour)
			for _, ttl := range []time.Duration{0, -1, -time.Second, -time.Hour} {
				p.wantError(operation{name: "Touch"}, outcome{err: l2cache.Touch(p.ctx, h.b, "k", ttl)}, l2cache.ErrInvalidTTL)
			}
			h.wantHit("k", "v")
			p.judgeTTL(h.entry("k"), s, time.Hour)
		},
	},
	{
		ID:         "touch/racing-delete",
		Law:        "a Touch never brings back what was deleted meanwhile",
		cause:      "a read and a write of the value, without a condition",
		Capability: l2cache.CanTouch,
		run: func(p *probe) {
			p.race(func(h *handle, key string) { h.delete(key) }, func(h *handle, key string) { h.wantMiss(key) })
		},
	},
	{
		ID:         "touch/racing-set",
		Law:        "a Touch never puts back the value that was replaced meanwhile",
		cause:      "a read and a write of the value, without a condition",
		Capability: l2cache.CanTouch,
		run: func(p *probe) {
			p.race(func(h *handle, key string) { h.set(key, "new", time.Hour) }, func(h *handle, key string) { h.wantHit(key, "new") })
		},
	},
}

// touch changes the TTL of key, which must succeed.
func (h *handle) touch(key string, ttl time.Duration) span {
	return h.touchBefore(time.Now().Add(l2cache.MaxTTL), key, ttl)
}

// touchBefore is touch of an entry that has to be there until end: a miss that came
// back later proves nothing.
func (h *handle) touchBefore(end time.Time, key string, ttl time.Duration) span {
	s := span{call: time.Now()}
	err := l2cache.Touch(h.p.ctx, h.b, key, ttl)
	s.done = time.Now()
	h.note("Touch(%s,%s)@%v%s", brief(key), ttlText(ttl), h.p.at(s.call), failure(err))
	if errors.Is(err, l2cache.ErrNotFound) && !s.done.Before(end) {
		h.p.again("Touch returned %v after the end of the entry", s.done.Sub(end))
	}
	if err != nil {
		h.p.failf("Touch(%s, %s) = %v | want nil", brief(key), ttlText(ttl), err)
	}
	return s
}

// race has a write and several Touch of one key at the same time, on many keys,
// then looks whether the write is what stands.
func (p *probe) race(write, check func(h *handle, key string)) {
	a, b := p.peers()
	trip := a.roundTrip("k")
	p.parallel(6, func(w int) {
		for i := range 50 {
			h := []*handle{a, b}[i%2]
			key := fmt.Sprintf("k%d.%d", w, i)
			h.set(key, "old", time.Hour)
			p.parallel(4, func(role int) {
				if role == 0 {
					time.Sleep(rand.N(2 * trip)) // it meets them at any stage
					write(h, key)
					return
				}
				for range 3 {
					err := l2cache.Touch(p.ctx, []*handle{a, b}[role%2].b, key, time.Duration(1+role)*time.Hour)
					if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
						p.failf("Touch beside a write = %v | want nil or ErrNotFound", err)
					}
				}
			})
			check(h, key)
		}
	})
}
