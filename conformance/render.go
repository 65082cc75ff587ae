package conformance

import (
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

// statuses are all of them, in the order in which a report shows them.
var statuses = []Status{Pass, Fail, KnownFailure, Blocked, Inconclusive, NotVerified, Unsupported, NotApplicable}

// WriteMarkdown writes the report as Markdown: the totals, what did not pass with
// its evidence, and a table of all cases.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s\n\nSuite %s, %s.\n\n", markdown(r.Backend), r.Verdict, r.Suite, r.Environment)
	b.WriteString("| result | cases |\n|---|---:|\n")
	for _, s := range statuses {
		if n := r.Totals[s]; n > 0 {
			fmt.Fprintf(&b, "| %s | %d |\n", s, n)
		}
	}
	if r.NotRun > 0 {
		fmt.Fprintf(&b, "| not run | %d |\n", r.NotRun)
	}
	b.WriteString("\n| case | level | result | rule | evidence |\n|---|---|---|---|---|\n")
	for _, c := range r.Cases {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.ID, c.Level, c.Status, markdown(c.Law), markdown(c.Evidence))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown makes text safe for a cell of a table, and takes its markup away.
func markdown(text string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "\n", " ", "*", "\\*", "_", "\\_", "`", "\\`",
		"[", "\\[", "]", "\\]", "<", "&lt;", "&", "&amp;", "#", "\\#").Replace(text)
}

// WriteHTML writes the report as a page that needs nothing else: no script, and
// nothing that is loaded.
func (r *Report) WriteHTML(w io.Writer) error {
	type total struct {
		Status Status
		N      int
	}
	data := struct {
		*Report
		Shown []total
	}{Report: r}
	for _, s := range statuses {
		if n := r.Totals[s]; n > 0 {
			data.Shown = append(data.Shown, total{s, n})
		}
	}
	return page.Execute(w, data)
}

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"class": func(s Status) string { return strings.ReplaceAll(string(s), " ", "-") },
	"took":  func(d time.Duration) time.Duration { return d.Round(time.Millisecond) },
}).Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Backend}}: {{.Verdict}}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .3em .6em; text-align: left; vertical-align: top }
code, .evidence { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
.evidence { white-space: pre-wrap; max-height: 20em; overflow: auto }
.pass { color: #17692b } .fail { color: #b00020; font-weight: bold }
.blocked, .inconclusive, .not-verified, .known-failure { color: #8a5300 }
.unsupported, .not-applicable { color: #666 }
</style>
<h1>{{.Backend}}: {{.Verdict}}</h1>
<p>Suite {{.Suite}}, {{.Environment}}.
{{range .Shown}}<span class="{{class .Status}}">{{.N}} {{.Status}}</span> · {{end}}{{.NotRun}} not run</p>
<table>
<thead><tr><th>case<th>level<th>result<th>time<th>rule and evidence</thead>
<tbody>
{{range .Cases}}<tr><td><code>{{.ID}}</code><td>{{.Level}}<td class="{{class .Status}}">{{.Status}}<td>{{took .Elapsed}}<td>{{.Law}}{{with .Evidence}}<div class="evidence">{{.}}</div>{{end}}
{{end}}</tbody>
</table>
</html>
`))
