package conformance

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var ttlRemainingCases = []Case{
	{
		ID:    "ttl/remaining/bounds",
		Law:   "the remaining TTL is that of some instant between call and return",
		cause: "whole seconds, the TTL as it was set, or a clock that is off",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttls := []time.Duration{2500 * time.Millisecond, 10 * time.Second, 90 * time.Minute, 25 * time.Hour}
			sets := make([]span, len(ttls))
			for i, ttl := range ttls {
				sets[i] = h.set(fmt.Sprint("k", i), "v", ttl)
			}
			for range 12 {
				for i, ttl := range ttls {
					r := h.read((*handle).tryEntry, fmt.Sprint("k", i))
					switch {
					case r.hit():
						p.judgeTTL(r, sets[i], ttl)
					case r.done.Before(sets[i].call.Add(ttl)): // else the machine is slow
						p.failf("%v | want a hit", r)
					}
				}
				time.Sleep(103 * time.Millisecond)
			}
		},
	},
	{
		ID:    "ttl/remaining/not-more-than-set",
		Law:   "the remaining TTL is at most what was set, rounded up to the resolution",
		cause: "rounding up, or a margin that the server was given on top",
		run: func(p *probe) {
			h := p.open()
			for i := range 40 {
				ttl := 3*time.Second + time.Duration(i)*time.Second/7
				if i%2 == 0 {
					ttl = ttl.Truncate(time.Second)
				}
				set := h.set("k", "v", ttl)
				p.judgeTTL(h.entry("k"), set, ttl)
			}
		},
	},
	{
		ID:    "ttl/remaining/positive",
		Law:   "as long as an entry is a hit, its remaining TTL is above zero",
		cause: "a remainder that is rounded down to zero, or the server's −1 and −2",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 20 * time.Millisecond
			// A busy machine does not always get to read in the last milliseconds.
			for round, seen := 0, 0; round < 10 || round < 50 && seen < 5; round++ {
				set := h.set("k", "v", ttl)
				last := set.call.Add(ttl - 3*time.Millisecond)
				lastSeen := false
				for time.Now().Before(p.end(set, ttl)) {
					if r := h.read((*handle).tryEntry, "k"); r.hit() { // read wants it above zero
						p.judgeTTL(r, set, ttl)
						lastSeen = lastSeen || r.call.After(last)
					}
					time.Sleep(max(time.Until(last), 100*time.Microsecond))
				}
				if lastSeen {
					seen++
				}
			}
		},
	},
	{
		ID:    "ttl/remaining/no-expiry",
		Law:   "the remaining TTL of an entry that never expires is exactly NoExpiry, and of no other",
		cause: "zero or −1 for never, or never for a TTL that is not known",
		run: func(p *probe) {
			h := p.open()
			forever := h.set("forever", "v", l2cache.NoExpiry)
			year := h.set("year", "v", 365*24*time.Hour)
			for range 3 {
				p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
				p.judgeTTL(h.entry("year"), year, 365*24*time.Hour)
			}
		},
	},
	{
		ID:    "ttl/remaining/miss",
		Law:   "GetWithTTL of a missing, a deleted or an expired key is ErrNotFound with the zero Entry",
		cause: "(nil, 0, nil) for a miss, as some drivers have it",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 5 * time.Millisecond
			set := h.set("expired", "v", ttl)
			h.set("deleted", "v", time.Hour)
			h.delete("deleted")
			p.gone(set, ttl)
			for _, key := range []string{"missing", "expired", "deleted"} {
				if r := h.read((*handle).tryEntry, key); r.hit() {
					p.failf("%v | want ErrNotFound", r)
				}
			}
		},
	},
	{
		ID:    "ttl/remaining/falls",
		Law:   "without writes, the remaining TTL never rises, and falls as time goes by",
		cause: "a remainder that is computed from the time of the read, or from a random spread",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			first := h.entry("k")
			last := first
			for range 30 {
				time.Sleep(7 * time.Millisecond)
				next := h.entry("k")
				if next.ttl > last.ttl {
					p.failf("%v after %v | want it not to rise", next, last.ttl)
				}
				last = next
			}
			passed := last.call.Sub(first.done)
			if fell := first.ttl - last.ttl; p.resolution() < passed/2 && fell < passed-p.resolution() {
				p.failf("%v, %v after %v | want it to have fallen by that", last, passed, first.ttl)
			}
		},
	},
	{
		ID:    "ttl/remaining/after-overwrite",
		Law:   "right after a Set the remaining TTL is that of the new entry",
		cause: "a deadline that is kept apart from the value, or updated later",
		After: []string{"ttl/remaining/bounds"},
		run: func(p *probe) {
			h := p.open()
			for _, ttl := range []time.Duration{time.Hour, 10 * time.Second, l2cache.NoExpiry, 5 * time.Second, 24 * time.Hour, l2cache.NoExpiry, time.Hour} {
				set := h.set("k", "v", ttl)
				p.judgeTTL(h.entry("k"), set, ttl)
			}
		},
	},
	{
		ID:    "ttl/remaining/same-value",
		Law:   "the value of GetWithTTL is that of Get",
		cause: "one of the two forgets to decode",
		run: func(p *probe) {
			h := p.open()
			for i, n := range []int{0, 1, 100, 17_000, 70_000} {
				value := noise(n, uint64(i))
				h.set("k", value, []time.Duration{time.Hour, l2cache.NoExpiry}[i%2])
				get, entry := h.read((*handle).tryGet, "k"), h.read((*handle).tryEntry, "k")
				if !get.hit() || !entry.hit() || string(get.value) != string(entry.value) || string(get.value) != value {
					p.failf("%v, %v | want %s from both", get, entry, brief(value))
				}
			}
		},
	},
	{
		ID:    "ttl/remaining/one-snapshot",
		Law:   "value and TTL come from the same write, whatever other writers do meanwhile",
		cause: "value and TTL are read by two commands",
		After: []string{"ttl/remaining/bounds"},
		Busy:  true,
		run:   oneSnapshotCase,
	},
	{
		ID:    "ttl/remaining/one-snapshot-expiring",
		Law:   "an entry that ends during the read is a hit with a TTL, or a miss",
		cause: "the value is read before the end and the TTL after it",
		Busy:  true,
		run: func(p *probe) {
			h := p.open()
			const watchers = 4
			ttl := max(2*time.Millisecond, 3*h.roundTrip("k")) << p.attempt
			begin := time.Now()
			var ends atomic.Int64 // how often a reader has seen a hit, and then a miss
			p.parallel(1+watchers, func(w int) {
				wasHit := false
				for time.Since(begin) < 700*time.Millisecond || ends.Load() < 50 && time.Since(begin) < 5*time.Second {
					if w == watchers {
						h.set("k", "v", ttl)
						time.Sleep(2 * ttl)
						continue
					}
					r := h.read((*handle).tryEntry, "k")
					if r.hit() && (r.ttl > p.stored(ttl) || string(r.value) != "v") {
						p.failf("%v | want \"v\" with at most %v, or a miss", r, ttl)
					}
					if wasHit && !r.hit() {
						ends.Add(1)
					}
					wasHit = r.hit()
				}
			})
			if ends.Load() == 0 && p.resolution() <= ttl {
				p.again("no reader has seen an entry end")
			}
		},
	},
}

// oneSnapshotCase has writers flip between three values, each with a TTL that
// tells it from the others.
func oneSnapshotCase(p *probe) {
	h := p.open()
	kinds := []struct {
		value string
		ttl   time.Duration
	}{
		{"short", 10 * time.Second},
		{"long" + strings.Repeat(".", 300), 1000 * time.Second},
		{"ever", l2cache.NoExpiry},
	}
	h.set("k", kinds[0].value, kinds[0].ttl)
	begin := time.Now()
	var changes atomic.Int64 // how often a reader has seen another value than before
	p.parallel(12, func(w int) {
		last := kinds[0].value
		for i := 0; time.Since(begin) < time.Second || changes.Load() < 100 && time.Since(begin) < 8*time.Second; i++ {
			if w < 4 {
				kind := kinds[(w+i)%len(kinds)]
				h.set("k", kind.value, kind.ttl)
				continue
			}
			r := h.read((*handle).tryEntry, "k")
			if !r.hit() {
				p.failf("%v | want a hit: it is always set", r)
			}
			if value := string(r.value); value != last {
				changes.Add(1)
				last = value
			}
			for _, kind := range kinds {
				if string(r.value) != kind.value {
					continue
				}
				// None is old enough to have come near another's TTL.
				stored := p.stored(kind.ttl)
				if stored == l2cache.NoExpiry && r.ttl != stored || stored != l2cache.NoExpiry && (r.ttl > stored || r.ttl < stored-9*time.Second) {
					p.failf("%v | want a TTL of about %s with this value", r, ttlText(kind.ttl))
				}
			}
		}
	})
}
