// Package promql has Prometheus's own parser read our queries. It is a module of its own,
// so that no user of the exporter pays for that.
package promql

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestDashboard(t *testing.T) {
	file, err := os.ReadFile("../dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(file, &dashboard); err != nil {
		t.Fatal(err)
	}
	// What Grafana puts in place of its variables.
	variables := strings.NewReplacer("$__rate_interval", "1m0s", "$cache", "(users|sessions)")
	n := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			n++
			parse(t, panel.Title, variables.Replace(target.Expr))
		}
	}
	if n == 0 {
		t.Error("the dashboard has no query")
	}
}

var (
	fenced = regexp.MustCompile("(?s)```.*?```")
	code   = regexp.MustCompile("`([^`]+)`")
)

// The expressions in docs/monitoring.md are what has a metric of ours and a bracket.
func TestDocs(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range code.FindAllStringSubmatch(fenced.ReplaceAllString(string(docs), ""), -1) {
		expr := strings.ReplaceAll(c[1], `\|`, "|") // in a table
		if strings.Contains(expr, "l2cache_") && strings.ContainsAny(expr, "({[=>") {
			n++
			parse(t, "docs/monitoring.md", expr)
		}
	}
	if n < 8 {
		t.Errorf("docs/monitoring.md has %d expressions; want 8 at least", n)
	}
}

func parse(t *testing.T, where, expr string) {
	t.Helper()
	if _, err := parser.ParseExpr(expr); err != nil {
		t.Errorf("%s: %s: %v", where, expr, err)
	}
}
