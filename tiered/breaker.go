package tiered

import (
	"context"
	"errors"
	"math"
	"path"
	"sync"

	"github.com/sony/gobreaker/v2"

	"github.com/l2cache/l2cache"
)

// A BreakerState is the state of the circuit breaker.
type BreakerState int

const (
	BreakerClosed   BreakerState = iota // L2 is asked
	BreakerHalfOpen                     // one call tries whether L2 is back
	BreakerOpen                         // L2 is not asked
)

var stateNames = [...]string{"closed", "half-open", "open"}

// String returns "closed", "half-open" or "open".
func (s BreakerState) String() string { return nameOf(stateNames[:], int(s)) }

// ErrBreakerOpen is wrapped in the l2cache.ErrUnavailable of a call that the circuit
// breaker did not let through to L2.
var ErrBreakerOpen = errors.New("tiered: circuit breaker is open")

type breaker struct {
	cb *gobreaker.CircuitBreaker[struct{}] // nil: no breaker

	mu      sync.Mutex
	changes []BreakerState // guarded by mu; not told yet
}

func newBreaker[V any](o *Options[V]) *breaker {
	b := &breaker{}
	if o.BreakerFailures < 0 {
		return b
	}
	failures := uint32(min(o.BreakerFailures, math.MaxInt32))
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      o.BreakerOpenFor,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= failures },
		IsExcluded:   saysNothing,
		IsSuccessful: answered,
		// This runs under the breaker's lock, so it only takes notes.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changes = append(b.changes, states[to])
		},
	})
	return b
}

var states = map[gobreaker.State]BreakerState{
	gobreaker.StateClosed:   BreakerClosed,
	gobreaker.StateHalfOpen: BreakerHalfOpen,
	gobreaker.StateOpen:     BreakerOpen,
}

func (b *breaker) now() BreakerState {
	if b.cb == nil {
		return BreakerClosed
	}
	return states[b.cb.State()]
}

// untold returns the states that the breaker went through since the last call.
func (b *breaker) untold() []BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes := b.changes
	b.changes = nil
	return changes
}

// answered reports whether L2 has answered: it was not unavailable. One answer to a key
// of a batch is enough.
func answered(err error) bool {
	if failed, ok := errors.AsType[l2cache.KeyErrors](err); ok {
		for _, err := range failed {
			if answered(err) {
				return true
			}
		}
		return len(failed) == 0
	}
	for _, kind := range []error{l2cache.ErrNotFound, l2cache.ErrCorrupt, l2cache.ErrFull} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return err == nil
}

// saysNothing reports whether an error is about the caller, not about L2. That of a
// batch is if all its keys' errors are.
func saysNothing(err error) bool {
	if failed, ok := errors.AsType[l2cache.KeyErrors](err); ok {
		for _, err := range failed {
			if !saysNothing(err) {
				return false
			}
		}
		return len(failed) > 0
	}
	for _, kind := range []error{
		context.Canceled, context.DeadlineExceeded, l2cache.ErrInvalidKey, l2cache.ErrInvalidTTL,
		l2cache.ErrTooLarge, l2cache.ErrClosed, errors.ErrUnsupported, path.ErrBadPattern,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// isFailure reports whether an error of L2 is one that Options.OnFailure is about. That an
// entry is no value is not: L2 has answered.
func isFailure(err error) bool {
	return err != nil && !errors.Is(err, l2cache.ErrNotFound) && !errors.Is(err, l2cache.ErrCorrupt) && !saysNothing(err)
}

// isTransient reports whether a write that has failed with err may do better later: it was
// not refused for what it is.
func isTransient(err error) bool {
	return isFailure(err) || errors.Is(err, l2cache.ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// ask has f call L2, if the breaker lets it, within L2Timeout. Some of a batch's keys
// may fail: f then returns what counts for the breaker.
func (c *Cache[V]) ask(ctx context.Context, op, key string, f func(context.Context) error) error {
	call := func() error {
		inner := ctx
		if c.options.L2Timeout > 0 {
			var cancel context.CancelFunc
			inner, cancel = context.WithTimeout(ctx, c.options.L2Timeout)
			defer cancel()
		}
		return c.ownTimeout(ctx, op, key, f(inner))
	}
	if c.breaker.cb == nil {
		return call()
	}
	_, err := c.breaker.cb.Execute(func() (struct{}, error) { return struct{}{}, call() })
	for _, state := range c.breaker.untold() {
		c.tell(ctx, Event{Kind: EventBreaker, Breaker: state, Consumed: unknown})
	}
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return l2cache.NewError(ctx, c.l2.Name(), op, key, l2cache.ErrUnavailable, ErrBreakerOpen)
	}
	return err
}

// ownTimeout makes a timeout an ErrUnavailable that is not the caller's, as ctx goes on:
// L2Timeout's, or that of an adapter which does not say so itself.
func (c *Cache[V]) ownTimeout(ctx context.Context, op, key string, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var failed l2cache.KeyErrors
	switch {
	case errors.As(err, &failed):
		own := make(l2cache.KeyErrors, len(failed))
		for key, err := range failed {
			own[key] = c.ownTimeout(ctx, op, key, err)
		}
		return own
	case errors.Is(err, context.DeadlineExceeded):
		return l2cache.NewError(ctx, c.l2.Name(), op, key, l2cache.ErrUnavailable, err)
	}
	return err
}
