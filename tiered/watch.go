package tiered

import (
	"errors"
	"time"

	"github.com/l2cache/l2cache"
)

// Between two attempts to watch L2.
const (
	minWatchWait = 100 * time.Millisecond
	maxWatchWait = 10 * time.Second
)

// watch has L1 follow the changes that L2 tells of, until Close. The events do not say
// who made a change, and one may stand for several: a write of this Cache comes back, too,
// and has L1 ask L2 for what it is now.
func (c *Cache[V]) watch() {
	watched := false
	for wait := minWatchWait; ; wait = min(2*wait, maxWatchWait) {
		var failed error
		for event, err := range l2cache.Watch(c.ctx, c.l2, "") {
			if err != nil {
				failed = err
				break
			}
			wait = minWatchWait
			c.follow(event, watched)
			watched = true
		}
		c.watching.Store(false)
		if c.closed.Load() || errors.Is(failed, l2cache.ErrClosed) || errors.Is(failed, errors.ErrUnsupported) {
			return
		}
		c.tell(c.ctx, Event{Kind: EventInvalidation, Outcome: OutcomeError, Err: failed, Consumed: unknown})
		if !c.pause(wait) {
			return
		}
	}
}

// follow does in L1 what an event of L2 asks for. On a Gap L1 serves nothing of what it
// has as fresh any more, and keeps it for when L2 fails. The first Gap is the beginning
// of the watch, a moment after New: a load that is under way then is stored, as it would
// be without a watch.
func (c *Cache[V]) follow(event l2cache.Event, watched bool) {
	if event.Gap {
		c.epoch.Add(1)
		if watched {
			c.flights.allPassed()
		}
		c.watching.Store(true)
		c.tell(c.ctx, Event{Kind: EventInvalidation, Outcome: OutcomeGap, Consumed: unknown})
		return
	}
	c.flights.passed(event.Key)
	c.doubt(event.Key)
	c.tell(c.ctx, Event{Kind: EventInvalidation, Outcome: OutcomeChanged, Key: event.Key, Consumed: unknown})
}
