package l2otel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/exporters/l2otel"
	"github.com/l2cache/l2cache/internal/ratio"
	"github.com/l2cache/l2cache/tiered"
)

// A recorder has what a Telemetry has told.
type recorder struct {
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
	tracer trace.Tracer // of the application
}

func newTelemetry(t testing.TB, o l2otel.Options) (*l2otel.Telemetry, *recorder) {
	t.Helper()
	r := &recorder{reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	o.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader))
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	o.TracerProvider, r.tracer = tracers, tracers.Tracer("application")
	telemetry, err := l2otel.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	return telemetry, r
}

func (r *recorder) metrics(t testing.TB) []metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	var metrics []metricdata.Metrics
	for _, scope := range all.ScopeMetrics {
		metrics = append(metrics, scope.Metrics...)
	}
	return metrics
}

// values returns the values of all metrics, a histogram's as name.count and name.sum.
// Behind the name are the attributes, without l2cache.cache.
func (r *recorder) values(t testing.TB) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	set := func(name string, attributes attribute.Set, v float64) {
		var labels []string
		for _, kv := range attributes.ToSlice() {
			if kv.Key != "l2cache.cache" {
				labels = append(labels, fmt.Sprintf("%s=%s", kv.Key, kv.Value.Emit()))
			} else if got := kv.Value.AsString(); got != "default" {
				t.Errorf("%s has l2cache.cache=%q", name, got)
			}
		}
		if attributes.HasValue("l2cache.cache") {
			values[strings.Join(append([]string{name}, labels...), " ")] = v
		}
	}
	for _, m := range r.metrics(t) {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				set(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				set(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				set(m.Name+".count", p.Attributes, float64(p.Count))
				set(m.Name+".sum", p.Attributes, p.Sum)
			}
		default:
			t.Errorf("%s is a %T", m.Name, m.Data)
		}
	}
	return values
}

func wantValues(t testing.TB, got, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, w)
		}
	}
}

func TestBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		telemetry, r := newTelemetry(t, l2otel.Options{ServerAddress: "cache.example", ServerPort: 6379})
		b := l2cache.Observe(mem.New(mem.NewStore()), telemetry.Op)
		b.Set(ctx, "a", []byte("four"), 10*time.Second)
		b.Set(ctx, "b", nil, l2cache.NoExpiry)
		time.Sleep(4 * time.Second)
		b.GetWithTTL(ctx, "a")
		b.GetWithTTL(ctx, "b")
		b.Get(ctx, "absent")
		l2cache.GetMany(ctx, b, []string{"a", "b", "absent"})
		l2cache.Add(ctx, b, "a", nil, time.Hour) // is there
		b.Set(ctx, "a", nil, -1)
		watched, stop := context.WithCancel(ctx)
		defer stop()
		for range l2cache.Watch(watched, b, "") {
			stop()
		}

		call := func(metric, operation string, more ...string) string {
			return strings.Join(append([]string{metric + " db.operation.name=" + operation + " db.system.name=mem"}, more...), " ")
		}
		const server = "server.address=cache.example server.port=6379"
		got := r.values(t)
		wantValues(t, got, map[string]float64{
			call("db.client.operation.duration.count", "set", "l2cache.outcome=ok", server):                              2,
			call("db.client.operation.duration.count", "set", "error.type=invalid_ttl", "l2cache.outcome=error", server): 1,
			call("db.client.operation.duration.count", "get", "l2cache.outcome=hit", server):                             2,
			call("db.client.operation.duration.count", "get", "l2cache.outcome=miss", server):                            1,
			call("db.client.operation.duration.count", "getmany", "l2cache.outcome=hit", server):                         1,
			call("l2cache.operation.keys", "getmany", "l2cache.outcome=hit", server):                                     2,
			call("l2cache.operation.keys", "getmany", "l2cache.outcome=miss", server):                                    1,
			call("l2cache.operation.value_bytes", "set", server):                                                         4,
			call("l2cache.operation.ttl.sum", "set", server):                                                             10,
			call("l2cache.operation.ttl.sum", "get", server):                                                             6,
			call("l2cache.operation.ttl.count", "get", server):                                                           1,
			call("l2cache.operation.no_expiry", "get", server):                                                           1,
			call("l2cache.operation.no_expiry", "set", server):                                                           1,
		})
		for name := range got {
			if strings.Contains(name, "=watch") || strings.Contains(name, "ttl") && strings.Contains(name, "=add") {
				t.Errorf("there is %s", name)
			}
		}
		if spans := r.spans.Ended(); len(spans) != 0 {
			t.Errorf("%d spans without a parent, the first is %s", len(spans), spans[0].Name())
		}
	})
}

func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		telemetry, r := newTelemetry(t, l2otel.Options{
			ServerAddress: "cache.example", ServerPort: 6379, Cache: "users",
			SpanKey: func(key string) string {
				kind, _, _ := strings.Cut(key, ":")
				return kind
			},
		})
		b := l2cache.Observe(slow{mem.New(mem.NewStore())}, telemetry.Op)
		ctx, parent := r.tracer.Start(t.Context(), "request")
		began := time.Now()
		b.Set(ctx, "user:secret", []byte("v"), 10*time.Second)
		l2cache.GetMany(ctx, b, []string{"user:secret", "absent"})
		_, err := b.GetWithTTL(ctx, strings.Repeat("user:secret", 1000))
		if !errors.Is(err, l2cache.ErrInvalidKey) {
			t.Fatal(err)
		}

		spans := r.spans.Ended()
		if len(spans) != 3 {
			t.Fatalf("%d spans, want 3", len(spans))
		}
		for _, span := range spans {
			if span.Parent().SpanID() != parent.SpanContext().SpanID() || span.SpanKind() != trace.SpanKindClient {
				t.Errorf("%s is of kind %v and a child of %v", span.Name(), span.SpanKind(), span.Parent().SpanID())
			}
			if text := fmt.Sprint(span.Attributes(), span.Status(), span.Events()); strings.Contains(text, "secret") {
				t.Errorf("%s has the key: %s", span.Name(), text)
			}
		}
		set, getMany, get := spans[0], spans[1], spans[2]
		if !set.StartTime().Equal(began) || !set.EndTime().Equal(began.Add(slowness)) {
			t.Errorf("set from %v to %v, want from %v for %v", set.StartTime(), set.EndTime(), began, slowness)
		}
		if want := "set cache.example:6379"; set.Name() != want {
			t.Errorf("the span is %q, want %q", set.Name(), want)
		}
		wantAttributes(t, set,
			attribute.String("db.system.name", "mem"), attribute.String("db.operation.name", "set"),
			attribute.String("server.address", "cache.example"), attribute.Int("server.port", 6379),
			attribute.String("l2cache.cache", "users"), attribute.String("l2cache.outcome", "ok"),
			attribute.String("l2cache.key", "user"), attribute.Float64("l2cache.ttl", 10))
		wantAttributes(t, getMany, attribute.Int("db.operation.batch.size", 2), attribute.String("l2cache.outcome", "hit"))
		wantAttributes(t, get, attribute.String("error.type", "invalid_key"), attribute.String("l2cache.outcome", "error"))
		if s := get.Status(); s.Code != codes.Error || s.Description != "invalid_key" {
			t.Errorf("the status of get is %+v", s)
		}
		if s := set.Status(); s.Code != codes.Unset {
			t.Errorf("the status of set is %+v", s)
		}
	})
}

// TestSpanWithoutKey: by default no span has a key.
func TestSpanWithoutKey(t *testing.T) {
	telemetry, r := newTelemetry(t, l2otel.Options{})
	b := l2cache.Observe(mem.New(mem.NewStore()), telemetry.Op)
	ctx, _ := r.tracer.Start(t.Context(), "request")
	b.Get(ctx, "secret")
	b.Set(ctx, "secret", nil, 0)
	spans := r.spans.Ended()
	if len(spans) != 2 || spans[0].Name() != "get" {
		t.Fatalf("spans are %v", spans)
	}
	for _, span := range spans {
		if text := fmt.Sprint(span.Attributes(), span.Status(), span.Events()); strings.Contains(text, "secret") {
			t.Errorf("%s has the key: %s", span.Name(), text)
		}
	}
	if s := spans[0].Status(); s.Code != codes.Unset {
		t.Errorf("the status of a miss is %+v", s)
	}
}

func wantAttributes(t testing.TB, span sdktrace.ReadOnlySpan, want ...attribute.KeyValue) {
	t.Helper()
	for _, kv := range want {
		if !slices.Contains(span.Attributes(), kv) {
			t.Errorf("%s has no %s=%s but %v", span.Name(), kv.Key, kv.Value.Emit(), span.Attributes())
		}
	}
}

// A slow backend takes its time to Set.
type slow struct{ *mem.Cache }

const slowness = 30 * time.Millisecond

func (b slow) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	time.Sleep(slowness)
	return b.Cache.Set(ctx, key, value, ttl)
}

func TestTiered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		telemetry, r := newTelemetry(t, l2otel.Options{})
		l2 := mem.New(mem.NewStore())
		cache, err := tiered.New(l2, &tiered.Options[string]{NoWatch: true, Observer: telemetry.Event})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		telemetry.SetStats(cache.Stats)
		cache.Set(ctx, "own", "v", 10*time.Second)
		l2.Set(ctx, "other's", []byte(`"v"`), 10*time.Second)
		l2.Set(ctx, "forever", []byte(`"v"`), l2cache.NoExpiry)
		time.Sleep(4 * time.Second)
		for range 2 {
			for _, key := range []string{"own", "other's", "forever", "absent"} {
				cache.Get(ctx, key)
			}
		}
		cache.GetOrLoad(ctx, "loaded", func(context.Context, string, *string) (tiered.Loaded[string], error) {
			time.Sleep(20 * time.Millisecond)
			return tiered.Loaded[string]{Value: "v", TTL: time.Hour}, nil
		})
		got := r.values(t)
		wantValues(t, got, map[string]float64{
			"l2cache.reads l2cache.outcome=hit l2cache.tier=l1":     4,
			"l2cache.reads l2cache.outcome=miss l2cache.tier=l1":    5,
			"l2cache.reads l2cache.outcome=hit l2cache.tier=l2":     2,
			"l2cache.reads l2cache.outcome=miss l2cache.tier=l2":    3,
			"l2cache.hit.remaining_ttl.count l2cache.tier=l1":       3,
			"l2cache.hit.remaining_ttl.sum l2cache.tier=l1":         3 * 6,
			"l2cache.hit.remaining_ttl.sum l2cache.tier=l2":         6,
			"l2cache.hit.ttl_consumed.count":                        2,
			"l2cache.hit.ttl_consumed.sum":                          2 * .4,
			"l2cache.hit.no_expiry l2cache.tier=l1":                 1,
			"l2cache.hit.no_expiry l2cache.tier=l2":                 1,
			"l2cache.l2_read.duration.count l2cache.outcome=hit":    2,
			"l2cache.promotions l2cache.outcome=stored":             2,
			"l2cache.loads l2cache.outcome=stored":                  1,
			"l2cache.load.duration.sum l2cache.outcome=ok":          .02,
			"l2cache.l1.entries":                                    4,
			"l2cache.pending_deletes":                               0,
			"l2cache.watching":                                      0,
			"l2cache.breaker.state l2cache.breaker.state=closed":    1,
			"l2cache.breaker.state l2cache.breaker.state=half-open": 0,
		})
		telemetry.SetStats(nil)
		if v, ok := r.values(t)["l2cache.l1.entries"]; ok {
			t.Errorf("l2cache.l1.entries is %v after SetStats(nil), want none", v)
		}
		if err := telemetry.Close(); err != nil {
			t.Fatal(err)
		}
		if v, ok := r.values(t)["l2cache.reads l2cache.outcome=hit l2cache.tier=l1"]; ok {
			t.Errorf("l2cache.reads is %v after Close, want none", v)
		}
	})
}

// TestL1HitsEvery: the histograms have some of the hits, the counts all.
func TestL1HitsEvery(t *testing.T) {
	telemetry, r := newTelemetry(t, l2otel.Options{L1HitsEvery: 10})
	const hits = 10_000
	for i := range hits {
		e := tiered.Event{Kind: tiered.EventRead, Outcome: tiered.OutcomeHit, Tier: tiered.TierL1, TTL: time.Second, Consumed: .5}
		if i%2 == 0 {
			e.TTL, e.Consumed = l2cache.NoExpiry, -1
		}
		telemetry.Event(t.Context(), e)
	}
	got := r.values(t)
	wantValues(t, got, map[string]float64{
		"l2cache.reads l2cache.outcome=hit l2cache.tier=l1": hits,
		"l2cache.hit.no_expiry l2cache.tier=l1":             hits / 2,
	})
	// Of a binomial distribution of 5,000 and 1/10 that is more than nine standard deviations.
	for _, name := range []string{"l2cache.hit.remaining_ttl.count l2cache.tier=l1", "l2cache.hit.ttl_consumed.count"} {
		if n := got[name]; n < 300 || n > 700 {
			t.Errorf("%s is %v, want about 500", name, n)
		}
	}
}

func TestL1HitAllocations(t *testing.T) {
	telemetry, _ := newTelemetry(t, l2otel.Options{})
	e := tiered.Event{Kind: tiered.EventRead, Outcome: tiered.OutcomeHit, Tier: tiered.TierL1, Key: "k", TTL: time.Minute, Consumed: .5}
	if n := testing.AllocsPerRun(1000, func() { telemetry.Event(t.Context(), e) }); n != 0 {
		t.Errorf("%v allocations for an L1 hit, want 0", n)
	}
}

// everything sends an event of each kind, and returns the names of all metrics.
func everything(t *testing.T) []string {
	t.Helper()
	telemetry, r := newTelemetry(t, l2otel.Options{})
	ctx := t.Context()
	for _, op := range []l2cache.Op{{TTL: time.Second}, {TTL: l2cache.NoExpiry}} {
		op.Backend, op.Name, op.Hits, op.Bytes = "mem", "get", 1, 1
		telemetry.Op(ctx, op)
	}
	for kind := tiered.EventRead; kind <= tiered.EventResend; kind++ {
		for _, tier := range []tiered.Tier{tiered.TierL1, tiered.TierL2} {
			for _, ttl := range []time.Duration{time.Second, l2cache.NoExpiry} {
				telemetry.Event(ctx, tiered.Event{Kind: kind, Outcome: tiered.OutcomeHit, Tier: tier, TTL: ttl})
			}
		}
	}
	telemetry.SetStats(func() tiered.Stats { return tiered.Stats{} })
	var names []string
	for _, m := range r.metrics(t) {
		if m.Unit == "" || m.Description == "" {
			t.Errorf("%s has the unit %q and the description %q", m.Name, m.Unit, m.Description)
		}
		names = append(names, m.Name)
	}
	return names
}

// TestDocs compares the names in docs/monitoring.md with those of the metrics.
func TestDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	names := everything(t)
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:l2cache|db)\\.[a-z0-9_.]+)` \\|").FindAllStringSubmatch(string(docs), -1) {
		documented = append(documented, m[1])
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/monitoring.md has %s, which does not exist", m[1])
		}
	}
	for _, name := range names {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is not in docs/monitoring.md", name)
		}
	}
}

// BenchmarkL1Hit is what an observer adds to a read that L1 answers.
func BenchmarkL1Hit(b *testing.B) {
	all, _ := newTelemetry(b, l2otel.Options{})
	some, _ := newTelemetry(b, l2otel.Options{L1HitsEvery: 10})
	var impls []ratio.Contender
	for _, impl := range []struct {
		name     string
		observer func(context.Context, tiered.Event)
	}{{"raw", nil}, {"l2cache", all.Event}, {"l2cache-one-in-ten", some.Event}} {
		cache, err := tiered.New(mem.New(mem.NewStore()), &tiered.Options[int]{NoWatch: true, MaxL1TTL: time.Hour, Observer: impl.observer})
		if err != nil {
			b.Fatal(err)
		}
		defer cache.Close()
		ctx := b.Context()
		if err := cache.Set(ctx, "k", 1, time.Hour); err != nil {
			b.Fatal(err)
		}
		impls = append(impls, ratio.Contender{Name: impl.name, Do: func(int) error {
			r, err := cache.Get(ctx, "k")
			if err == nil && r.Tier != tiered.TierL1 {
				err = fmt.Errorf("from %v", r.Tier)
			}
			return err
		}})
	}
	ratio.Compare(b, 1, impls...)
}

// BenchmarkBackendGet is what an observer adds to a read of a backend that has no span.
func BenchmarkBackendGet(b *testing.B) {
	telemetry, _ := newTelemetry(b, l2otel.Options{})
	raw := mem.New(mem.NewStore())
	if err := raw.Set(b.Context(), "k", make([]byte, 100), time.Hour); err != nil {
		b.Fatal(err)
	}
	get := func(name string, backend l2cache.L2CacheBackend) ratio.Contender {
		ctx := b.Context()
		return ratio.Contender{Name: name, Do: func(int) error { _, err := backend.GetWithTTL(ctx, "k"); return err }}
	}
	ratio.Compare(b, 1, get("raw", raw), get("l2cache", l2cache.Observe(raw, telemetry.Op)))
}
