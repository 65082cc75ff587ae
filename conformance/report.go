package conformance

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// A Status is what became of a case.
type Status string

const (
	Pass          Status = "pass"
	Fail          Status = "fail"
	Blocked       Status = "blocked"        // a case that it builds on did not pass
	KnownFailure  Status = "known failure"  // it fails, and Options.KnownFailures says why
	Inconclusive  Status = "inconclusive"   // six attempts gave no evidence
	Unsupported   Status = "unsupported"    // the backend lacks the capability
	NotVerified   Status = "not verified"   // a hook in Options is missing
	NotApplicable Status = "not applicable" // the profile rules it out
)

// A Result is what became of one case.
type Result struct {
	ID       string        `json:"id"`
	Level    Level         `json:"level"`
	Law      string        `json:"law"`
	Status   Status        `json:"status"`
	Evidence string        `json:"evidence,omitempty"` // why it did not pass, in one paragraph
	Attempts int           `json:"attempts,omitempty"`
	Elapsed  time.Duration `json:"elapsedNs"`
}

// A Verdict sums a report up.
type Verdict string

const (
	Conformant    Verdict = "conformant"     // every MUST case that applies has passed
	Partial       Verdict = "partial"        // none has failed, some gave no result or were not run
	NotConformant Verdict = "not conformant" // one has failed
)

// A Report is the outcome of a run. It encodes to JSON as it is.
type Report struct {
	Suite       string          `json:"suite"` // Version
	Backend     string          `json:"backend"`
	Environment string          `json:"environment"` // Go version, system, processors
	Profile     l2cache.Profile `json:"profile"`
	Verdict     Verdict         `json:"verdict"`
	Totals      map[Status]int  `json:"totals"`
	NotRun      int             `json:"notRun"`      // cases that Options.Only or -run left out
	NotVerified []string        `json:"notVerified"` // IDs
	Cases       []Result        `json:"cases"`
}

// Result returns the result of a case, and false if it was not run.
func (r *Report) Result(id string) (Result, bool) {
	i := slices.IndexFunc(r.Cases, func(c Result) bool { return c.ID == id })
	if i < 0 {
		return Result{}, false
	}
	return r.Cases[i], true
}

// Summary is one line: backend, verdict, and how many cases had which result.
func (r *Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, suite %s:", r.Backend, r.Verdict, r.Suite)
	for _, s := range statuses {
		if n := r.Totals[s]; n > 0 {
			fmt.Fprintf(&b, " %d %s,", n, s)
		}
	}
	if r.NotRun > 0 {
		fmt.Fprintf(&b, " %d not run,", r.NotRun)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// WriteText writes Summary, and a line for each case that is neither passed nor
// ruled out by the profile.
func (r *Report) WriteText(w io.Writer) error {
	text := r.Summary() + "\n"
	for _, c := range r.Cases {
		if c.Status != Pass && c.Status != NotApplicable && c.Status != Unsupported {
			text += fmt.Sprintf("  %s %s: %s\n", strings.ToUpper(string(c.Status)), c.ID, c.Evidence)
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

func newReport(backend string, profile l2cache.Profile, results []Result) *Report {
	r := &Report{
		Suite:       Version,
		Backend:     backend,
		Environment: fmt.Sprintf("%s %s/%s, %d processors", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0)),
		Profile:     profile,
		Verdict:     Conformant,
		Totals:      map[Status]int{},
		NotVerified: []string{},
		Cases:       results,
	}
	if r.NotRun = len(Cases()) - len(results); r.NotRun > 0 {
		r.Verdict = Partial
	}
	for _, c := range results {
		r.Totals[c.Status]++
		if c.Status == NotVerified {
			r.NotVerified = append(r.NotVerified, c.ID)
		}
		if c.Level != Must {
			continue
		}
		switch c.Status {
		case Fail:
			r.Verdict = NotConformant
		case KnownFailure, Blocked, Inconclusive, NotVerified:
			if r.Verdict == Conformant {
				r.Verdict = Partial
			}
		}
	}
	return r
}
