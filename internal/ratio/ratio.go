// Package ratio compares the speed of several ways to do the same, on a machine that
// does other things, too.
package ratio

import (
	"math"
	"math/rand/v2"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Contender is one way to do what is compared.
type Contender struct {
	Name string
	// Do does it once. It is called by several goroutines at a time; i counts the calls
	// of a turn.
	Do func(i int) error
}

// leastTurn is how long a turn takes at least: long next to the start of its goroutines
// and to the end of the last one's call, and short next to what makes a machine slow for
// a while.
const leastTurn = 5 * time.Millisecond

// Compare has the contenders take turns in random order, b.N rounds of them, so that a
// slow moment of the machine falls on all alike. In a turn g goroutines do it as many
// times as takes the fastest some milliseconds. The first contender is the baseline. It
// reports each one's median time in ns and its allocations for one time, and for those after the
// first the median of the ratios to the baseline's time of the same round, with the
// interval that holds the median with a confidence of 95 %. Allocations are the whole
// process's, and garbage of one contender may be collected in another's turn.
//
// Run it with -benchtime=200x or so: 200 rounds.
func Compare(b *testing.B, g int, contenders ...Contender) {
	n := g
	for _, c := range contenders {
		for {
			if took, _ := turn(b, g, n, c); took >= leastTurn {
				break
			}
			n *= 2
		}
	}
	times, allocs := make([][]float64, len(contenders)), make([]float64, len(contenders))
	for b.Loop() {
		for _, i := range rand.Perm(len(contenders)) {
			took, objects := turn(b, g, n, contenders[i])
			times[i] = append(times[i], float64(took)/float64(n))
			allocs[i] += float64(objects) / float64(n)
		}
	}
	b.ReportMetric(0, "ns/op") // of a round: says nothing
	for i, c := range contenders {
		b.ReportMetric(Median(times[i]), c.Name+"-ns")
		b.ReportMetric(allocs[i]/float64(len(times[i])), c.Name+"-allocs")
		if i == 0 {
			continue
		}
		ratios := make([]float64, len(times[i]))
		for j := range ratios {
			ratios[j] = times[i][j] / times[0][j]
		}
		low, high := Interval(ratios)
		b.ReportMetric(Median(ratios), c.Name+"-ratio")
		b.ReportMetric(low, c.Name+"-low")
		b.ReportMetric(high, c.Name+"-high")
	}
}

// turn has g goroutines do c n times together.
func turn(b *testing.B, g, n int, c Contender) (took time.Duration, objects uint64) {
	b.Helper()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	block := max(min(n/(16*g), 64), 1) // one at a time would measure how they fight for next
	work := func() {
		for {
			end := int(next.Add(int64(block)))
			for i := end - block; i < end; i++ {
				if i >= n {
					return
				}
				if err := c.Do(i); err != nil {
					first := err // so that an err is allocated only here
					failed.Store(&first)
					return
				}
			}
		}
	}
	before := allocated()
	start := time.Now()
	if g == 1 {
		work()
	} else {
		var wg sync.WaitGroup
		for range g {
			wg.Go(work)
		}
		wg.Wait()
	}
	took = time.Since(start)
	objects = allocated() - before
	if err := failed.Load(); err != nil {
		b.Fatalf("%s: %v", c.Name, *err)
	}
	return took, objects
}

// allocated returns how many objects the process has allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Median returns the median of values.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// Interval returns the order statistics that enclose the median with a probability of
// at least 95 %, whatever the distribution: the number of values below the median is
// binomial with p = 1/2. With fewer than 6 values it is all of their range, and less
// sure.
func Interval(values []float64) (low, high float64) {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	lgamma := func(x int) float64 { l, _ := math.Lgamma(float64(x)); return l }
	tail := 0.0 // P(at most cut values lie below)
	cut := -1
	for cut < n/2-1 {
		k := cut + 1
		tail += math.Exp(lgamma(n+1) - lgamma(k+1) - lgamma(n-k+1) - float64(n)*math.Ln2)
		if tail > 0.025 {
			break
		}
		cut = k
	}
	cut = max(cut, 0)
	return s[cut], s[n-1-cut]
}
