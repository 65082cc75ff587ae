// Package l2prom is a Prometheus collector of what l2cache backends and tiered caches do.
//
//	m := l2prom.New(&l2prom.Options{Cache: "users"})
//	prometheus.MustRegister(m)
//
//	l2 = l2cache.Observe(l2, m.Op)
//	cache, err := tiered.New(l2, &tiered.Options[User]{Observer: m.Event})
//	m.SetStats(cache.Stats)
//
// Each of the three sources is optional: Op gives the metrics named l2cache_operation_…,
// SetStats the gauges, and Event the rest. docs/monitoring.md lists them all, and
// dashboard.json beside this file shows them in Grafana.
//
// No metric has a key, or the text of an error, as a label. The number of series does
// not grow with use, once each operation has been called and has failed in each way.
package l2prom

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// Options are the settings of Metrics. The zero value of each field is its default.
type Options struct {
	// Cache is the value of the label "cache" that all metrics have. Two Metrics in one
	// registry need different ones. Default: "default".
	Cache string
}

// Buckets, in seconds.
var (
	durationBuckets = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	ttlBuckets      = [...]float64{.01, .1, .5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 604800, 2592000}
)

// consumedBuckets are fractions.
var consumedBuckets = [...]float64{.1, .2, .3, .4, .5, .6, .7, .8, .9, 1}

// Metrics is a prometheus.Collector. Its methods may be called from any number of
// goroutines. To register one again, or a second with the same Options.Cache, is a
// prometheus.AlreadyRegisteredError.
type Metrics struct {
	vecs []prometheus.Collector // all but what has a Desc below

	operationDuration *prometheus.HistogramVec
	operationErrors   *prometheus.CounterVec
	operationKeys     *prometheus.CounterVec
	operationBytes    *prometheus.CounterVec
	operationTTL      *prometheus.HistogramVec
	operationNoExpiry *prometheus.CounterVec

	l1Hits, l2Hits hits
	reads          *prometheus.CounterVec // all but the hits
	l2ReadDuration *prometheus.HistogramVec
	promotions     *prometheus.CounterVec
	loads          *prometheus.CounterVec
	loadDuration   *prometheus.HistogramVec
	coalesced      prometheus.Counter
	breakerChanges *prometheus.CounterVec
	invalidations  *prometheus.CounterVec
	resends        *prometheus.CounterVec

	// Of l1Hits and l2Hits.
	hits, remainingTTL, noExpiryHits, ttlConsumed *prometheus.Desc

	stats                                       atomic.Pointer[func() tiered.Stats]
	entries, pendingDeletes, watching, breaking *prometheus.Desc // of stats
}

var _ prometheus.Collector = (*Metrics)(nil)

// New returns Metrics to be registered. Options may be nil.
func New(o *Options) *Metrics {
	name := "default"
	if o != nil && o.Cache != "" {
		name = o.Cache
	}
	m := &Metrics{l1Hits: newHits(), l2Hits: newHits()}
	f := factory{m, prometheus.Labels{"cache": name}}

	m.operationDuration = f.histogram("operation_duration_seconds",
		"Duration of the calls of a backend, but for watch, by their outcome: hit, miss, ok or error.",
		durationBuckets[:], "backend", "operation", "outcome")
	m.operationErrors = f.counter("operation_errors_total",
		"Calls of a backend that failed, by kind of error.",
		"backend", "operation", "kind")
	m.operationKeys = f.counter("operation_keys_total",
		"Keys that calls of a backend found (hit) and did not find (miss).",
		"backend", "operation", "outcome")
	m.operationBytes = f.counter("operation_value_bytes_total",
		"Bytes of the values that a backend has returned or taken.",
		"backend", "operation")
	m.operationTTL = f.histogram("operation_ttl_seconds",
		"Remaining TTL of the entries that get of a backend found, and TTL that set, add and touch gave.",
		ttlBuckets[:], "backend", "operation")
	m.operationNoExpiry = f.counter("operation_no_expiry_total",
		"Entries without expiry that get of a backend found, or that set, add and touch made.",
		"backend", "operation")

	const readsName, readsHelp = "reads_total", "Look-ups of a key in a tier, l1 or l2, by outcome: hit, miss, error, or stale for a stale entry that was served."
	m.reads = f.counter(readsName, readsHelp, "tier", "outcome")
	m.hits = f.desc(readsName, readsHelp, "tier", "outcome")
	m.remainingTTL = f.desc("hit_remaining_ttl_seconds",
		"Remaining TTL of an entry when it was read, by tier.", "tier")
	m.noExpiryHits = f.desc("no_expiry_hits_total",
		"Hits of entries without expiry, by tier.", "tier")
	m.ttlConsumed = f.desc("hit_ttl_consumed_ratio",
		"Part of its TTL that an entry had behind it when L1 answered with it, where this cache had set that TTL.")
	m.l2ReadDuration = f.histogram("l2_read_duration_seconds",
		"Time that L2 took to answer a read of a key; the keys of one batch share it.",
		durationBuckets[:], "outcome")
	m.promotions = f.counter("promotions_total",
		"Entries read from L2, by what L1 did with them: stored, expired, overtaken or skipped.", "outcome")
	m.loads = f.counter("loads_total",
		"Keys that a loader was called for, by outcome: stored, not_stored, not_found, overtaken or error.", "outcome")
	m.loadDuration = f.histogram("load_duration_seconds",
		"Duration of the calls of a loader for a key; the keys of one call share it.",
		durationBuckets[:], "outcome")
	coalesced := f.counter("coalesced_reads_total",
		"Callers that waited for a load, or a read of L2, that another had begun.")
	m.coalesced = coalesced.WithLabelValues()
	m.breakerChanges = f.counter("breaker_changes_total",
		"Changes of the circuit breaker, by the state that it went to.", "state")
	m.invalidations = f.counter("invalidations_total",
		"What L2 told of changes: changed (one key), gap (any may have), error (it cannot be watched).", "outcome")
	m.resends = f.counter("delete_resends_total",
		"Deletes that had failed, by what became of them: stored (sent again), error (failed again) or dropped.", "outcome")

	m.entries = f.desc("l1_entries", "Entries in L1, those that it may not serve as fresh included.")
	m.pendingDeletes = f.desc("pending_deletes", "Deletes that have failed and wait to be sent again.")
	m.watching = f.desc("watching", "1 while L2 is being watched, else 0.")
	m.breaking = f.desc("breaker_state", "1 for the state that the circuit breaker is in, else 0.", "state")

	m.fill()
	return m
}

// fill makes the series of a tiered cache, so that each begins at zero.
func (m *Metrics) fill() {
	m.reads.WithLabelValues("l1", string(tiered.OutcomeMiss))
	m.reads.WithLabelValues("l1", string(tiered.OutcomeStale))
	m.reads.WithLabelValues("l2", string(tiered.OutcomeMiss))
	m.reads.WithLabelValues("l2", string(tiered.OutcomeError))
	for _, o := range []tiered.Outcome{tiered.OutcomeHit, tiered.OutcomeMiss, tiered.OutcomeError} {
		m.l2ReadDuration.WithLabelValues(string(o))
	}
	m.loadDuration.WithLabelValues("ok")
	m.loadDuration.WithLabelValues("error")
	for vec, outcomes := range map[*prometheus.CounterVec][]tiered.Outcome{
		m.promotions:    {tiered.OutcomeStored, tiered.OutcomeExpired, tiered.OutcomeOvertaken, tiered.OutcomeSkipped},
		m.loads:         {tiered.OutcomeStored, tiered.OutcomeNotStored, tiered.OutcomeNotFound, tiered.OutcomeOvertaken, tiered.OutcomeError},
		m.invalidations: {tiered.OutcomeChanged, tiered.OutcomeGap, tiered.OutcomeError},
		m.resends:       {tiered.OutcomeStored, tiered.OutcomeError, tiered.OutcomeDropped},
	} {
		for _, o := range outcomes {
			vec.WithLabelValues(string(o))
		}
	}
	for _, state := range breakerStates {
		m.breakerChanges.WithLabelValues(state.String())
	}
}

var breakerStates = []tiered.BreakerState{tiered.BreakerClosed, tiered.BreakerHalfOpen, tiered.BreakerOpen}

// A factory makes the metrics of m.
type factory struct {
	m      *Metrics
	labels prometheus.Labels
}

const namespace = "l2cache"

func (f factory) counter(name, help string, labels ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: name, Help: help, ConstLabels: f.labels,
	}, labels)
	f.m.vecs = append(f.m.vecs, vec)
	return vec
}

func (f factory) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, ConstLabels: f.labels, Buckets: buckets,
	}, labels)
	f.m.vecs = append(f.m.vecs, vec)
	return vec
}

func (f factory) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, f.labels)
}

// Op is an observer of a backend, for l2cache.Observe.
func (m *Metrics) Op(_ context.Context, op l2cache.Op) {
	if op.Name != "watch" { // lasts for as long as its caller likes
		m.operationDuration.WithLabelValues(op.Backend, op.Name, op.Outcome()).Observe(op.Duration.Seconds())
	}
	if kind := op.ErrorKind(); kind != "" {
		m.operationErrors.WithLabelValues(op.Backend, op.Name, kind).Inc()
	}
	if op.Hits+op.Misses > 0 {
		m.operationKeys.WithLabelValues(op.Backend, op.Name, "hit").Add(float64(op.Hits))
		m.operationKeys.WithLabelValues(op.Backend, op.Name, "miss").Add(float64(op.Misses))
	}
	if op.Bytes > 0 && (op.Err == nil || op.Hits > 0) {
		m.operationBytes.WithLabelValues(op.Backend, op.Name).Add(float64(op.Bytes))
	}
	addedNot := op.Name == "add" && op.Hits > 0
	switch {
	case op.Err != nil || op.TTL <= 0 || addedNot:
	case op.TTL == l2cache.NoExpiry:
		m.operationNoExpiry.WithLabelValues(op.Backend, op.Name).Inc()
	default:
		m.operationTTL.WithLabelValues(op.Backend, op.Name).Observe(op.TTL.Seconds())
	}
}

// Event is an observer of a tiered cache, for its Options.Observer.
func (m *Metrics) Event(_ context.Context, e tiered.Event) {
	switch e.Kind {
	case tiered.EventRead:
		m.read(e)
	case tiered.EventPromotion:
		m.promotions.WithLabelValues(string(e.Outcome)).Inc()
	case tiered.EventLoad:
		m.loads.WithLabelValues(string(e.Outcome)).Inc()
		outcome := "ok"
		if e.Outcome == tiered.OutcomeError {
			outcome = "error"
		}
		m.loadDuration.WithLabelValues(outcome).Observe(e.Duration.Seconds())
	case tiered.EventJoin:
		m.coalesced.Inc()
	case tiered.EventBreaker:
		m.breakerChanges.WithLabelValues(e.Breaker.String()).Inc()
	case tiered.EventInvalidation:
		m.invalidations.WithLabelValues(string(e.Outcome)).Inc()
	case tiered.EventResend:
		m.resends.WithLabelValues(string(e.Outcome)).Inc()
	}
}

func (m *Metrics) read(e tiered.Event) {
	if e.Tier == tiered.TierL1 && e.Outcome == tiered.OutcomeHit {
		m.l1Hits.add(e.TTL, e.Consumed)
		return
	}
	if e.Outcome == tiered.OutcomeHit {
		m.l2Hits.add(e.TTL, e.Consumed)
	} else {
		m.reads.WithLabelValues(e.Tier.String(), string(e.Outcome)).Inc()
	}
	if e.Tier == tiered.TierL2 {
		m.l2ReadDuration.WithLabelValues(string(e.Outcome)).Observe(e.Duration.Seconds())
	}
}

// SetStats has the gauges show what stats, a tiered cache's method, returns when
// Prometheus asks. Without it, or after SetStats(nil), there are no gauges.
func (m *Metrics) SetStats(stats func() tiered.Stats) {
	if stats == nil {
		m.stats.Store(nil)
		return
	}
	m.stats.Store(&stats)
}

// Describe is for the registry.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, vec := range m.vecs {
		vec.Describe(descs)
	}
	for _, d := range []*prometheus.Desc{
		m.hits, m.remainingTTL, m.noExpiryHits, m.ttlConsumed, m.entries, m.pendingDeletes, m.watching, m.breaking,
	} {
		descs <- d
	}
}

// Collect is for the registry.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	for _, vec := range m.vecs {
		vec.Collect(metrics)
	}
	for tier, hits := range map[string]hits{"l1": m.l1Hits, "l2": m.l2Hits} {
		ttl, noExpiry := hits.ttl(), hits.noExpiry()
		metrics <- prometheus.MustNewConstMetric(m.hits, prometheus.CounterValue, float64(ttl.count()+noExpiry), tier, "hit")
		metrics <- prometheus.MustNewConstMetric(m.noExpiryHits, prometheus.CounterValue, float64(noExpiry), tier)
		metrics <- ttl.metric(m.remainingTTL, ttlBuckets[:], tier)
	}
	consumed := m.l1Hits.consumed()
	metrics <- consumed.metric(m.ttlConsumed, consumedBuckets[:])
	if stats := m.stats.Load(); stats != nil {
		m.collectStats(metrics, (*stats)())
	}
}

func (m *Metrics) collectStats(metrics chan<- prometheus.Metric, s tiered.Stats) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.entries, float64(s.Entries))
	gauge(m.pendingDeletes, float64(s.PendingDeletes))
	gauge(m.watching, boolean(s.Watching))
	for _, state := range breakerStates {
		gauge(m.breaking, boolean(s.Breaker == state), state.String())
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
