package conformance

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
)

// An operation is a method of a backend, for the rules that hold for all of them.
type operation struct {
	name  string
	keyed bool // has a key; Ping has none
	run   func(ctx context.Context, b l2cache.L2CacheBackend, key string) (value []byte, err error)
}

var operations = []operation{
	{"Get", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return b.Get(ctx, key)
	}},
	{"GetWithTTL", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		e, err := b.GetWithTTL(ctx, key)
		if err != nil && e.TTL != 0 {
			return e.Value, errors.Join(err, errors.New("with a TTL that is not zero"))
		}
		return e.Value, err
	}},
	{"Set", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, b.Set(ctx, key, []byte("written"), time.Hour)
	}},
	{"Delete", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, b.Delete(ctx, key)
	}},
	{"Ping", false, func(ctx context.Context, b l2cache.L2CacheBackend, _ string) ([]byte, error) {
		return nil, b.Ping(ctx)
	}},
}

// capabilityOperations are those that a backend need not have.
var capabilityOperations = []struct {
	needs l2cache.Capability
	op    operation
}{
	{l2cache.CanTouch, operation{"Touch", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, l2cache.Touch(ctx, b, key, time.Hour)
	}}},
	{l2cache.CanAdd, operation{"Add", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		_, err := l2cache.Add(ctx, b, key, []byte("written"), time.Hour)
		return nil, err
	}}},
	{l2cache.CanDeletePattern, operation{"DeletePattern", false, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, l2cache.DeletePattern(ctx, b, l2cache.QuotePattern(key)+"*")
	}}},
	{l2cache.CanScan, operation{"Scan", false, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		for _, err := range l2cache.Scan(ctx, b, key) {
			if err != nil {
				return nil, err
			}
		}
		return nil, nil
	}}},
}

// operations are those of the core, and what else the backend supports.
func (p *probe) operations() []operation {
	ops := slices.Clone(operations)
	for _, c := range capabilityOperations {
		if p.e.profile.Supports.Has(c.needs) {
			ops = append(ops, c.op)
		}
	}
	return ops
}

// outcome is what an operation returned, and when.
type outcome struct {
	span
	value []byte
	err   error
}

// try runs op on h.
func (h *handle) try(ctx context.Context, op operation, key string) outcome {
	o := outcome{span: span{call: time.Now()}}
	o.value, o.err = op.run(ctx, h.b, key)
	o.done = time.Now()
	h.note("%s(%s)@%v%s", op.name, brief(key), h.p.at(o.call), failure(o.err))
	return o
}

// wantError wants op to have failed as kind says, and nothing else: no value, not
// a miss, and a context error if and only if that is the kind.
func (p *probe) wantError(op operation, o outcome, kind error) {
	switch {
	case !errors.Is(o.err, kind):
		p.failf("%s = %v | want %v", op.name, o.err, kind)
	case o.value != nil:
		p.failf("%s = %d bytes with %v | want a nil value", op.name, len(o.value), o.err)
	case kind != l2cache.ErrNotFound && errors.Is(o.err, l2cache.ErrNotFound):
		p.failf("%s = %v, which matches ErrNotFound too | want no miss", op.name, o.err)
	case !isContextErr(kind) && isContextErr(o.err):
		p.failf("%s = %v, which matches a context error | want none: the caller's ctx has not ended", op.name, o.err)
	case kind != l2cache.ErrUnavailable && errors.Is(o.err, l2cache.ErrUnavailable):
		p.failf("%s = %v, which matches ErrUnavailable too | want %v only", op.name, o.err, kind)
	}
}

func isContextErr(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
