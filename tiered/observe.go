package tiered

import (
	"context"
	"time"
)

// An EventKind says what an [Event] tells of, and which of its fields are set.
type EventKind uint8

const (
	// EventRead: one key was looked up in Tier. Outcome is OutcomeHit, OutcomeMiss or
	// OutcomeError, or in TierL1 OutcomeStale for a stale entry that was served because
	// L2 or the loader had failed. A read that L1 cannot answer has a second event for
	// TierL2. A hit has TTL, and in TierL1 Consumed; that of a negative entry is a hit of
	// TierL1, with what is left of that. Duration is that of the read of L2; the keys of one
	// GetMany share the round trip's. In TierL1 it is zero: to read the clock for it would
	// take as long as the look-up.
	EventRead EventKind = iota + 1

	// EventPromotion: an entry that was read from L2 was OutcomeStored in L1, or it was
	// OutcomeExpired when it arrived, OutcomeOvertaken by a change of its key, or
	// OutcomeSkipped by Options.PromoteEvery. It has TTL, what L2 said was left.
	EventPromotion

	// EventLoad: a loader was called for the key. Outcome is OutcomeStored,
	// OutcomeNotStored (the loader wanted that, or L2 failed: then Err says how, if the
	// load had got as far as to write; with SkipL2, L1 is what counts),
	// OutcomeNotFound, OutcomeOvertaken or OutcomeError. Duration is that of the loader;
	// the keys of one GetOrLoadMany share it. TTL is what the loader decided.
	EventLoad

	// EventJoin: a caller waits for a load, or a read of L2, that another has begun.
	EventJoin

	// EventBreaker: the circuit breaker went to the state Breaker.
	EventBreaker

	// EventInvalidation: L2 told of a change of the key (OutcomeChanged), or that
	// changes may have gone unseen (OutcomeGap), or that it cannot be watched at the
	// moment (OutcomeError).
	EventInvalidation

	// EventResend: a delete that had failed has been sent (OutcomeStored), or given up
	// because too many wait (OutcomeDropped), or has failed again (OutcomeError).
	EventResend
)

var kindNames = [...]string{"", "read", "promotion", "load", "join", "breaker", "invalidation", "resend"}

// String returns "read", "promotion" and so on: a name for a metric.
func (k EventKind) String() string { return nameOf(kindNames[:], int(k)) }

// An Outcome is how something ended, in a word that can be a metric's label.
type Outcome string

// The outcomes. [EventKind] says which kinds have which.
const (
	OutcomeHit       Outcome = "hit"
	OutcomeMiss      Outcome = "miss"
	OutcomeStale     Outcome = "stale"
	OutcomeError     Outcome = "error"
	OutcomeStored    Outcome = "stored"
	OutcomeNotStored Outcome = "not_stored"
	OutcomeNotFound  Outcome = "not_found"
	OutcomeExpired   Outcome = "expired"
	OutcomeOvertaken Outcome = "overtaken"
	OutcomeSkipped   Outcome = "skipped"
	OutcomeChanged   Outcome = "changed"
	OutcomeGap       Outcome = "gap"
	OutcomeDropped   Outcome = "dropped"
)

// An Event is one thing that happened in a Cache, as Options.Observer gets it.
type Event struct {
	Kind    EventKind
	Outcome Outcome
	Tier    Tier   // of an EventRead
	Key     string // empty for EventBreaker and a gap; no label for a metric: there is no end to keys
	Err     error  // of OutcomeError, and of OutcomeNotStored if L2 failed

	Duration time.Duration

	// TTL is what is left of the entry; l2cache.NoExpiry if it has no expiry; zero where
	// nothing is known, as for a stale one.
	TTL time.Duration
	// Consumed is how much of the TTL that the entry was stored with is gone, from 0 to
	// 1. It is negative where that TTL is not known, which is so for entries that this
	// Cache did not store itself, or that L1 has lost since, and for those without expiry.
	Consumed float64

	// Breaker is the state that the circuit breaker went to, of an EventBreaker.
	Breaker BreakerState
}

// unknown is Consumed where it is not known.
const unknown = -1

// tell counts an event and hands it to the observer.
func (c *Cache[V]) tell(ctx context.Context, e Event) {
	c.counters.count(e)
	if c.options.Observer != nil {
		c.options.Observer(ctx, e)
	}
}

func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) || names[i] == "" {
		return "unknown"
	}
	return names[i]
}
