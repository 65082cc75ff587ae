package tiered

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"github.com/l2cache/l2cache"
)

// Stats is what a Cache has done since New, and its state now. The counts are read
// one after another, not at one instant.
type Stats struct {
	L1Hits   uint64 // answered by L1, negative entries included
	L1Misses uint64
	L2Hits   uint64
	L2Misses uint64
	L2Errors uint64 // reads of a key that L2 could not answer
	Stale    uint64 // stale entries served

	// NoExpiryHits is how many hits, of both tiers, were of entries without expiry.
	NoExpiryHits uint64

	Promoted            uint64
	PromotionsExpired   uint64
	PromotionsOvertaken uint64
	PromotionsSkipped   uint64

	Loads          uint64 // keys that a loader was called for
	LoadsNotFound  uint64
	LoadsNotStored uint64
	LoadsOvertaken uint64
	LoadErrors     uint64
	Joined         uint64 // callers that waited for a load which another had begun

	Invalidations uint64 // changes that Watch told of
	Gaps          uint64
	WatchErrors   uint64

	DeletesResent  uint64
	DeletesDropped uint64
	PendingDeletes int // deletes that wait to be sent again; after Close, those that never were

	Entries  int // in L1, those that it may not serve as fresh included
	Breaker  BreakerState
	Watching bool // L2 is being watched; while it is down that can go on, and ends with a Gap
}

// Stats returns the counts and the state of the cache. It may be called after Close.
func (c *Cache[V]) Stats() Stats {
	sum := c.counters.sum()
	return Stats{
		L1Hits: sum[l1Hits], L1Misses: sum[l1Misses], L2Hits: sum[l2Hits], L2Misses: sum[l2Misses], L2Errors: sum[l2Errors],
		Stale: sum[stale], NoExpiryHits: sum[noExpiryHits],
		Promoted: sum[promoted], PromotionsExpired: sum[promotionsExpired],
		PromotionsOvertaken: sum[promotionsOvertaken], PromotionsSkipped: sum[promotionsSkipped],
		Loads: sum[loads], LoadsNotFound: sum[loadsNotFound], LoadsNotStored: sum[loadsNotStored],
		LoadsOvertaken: sum[loadsOvertaken], LoadErrors: sum[loadErrors], Joined: sum[joined],
		Invalidations: sum[invalidations], Gaps: sum[gaps], WatchErrors: sum[watchErrors],
		DeletesResent: sum[deletesResent], DeletesDropped: sum[deletesDropped], PendingDeletes: int(c.deletes.waiting.Load()),
		Entries: c.l1.EstimatedSize(), Breaker: c.breaker.now(), Watching: c.watching.Load(),
	}
}

type counter int

const (
	l1Hits counter = iota
	l1Misses
	l2Hits
	l2Misses
	l2Errors
	stale
	noExpiryHits
	promoted
	promotionsExpired
	promotionsOvertaken
	promotionsSkipped
	loads
	loadsNotFound
	loadsNotStored
	loadsOvertaken
	loadErrors
	joined
	invalidations
	gaps
	watchErrors
	deletesResent
	deletesDropped
	numCounters
)

// counters are kept several times over, so that goroutines on different CPUs do not
// write to the same cache line for each L1 hit.
type counters []stripe

type stripe struct {
	n [numCounters]atomic.Uint64
	_ [64]byte // a cache line
}

// newCounters makes a power of two of stripes.
func newCounters() counters {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	return make(counters, n)
}

func (c counters) add(i counter) { c[rand.Uint32()&uint32(len(c)-1)].n[i].Add(1) }

func (c counters) sum() (sum [numCounters]uint64) {
	for s := range c {
		for i := range sum {
			sum[i] += c[s].n[i].Load()
		}
	}
	return sum
}

// count adds an event to the counts.
func (c counters) count(e Event) {
	switch e.Kind {
	case EventRead:
		c.countRead(e)
	case EventPromotion:
		switch e.Outcome {
		case OutcomeStored:
			c.add(promoted)
		case OutcomeExpired:
			c.add(promotionsExpired)
		case OutcomeOvertaken:
			c.add(promotionsOvertaken)
		case OutcomeSkipped:
			c.add(promotionsSkipped)
		}
	case EventLoad:
		c.add(loads)
		switch e.Outcome {
		case OutcomeNotFound:
			c.add(loadsNotFound)
		case OutcomeNotStored:
			c.add(loadsNotStored)
		case OutcomeOvertaken:
			c.add(loadsOvertaken)
		case OutcomeError:
			c.add(loadErrors)
		}
	case EventJoin:
		c.add(joined)
	case EventInvalidation:
		switch e.Outcome {
		case OutcomeChanged:
			c.add(invalidations)
		case OutcomeGap:
			c.add(gaps)
		case OutcomeError:
			c.add(watchErrors)
		}
	case EventResend:
		switch e.Outcome {
		case OutcomeStored:
			c.add(deletesResent)
		case OutcomeDropped:
			c.add(deletesDropped)
		}
	}
}

func (c counters) countRead(e Event) {
	switch {
	case e.Outcome == OutcomeStale:
		c.add(stale)
	case e.Outcome == OutcomeHit && e.Tier == TierL1:
		c.add(l1Hits)
	case e.Outcome == OutcomeMiss && e.Tier == TierL1:
		c.add(l1Misses)
	case e.Outcome == OutcomeHit:
		c.add(l2Hits)
	case e.Outcome == OutcomeMiss:
		c.add(l2Misses)
	case e.Outcome == OutcomeError:
		c.add(l2Errors)
	}
	if e.Outcome == OutcomeHit && e.TTL == l2cache.NoExpiry {
		c.add(noExpiryHits)
	}
}
