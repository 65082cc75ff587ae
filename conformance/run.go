package conformance

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Run checks the backend that open opens, each case in a subtest that has its ID
// for a name, so that -run picks cases: -run 'TestConformance/ttl/overwrite'.
func Run(t *testing.T, open OpenFunc, o *Options) {
	t.Helper()
	e, err := newEngine(t.Context(), open, o)
	if err != nil {
		t.Fatal(err)
	}
	var cases, background []Case
	for _, c := range Cases() {
		if !e.o.chosen(c.ID) {
			continue
		}
		cases = append(cases, c)
		if likely(t.Name()+"/"+c.ID) && !(e.o.InProcess && c.timed) {
			background = append(background, c)
		}
	}
	// Cases mostly wait. So they all run at once in the background, whatever
	// -parallel says, and their subtests report on them in order.
	ctx, stop := context.WithCancel(context.Background())
	done := e.start(ctx, background)
	defer func() {
		stop() // what -run has left out after all
		<-done
	}()
	var results []Result
	tree(t, cases, 0, func(t *testing.T, c Case) {
		r := e.result(t, c)
		results = append(results, r)
		e.report(t, r)
	})
	report := newReport(e.backend, e.profile, results)
	if e.o.Report != nil {
		e.o.Report(report)
	}
	t.Log(report.Summary()) // the subtests have said the rest
}

// tree makes a subtest for each part of the IDs, and calls leaf in the innermost.
func tree(t *testing.T, cases []Case, depth int, leaf func(*testing.T, Case)) {
	for len(cases) > 0 {
		first := strings.Split(cases[0].ID, "/")
		n := 1
		for n < len(cases) {
			parts := strings.Split(cases[n].ID, "/")
			if len(parts) <= depth || parts[depth] != first[depth] {
				break
			}
			n++
		}
		branch := cases[:n]
		cases = cases[n:]
		t.Run(first[depth], func(t *testing.T) {
			if len(first) == depth+1 {
				leaf(t, branch[0])
				branch = branch[1:]
			}
			tree(t, branch, depth+1, leaf)
		})
	}
}

// result waits for a case that runs in the background, or runs it here: in a
// bubble if it is timed and the backend is in process.
func (e *engine) result(t *testing.T, c Case) Result {
	if p := e.pending(c.ID); p != nil {
		<-p.done
		return p.result
	}
	p := e.promise(c.ID)
	defer close(p.done)
	if p.result = e.before(c); p.result.Status != "" {
		return p.result
	}
	switch {
	case !e.o.InProcess || !c.timed:
		p.result = e.attempts(context.Background(), c, false)
	case e.leaks != "":
		p.result.Status, p.result.Evidence = Blocked, "by "+e.leaks
	default:
		stacks := inBubble(t, func() {
			time.Sleep(rand.N(time.Second)) // a bubble begins on a whole second, as nothing else does
			p.result = e.attempts(context.Background(), c, true)
		})
		if stacks != "" && p.result.Status != Fail {
			e.leaks = c.ID
			p.result.Status, p.result.Evidence = Fail, "all handles were closed, and goroutines go on that were started since they were opened | want none\n"+stacks
		}
	}
	p.result = e.known(p.result)
	return p.result
}

// inBubble runs f in a bubble. It returns the stacks of the goroutines that are left in
// it, which synctest has for a deadlock.
func inBubble(t *testing.T, f func()) (stacks string) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if err, ok := r.(error); !ok || !strings.HasPrefix(err.Error(), "deadlock: ") {
			panic(r)
		}
		all := make([]byte, 1<<20)
		all = all[:runtime.Stack(all, true)]
		for stack := range strings.SplitSeq(string(all), "\n\n") {
			if head, _, _ := strings.Cut(stack, "\n"); strings.Contains(head, "synctest bubble") {
				stacks += stack + "\n\n"
			}
		}
		stacks = cmp.Or(stacks, fmt.Sprint(r))
	}()
	synctest.Test(t, func(*testing.T) { f() })
	return ""
}

// report makes a case's result that of its subtest.
func (e *engine) report(t *testing.T, r Result) {
	t.Helper()
	text := r.ID + ": " + r.Law + " | " + r.Evidence
	switch {
	case r.Status == Pass && r.Evidence == "":
	case r.Status == Pass, r.Status == KnownFailure, r.Status == NotApplicable, r.Status == Unsupported:
		t.Logf("%s: %s", r.Status, text)
	case r.Level == Should && !e.o.Strict:
		t.Logf("%s: %s", r.Status, text)
	case r.Status == Fail, e.o.Strict && r.Status != Blocked:
		t.Errorf("%s: %s", r.Status, text)
	default:
		t.Skipf("%s: %s", r.Status, text)
	}
}

// likely reports whether the flags -test.run and -test.skip select a subtest, as
// far as that can be told from outside: a case that is wrongly left out of the
// background runs in its subtest instead.
func likely(name string) bool {
	value := func(flagName string) string {
		if f := flag.Lookup(flagName); f != nil {
			return f.Value.String()
		}
		return ""
	}
	skip := value("test.skip")
	return selects(value("test.run"), name, true) && (skip == "" || !selects(skip, name, false))
}

// selects reports whether pattern, regular expressions between slashes, selects a
// test of that name. For -skip the pattern must go no deeper than the name.
func selects(pattern, name string, run bool) bool {
	names := strings.Split(name, "/")
	patterns := strings.Split(pattern, "/")
	if !run && len(patterns) > len(names) {
		return false
	}
	for i, p := range patterns[:min(len(patterns), len(names))] {
		re, err := regexp.Compile(p)
		if err != nil || !re.MatchString(names[i]) {
			return err != nil
		}
	}
	return true
}
