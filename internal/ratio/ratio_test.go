package ratio

import (
	"flag"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestInterval(t *testing.T) {
	var values []float64
	for i := range 200 {
		values = append(values, float64(i+1))
		low, high := Interval(values)
		// The ranks are those of the sign test's table for 95 %.
		want := map[int][2]float64{1: {1, 1}, 5: {1, 5}, 6: {1, 6}, 8: {1, 8}, 9: {2, 8}, 11: {2, 10}, 12: {3, 10}, 15: {4, 12}, 20: {6, 15}, 100: {40, 61}, 200: {86, 115}}[i+1]
		if want != [2]float64{} && (low != want[0] || high != want[1]) {
			t.Errorf("Interval of 1 to %d = %v, %v; want %v", i+1, low, high, want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := Median(test.values); got != test.want {
			t.Errorf("Median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestCompare(t *testing.T) {
	if err := flag.Set("test.benchtime", "20x"); err != nil {
		t.Fatal(err)
	}
	defer flag.Set("test.benchtime", "1s")
	var once, thrice atomic.Int64
	taking := func(calls *atomic.Int64, d time.Duration) func(int) error {
		return func(int) error {
			calls.Add(1)
			time.Sleep(d)
			return nil
		}
	}
	var r testing.BenchmarkResult
	synctest.Test(t, func(*testing.T) { // whatever else the machine does
		r = testing.Benchmark(func(b *testing.B) {
			Compare(b, 1, Contender{"raw", taking(&once, 20*time.Microsecond)}, Contender{"slow", taking(&thrice, 60*time.Microsecond)})
		})
	})
	if got := r.Extra["slow-ratio"]; got < 2.99 || got > 3.01 {
		t.Errorf("three times as long: ratio %v in %v", got, r.Extra)
	}
	if low, high := r.Extra["slow-low"], r.Extra["slow-high"]; low > r.Extra["slow-ratio"] || high < r.Extra["slow-ratio"] {
		t.Errorf("the ratio is not in its interval: %v", r.Extra)
	}
	if got := r.Extra["raw-ns"]; got < 20_000 {
		t.Errorf("20 µs took %v ns", got)
	}
	if n := thrice.Load(); n < 20*80 {
		t.Errorf("%d calls in 20 rounds of 80 at least", n)
	}
}
