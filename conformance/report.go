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
	Inconclusive  Status = "inconclusive"   // three attempts gave no evidence
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
	Partial       Verdict = "partial"        // none has failed, some gave no result
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

// WriteText writes a line that sums the report up, and one for each case that
// neither passed nor is not applicable.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, suite %s:", r.Backend, r.Verdict, r.Suite)
	for _, s := range []Status{Pass, Fail, Blocked, Inconclusive, NotVerified, Unsupported, NotApplicable} {
		if n := r.Totals[s]; n > 0 {
			fmt.Fprintf(&b, " %d %s,", n, s)
		}
	}
	text := strings.TrimSuffix(b.String(), ",") + "\n"
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
		case Blocked, Inconclusive, NotVerified:
			if r.Verdict == Conformant {
				r.Verdict = Partial
			}
		}
	}
	return r
}
