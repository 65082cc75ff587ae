package l2otel

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// reads count look-ups, for counters that are read when the metrics are: to add to a
// counter of the SDK takes longer than an L1 hit. They are kept several times over, so that
// goroutines on different CPUs do not write to the same cache line.
type reads []stripe

type stripe struct {
	outcomes [len(readOutcomes)]atomic.Int64
	noExpiry [2]atomic.Int64 // L1, L2
	_        [64]byte        // a cache line
}

var readOutcomes = [...]struct {
	tier    tiered.Tier
	outcome tiered.Outcome
}{
	{tiered.TierL1, tiered.OutcomeHit},
	{tiered.TierL1, tiered.OutcomeMiss},
	{tiered.TierL1, tiered.OutcomeStale},
	{tiered.TierL2, tiered.OutcomeHit},
	{tiered.TierL2, tiered.OutcomeMiss},
	{tiered.TierL2, tiered.OutcomeError},
}

var tiers = [...]tiered.Tier{tiered.TierL1, tiered.TierL2}

// newReads makes a power of two of stripes.
func newReads() reads {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	return make(reads, n)
}

func (r reads) count(e tiered.Event) {
	s := &r[rand.Uint32()&uint32(len(r)-1)]
	for i := range readOutcomes {
		if readOutcomes[i].tier == e.Tier && readOutcomes[i].outcome == e.Outcome {
			s.outcomes[i].Add(1)
			break
		}
	}
	if e.Outcome == tiered.OutcomeHit && e.TTL == l2cache.NoExpiry {
		for i := range tiers {
			if tiers[i] == e.Tier {
				s.noExpiry[i].Add(1)
			}
		}
	}
}

func (t *Telemetry) observeReads(o metric.Observer) {
	for i, r := range readOutcomes {
		var n int64
		for s := range t.counts {
			n += t.counts[s].outcomes[i].Load()
		}
		o.ObserveInt64(t.reads, n, t.with(tierKey.String(r.tier.String()), outcomeKey.String(string(r.outcome))))
	}
	for i, tier := range tiers {
		var n int64
		for s := range t.counts {
			n += t.counts[s].noExpiry[i].Load()
		}
		o.ObserveInt64(t.noExpiryHits, n, t.with(tierKey.String(tier.String())))
	}
}
