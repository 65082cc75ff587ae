package mutants

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache/conformance"
)

// TestGate proves the suite. Its parts can be run alone, and often:
//
//	go test -run TestGate/mutants -count=20
func TestGate(t *testing.T) {
	var mu sync.Mutex
	var total Result
	gate := func(t *testing.T, o *Options) {
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
			t.Errorf("%s kills no mutant", id)
		}
		for _, id := range r.Unproved {
			t.Errorf("%s is passed by no reference", id)
		}
		mu.Lock()
		defer mu.Unlock()
		total.Mutants += r.Mutants
		total.Killed += r.Killed
		total.Oddballs += r.Oddballs
		total.Passed += r.Passed
		total.Dead = append(total.Dead, r.Dead...)
	}
	t.Run("references", func(t *testing.T) {
		gate(t, &Options{Mutants: []Mutant{}, Oddballs: []Store{}})
	})
	t.Run("mutants", func(t *testing.T) {
		gate(t, &Options{References: []Store{}, Oddballs: []Store{}})
	})
	t.Run("oddballs", func(t *testing.T) {
		for _, store := range Oddballs() {
			t.Run(store.Name, func(t *testing.T) {
				t.Parallel()
				gate(t, &Options{References: []Store{}, Mutants: []Mutant{}, Oddballs: []Store{store}})
			})
		}
	})
	t.Attr("mutants", total.String())
	fmt.Println("mutants:", &total) // go test shows it without -v if no package is named
}

// The oddballs have hours for each case. On a server that is 80 ms away each is done in the
// time that it has by default.
func TestCasesEndInTime(t *testing.T) {
	for name, sh := range map[string]shape{"remote": remote, "durable": durable} {
		synctest.Test(t, func(t *testing.T) {
			s := sh.odd(80*time.Millisecond, func(*client) {})()
			s.Options.CaseTimeout = 0
			r, err := conformance.Check(t.Context(), s.Open, &s.Options)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range r.Cases {
				if c.Status == conformance.Fail {
					t.Errorf("%s: %s = %s, %.1000s", name, c.ID, c.Status, c.Evidence)
				}
			}
		})
	}
}

// A Touch has to come before the end of what it touches, which is no evidence if it is too
// soon for a round trip: the next attempt has a later one.
func TestScanPeerOverSlowTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := remote.odd(150*time.Millisecond, func(*client) {})()
		s.Options.Only = []string{"scan/peer"}
		r, err := conformance.Check(t.Context(), s.Open, &s.Options)
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := r.Result("scan/peer"); c.Status != conformance.Pass {
			t.Errorf("scan/peer = %s, %s; want it to pass", c.Status, c.Evidence)
		}
	})
}
