package l2otel

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// Bounds of histograms, in seconds. Those of calls of a backend are from the semantic
// conventions, which ask for them.
var (
	callBounds     = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10}
	durationBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	ttlBounds      = []float64{.01, .1, .5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 604800, 2592000}
)

// consumedBounds are fractions.
var consumedBounds = []float64{.1, .2, .3, .4, .5, .6, .7, .8, .9, 1}

type instruments struct {
	operationDuration metric.Float64Histogram
	operationKeys     metric.Int64Counter
	operationBytes    metric.Int64Counter
	operationTTL      metric.Float64Histogram
	operationNoExpiry metric.Int64Counter

	remainingTTL   metric.Float64Histogram
	ttlConsumed    metric.Float64Histogram
	l2ReadDuration metric.Float64Histogram
	promotions     metric.Int64Counter
	loads          metric.Int64Counter
	loadDuration   metric.Float64Histogram
	coalesced      metric.Int64Counter
	invalidations  metric.Int64Counter
	resends        metric.Int64Counter
	breakerChanges metric.Int64Counter

	// Read by Telemetry.observe.
	reads          metric.Int64ObservableCounter
	noExpiryHits   metric.Int64ObservableCounter
	breakerState   metric.Int64ObservableGauge
	entries        metric.Int64ObservableUpDownCounter
	pendingDeletes metric.Int64ObservableUpDownCounter
	watching       metric.Int64ObservableGauge
}

// make makes the instruments. The error has those that could not be made.
func (i *instruments) make(m metric.Meter) error {
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	histogram := func(name, unit, description string, bounds []float64) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
		errs = append(errs, err)
		return h
	}
	count := func(name, unit, description string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, unit, description string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	sum := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		c, err := m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}

	i.operationDuration = histogram("db.client.operation.duration", "s", "Duration of database client operations.", callBounds)
	i.operationKeys = counter("l2cache.operation.keys", "{key}", "Keys that calls of a backend found and did not find.")
	i.operationBytes = counter("l2cache.operation.value_bytes", "By", "Size of the values that a backend has returned or taken.")
	i.operationTTL = histogram("l2cache.operation.ttl", "s", "Remaining TTL of the entries that get of a backend found, and TTL that set, add and touch gave.", ttlBounds)
	i.operationNoExpiry = counter("l2cache.operation.no_expiry", "{entry}", "Entries without expiry that get of a backend found, or that set, add and touch made.")

	i.remainingTTL = histogram("l2cache.hit.remaining_ttl", "s", "Remaining TTL of an entry when it was read.", ttlBounds)
	i.ttlConsumed = histogram("l2cache.hit.ttl_consumed", "1", "Part of its TTL that an entry had behind it when L1 answered with it, where this cache had set that TTL.", consumedBounds)
	i.l2ReadDuration = histogram("l2cache.l2_read.duration", "s", "Time that L2 took to answer a read of a key; the keys of one batch share it.", durationBounds)
	i.promotions = counter("l2cache.promotions", "{entry}", "Entries read from L2, by what L1 did with them.")
	i.loads = counter("l2cache.loads", "{load}", "Keys that a loader was called for.")
	i.loadDuration = histogram("l2cache.load.duration", "s", "Duration of the calls of a loader for a key; the keys of one call share it.", durationBounds)
	i.coalesced = counter("l2cache.coalesced_reads", "{read}", "Callers that waited for a load, or a read of L2, that another had begun.")
	i.invalidations = counter("l2cache.invalidations", "{event}", "What L2 told of changes.")
	i.resends = counter("l2cache.delete_resends", "{delete}", "Deletes that had failed, by what became of them.")
	i.breakerChanges = counter("l2cache.breaker.changes", "{change}", "Changes of the circuit breaker, by the state that it went to.")

	i.reads = count("l2cache.reads", "{read}", "Look-ups of a key in a tier.")
	i.noExpiryHits = count("l2cache.hit.no_expiry", "{hit}", "Hits of entries without expiry.")
	i.breakerState = gauge("l2cache.breaker.state", "1", "1 for the state that the circuit breaker is in, else 0.")
	i.entries = sum("l2cache.l1.entries", "{entry}", "Entries in L1, those that it may not serve as fresh included.")
	i.pendingDeletes = sum("l2cache.pending_deletes", "{delete}", "Deletes that have failed and wait to be sent again.")
	i.watching = gauge("l2cache.watching", "1", "1 while L2 is being watched, else 0.")
	return errors.Join(errs...)
}
