// Testreport reads what go test -json writes. It prints what go test would,
// then the figures that tests give with T.Attr, the skipped tests, and the
// totals. It fails also when a test was skipped, or none ran: such a run
// proves less than it seems to.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// report copies what r has to w, and reports whether tests ran and all passed.
func report(r io.Reader, w io.Writer) (ok bool, err error) {
	rep := reporter{w: w, output: make(map[test][]string)}
	if err := rep.read(r); err != nil {
		return false, err
	}
	rep.summarize()
	return rep.passed > 0 && rep.failed == 0 && rep.skipped == 0 && len(rep.failedPackages) == 0, nil
}

// event is a line of go test -json: see go doc test2json.
type event struct {
	Action  string
	Package string
	Test    string // "" for the package as a whole
	Output  string
	Key     string // of an attribute
	Value   string
}

type test struct{ pkg, name string }

type reporter struct {
	w       io.Writer
	output  map[test][]string // of the tests that have not ended; a package is the test ""
	figures []string
	skips   []string

	passed, failed, skipped int // tests, with their subtests
	failedPackages          []string
}

func (r *reporter) read(src io.Reader) error {
	lines := bufio.NewReader(src)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "build-output", Output: string(line)} // the go command's own words
			}
			r.event(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *reporter) event(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(r.w, e.Output)
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") {
			r.output[id] = append(r.output[id], e.Output)
		}
	case "attr":
		r.figures = append(r.figures, e.Key+": "+e.Value)
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, id)
	}
}

func (r *reporter) endTest(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.skips = append(r.skips, "SKIPPED in "+e.Package+"\n"+strings.Join(r.output[id], ""))
	case "fail":
		r.failed++
		r.print(id)
	}
}

func (r *reporter) endPackage(e event) {
	id := test{pkg: e.Package}
	if e.Action == "fail" {
		r.failedPackages = append(r.failedPackages, e.Package)
		for id := range r.output {
			if id.pkg == e.Package && id.name != "" {
				r.print(id) // it was running when the process died
			}
		}
		r.print(id)
		return
	}
	if out := r.output[id]; len(out) > 0 {
		io.WriteString(r.w, out[len(out)-1]) // ok …, or no test files
	}
}

func (r *reporter) print(id test) {
	for _, line := range r.output[id] {
		io.WriteString(r.w, line)
	}
}

func (r *reporter) summarize() {
	for _, s := range r.skips {
		io.WriteString(r.w, s)
	}
	slices.Sort(r.figures)
	for _, f := range r.figures {
		fmt.Fprintln(r.w, f)
	}
	for _, p := range r.failedPackages {
		fmt.Fprintln(r.w, "FAIL:", p)
	}
	if r.passed+r.failed+r.skipped == 0 {
		fmt.Fprintln(r.w, "no test ran")
	}
	fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}
