package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/conformance"
)

// stores opens handles on one store in memory for each namespace.
func stores(wrap func(l2cache.L2CacheBackend) l2cache.L2CacheBackend) conformance.OpenFunc {
	return func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		b, err := l2cache.Open(ctx, "mem://"+namespace)
		if err != nil || wrap == nil {
			return b, err
		}
		return wrap(b), nil
	}
}

// forgetful is a backend that loses deletes.
type forgetful struct{ l2cache.L2CacheBackend }

func (f forgetful) Delete(ctx context.Context, key string) error { return nil }

// silent is a backend whose misses are nil errors.
type silent struct{ l2cache.L2CacheBackend }

func (s silent) Get(ctx context.Context, key string) ([]byte, error) {
	v, err := s.L2CacheBackend.Get(ctx, key)
	if errors.Is(err, l2cache.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

func TestCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range conformance.Cases() {
		if seen[c.ID] || strings.Count(c.ID, "/") == 0 || c.Law == "" || c.Level != conformance.Must && c.Level != conformance.Should {
			t.Errorf("case %+v: want an ID of its own with a group, a law and a level", c)
		}
		seen[c.ID] = true
	}
	for _, c := range conformance.Cases() {
		for _, id := range c.After {
			if !seen[id] || id == c.ID {
				t.Errorf("%s is after %s, which is no case before it", c.ID, id)
			}
		}
	}
}

func TestReportOfAFailure(t *testing.T) {
	report, err := conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return forgetful{b} }),
		&conformance.Options{Only: []string{"basic/roundtrip", "delete/gone", "durability"}, KnownFailures: map[string]string{"basic/roundtrip": "a mistake"}})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		status   conformance.Status
		evidence []string
	}{
		"basic/roundtrip":    {conformance.Fail, []string{"passes, though", "a mistake"}},
		"delete/gone":        {conformance.Blocked, []string{"by basic/roundtrip"}},
		"durability/restart": {conformance.NotVerified, nil},
	} {
		r, ok := report.Result(id)
		if id == "durability/restart" {
			if ok && r.Status == conformance.Pass {
				t.Errorf("%s = %s of a store without faults", id, r.Status)
			}
			continue
		}
		if !ok || r.Status != want.status {
			t.Errorf("%s = %s (%s), want %s", id, r.Status, r.Evidence, want.status)
		}
		for _, text := range want.evidence {
			if !strings.Contains(r.Evidence, text) {
				t.Errorf("%s: evidence %q, want %q in it", id, r.Evidence, text)
			}
		}
	}
	if report.Verdict != conformance.NotConformant {
		t.Errorf("verdict %q, want %q", report.Verdict, conformance.NotConformant)
	}

	report, err = conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return forgetful{b} }),
		&conformance.Options{Only: []string{"delete/gone"}})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := report.Result("delete/gone")
	for _, text := range []string{`Set("k",1h0m0s)@`, `Delete("k")@`, `Get("k")@`, "want a miss", "usual cause: "} {
		if r.Status != conformance.Fail || !strings.Contains(r.Evidence, text) {
			t.Errorf("delete/gone = %s, %q; want fail with %q", r.Status, r.Evidence, text)
		}
	}
	encoded, err := json.Marshal(report)
	if err != nil || !strings.Contains(string(encoded), `"verdict":"not conformant"`) || !strings.Contains(string(encoded), `"id":"delete/gone"`) {
		t.Errorf("JSON = %s, %v", encoded, err)
	}
}

// TestFirstThingsFirst: a backend that gets misses wrong has one failure and what
// it blocks, not a hundred.
func TestFirstThingsFirst(t *testing.T) {
	report, err := conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return silent{b} }), nil)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, c := range report.Cases {
		if c.Status == conformance.Fail {
			failed = append(failed, c.ID)
		}
	}
	if !slices.Equal(failed, []string{"basic/miss"}) {
		t.Errorf("failed: %q, want basic/miss only", failed)
	}
}

func TestKnownFailure(t *testing.T) {
	var report *conformance.Report
	conformance.Run(t, stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return forgetful{b} }), &conformance.Options{
		Only:          []string{"basic/roundtrip", "delete/gone"},
		KnownFailures: map[string]string{"delete/gone": "this store never deletes"},
		Report:        func(r *conformance.Report) { report = r },
	})
	if r, _ := report.Result("delete/gone"); r.Status != conformance.KnownFailure || !strings.Contains(r.Evidence, "never deletes") {
		t.Errorf("delete/gone = %s, %q; want a known failure, with the reason", r.Status, r.Evidence)
	}
	if report.Verdict != conformance.Partial || report.NotRun == 0 {
		t.Errorf("verdict of two cases = %q, %d not run; want partial", report.Verdict, report.NotRun)
	}
}

func TestMistakesOfTheTest(t *testing.T) {
	for name, c := range map[string]struct {
		open conformance.OpenFunc
		o    conformance.Options
		want string
	}{
		"no such case":   {stores(nil), conformance.Options{Only: []string{"nonsense"}}, `no case "nonsense"`},
		"no such known":  {stores(nil), conformance.Options{KnownFailures: map[string]string{"ttl": "x"}}, `no case "ttl"`},
		"nothing opened": {func(context.Context, string) (l2cache.L2CacheBackend, error) { return nil, nil }, conformance.Options{}, "neither"},
		"an error": {
			func(context.Context, string) (l2cache.L2CacheBackend, error) { return nil, errors.New("no server") },
			conformance.Options{},
			"cannot open the backend: no server",
		},
	} {
		if _, err := conformance.Check(t.Context(), c.open, &c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Check = %v, want an error with %q", name, err, c.want)
		}
	}
	// One store for every namespace.
	store := mem.NewStore()
	report, err := conformance.Check(t.Context(), func(context.Context, string) (l2cache.L2CacheBackend, error) { return mem.New(store), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := report.Result("isolation/namespace"); r.Status != conformance.Fail || !strings.Contains(r.Evidence, "ignores its namespace") {
		t.Errorf("isolation/namespace = %s, %q; want it to fail", r.Status, r.Evidence)
	}
	if n := report.Totals[conformance.Fail]; n > 2 {
		t.Errorf("%d cases fail, want the one that says why, and perhaps one that it met", n)
	}
}

// hanging is a backend whose Get never returns.
type hanging struct{ l2cache.L2CacheBackend }

func (h hanging) Get(context.Context, string) ([]byte, error) { select {} }

func TestWatchdog(t *testing.T) {
	report, err := conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return hanging{b} }),
		&conformance.Options{Only: []string{"basic/roundtrip"}, CaseTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := report.Result("basic/roundtrip"); r.Status != conformance.Fail || !strings.Contains(r.Evidence, "it hangs") || !strings.Contains(r.Evidence, "hanging.Get") {
		t.Errorf("a case that hangs = %s, %.200q; want fail, with the stacks", r.Status, r.Evidence)
	}
}

// lingering is a backend with a goroutine that Close leaves alone.
type lingering struct {
	l2cache.L2CacheBackend
	ticker *time.Ticker
}

func newLingering(b l2cache.L2CacheBackend) l2cache.L2CacheBackend {
	l := lingering{b, time.NewTicker(time.Minute)}
	go l.sweep()
	return l
}

func (l lingering) sweep() {
	for range l.ticker.C {
	}
}

// What would end the process, as a bubble does that has a goroutine left, is a failure of
// one case, and so is what hangs in a bubble.
func TestBubblesThatDoNotEnd(t *testing.T) {
	for name, c := range map[string]struct {
		wrap func(l2cache.L2CacheBackend) l2cache.L2CacheBackend
		want string
		next conformance.Status // of the next case
	}{
		"a goroutine": {newLingering, "lingering.sweep", conformance.Blocked},
		"a call":      {func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return hanging{b} }, "hanging.Get", conformance.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			results := conformance.Results(t, stores(c.wrap), &conformance.Options{
				InProcess: true,
				Only:      []string{"ttl/set/independent", "ttl/set/after-expiry"},
			})
			if r := results["ttl/set/independent"]; r.Status != conformance.Fail || !strings.Contains(r.Evidence, c.want) {
				t.Errorf("ttl/set/independent = %s, %.1000s; want it to fail with the stack of %s", r.Status, r.Evidence, c.want)
			}
			if r := results["ttl/set/after-expiry"]; r.Status != c.next {
				t.Errorf("ttl/set/after-expiry = %s, %.1000s; want %s", r.Status, r.Evidence, c.next)
			}
		})
	}
}

// panicking is a backend that panics.
type panicking struct{ l2cache.L2CacheBackend }

func (p panicking) Get(context.Context, string) ([]byte, error) { panic("at the disco") }

func TestPanicIsAFailure(t *testing.T) {
	report, err := conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return panicking{b} }),
		&conformance.Options{Only: []string{"basic/roundtrip", "concurrency/cross-talk"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := report.Result("basic/roundtrip"); r.Status != conformance.Fail || !strings.Contains(r.Evidence, "panic: at the disco") {
		t.Errorf("a case that panics = %s, %.200q; want fail with the panic", r.Status, r.Evidence)
	}
}

// TestReportForms wants every case in each form, and nothing of the evidence to be
// taken for markup.
func TestReportForms(t *testing.T) {
	report, err := conformance.Check(t.Context(), stores(func(b l2cache.L2CacheBackend) l2cache.L2CacheBackend { return panicking{b} }),
		&conformance.Options{Only: []string{"basic/roundtrip", "delete"}})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(report.Cases, func(c conformance.Result) bool { return c.ID == "delete/gone" })
	report.Cases[i].Evidence = "<script>a|b</script>\n`"
	var md, html strings.Builder
	if err := errors.Join(report.WriteMarkdown(&md), report.WriteHTML(&html)); err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Cases {
		if !strings.Contains(md.String(), "\n| `"+c.ID+"` | MUST | "+string(c.Status)+" |") {
			t.Errorf("Markdown has no row of %s that says %s", c.ID, c.Status)
		}
		if !strings.Contains(html.String(), "<code>"+c.ID+"</code>") {
			t.Errorf("HTML has no row of %s", c.ID)
		}
	}
	for name, c := range map[string]struct{ text, want, not string }{
		"Markdown": {md.String(), `&lt;script>a\|b&lt;/script> \` + "`" + ` |`, "<script"},
		"HTML":     {html.String(), "&lt;script&gt;a|b", "<script"},
	} {
		if !strings.Contains(c.text, c.want) || strings.Contains(c.text, c.not) {
			t.Errorf("%s = %s\nwant %q in it and not %q", name, c.text, c.want, c.not)
		}
		if want := "mem: " + string(report.Verdict); !strings.Contains(c.text, want) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	for _, src := range []string{"src=", "href=", "url(", "@import"} {
		if strings.Contains(html.String(), src) {
			t.Errorf("HTML loads something: it has %q", src)
		}
	}
}

func BenchmarkMem(b *testing.B) { conformance.Benchmark(b, stores(nil), nil) }
