package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

const (
	// setback is how long after an inquiry has failed another may begin.
	setback = 100 * time.Millisecond

	// headStart is for how long, at most, a server that is asked is waited for before
	// another one is asked, too: it may have stalled.
	headStart = 20 * time.Millisecond
)

// An inquiry finds something out for all calls that need it at the time, and not more
// often than they can use it.
type inquiry struct {
	c     *Cache
	fresh time.Duration                  // for how long it holds what was found out
	do    func(deadline time.Time) error // returns by the deadline

	mu   sync.Mutex
	last *finding // or the one under way; nil before the first; guarded by mu
}

// A finding is how an inquiry ends.
type finding struct {
	done chan struct{}
	err  error     // set before done is closed
	at   time.Time // set before done is closed
}

func (f *finding) holds(fresh time.Duration) bool {
	select {
	case <-f.done:
	default:
		return true
	}
	if f.err != nil {
		fresh = setback
	}
	return time.Since(f.at) < fresh
}

// begin has the inquiry made unless it is under way, or the last one holds. It may take
// as long as an operation, or until the deadline if that is later.
func (q *inquiry) begin(deadline time.Time) *finding {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last != nil && q.last.holds(q.fresh) {
		return q.last
	}
	f := &finding{done: make(chan struct{})}
	if !q.c.begin() {
		f.err = l2cache.ErrClosed
		close(f.done)
		return f
	}
	q.last = f
	if least := time.Now().Add(q.c.opTimeout); deadline.Before(least) {
		deadline = least
	}
	go func() {
		defer q.c.calls.Done()
		f.err = q.do(deadline)
		f.at = time.Now()
		close(f.done)
	}()
	return f
}

// wait is begin, and waits for what is found until ctx ends or the deadline.
func (q *inquiry) wait(ctx context.Context, deadline time.Time) error {
	f := q.begin(deadline)
	select {
	case <-f.done:
		return f.err
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-f.done:
		return f.err
	case <-timer.C:
		return batch.ErrTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askAny returns what the first of all says that has an answer. They are asked one after
// another, each when one before has failed or has had its head start.
func askAny[N, A any](c *Cache, all []N, ask func(N) (A, error)) (A, error) {
	type result struct {
		answer A
		err    error
	}
	results := make(chan result, len(all))
	var errs []error
	for asked := 0; ; {
		var late <-chan time.Time // nil if all were asked
		if asked < len(all) {
			n := all[asked]
			asked++
			go func() {
				answer, err := ask(n)
				results <- result{answer, err}
			}()
		}
		if asked < len(all) {
			late = time.After(min(headStart, c.opTimeout/10))
		}
		if len(errs) == len(all) {
			var none A
			return none, errors.Join(errs...)
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.answer, nil
			}
			errs = append(errs, r.err)
		case <-late:
		}
	}
}
