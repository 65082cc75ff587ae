package l2prom

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/l2cache/l2cache"
)

// hits are the hits of a tier, and what was left of the entries. They are kept several
// times over, so that goroutines on different CPUs do not write to the same cache line for
// each L1 hit, as they would to that of a prometheus.Histogram.
type hits []stripe

type stripe struct {
	noExpiry      atomic.Uint64
	ttl, consumed distribution
	_             [64]byte // a cache line
}

// newHits makes a power of two of stripes.
func newHits() hits {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	return make(hits, n)
}

// add counts a hit. Consumed is negative if it is not known.
func (h hits) add(ttl time.Duration, consumed float64) {
	s := &h[rand.Uint32()&uint32(len(h)-1)]
	if ttl == l2cache.NoExpiry {
		s.noExpiry.Add(1)
	} else {
		s.ttl.observe(ttlBuckets[:], ttl.Seconds())
	}
	if consumed >= 0 {
		s.consumed.observe(consumedBuckets[:], consumed)
	}
}

// noExpiry returns how many hits were of entries without expiry.
func (h hits) noExpiry() (n uint64) {
	for i := range h {
		n += h[i].noExpiry.Load()
	}
	return n
}

// ttl returns what was left at the other hits, in seconds.
func (h hits) ttl() (sum histogram) {
	for i := range h {
		sum.add(&h[i].ttl)
	}
	return sum
}

// consumed returns which part of the TTL was gone, where that was known.
func (h hits) consumed() (sum histogram) {
	for i := range h {
		sum.add(&h[i].consumed)
	}
	return sum
}

// A distribution is how often a value fell between two bounds.
type distribution struct {
	n   [maxBuckets + 1]atomic.Uint64 // by the first bound that is not less; the last is above all
	sum atomic.Uint64                 // math.Float64bits of the sum
}

const maxBuckets = max(len(ttlBuckets), len(consumedBuckets))

func (d *distribution) observe(bounds []float64, v float64) {
	i := 0
	for i < len(bounds) && bounds[i] < v {
		i++
	}
	d.n[i].Add(1)
	for {
		old := d.sum.Load()
		if d.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// A histogram is a sum of distributions.
type histogram struct {
	n   [maxBuckets + 1]uint64
	sum float64
}

func (h *histogram) add(d *distribution) {
	for i := range d.n {
		h.n[i] += d.n[i].Load()
	}
	h.sum += math.Float64frombits(d.sum.Load())
}

func (h *histogram) count() (n uint64) {
	for _, c := range h.n {
		n += c
	}
	return n
}

func (h *histogram) metric(d *prometheus.Desc, bounds []float64, labels ...string) prometheus.Metric {
	cumulative, n := make(map[float64]uint64, len(bounds)), uint64(0)
	for i, bound := range bounds {
		n += h.n[i]
		cumulative[bound] = n
	}
	return prometheus.MustNewConstHistogram(d, h.count(), h.sum, cumulative, labels...)
}
