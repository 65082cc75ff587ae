package mutants

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// TestGate proves the suite. Its parts can be run alone, and often:
//
//	go test -run TestGate/mutants -count=20
func TestGate(t *testing.T) {
	var total Result
	part := func(name string, o *Options) {
		t.Run(name, func(t *testing.T) {
			o.Bubble = func(f func()) { synctest.Test(t, func(*testing.T) { f() }) }
			r, err := Gate(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range r.Kills {
				t.Log(f)
			}
			for _, f := range r.Survivors {
				t.Errorf("survives %v", f)
			}
			for _, f := range r.Alarms {
				t.Errorf("false alarm: %v", f)
			}
			for _, id := range r.Dead {
				report(t, id, "%s kills no mutant", id)
			}
			for _, id := range r.Unproved {
				report(t, id, "%s is passed by no reference", id)
			}
			total.Mutants += r.Mutants
			total.Killed += r.Killed
			total.Oddballs += r.Oddballs
			total.Passed += r.Passed
			total.Dead = append(total.Dead, r.Dead...)
		})
	}
	part("references", &Options{Mutants: []Mutant{}, Oddballs: []Store{}})
	part("mutants", &Options{References: []Store{}, Oddballs: []Store{}})
	part("oddballs", &Options{References: []Store{}, Mutants: []Mutant{}})
	t.Attr("mutants", total.String())
	fmt.Println("mutants:", &total) // go test shows it if it is given no packages, or -v
}

// withoutMutants are the groups of cases whose mutants are still to come.
var withoutMutants = []string{"batch", "touch", "add", "delete-pattern", "scan", "watch", "capability"}

func report(t *testing.T, id, format string, args ...any) {
	t.Helper()
	if group, _, _ := strings.Cut(id, "/"); slices.Contains(withoutMutants, group) {
		t.Logf(format, args...)
		return
	}
	t.Errorf(format, args...)
}
