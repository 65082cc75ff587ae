package conformance

import "testing"

// Results runs the chosen cases as Run does, and leaves the verdict to the test that
// called it: a case that is blocked skips no test.
func Results(t *testing.T, open OpenFunc, o *Options) map[string]Result {
	e, err := newEngine(t.Context(), open, o)
	if err != nil {
		t.Fatal(err)
	}
	results := make(map[string]Result)
	for _, c := range Cases() {
		if e.o.chosen(c.ID) {
			results[c.ID] = e.result(t, c)
		}
	}
	return results
}
