package l2prom_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/tiered"
)

// exported returns all that Metrics can export, by name.
func exported(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	m := l2prom.New(nil)
	m.SetStats(func() tiered.Stats { return tiered.Stats{} })
	for _, op := range []l2cache.Op{
		{Name: "get", Hits: 1, Bytes: 1, TTL: time.Second},
		{Name: "get", Hits: 1, Bytes: 1, TTL: l2cache.NoExpiry},
		{Name: "get", Err: errors.New("failed")},
	} {
		op.Backend = "mem"
		m.Op(context.Background(), op)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	gathered, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, f := range gathered {
		families[f.GetName()] = f
	}
	return families
}

// find returns the family that a name in a query is of.
func find(families map[string]*dto.MetricFamily, name string) *dto.MetricFamily {
	if f := families[name]; f != nil && f.GetType() != dto.MetricType_HISTOGRAM {
		return f
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		if f := families[base]; ok && f != nil && f.GetType() == dto.MetricType_HISTOGRAM {
			return f
		}
	}
	return nil
}

// labels returns the values that each label of a family has.
func labels(f *dto.MetricFamily) map[string][]string {
	values := map[string][]string{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			values[l.GetName()] = append(values[l.GetName()], l.GetValue())
		}
	}
	if f.GetType() == dto.MetricType_HISTOGRAM {
		values["le"] = nil
	}
	return values
}

var (
	selector = regexp.MustCompile(`(\w+\()?\b(l2cache_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~?)"([^"]*)"`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
	legend   = regexp.MustCompile(`\{\{(\w+)\}\}`)
)

func TestDashboard(t *testing.T) {
	file, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr, LegendFormat string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	if err := json.Unmarshal(file, &dashboard); err != nil {
		t.Fatal(err)
	}
	families := exported(t)
	shown := map[string]bool{}
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s: shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			selectors := selector.FindAllStringSubmatch(target.Expr, -1)
			if len(selectors) == 0 {
				t.Errorf("%s: no metric of ours in %s", panel.Title, target.Expr)
			}
			for _, s := range selectors {
				f := find(families, s[2])
				if f == nil {
					t.Errorf("%s: %s is not exported", panel.Title, s[2])
					continue
				}
				shown[f.GetName()] = true
				checkQuery(t, panel.Title, target.Expr, s, f)
			}
			for _, l := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if g := grouping.FindStringSubmatch(target.Expr); g == nil || !slices.Contains(strings.Split(g[1], ", "), l[1]) {
					t.Errorf("%s: the legend has %s, by which %s does not group", panel.Title, l[1], target.Expr)
				}
			}
		}
	}
	for name := range families {
		if !shown[name] {
			t.Errorf("%s is exported, and not on the dashboard", name)
		}
	}
	for _, variable := range dashboard.Templating.List {
		for _, s := range selector.FindAllStringSubmatch(variable.Definition, -1) {
			if find(families, s[2]) == nil {
				t.Errorf("a variable asks for %s, which is not exported", s[2])
			}
		}
	}
}

// What Grafana asks of a dashboard that is imported: it puts panels with the same id, or in the
// same place, over each other, and does not say so.
func TestDashboardForGrafana(t *testing.T) {
	type source struct{ Type, UID string }
	var dashboard struct {
		Title, UID    string
		SchemaVersion int
		Time          struct{ From, To string }
		Templating    struct {
			List []struct {
				Name, Type, Definition string
				Query                  any
				Datasource             *source
			}
		}
		Panels []struct {
			ID          int
			Type, Title string
			Datasource  *source
			GridPos     struct{ X, Y, W, H int }
			FieldConfig *struct {
				Defaults  map[string]any
				Overrides []any
			}
			Options map[string]any
			Targets []struct {
				RefID, Expr string
				Datasource  *source
			}
		}
	}
	file, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.Title == "" || dashboard.UID == "" || len(dashboard.UID) > 40 || dashboard.SchemaVersion < 36 || dashboard.Time.From == "" || dashboard.Time.To == "" {
		t.Errorf("the dashboard has title %q, uid %q, schema version %d, time %v", dashboard.Title, dashboard.UID, dashboard.SchemaVersion, dashboard.Time)
	}
	declared := map[string]bool{"$__rate_interval": true}
	isOurs := func(s *source) bool { return s != nil && s.Type == "prometheus" && s.UID == "${datasource}" }
	for _, v := range dashboard.Templating.List {
		declared["$"+v.Name] = true
		switch v.Type {
		case "datasource":
			if v.Name != "datasource" || v.Query != "prometheus" {
				t.Errorf("the variable %s asks for data sources of type %v", v.Name, v.Query)
			}
		case "query":
			if q, ok := v.Query.(map[string]any); !isOurs(v.Datasource) || !ok || q["query"] != v.Definition || q["refId"] == "" {
				t.Errorf("the variable %s asks %v for %v, and its definition is %q", v.Name, v.Datasource, v.Query, v.Definition)
			}
		default:
			t.Errorf("the variable %s is of type %q", v.Name, v.Type)
		}
	}
	if !declared["$datasource"] {
		t.Error("there is no variable datasource")
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, panel := range dashboard.Panels {
		if panel.ID <= 0 || ids[panel.ID] {
			t.Errorf("%s: the id %d is not its own", panel.Title, panel.ID)
		}
		ids[panel.ID] = true
		pos := panel.GridPos
		if pos.X < 0 || pos.Y < 0 || pos.W <= 0 || pos.H <= 0 || pos.X+pos.W > 24 {
			t.Errorf("%s: is at %+v, and there are 24 columns", panel.Title, pos)
		}
		for x := range pos.W {
			for y := range pos.H {
				at := [2]int{pos.X + x, pos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("%s: is over %s", panel.Title, other)
				}
				taken[at] = panel.Title
			}
		}
		if panel.Type == "row" {
			continue
		}
		if panel.Title == "" || !isOurs(panel.Datasource) || panel.FieldConfig == nil || panel.FieldConfig.Overrides == nil || panel.Options == nil {
			t.Errorf("%s: the data source is %v, fieldConfig %v, options %v", panel.Title, panel.Datasource, panel.FieldConfig, panel.Options)
		}
		if !slices.Contains([]string{"timeseries", "heatmap", "stat", "gauge", "table"}, panel.Type) {
			t.Errorf("%s: is of type %q", panel.Title, panel.Type)
		}
		refs := map[string]bool{}
		for _, target := range panel.Targets {
			if target.RefID == "" || refs[target.RefID] || !isOurs(target.Datasource) {
				t.Errorf("%s: a query has refId %q and data source %v", panel.Title, target.RefID, target.Datasource)
			}
			refs[target.RefID] = true
			for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(target.Expr, -1) {
				if !declared[v] {
					t.Errorf("%s: there is no variable %s", panel.Title, v)
				}
			}
		}
	}
}

// checkQuery checks that f has the labels that an expression asks it for, with their
// values, and that what only counts up is asked for its rate. S is the match of selector.
func checkQuery(t *testing.T, title, expr string, s []string, f *dto.MetricFamily) {
	has := labels(f)
	for _, m := range matcher.FindAllStringSubmatch(s[3], -1) {
		values, ok := has[m[1]]
		if !ok {
			t.Errorf("%s: %s has no label %s", title, s[2], m[1])
		}
		if m[3] == "$cache" {
			continue
		}
		for v := range strings.SplitSeq(m[3], "|") {
			if !slices.Contains(values, v) {
				t.Errorf("%s: %s has no %s=%q", title, s[2], m[1], v)
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ", ") {
			if _, ok := has[l]; !ok {
				t.Errorf("%s: %s has no label %s", title, s[2], l)
			}
		}
	}
	isRate := s[1] == "rate(" || s[1] == "increase("
	if isGauge := f.GetType() == dto.MetricType_GAUGE; isRate == isGauge {
		t.Errorf("%s: %s is a %v, and the query %s%s", title, s[2], f.GetType(), s[1], s[2])
	}
}

// TestDocs compares the names in docs/monitoring.md with what is exported.
func TestDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	families := exported(t)
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bl2cache_\w+`).FindAllString(string(docs), -1) {
		f := find(families, name)
		if f == nil {
			f = families[name] // a histogram by its name
		}
		if f == nil {
			t.Errorf("docs/monitoring.md has %s, which is not exported", name)
			continue
		}
		documented[f.GetName()] = true
	}
	for name := range families {
		if !documented[name] {
			t.Errorf("%s is exported, and not in docs/monitoring.md", name)
		}
	}
}
