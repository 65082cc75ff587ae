// Benchratio reads what go test -bench prints of benchmarks that compare (package
// ratio), and prints them as a table.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if err := report(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchratio:", err)
		os.Exit(1)
	}
}

var result = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+(\d+)\s(.*)$`)

func report(r io.Reader, w io.Writer) error {
	fmt.Fprintln(w, "| benchmark | rounds | raw | l2cache | ratio | 95 % interval | allocations |\n|---|---|---|---|---|---|---|")
	pkg := ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if p, ok := strings.CutPrefix(lines.Text(), "pkg: "); ok {
			pkg = p[strings.LastIndexByte(p, '/')+1:]
			continue
		}
		if strings.HasPrefix(lines.Text(), "--- FAIL") {
			return fmt.Errorf("%s: %s", pkg, lines.Text())
		}
		m := result.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		metrics, contenders, err := parse(m[3])
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		for _, name := range contenders {
			label := pkg + " " + m[1]
			if name != "l2cache" {
				label += ", " + strings.TrimPrefix(name, "l2cache-")
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f | %.2f–%.2f | %.0f, raw %.0f |\n", label, m[2],
				duration(metrics["raw-ns"]), duration(metrics[name+"-ns"]),
				metrics[name+"-ratio"], metrics[name+"-low"], metrics[name+"-high"], metrics[name+"-allocs"], metrics["raw-allocs"])
		}
	}
	return lines.Err()
}

// parse returns the values of a line by their units, and who is compared with raw.
func parse(line string) (metrics map[string]float64, contenders []string, err error) {
	metrics = map[string]float64{}
	fields := strings.Fields(line)
	for i := 0; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return nil, nil, err
		}
		metrics[fields[i+1]] = v
		if name, ok := strings.CutSuffix(fields[i+1], "-ratio"); ok {
			contenders = append(contenders, name)
		}
	}
	return metrics, contenders, nil
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
