// Benchratio reads the output of go test -bench, of several rounds one after
// another, and prints for each benchmark how its implementations compare: the
// median, over the rounds, of the ratio to impl=raw of the same round, with an
// interval that holds the true median with a confidence of 95 % or more.
//
// The names of benchmarks have an element impl=NAME. What is compared differs in
// that element only. The baseline of impl=NAME is impl=raw, or impl=raw-NAME if
// there is one.
package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if err := report(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchratio:", err)
		os.Exit(1)
	}
}

// A group is what is compared: benchmarks whose names differ in impl only.
type group struct {
	name  string
	impls []string             // in order of appearance
	times map[string][]float64 // ns/op by implementation, one for each round
}

var (
	result = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op`)
	impl   = regexp.MustCompile(`/impl=([^/]+)`)
)

func report(r io.Reader, w io.Writer) error {
	groups, err := parse(r)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "| benchmark | rounds | raw | l2cache | ratio | 95 % interval |\n|---|---|---|---|---|---|")
	for _, g := range groups {
		for _, name := range g.impls {
			raw := g.times["raw"]
			if own, ok := g.times["raw-"+name]; ok {
				raw = own
			}
			if raw == nil || strings.HasPrefix(name, "raw") {
				continue
			}
			times := g.times[name]
			if len(times) != len(raw) {
				return fmt.Errorf("%s: %d rounds of %s and %d of its baseline", g.name, len(times), name, len(raw))
			}
			ratios := make([]float64, len(times))
			for i := range times {
				ratios[i] = times[i] / raw[i]
			}
			low, high := interval(ratios)
			label := g.name
			if name != "l2cache" {
				label += ", " + strings.TrimPrefix(name, "l2cache-")
			}
			fmt.Fprintf(w, "| %s | %d | %s | %s | %.2f | %.2f–%.2f |\n",
				label, len(ratios), duration(median(raw)), duration(median(times)), median(ratios), low, high)
		}
	}
	return nil
}

// parse collects the groups in order of appearance.
func parse(r io.Reader) ([]*group, error) {
	var groups []*group
	byName := map[string]*group{}
	pkg := ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if p, ok := strings.CutPrefix(lines.Text(), "pkg: "); ok {
			pkg = p[strings.LastIndexByte(p, '/')+1:]
			continue
		}
		m := result.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		i := impl.FindStringSubmatch(m[1])
		if i == nil {
			continue
		}
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		name := pkg + " " + strings.Replace(strings.TrimPrefix(m[1], "Benchmark"), i[0], "", 1)
		g := byName[name]
		if g == nil {
			g = &group{name: name, times: map[string][]float64{}}
			byName[name] = g
			groups = append(groups, g)
		}
		if g.times[i[1]] == nil {
			g.impls = append(g.impls, i[1])
		}
		g.times[i[1]] = append(g.times[i[1]], ns)
	}
	return groups, lines.Err()
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// interval returns the order statistics that enclose the median with a
// probability of at least 95 %, whatever the distribution: the number of values
// below the median is binomial with p = 1/2. With fewer than 6 values it is all of
// their range, and less sure.
func interval(values []float64) (low, high float64) {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	cut, tail := 0, math.Pow(0.5, float64(n)) // P(at most cut values lie below)
	for term := tail; ; {
		term *= float64(n-cut) / float64(cut+1)
		if tail+term > 0.025 {
			break
		}
		tail += term
		cut++
	}
	return s[cut], s[n-1-cut]
}

func duration(ns float64) string {
	switch {
	case ns >= 1e6:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	case ns >= 1e3:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.0f ns", ns)
}
