package l2otel

import (
	"context"
	"net"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
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

// Op is an observer of a backend, for l2cache.Observe. If there is a span in ctx, the call
// becomes a child of it.
func (t *Telemetry) Op(ctx context.Context, op l2cache.Op) {
	call := slices.Concat([]attribute.KeyValue{systemKey.String(op.Backend), operationKey.String(op.Name)}, t.server)
	with := func(outcome string) []attribute.KeyValue {
		return append(slices.Clone(call), outcomeKey.String(outcome))
	}
	ended := with(op.Outcome())
	if kind := op.ErrorKind(); kind != "" {
		ended = append(ended, errorTypeKey.String(kind))
	}
	t.span(ctx, op, ended)
	if op.Name != "watch" { // lasts for as long as its caller likes
		t.operationDuration.Record(ctx, op.Duration.Seconds(), t.with(ended...))
	}
	if op.Hits+op.Misses > 0 {
		t.operationKeys.Add(ctx, int64(op.Hits), t.with(with("hit")...))
		t.operationKeys.Add(ctx, int64(op.Misses), t.with(with("miss")...))
	}
	if op.Bytes > 0 && (op.Err == nil || op.Hits > 0) {
		t.operationBytes.Add(ctx, int64(op.Bytes), t.with(call...))
	}
	switch {
	case !knowsTTL(op):
	case op.TTL == l2cache.NoExpiry:
		t.operationNoExpiry.Add(ctx, 1, t.with(call...))
	default:
		t.operationTTL.Record(ctx, op.TTL.Seconds(), t.with(call...))
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
