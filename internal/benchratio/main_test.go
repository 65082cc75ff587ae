package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	round := func(raw, ours string) string {
		return "goos: linux\npkg: example.org/x/redis\n" +
			"BenchmarkGet/impl=l2cache/size=100-2 \t 1000\t " + ours + " ns/op\t 7 B/op\n" +
			"BenchmarkGet/impl=l2cache-cancel/size=100-2 \t 1000\t 300 ns/op\n" +
			"BenchmarkGet/impl=raw/size=100-2 \t 1000\t " + raw + " ns/op\n" +
			"BenchmarkOther-2 \t 1000\t 5 ns/op\nPASS\n"
	}
	var out strings.Builder
	in := round("100", "110") + round("200", "260") + round("1000", "1200")
	if err := report(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	want := `| benchmark | rounds | raw | l2cache | ratio | 95 % interval |
|---|---|---|---|---|---|
| redis Get/size=100 | 3 | 200 ns | 260 ns | 1.20 | 1.10–1.30 |
| redis Get/size=100, cancel | 3 | 200 ns | 300 ns | 1.50 | 0.30–3.00 |
`
	if out.String() != want {
		t.Errorf("report =\n%s\nwant\n%s", &out, want)
	}
	if err := report(strings.NewReader(round("1", "1")+"BenchmarkGet/impl=raw/size=100 1 5 ns/op\n"), &out); err == nil {
		t.Error("report of a round without a pair = nil, want an error")
	}
}

func TestInterval(t *testing.T) {
	var values []float64
	for i := range 20 {
		values = append(values, float64(i+1))
		low, high := interval(values)
		// The ranks are those of the sign test's table for 95 %.
		want := map[int][2]float64{5: {1, 5}, 6: {1, 6}, 8: {1, 8}, 9: {2, 8}, 11: {2, 10}, 12: {3, 10}, 15: {4, 12}, 20: {6, 15}}[i+1]
		if want != [2]float64{} && (low != want[0] || high != want[1]) {
			t.Errorf("interval of 1 to %d = %v, %v; want %v", i+1, low, high, want)
		}
	}
}
