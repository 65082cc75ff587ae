package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	in := "goos: linux\npkg: example.org/x/redis\n" +
		"BenchmarkGet/size=100-2 \t 200\t 250.0 l2cache-ns\t 1.26 l2cache-ratio\t 1.2 l2cache-low\t 1.3 l2cache-high\t 7 l2cache-allocs\t" +
		" 2500000 l2cache-cancel-ns\t 12.6 l2cache-cancel-ratio\t 1.2 l2cache-cancel-low\t 13 l2cache-cancel-high\t 8 l2cache-cancel-allocs\t" +
		" 200 raw-ns\t 2.9 raw-allocs\n" +
		"BenchmarkOther-2 \t 1000\t 5 ns/op\nPASS\n"
	want := `| benchmark | rounds | raw | l2cache | ratio | 95 % interval | allocations |
|---|---|---|---|---|---|---|
| redis Get/size=100 | 200 | 200 ns | 250 ns | 1.26 | 1.20–1.30 | 7, raw 3 |
| redis Get/size=100, cancel | 200 | 200 ns | 2.50 ms | 12.60 | 1.20–13.00 | 8, raw 3 |
`
	var out strings.Builder
	if err := report(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("report =\n%s\nwant\n%s", &out, want)
	}
	if err := report(strings.NewReader(in+"--- FAIL: BenchmarkSet\n"), &out); err == nil {
		t.Error("report of a benchmark that failed = nil")
	}
}
