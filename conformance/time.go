package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// sleepUntil waits for t. In a bubble the clock jumps there.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }

// minAlive is the shortest TTL of which a case demands to have seen the entry
// alive: a shorter one can end before the first read of a busy machine.
const minAlive = 50 * time.Millisecond

// grain is the unit of stored deadlines, which are rounded up to it.
const grain = time.Microsecond

// end is the instant from which an entry that was set in span set with ttl must
// not be read any more: a resolution after the TTL that was stored.
func (p *probe) end(set span, ttl time.Duration) time.Time {
	if stored := p.stored(ttl); stored <= l2cache.MaxTTL {
		return set.done.Add(stored + p.resolution() + grain)
	}
	return set.done.Add(l2cache.NoExpiry)
}

// A life is an entry whose end is being watched.
type life struct {
	p    *probe
	set  span
	ttl  time.Duration // as given to Set
	over bool          // a miss was seen
	seen time.Time     // latest instant at which the entry is proved to have been alive
	end  bool          // a miss was seen soon after it had to be
}

// early is the instant until which the entry has to be there, late the one from
// which it must not be.
func (l *life) early() time.Time { return l.set.call.Add(l.ttl) }
func (l *life) late() time.Time  { return l.p.end(l.set, l.ttl) }

// soon is until when a miss shows that the entry did not end much too late.
func (l *life) soon() time.Time { return l.late().Add(max(l.ttl/2, 100*time.Millisecond)) }

// observe judges one read of the entry.
func (l *life) observe(r read) {
	p := l.p
	p.wellFormed(r)
	switch {
	case r.hit() && r.call.After(l.late()):
		p.failf("%v at %v | want a miss from %v", r, p.at(r.call), p.at(l.late()))
	case r.hit() && l.over:
		p.failf("%v at %v after a miss | want it to stay gone", r, p.at(r.call))
	case r.hit():
		if r.done.Before(l.early()) {
			l.seen = r.call
		}
		if r.op == "GetWithTTL" {
			p.judgeTTL(r, l.set, l.ttl)
		}
	case r.done.Before(l.early()):
		p.failf("%v at %v | want a hit until %v", r, p.at(r.done), p.at(l.early()))
	default:
		l.over = true
		l.end = l.end || r.call.After(l.late()) && r.done.Before(l.soon())
	}
}

// judgeTTL checks a remaining TTL of an entry that was set in span set with ttl.
func (p *probe) judgeTTL(r read, set span, ttl time.Duration) {
	stored := p.stored(ttl)
	if stored == l2cache.NoExpiry || r.ttl == l2cache.NoExpiry {
		if r.ttl != stored {
			p.failf("%v | want TTL %s", r, ttlText(stored))
		}
		return
	}
	if r.ttl > stored {
		p.failf("%v | want at most %v, what was set", r, stored)
	}
	slack := p.resolution()
	if !p.bubble {
		// Deadlines are on a wall clock, our stamps are not: NTP may slew it by 500 ppm.
		slack += r.done.Sub(set.call) / 2000
	}
	least := min(ttl, stored) - r.done.Sub(set.call) - slack
	most := stored - r.call.Sub(set.done) + slack
	if r.ttl < least || r.ttl > most && r.ttl > 1 {
		p.failf("%v at %v, set at %v | want %v to %v", r, p.at(r.call), p.at(set.call), max(least, 1), most)
	}
}

// schedule is when an entry is looked at: through its life, more often towards its
// end, at the last instant at which it has to be there and the first at which it
// must be gone.
func (l *life) schedule() []time.Time {
	var times []time.Time
	for _, percent := range []time.Duration{10, 25, 50, 75, 90} {
		times = append(times, l.set.call.Add(l.ttl/100*percent))
	}
	for _, before := range []time.Duration{20e6, 10e6, 7e6, 5e6, 4e6, 3e6, 2e6, 1e6, 500e3, 1} {
		times = append(times, l.early().Add(-before))
	}
	for _, after := range []time.Duration{0, 500e3} {
		times = append(times, l.early().Add(after))
	}
	times = slices.DeleteFunc(times, func(t time.Time) bool { return t.Before(l.set.done) })
	slices.SortFunc(times, time.Time.Compare)
	return append(times, l.late().Add(1))
}

// follow watches an entry of h that was set in span set with ttl to its end, with
// the given ways of reading in turn.
func (h *handle) follow(key string, set span, ttl time.Duration, ways ...reader) {
	ttl = min(ttl, h.p.e.profile.MaxTTL)
	l := &life{p: h.p, set: set, ttl: ttl}
	for _, t := range l.schedule() {
		if t.Before(time.Now()) && t.Before(l.late()) {
			continue // too late for this one; the next is soon
		}
		sleepUntil(t)
		for _, how := range ways {
			l.observe(how(h, h.p.ctx, key))
		}
	}
	// One that was to be alive for long must have been seen alive in the last
	// part of its life, or nothing is known about its end.
	if ttl >= minAlive && l.seen.Before(set.call.Add(ttl*6/10)) {
		h.p.again("no read fell into the last part of the life of an entry of %v", ttl)
	}
	if !l.end {
		h.p.again("no read fell soon behind the end of an entry of %v", ttl)
	}
}

// magnitudes are TTLs about which somebody's clocks, units, numbers or servers change
// their ways. The last of them apart, each has others between it and the next.
var magnitudes = []time.Duration{
	1, time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 2 * time.Hour,
	1 << 24 * time.Millisecond, 1 << 16 * time.Second, 24 * time.Hour, 7 * 24 * time.Hour,
	1 << 31 * time.Millisecond, 30 * 24 * time.Hour, 1 << 32 * time.Millisecond, 1 << 24 * time.Second, 365 * 24 * time.Hour,
	5 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour, 1 << 31 * time.Second, l2cache.MaxTTL, l2cache.NoExpiry - 1, l2cache.NoExpiry,
}

// spread returns TTLs of every magnitude in random order: those themselves, the next ones
// beside them, and some in between.
func spread() (ttls []time.Duration) {
	for i, ttl := range magnitudes {
		ttls = append(ttls, ttl)
		if i+1 == len(magnitudes) || magnitudes[i+1] == ttl+1 {
			continue
		}
		ttls = append(ttls, ttl+1, magnitudes[i+1]-1)
		for range 8 {
			ttls = append(ttls, ttl+rand.N(magnitudes[i+1]-ttl))
		}
	}
	rand.Shuffle(len(ttls), func(i, j int) { ttls[i], ttls[j] = ttls[j], ttls[i] })
	return ttls
}

// inParts calls f for the numbers below n, all at once. After attempts that were inconclusive it
// does so in two, four, … parts, one after another: a slow backend does not get round to
// all of them in time.
func (p *probe) inParts(n int, f func(from, to int)) {
	parts := 1 << p.attempt
	for i := range parts {
		f(n*i/parts, n*(i+1)/parts)
	}
}

// spans writes entries with TTLs of every magnitude side by side, and looks at each now
// and then up to its end, or for a while.
func (h *handle) spans(write func(key string, ttl time.Duration) span) {
	p, ttls := h.p, spread()
	var e evidence
	p.inParts(len(ttls), func(from, to int) {
		p.parallel(to-from, func(i int) {
			i += from
			key := fmt.Sprint("span", i)
			time.Sleep(rand.N(p.horizon() / 20)) // not all within one tick of some clock
			set := write(key, ttls[i])
			h.glance(key, set, ttls[i], &e)
		})
	})
	e.want(p)
}

// evidence counts the entries that were followed to their end for long enough to be
// seen shortly before it, and those that were.
type evidence struct{ followed, seen atomic.Int32 }

func (e *evidence) want(p *probe) {
	if followed, seen := e.followed.Load(), e.seen.Load(); seen < followed*3/4 {
		p.again("of %d entries, %d were seen in the last part of their lives", followed, seen)
	}
}

// horizon is how long entries are looked at that live longer.
func (p *probe) horizon() time.Duration {
	if p.bubble {
		return 3 * time.Hour
	}
	return 2 * time.Second
}

// glance reads an entry of h a few times, up to its end or the horizon.
func (h *handle) glance(key string, set span, ttl time.Duration, e *evidence) {
	p := h.p
	ttl = min(ttl, p.e.profile.MaxTTL)
	l := &life{p: p, set: set, ttl: ttl}
	look := func() {
		for _, how := range readers {
			if r := how(h, p.ctx, key); !p.e.profile.Evicts || r.hit() {
				l.observe(r)
			}
		}
	}
	look()
	if ttl > p.horizon() {
		for range 3 {
			time.Sleep(rand.N(10 * time.Millisecond)) // not a whole number of any unit
			look()
		}
		sleepUntil(set.call.Add(p.horizon()))
		look()
		return
	}
	for _, t := range []time.Time{set.call.Add(ttl / 2), l.early().Add(-ttl / 10), l.early().Add(-time.Millisecond), l.early().Add(-500 * time.Microsecond), l.early().Add(-1), l.late().Add(1)} {
		if t.After(time.Now()) || t.After(l.late()) {
			sleepUntil(t)
			look()
		}
	}
	if ttl < p.horizon()/2 || p.e.profile.Evicts {
		return // a slow backend may not be in time
	}
	if e.followed.Add(1); l.seen.After(set.call.Add(ttl * 6 / 10)) {
		e.seen.Add(1)
	}
}

// longer is ttl, doubled for each of up to three earlier attempts that were
// inconclusive.
func (p *probe) longer(ttl time.Duration) time.Duration {
	return min(ttl<<min(p.attempt, 3), max(ttl, 8*time.Second))
}

// spansTTL sets key to its TTL's own text for ttl, and follows it.
func (p *probe) spansTTL(ttl time.Duration) {
	h := p.open()
	set := h.set("k", ttl.String(), ttl)
	h.follow("k", set, ttl, readers...)
}

// livesNow sets an entry with a TTL too long to wait for: it must be there, with
// that TTL, at once and a while later.
func (p *probe) livesNow(ttl time.Duration) {
	h := p.open()
	set := h.set("k", "v", ttl)
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 1100 * time.Millisecond} {
		time.Sleep(pause)
		h.wantHit("k", "v")
		p.judgeTTL(h.entry("k"), set, ttl)
	}
}

// gone waits until an entry of that span and ttl must have ended.
func (p *probe) gone(set span, ttl time.Duration) {
	sleepUntil(p.end(set, ttl).Add(1))
}

// A controlTimer measures how late the process's timers are meanwhile, so that a
// busy machine is not taken for a slow backend.
type controlTimer struct{ fired chan time.Duration }

// control starts a timer for t beside what is being measured.
func control(ctx context.Context, t time.Time) controlTimer {
	c := controlTimer{make(chan time.Duration, 1)}
	go func() {
		timer := time.NewTimer(time.Until(t))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		c.fired <- time.Since(t)
	}()
	return c
}

// lateness waits for the timer, and is how late it was.
func (c controlTimer) lateness() time.Duration { return max(<-c.fired, 0) }
