package l2otel

import (
	"context"
	"net"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/l2cache/l2cache"
)

func (t *Telemetry) setServer(address string, port int) {
	if address == "" {
		return
	}
	t.server = append(t.server, addressKey.String(address))
	t.target = " " + address
	if port != 0 {
		t.server = append(t.server, portKey.Int(port))
		t.target = " " + net.JoinHostPort(address, strconv.Itoa(port))
	}
}

// An outcome is how a call of a backend can end. There are few.
type outcome struct{ backend, operation, outcome, kind string }

// measured has what the measurements of calls that end alike have in common. To make the
// sets of attributes takes longer than all of the rest.
type measured struct {
	attributes []attribute.KeyValue // of the span
	duration   metric.MeasurementOption
	hits       metric.MeasurementOption
	misses     metric.MeasurementOption
	other      metric.MeasurementOption
}

func (t *Telemetry) measured(op l2cache.Op) *measured {
	o := outcome{op.Backend, op.Name, op.Outcome(), op.ErrorKind()}
	if m, ok := t.measurements.Load(o); ok {
		return m.(*measured)
	}
	call := slices.Concat([]attribute.KeyValue{systemKey.String(o.backend), operationKey.String(o.operation)}, t.server)
	with := func(outcome string) []attribute.KeyValue {
		return append(slices.Clone(call), outcomeKey.String(outcome))
	}
	m := &measured{
		attributes: with(o.outcome),
		hits:       t.with(with("hit")...),
		misses:     t.with(with("miss")...),
		other:      t.with(call...),
	}
	if o.kind != "" {
		m.attributes = append(m.attributes, errorTypeKey.String(o.kind))
	}
	m.duration = t.with(m.attributes...)
	t.measurements.Store(o, m)
	return m
}

// Op is an observer of a backend, for l2cache.Observe. If there is a span in ctx, the call
// becomes a child of it.
func (t *Telemetry) Op(ctx context.Context, op l2cache.Op) {
	m := t.measured(op)
	t.span(ctx, op, m.attributes)
	if op.Name != "watch" { // lasts for as long as its caller likes
		t.operationDuration.Record(ctx, op.Duration.Seconds(), m.duration)
	}
	if op.Hits+op.Misses > 0 {
		t.operationKeys.Add(ctx, int64(op.Hits), m.hits)
		t.operationKeys.Add(ctx, int64(op.Misses), m.misses)
	}
	if op.Bytes > 0 && (op.Err == nil || op.Hits > 0) {
		t.operationBytes.Add(ctx, int64(op.Bytes), m.other)
	}
	switch {
	case !knowsTTL(op):
	case op.TTL == l2cache.NoExpiry:
		t.operationNoExpiry.Add(ctx, 1, m.other)
	default:
		t.operationTTL.Record(ctx, op.TTL.Seconds(), m.other)
	}
}

// knowsTTL reports whether op has the TTL of an entry that is there now.
func knowsTTL(op l2cache.Op) bool {
	storedNot := op.Name == "add" && op.Hits > 0
	return op.Err == nil && op.TTL > 0 && !storedNot
}

// span makes a span of a call that has ended. It says of an error only what kind it is:
// its text has the key.
func (t *Telemetry) span(ctx context.Context, op l2cache.Op, attributes []attribute.KeyValue) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	_, span := t.tracer.Start(ctx, op.Name+t.target,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(op.Start),
		trace.WithAttributes(attributes...), trace.WithAttributes(t.cache...))
	if span.IsRecording() {
		if op.Keys > 1 {
			span.SetAttributes(batchSizeKey.Int(op.Keys))
		}
		if knowsTTL(op) && op.TTL != l2cache.NoExpiry {
			span.SetAttributes(ttlKey.Float64(op.TTL.Seconds()))
		}
		if t.spanKey != nil && op.Key != "" {
			if shown := t.spanKey(op.Key); shown != "" {
				span.SetAttributes(keyKey.String(shown))
			}
		}
		if kind := op.ErrorKind(); kind != "" {
			span.SetStatus(codes.Error, kind)
		}
	}
	span.End(trace.WithTimestamp(op.Start.Add(op.Duration)))
}
