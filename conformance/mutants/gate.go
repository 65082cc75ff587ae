package mutants

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/l2cache/l2cache/conformance"
)

// Options choose what a gate is run over. A list that is nil is all of this
// package; one that is empty leaves that part of the proof out.
type Options struct {
	References []Store
	Mutants    []Mutant
	Oddballs   []Store

	// Parallel is how many cases are tried on mutants at a time; 24 by default.
	// Most of them wait.
	Parallel int

	// Bubble runs f in a testing/synctest bubble:
	//
	//	func(f func()) { synctest.Test(t, func(*testing.T) { f() }) }
	//
	// Oddballs, most of which are slow, then take no time. Without it they run in
	// real time.
	Bubble func(f func())
}

// A Result is what a gate has found.
type Result struct {
	Mutants, Killed  int
	Oddballs, Passed int

	Kills     []Finding // cases that failed a mutant that they are to kill
	Survivors []Finding // cases that did not
	Alarms    []Finding // cases that did not pass a reference or an oddball
	Dead      []string  // cases that killed no mutant
	Unproved  []string  // cases that no reference has passed
}

// A Finding is what a case found in a store.
type Finding struct {
	Store string // its name
	conformance.Result
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s: %s", f.Store, f.Status, f.ID, f.Evidence)
}

// OK reports whether the suite is proved, as far as the parts that were run can.
func (r *Result) OK() bool {
	return len(r.Dead)+len(r.Unproved)+len(r.Survivors)+len(r.Alarms) == 0
}

// String is one line: 74 killed of 74, 0 dead cases, 15 of 15 oddballs pass.
func (r *Result) String() string {
	return fmt.Sprintf("%d killed of %d, %d dead cases, %d of %d oddballs pass",
		r.Killed, r.Mutants, len(r.Dead), r.Passed, r.Oddballs)
}

// Gate runs the proof. Every reference and every oddball has to pass, each case
// has to be passed by a reference, each mutant has to be failed by all the cases
// that it names, and each case has to be named by a mutant.
//
// The error is that a store could not be opened, or ctx's.
func Gate(ctx context.Context, o *Options) (*Result, error) {
	var d Options
	if o != nil {
		d = *o
	}
	if d.References == nil {
		d.References = References()
	}
	if d.Mutants == nil {
		d.Mutants = All()
	}
	if d.Oddballs == nil {
		d.Oddballs = Oddballs()
	}
	if d.Parallel == 0 {
		d.Parallel = 24
	}
	r := &Result{Mutants: len(d.Mutants), Oddballs: len(d.Oddballs)}
	for _, part := range []func(context.Context, *Options) error{r.accept, r.kill, r.tolerate} {
		if err := part(ctx, &d); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// accept runs the references, one after another, for some cases have to be alone
// in the process.
func (r *Result) accept(ctx context.Context, o *Options) error {
	passed := map[string]bool{}
	for _, store := range o.References {
		results, err := r.pass(ctx, store)
		if err != nil {
			return err
		}
		for _, result := range results {
			if result.Status == conformance.Pass {
				passed[result.ID] = true
			}
		}
	}
	if len(o.References) > 0 {
		r.Unproved = without(passed)
	}
	return nil
}

func (r *Result) tolerate(ctx context.Context, o *Options) error {
	for _, store := range o.Oddballs {
		before := len(r.Alarms)
		var err error
		if o.Bubble == nil {
			_, err = r.pass(ctx, store)
		} else {
			// A ctx from outside would keep the bubble's time from going on.
			o.Bubble(func() { _, err = r.pass(context.WithoutCancel(ctx), store) })
		}
		if err != nil {
			return err
		}
		if len(r.Alarms) == before {
			r.Passed++
		}
	}
	return nil
}

// pass runs the suite over a store that keeps the contract. Without Strict, what
// is inconclusive or not verified is no alarm.
func (r *Result) pass(ctx context.Context, store Store) ([]conformance.Result, error) {
	system := store.New()
	report, err := conformance.Check(ctx, system.Open, &system.Options)
	if err != nil {
		return nil, fmt.Errorf("mutants: %s: %w", store.Name, err)
	}
	for _, result := range report.Cases {
		switch result.Status {
		case conformance.Pass, conformance.KnownFailure, conformance.NotApplicable, conformance.Unsupported:
			continue
		case conformance.Inconclusive, conformance.NotVerified:
			if !system.Options.Strict {
				continue
			}
		}
		r.Alarms = append(r.Alarms, Finding{store.Name, result})
	}
	return report.Cases, nil
}

// kill runs each mutant's cases, each on a new store of its own.
func (r *Result) kill(ctx context.Context, o *Options) error {
	type trial struct {
		mutant *Mutant
		result conformance.Result
		err    error
	}
	var trials []*trial
	for i := range o.Mutants {
		for _, id := range o.Mutants[i].Kills {
			trials = append(trials, &trial{mutant: &o.Mutants[i], result: conformance.Result{ID: id}})
		}
	}
	busy := map[string]bool{}
	for _, c := range conformance.Cases() {
		busy[c.ID] = c.Busy
	}
	// As in Check: a case that keeps a processor busy makes others' timers late.
	for _, part := range []struct {
		busy     bool
		parallel int
	}{{false, o.Parallel}, {true, min(o.Parallel, max(runtime.GOMAXPROCS(0), 2))}} {
		slots := make(chan struct{}, part.parallel)
		var wg sync.WaitGroup
		for _, t := range trials {
			if busy[t.result.ID] != part.busy {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				t.result, t.err = t.mutant.try(ctx, t.result.ID)
			})
		}
		wg.Wait()
	}
	killers := map[string]bool{}
	survived := map[*Mutant]bool{}
	for _, t := range trials {
		switch {
		case t.err != nil:
			return fmt.Errorf("mutants: %s: %w", t.mutant.Name, t.err)
		case t.result.Status == conformance.Fail:
			killers[t.result.ID] = true
			r.Kills = append(r.Kills, Finding{t.mutant.Name, t.result})
		default:
			survived[t.mutant] = true
			r.Survivors = append(r.Survivors, Finding{t.mutant.Name, t.result})
		}
	}
	r.Killed = len(o.Mutants) - len(survived)
	if len(o.Mutants) > 0 {
		r.Dead = without(killers)
	}
	return nil
}

// try runs one case, and not what it builds on.
func (m *Mutant) try(ctx context.Context, id string) (conformance.Result, error) {
	system := m.New()
	system.Options.Only = []string{id}
	report, err := conformance.Check(ctx, system.Open, &system.Options)
	if err != nil {
		return conformance.Result{}, err
	}
	result, ok := report.Result(id)
	if !ok {
		return result, fmt.Errorf("there is no case %s", id)
	}
	return result, nil
}

// without lists the cases of the suite that are not in a set.
func without(ids map[string]bool) (rest []string) {
	for _, c := range conformance.Cases() {
		if !ids[c.ID] {
			rest = append(rest, c.ID)
		}
	}
	return rest
}
