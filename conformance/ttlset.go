package conformance

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var ttlSetCases = append([]Case{
	{
		ID:    "ttl/set/zero",
		Law:   "a TTL of zero is ErrInvalidTTL, and changes nothing",
		cause: "zero is passed on, and the driver takes it for no expiry",
		run:   func(p *probe) { p.refusesTTL(0) },
	},
	{
		ID:    "ttl/set/negative",
		Law:   "a negative TTL is ErrInvalidTTL, and changes nothing",
		cause: "the driver takes negative numbers for no expiry, or for a command of its own",
		run: func(p *probe) {
			p.refusesTTL(-1, -999, -time.Microsecond, -time.Millisecond, -time.Second, -2*time.Second, -time.Hour, math.MinInt64)
		},
	},
	{
		ID:    "ttl/set/independent",
		Law:   "each entry ends by its own TTL, and one without expiry outlives them",
		cause: "one TTL for the whole store, or an entry without expiry that is swept with others",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			forever := h.set("forever", "v", l2cache.NoExpiry)
			hour := h.set("hour", "v", time.Hour)
			others := func() {
				h.wantHit("hour", "v")
				h.wantHit("forever", "v")
				p.judgeTTL(h.entry("hour"), hour, time.Hour)
				p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
			}
			const first = 200 * time.Millisecond
			p.gone(h.set("first", "v", first), first)
			h.wantMiss("first")
			others()
			ttl := p.longer(400 * time.Millisecond)
			long := h.set("long", "v", 2*ttl)
			short := h.set("short", "v", ttl)
			h.follow("short", short, ttl, readers...)
			h.follow("long", long, 2*ttl, readers...)
			others()
		},
	},
	{
		ID:    "ttl/set/every-magnitude",
		Law:   "an entry is there with the TTL that it was set for, and gone at its end, whatever the TTL",
		cause: "a unit, a number or a command that changes with the size of the TTL",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			h.spans(func(key string, ttl time.Duration) span { return h.set(key, "v", ttl) })
		},
	},
	{
		ID:    "ttl/set/get-does-not-extend",
		Law:   "Get does not extend the life of an entry",
		cause: "a sliding expiry",
		timed: true,
		run:   func(p *probe) { p.readsDoNotExtend((*handle).tryGet) },
	},
	{
		ID:    "ttl/set/getwithttl-does-not-extend",
		Law:   "GetWithTTL does not extend the life of an entry",
		cause: "a sliding expiry",
		timed: true,
		run:   func(p *probe) { p.readsDoNotExtend((*handle).tryEntry) },
	},
	{
		ID:    "ttl/set/unread",
		Law:   "an entry that nobody reads or writes ends all the same, also for a Delete and a Set that come after",
		cause: "expiry that is only looked for by an operation that was not used here",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 300 * time.Millisecond
			set := h.set("read", "v", ttl)
			h.set("deleted", "v", ttl)
			set = span{set.call, h.set("replaced", "v", ttl).done}
			p.gone(set, ttl)
			h.wantMiss("read")
			h.delete("deleted")
			h.wantMiss("deleted")
			h.set("replaced", "w", time.Hour)
			h.wantHit("replaced", "w")
		},
	},
	{
		ID:    "ttl/set/after-expiry",
		Law:   "a Set after an entry has expired starts a full TTL",
		cause: "a remainder of the expired entry: a deadline, a tombstone, an expiry timer",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(300 * time.Millisecond)
			for i := range 3 {
				value := fmt.Sprint("v", i)
				set := h.set("k", value, ttl)
				h.wantHitDuring("k", value, set, ttl)
				h.follow("k", set, ttl, readers...)
			}
		},
	},
	{
		ID:    "ttl/set/many",
		Law:   "a thousand entries of one TTL are all gone when it is over",
		cause: "expiry in rounds that leave some for later",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const keys, workers, ttl = 1000, 16, 500 * time.Millisecond
			ends := make([]time.Time, workers)
			p.parallel(workers, func(w int) {
				for i := w; i < keys; i += workers {
					ends[w] = h.set(fmt.Sprintf("k%d", i), "v", ttl).done
				}
			})
			for _, end := range ends {
				p.gone(span{done: end}, ttl)
			}
			p.parallel(workers, func(w int) {
				for i := w; i < keys; i += workers {
					h.wantMiss(fmt.Sprintf("k%d", i))
				}
			})
		},
	},
	{
		ID:    "ttl/set/sizes",
		Law:   "an entry ends by its TTL however long its key and its value are",
		cause: "large values that are stored in another way, without the TTL",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 300 * time.Millisecond
			values := map[string]int{} // the lengths of values, by key
			for _, n := range []int{0, 1, 1000, 20_000, 70_000, 300_000, guaranteedValueLen} {
				values[fmt.Sprint("k", n)] = n
			}
			for _, n := range []int{100, 251, p.e.profile.MaxKeyLen} {
				values[strings.Repeat("k", min(n, p.e.profile.MaxKeyLen))] = 10
			}
			var last span
			for key, n := range values {
				last = h.set(key, noise(n, 1), ttl)
			}
			p.gone(last, ttl)
			for key := range values {
				h.wantMiss(key)
			}
		},
	},
	{
		ID:    "ttl/set/peer",
		Law:   "the end of an entry is the same for every handle, those opened later too",
		cause: "a TTL that only the handle which set it knows",
		needs: needPeer,
		timed: true,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			ttl := p.longer(300 * time.Millisecond)
			set := a.set("k", "v", ttl)
			b.follow("k", set, ttl, readers...)
			p.open().wantMiss("k")
		},
	},
	{
		ID:    "ttl/set/reclaimed",
		Level: Should,
		Law:   "the space of expired entries is given back without anyone asking for them",
		cause: "an expiry that is only looked at by reads",
		needs: needStored,
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 200 * time.Millisecond
			p.gone(h.set("expired", "v", ttl), ttl)
			limit := 15 * time.Second
			if p.e.profile.Embedded {
				limit = 5 * time.Minute // a sweeper has its interval; in a bubble this is no time
			}
			for end := time.Now().Add(limit); ; time.Sleep(limit / 100) {
				stored, err := p.e.o.Raw.Stored(p.ctx, p.ns, "expired")
				if err != nil {
					p.failf("Raw.Stored = %v | want nil", err)
				}
				if !stored {
					return
				}
				if time.Now().After(end) {
					p.failf("the store still holds an expired entry after %v | want it gone", limit)
				}
			}
		},
	},
	{
		ID:    "ttl/set/lazy-race",
		Law:   "removing an expired entry never removes a fresh one that was set at the same time",
		cause: "a read that finds an expired entry, then deletes the key whatever it holds by then",
		run:   lazyRaceCase,
	},
}, slicesOfCases(shortTTLs, longTTLs)...)

// shortTTLs follows one entry each to its end.
func shortTTLs() (cases []Case) {
	for _, c := range []struct {
		id    string
		ttl   time.Duration
		cause string
	}{
		{"1ns", 1, "a TTL below the unit becomes zero, which is taken for never"},
		{"999us", 999 * time.Microsecond, "a TTL below the unit becomes zero, which is taken for never"},
		{"1ms", time.Millisecond, "a TTL below a second becomes zero, or is refused"},
		{"10ms", 10 * time.Millisecond, "a TTL below a second becomes zero, or is refused"},
		{"300ms", 300 * time.Millisecond, "a TTL below a second is rounded to whole seconds, or becomes never"},
		{"999ms", 999 * time.Millisecond, "whole seconds: rounded up it is late, cut it is never"},
		{"1500ms", 1500 * time.Millisecond, "whole seconds: rounded up it is late, cut it is early"},
	} {
		cases = append(cases, Case{
			ID:    "ttl/set/" + c.id,
			Law:   fmt.Sprintf("an entry with a TTL of %v is there until then and gone from then", c.ttl),
			cause: c.cause,
			timed: true,
			run:   func(p *probe) { p.spansTTL(c.ttl) },
		})
	}
	return cases
}

// longTTLs looks at the beginning of lives too long to wait for.
func longTTLs() (cases []Case) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		id    string
		ttl   time.Duration
		cause string
	}{
		{"24d21h", 1<<31*time.Millisecond + time.Second, "milliseconds that overflow 32 bits"},
		{"30d", 30 * day, "a server that reads longer TTLs as dates"},
		{"30d1s", 30*day + time.Second, "memcached reads TTLs over 30 days as seconds since 1970, and the entry is gone at once"},
		{"49d18h", 1<<32*time.Millisecond + time.Second, "milliseconds that overflow 32 bits without a sign"},
		{"68y", 1<<31*time.Second + time.Second, "seconds that overflow 32 bits"},
		{"100y", l2cache.MaxTTL, "a deadline that overflows"},
		{"292y", l2cache.NoExpiry - 1, "an addition or a rounding that overflows"},
		{"no-expiry", l2cache.NoExpiry, "NoExpiry that is passed on as a number and overflows"},
	} {
		cases = append(cases, Case{
			ID:    "ttl/set/" + c.id,
			Law:   fmt.Sprintf("an entry with a TTL of %s is there, and says so", ttlText(c.ttl)),
			cause: c.cause,
			timed: true,
			run:   func(p *probe) { p.livesNow(c.ttl) },
		})
	}
	return cases
}

func slicesOfCases(lists ...func() []Case) (cases []Case) {
	for _, list := range lists {
		cases = append(cases, list()...)
	}
	return cases
}

// refusesTTL wants ErrInvalidTTL for each, and neither a new entry nor a change of
// an old one.
func (p *probe) refusesTTL(ttls ...time.Duration) {
	h := p.open()
	hour := h.set("hour", "old", time.Hour)
	forever := h.set("forever", "old", l2cache.NoExpiry)
	set := operation{name: "Set"}
	for _, ttl := range ttls {
		for _, key := range []string{"absent", "hour", "forever"} {
			s, err := h.trySet(p.ctx, key, []byte("new"), ttl)
			p.wantError(set, outcome{span: s, err: err}, l2cache.ErrInvalidTTL)
		}
		h.wantMiss("absent")
		h.wantHit("hour", "old")
		h.wantHit("forever", "old")
		p.judgeTTL(h.entry("hour"), hour, time.Hour)
		p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
	}
}

func (p *probe) readsDoNotExtend(how reader) {
	h := p.open()
	ttl := p.longer(600 * time.Millisecond)
	set := h.set("k", "v", ttl)
	h.follow("k", set, ttl, how)
}

// wantHitDuring wants a hit if it is certain that the entry had not ended yet.
func (h *handle) wantHitDuring(key, value string, set span, ttl time.Duration) {
	ttl = min(ttl, h.p.e.profile.MaxTTL)
	for _, how := range readers {
		r := h.read(how, key)
		if r.hit() && string(r.value) != value || !r.hit() && r.done.Before(set.call.Add(ttl)) {
			h.p.failf("%v | want %q", r, value)
		}
	}
}

// lazyRaceCase lets entries expire under the eyes of readers, and replaces each
// about then.
func lazyRaceCase(p *probe) {
	h := p.open()
	const workers, rounds, keys = 4, 12, 25
	begin := time.Now()
	p.parallel(workers, func(w int) {
		for round := 0; round < 2 || round < rounds && time.Since(begin) < 10*time.Second; round++ {
			ttl := time.Duration(2+round%5) * time.Millisecond
			last := span{}
			for i := range keys {
				last = h.set(fmt.Sprintf("k%d.%d", w, i), "old", ttl)
			}
			sleepUntil(last.done.Add(ttl - 500*time.Microsecond))
			p.parallel(3, func(role int) {
				for i := range keys {
					key := fmt.Sprintf("k%d.%d", w, i)
					if role > 0 {
						h.read(readers[role-1], key)
						h.read(readers[role-1], key)
						continue
					}
					h.set(key, "fresh", time.Hour)
				}
			})
			// What a reader has set in motion may still be under way.
			for range 2 {
				for i := range keys {
					h.wantHit(fmt.Sprintf("k%d.%d", w, i), "fresh")
				}
			}
		}
	})
}
