package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// maxAttempts is how often a case that found no evidence is run, firstPause the wait
// before it is run again, which doubles each time: what keeps the machine busy may be
// the other cases.
const (
	maxAttempts = 6
	firstPause  = 100 * time.Millisecond
)

// An engine runs cases against one backend and keeps their results.
type engine struct {
	open    OpenFunc
	o       Options
	backend string // its Name
	profile l2cache.Profile

	leaks string // the case whose bubble did not end, as the backend left goroutines: others would be like it

	id   string // begins the namespaces of this run
	next atomic.Int64

	mu      sync.Mutex
	results map[string]*pending // guarded by mu
}

// pending is a result to come.
type pending struct {
	done   chan struct{} // closed when result is there
	result Result
}

// newEngine opens the backend once, for its name and profile.
func newEngine(ctx context.Context, open OpenFunc, o *Options) (*engine, error) {
	e := &engine{
		open:    open,
		o:       o.withDefaults(),
		id:      "c" + strings.ToLower(rand.Text()[:10]),
		results: map[string]*pending{},
	}
	if err := e.o.check(); err != nil {
		return nil, err
	}
	var b l2cache.L2CacheBackend
	var err error
	pprof.Do(ctx, e.labels(), func(ctx context.Context) { b, err = open(ctx, e.namespace()) })
	if err != nil {
		return nil, fmt.Errorf("conformance: cannot open the backend: %w", err)
	}
	if b == nil {
		return nil, errors.New("conformance: the OpenFunc returned neither a backend nor an error")
	}
	e.backend, e.profile = b.Name(), l2cache.ProfileOf(b)
	if err := b.Close(); err != nil {
		return nil, fmt.Errorf("conformance: closing a backend that was just opened: %w", err)
	}
	return e, nil
}

// labels mark the goroutines of this run, and all that they start.
func (e *engine) labels() pprof.LabelSet { return pprof.Labels("conformance", e.id) }

func (e *engine) namespace() string { return fmt.Sprintf("%sn%06d", e.id, e.next.Add(1)) }

// Check runs the cases that o asks for, in real time, and reports on them. The
// error is that the backend could not be opened at all, or ctx's.
func Check(ctx context.Context, open OpenFunc, o *Options) (*Report, error) {
	e, err := newEngine(ctx, open, o)
	if err != nil {
		return nil, err
	}
	var cases []Case
	for _, c := range Cases() {
		if e.o.chosen(c.ID) {
			cases = append(cases, c)
		}
	}
	e.start(ctx, cases)
	results := make([]Result, len(cases))
	for i, c := range cases {
		select {
		case <-e.pending(c.ID).done:
			results[i] = e.pending(c.ID).result
		case <-ctx.Done():
			return nil, fmt.Errorf("conformance: %w", context.Cause(ctx))
		}
	}
	return newReport(e.backend, e.profile, results), nil
}

// start runs cases in the background: side by side those that have to do with
// time, with what they build on, and then most others; a few at a time those that
// keep the processors busy; and one after another those that must be alone. When ctx
// ends, so do the cases. The channel is closed when the last one is done.
func (e *engine) start(ctx context.Context, cases []Case) (done <-chan struct{}) {
	first := map[string]bool{}
	var mark func(id string)
	mark = func(id string) {
		i := slices.IndexFunc(cases, func(c Case) bool { return c.ID == id })
		if i < 0 || first[id] {
			return // not part of this run, or done
		}
		first[id] = true
		for _, after := range cases[i].After {
			mark(after)
		}
	}
	for _, c := range cases {
		e.promise(c.ID)
		if c.timed {
			mark(c.ID)
		}
	}
	phases := []struct {
		parallel int
		cases    []Case
	}{{parallel: e.o.Parallel}, {parallel: e.o.Parallel}, {parallel: max(runtime.GOMAXPROCS(0), 2)}, {parallel: 1}}
	for _, c := range cases {
		phase := &phases[1]
		switch {
		case c.Alone:
			phase = &phases[3]
		case first[c.ID]:
			phase = &phases[0]
		case c.Busy:
			phase = &phases[2]
		}
		phase.cases = append(phase.cases, c)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for _, phase := range phases {
			slots := make(chan struct{}, min(phase.parallel, e.o.Parallel))
			var wg sync.WaitGroup
			for _, c := range phase.cases {
				wg.Go(func() { e.runCase(ctx, c, slots) })
			}
			wg.Wait()
		}
	}()
	return over
}

func (e *engine) promise(id string) *pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &pending{done: make(chan struct{})}
	e.results[id] = p
	return p
}

// pending returns the result to come of a case, nil if it is not run.
func (e *engine) pending(id string) *pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.results[id]
}

// runCase runs a case that was promised, after those that it builds on, when there
// is a slot for it.
func (e *engine) runCase(ctx context.Context, c Case, slots chan struct{}) {
	p := e.pending(c.ID)
	defer close(p.done)
	if p.result = e.before(c); p.result.Status != "" {
		return
	}
	slots <- struct{}{}
	defer func() { <-slots }()
	if ctx.Err() == nil {
		p.result = e.known(e.attempts(ctx, c, false))
	}
}

// before decides whether a case can be run. Its result has no Status if so.
func (e *engine) before(c Case) Result {
	r := Result{ID: c.ID, Level: c.Level, Law: c.Law}
	if r.Status, r.Evidence = c.needs.missing(e.profile, &e.o); r.Status != "" {
		return r
	}
	if c.Capability != 0 && !e.profile.Supports.Has(c.Capability) {
		r.Status, r.Evidence = Unsupported, "the profile does not have "+c.Capability.String()
		if e.o.Require.Has(c.Capability) {
			r.Status = Fail
		}
		return r
	}
	for _, id := range c.After {
		after := e.pending(id)
		if after == nil {
			continue // not part of this run
		}
		<-after.done
		if s := after.result.Status; s == Fail || s == KnownFailure || s == Blocked {
			r.Status, r.Evidence = Blocked, "by "+id
			return r
		}
	}
	return r
}

// attempts runs a case until there is evidence. In a bubble the clock jumps.
func (e *engine) attempts(ctx context.Context, c Case, bubble bool) Result {
	start := time.Now()
	r := Result{ID: c.ID, Level: c.Level, Law: c.Law}
	for r.Attempts < maxAttempts {
		p := &probe{e: e, c: &c, attempt: r.Attempts, bubble: bubble, ns: e.namespace(), start: time.Now()}
		r.Status, r.Evidence = p.runGuarded(ctx)
		r.Attempts++
		if r.Status != Inconclusive || ctx.Err() != nil {
			break
		}
		if r.Attempts < maxAttempts {
			time.Sleep(firstPause << p.attempt)
		}
	}
	r.Elapsed = time.Since(start)
	return r
}

// known marks the result of a case that is known to fail.
func (e *engine) known(r Result) Result {
	reason, known := e.o.KnownFailures[r.ID]
	switch {
	case known && r.Status == Fail:
		r.Status, r.Evidence = KnownFailure, reason+" | "+r.Evidence
	case known && r.Status == Pass:
		r.Status, r.Evidence = Fail, "passes, though it is listed as a known failure: "+reason
	}
	return r
}

// runGuarded runs the case once in a goroutine of its own, catches panics, and
// gives up with all stacks when it hangs.
func (p *probe) runGuarded(ctx context.Context) (Status, string) {
	p.ctx, p.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer p.closeAll()
		defer p.undo()
		defer p.catch()
		defer p.cancel()
		pprof.Do(p.ctx, p.e.labels(), func(context.Context) { p.c.run(p) })
	}()
	limit := p.e.o.CaseTimeout
	if p.bubble {
		limit += 2 * p.horizon()
	}
	watchdog := time.NewTimer(limit)
	defer watchdog.Stop()
	select {
	case <-done:
	case <-watchdog.C:
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		p.record(Fail, fmt.Sprintf("it hangs | not done after %v\n%s", limit, stacks))
		p.cancel()
		p.undo() // or the cases to come meet a server that is down
		if p.bubble {
			select { // no bubble ends before its goroutines do
			case <-done:
			case <-time.After(time.Minute):
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status == "" {
		return Pass, ""
	}
	return p.status, p.evidence
}
