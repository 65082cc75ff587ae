// Package l2otel tells OpenTelemetry what l2cache backends and tiered caches do.
//
//	t, err := l2otel.New(&l2otel.Options{Cache: "users"})
//
//	l2 = l2cache.Observe(l2, t.Op)
//	cache, err := tiered.New(l2, &tiered.Options[User]{Observer: t.Event})
//	t.SetStats(cache.Stats)
//
// Each of the three sources is optional. Op gives the metric db.client.operation.duration,
// those named l2cache.operation.…, and spans; SetStats the gauges; Event the rest.
// docs/monitoring.md lists them all.
//
// Names are those of OpenTelemetry's semantic conventions for database clients, where
// these have one, and begin with l2cache where not. No metric has a key, or the text of an
// error, as an attribute, and no span has unless Options.SpanKey says so.
package l2otel

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// Options are the settings of a Telemetry. The zero value of each field is its default.
type Options struct {
	// MeterProvider and TracerProvider are where the metrics and spans go. Default: those
	// of the package go.opentelemetry.io/otel. With a provider of metric/noop or
	// trace/noop there are none.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider

	// Cache is the attribute l2cache.cache of all that is told. Two Telemetries of one
	// MeterProvider need different ones. Default: "default".
	Cache string
	// ServerAddress and ServerPort are the attributes server.address and server.port of
	// what Op tells. Default: none.
	ServerAddress string
	ServerPort    int

	// L1HitsEvery has the histograms of what entries have left record one L1 hit in so
	// many, chosen at random: to record one takes longer than an L1 hit. The counts are of
	// all hits. Default: 1, all.
	L1HitsEvery int

	// SpanKey returns what the attribute l2cache.key of a span shows of a key, or of a
	// prefix or pattern: the key itself, or the kind of key that it is. Empty is no
	// attribute. Default: no span has one.
	SpanKey func(key string) string
}

// scope is the name of the instrumentation: this package.
const scope = "github.com/l2cache/l2cache/exporters/l2otel"

// Telemetry is where a backend and a tiered cache are observed. Its methods may be called
// from any number of goroutines.
type Telemetry struct {
	tracer  trace.Tracer
	meter   metric.Meter
	spanKey func(key string) string

	cache  []attribute.KeyValue // of everything
	server []attribute.KeyValue // of what Op tells
	target string               // the end of a span's name

	instruments
	measurements sync.Map // of Op: outcome → *measured

	counts      reads
	l1HitsEvery int
	l1Hit       l1Hit

	stats    atomic.Pointer[func() tiered.Stats]
	callback metric.Registration
}

// New returns a Telemetry, to be closed. The error is that of an instrument that could not
// be made.
func New(o *Options) (*Telemetry, error) {
	var options Options
	if o != nil {
		options = *o
	}
	if options.MeterProvider == nil {
		options.MeterProvider = otel.GetMeterProvider()
	}
	if options.TracerProvider == nil {
		options.TracerProvider = otel.GetTracerProvider()
	}
	if options.Cache == "" {
		options.Cache = "default"
	}
	t := &Telemetry{
		tracer:  options.TracerProvider.Tracer(scope),
		meter:   options.MeterProvider.Meter(scope),
		spanKey: options.SpanKey,
		cache:   []attribute.KeyValue{cacheKey.String(options.Cache)},

		counts:      newReads(),
		l1HitsEvery: max(options.L1HitsEvery, 1),
	}
	t.setServer(options.ServerAddress, options.ServerPort)
	if err := t.instruments.make(t.meter); err != nil {
		return nil, err
	}
	t.l1Hit = newL1Hit(t)
	var err error
	t.callback, err = t.meter.RegisterCallback(t.observe,
		t.reads, t.noExpiryHits, t.entries, t.pendingDeletes, t.watching, t.breakerState)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Close ends the metrics that are read when a MeterProvider asks: the gauges, and the
// counts of reads. What is observed afterwards is told as far as it needs no asking.
func (t *Telemetry) Close() error { return t.callback.Unregister() }

// Attributes. Those of db, error and server are from the semantic conventions for database
// clients, docs/database of the repository semantic-conventions.
const (
	systemKey    = attribute.Key("db.system.name")
	operationKey = attribute.Key("db.operation.name")
	batchSizeKey = attribute.Key("db.operation.batch.size")
	errorTypeKey = attribute.Key("error.type")
	addressKey   = attribute.Key("server.address")
	portKey      = attribute.Key("server.port")

	cacheKey   = attribute.Key("l2cache.cache")
	outcomeKey = attribute.Key("l2cache.outcome")
	tierKey    = attribute.Key("l2cache.tier")
	stateKey   = attribute.Key("l2cache.breaker.state")
	keyKey     = attribute.Key("l2cache.key")
	ttlKey     = attribute.Key("l2cache.ttl")
)

// with returns the attributes of a measurement.
func (t *Telemetry) with(attributes ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(attributes, t.cache)...)) // NewSet sorts in place
}

// Event is an observer of a tiered cache, for its Options.Observer.
func (t *Telemetry) Event(ctx context.Context, e tiered.Event) {
	outcome := outcomeKey.String(string(e.Outcome))
	switch e.Kind {
	case tiered.EventRead:
		t.read(ctx, e)
	case tiered.EventPromotion:
		t.promotions.Add(ctx, 1, t.with(outcome))
	case tiered.EventLoad:
		t.loads.Add(ctx, 1, t.with(outcome))
		ended := "ok"
		if e.Outcome == tiered.OutcomeError {
			ended = "error"
		}
		t.loadDuration.Record(ctx, e.Duration.Seconds(), t.with(outcomeKey.String(ended)))
	case tiered.EventJoin:
		t.coalesced.Add(ctx, 1, t.with())
	case tiered.EventBreaker:
		t.breakerChanges.Add(ctx, 1, t.with(stateKey.String(e.Breaker.String())))
	case tiered.EventInvalidation:
		t.invalidations.Add(ctx, 1, t.with(outcome))
	case tiered.EventResend:
		t.resends.Add(ctx, 1, t.with(outcome))
	}
}

// l1Hit has the options of the measurements of an L1 hit, made once: that is on the path
// of every read that L1 answers.
type l1Hit struct {
	remainingTTL, consumed []metric.RecordOption
}

func newL1Hit(t *Telemetry) l1Hit {
	return l1Hit{
		remainingTTL: []metric.RecordOption{t.with(tierKey.String("l1"))},
		consumed:     []metric.RecordOption{t.with()},
	}
}

func (t *Telemetry) read(ctx context.Context, e tiered.Event) {
	t.counts.count(e)
	if e.Tier == tiered.TierL1 {
		if e.Outcome == tiered.OutcomeHit && (t.l1HitsEvery == 1 || rand.IntN(t.l1HitsEvery) == 0) {
			t.recordL1Hit(ctx, e)
		}
		return
	}
	t.l2ReadDuration.Record(ctx, e.Duration.Seconds(), t.with(outcomeKey.String(string(e.Outcome))))
	if e.Outcome == tiered.OutcomeHit && e.TTL != l2cache.NoExpiry {
		t.remainingTTL.Record(ctx, e.TTL.Seconds(), t.with(tierKey.String("l2")))
	}
}

func (t *Telemetry) recordL1Hit(ctx context.Context, e tiered.Event) {
	if e.TTL != l2cache.NoExpiry {
		t.remainingTTL.Record(ctx, e.TTL.Seconds(), t.l1Hit.remainingTTL...)
	}
	if e.Consumed >= 0 {
		t.ttlConsumed.Record(ctx, e.Consumed, t.l1Hit.consumed...)
	}
}

// SetStats has the gauges show what stats, a tiered cache's method, returns when the
// metrics are read. Without it, or after SetStats(nil), there are no gauges.
func (t *Telemetry) SetStats(stats func() tiered.Stats) {
	if stats == nil {
		t.stats.Store(nil)
		return
	}
	t.stats.Store(&stats)
}

// observe is called when the metrics are read.
func (t *Telemetry) observe(_ context.Context, o metric.Observer) error {
	t.observeReads(o)
	stats := t.stats.Load()
	if stats == nil {
		return nil
	}
	s := (*stats)()
	o.ObserveInt64(t.entries, int64(s.Entries), t.with())
	o.ObserveInt64(t.pendingDeletes, int64(s.PendingDeletes), t.with())
	o.ObserveInt64(t.watching, boolean(s.Watching), t.with())
	for _, state := range []tiered.BreakerState{tiered.BreakerClosed, tiered.BreakerHalfOpen, tiered.BreakerOpen} {
		o.ObserveInt64(t.breakerState, boolean(s.Breaker == state), t.with(stateKey.String(state.String())))
	}
	return nil
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
