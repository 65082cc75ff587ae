// Package batch lets concurrent calls share a round trip or a commit.
package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrTimeout is what Do returns when a request was not done within the group's
// Timeout.
var ErrTimeout = errors.New("no answer within the operation timeout")

// A Group collects requests that come while others are being run, and runs them
// together. There is no timer: a request that finds less than InFlight batches
// running is run at once, alone; the others queue, and a batch that ends takes
// the queue. The fields are set before the first Do.
type Group[T any] struct {
	// Run performs the requests of one batch, and leaves each result and each
	// error in the request. It must return within about Timeout, and not panic.
	Run func([]*T)
	// Alone, if it is not nil, runs in place of Run a request that is run at once,
	// with the ctx of its Do and in the goroutine of that. It must return promptly
	// when ctx ends, and within about Timeout, and say in the request why it did.
	Alone func(context.Context, *T)
	// InFlight is how many batches may run at a time, at least 1.
	InFlight int
	// Max returns how many requests the next batch may have, at least 1.
	Max func() int
	// Weight is how many of Max a request counts for, at least 1: requests that
	// are heavier together go in different batches, and one that is too heavy by
	// itself goes alone. If it is nil, each counts for 1.
	Weight func(*T) int
	// Timeout bounds each Do, from its call.
	Timeout time.Duration

	mu      sync.Mutex
	running int        // batches; guarded by mu
	queue   []*call[T] // guarded by mu; empty while running < InFlight
}

type call[T any] struct {
	req  *T
	done chan struct{} // closed when req has been run
}

// Do has req run, alone or with others. If it returns nil, req has been run and
// belongs to the caller again. Otherwise the error is ctx's or ErrTimeout, and the
// request was withdrawn if it was still queued, or else will be run to its end
// without the caller: who must not touch req, or what it refers to, again.
//
// The end of one caller's ctx has no effect on the others of its batch.
func (g *Group[T]) Do(ctx context.Context, req *T) error {
	c := &call[T]{req: req}
	g.mu.Lock()
	if g.running < g.InFlight {
		g.running++
		g.mu.Unlock()
		if g.Alone != nil {
			defer g.next()
			g.Alone(ctx, req)
			return nil
		}
		if ctx.Done() == nil { // nothing but Run's own end can end this wait
			g.run([]*T{req})
			return nil
		}
		c.done = make(chan struct{})
		go func() {
			g.run([]*T{req})
			close(c.done)
		}()
	} else {
		c.done = make(chan struct{})
		g.queue = append(g.queue, c)
		g.mu.Unlock()
	}

	timer := time.NewTimer(g.Timeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		g.withdraw(c)
		return ctx.Err()
	case <-timer.C:
		g.withdraw(c)
		return ErrTimeout
	}
}

// run runs a first batch, and hands on the place in flight.
func (g *Group[T]) run(reqs []*T) {
	defer g.next()
	g.Run(reqs)
}

// next gives the place of a batch that has ended to the queue, in a goroutine of
// its own so that no caller works for the others, or frees it.
func (g *Group[T]) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		g.running--
		return
	}
	go g.drain()
}

// drain runs batches from the queue until it is empty.
func (g *Group[T]) drain() {
	for {
		calls := g.take()
		if calls == nil {
			return
		}
		reqs := make([]*T, len(calls))
		for i, c := range calls {
			reqs[i] = c.req
		}
		g.Run(reqs)
		for _, c := range calls {
			close(c.done)
		}
	}
}

// take returns the next batch, or nil after it has freed the place in flight.
func (g *Group[T]) take() []*call[T] {
	most := g.Max()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		g.running--
		return nil
	}
	n, weight := 1, g.weight(g.queue[0])
	for n < len(g.queue) && weight+g.weight(g.queue[n]) <= most {
		weight += g.weight(g.queue[n])
		n++
	}
	calls := slices.Clone(g.queue[:n])
	g.queue = slices.Delete(g.queue, 0, n)
	return calls
}

func (g *Group[T]) weight(c *call[T]) int {
	if g.Weight == nil {
		return 1
	}
	return g.Weight(c.req)
}

func (g *Group[T]) withdraw(c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.queue, c); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
}
