package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"log"
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// A page is what page.html shows. Shares and heights are percentages.
type page struct {
	Backend  string
	Reads    string // look-ups in L1
	Tiers    []tier
	TTL      []column
	Consumed []column
	Facts    []fact
}

type tier struct {
	Class, Name string
	Share       float64 // of all reads that this tier has answered
	Says        string
}

// A column of a histogram, L2's part on top of L1's.
type column struct {
	Label            string
	Count            string
	Height1, Height2 float64
}

type fact struct{ Name, Value string }

// pageOf serves what g has gathered of the cache.
func pageOf(g prometheus.Gatherer, backend string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		gathered, err := g.Gather()
		var html bytes.Buffer
		if err == nil {
			err = pageTemplate.Execute(&html, newPage(gathered, backend))
		}
		if err != nil {
			log.Print(err)
			http.Error(w, "The page could not be made.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(html.Bytes())
	})
}

func newPage(gathered []*dto.MetricFamily, backend string) page {
	m := metrics{}
	for _, f := range gathered {
		m[f.GetName()] = f.Metric
	}
	hits1, hits2 := m.value("l2cache_reads_total", "l1", "hit"), m.value("l2cache_reads_total", "l2", "hit")
	reads := hits1 + m.value("l2cache_reads_total", "l1", "miss")
	asked2 := hits2 + m.value("l2cache_reads_total", "l2", "miss") + m.value("l2cache_reads_total", "l2", "error")
	loads := m.value("l2cache_loads_total", "stored") + m.value("l2cache_loads_total", "not_stored") + m.value("l2cache_loads_total", "overtaken")
	joined := m.value("l2cache_coalesced_reads_total")
	p := page{
		Backend: backend,
		Reads:   count(reads),
		Tiers: []tier{
			{"l1", "L1, memory", share(hits1, reads), count(hits1) + " hits of " + count(reads) + " look-ups"},
			{"l2", "L2, " + backend, share(hits2, reads), fmt.Sprintf("%s hits of %s look-ups: %.1f %%", count(hits2), count(asked2), share(hits2, asked2))},
			{"load", "the loader", share(loads, reads), count(loads) + " loads; " + count(joined) + " callers waited for another's"},
		},
		Facts: []fact{
			{"Entries in L1", count(m.value("l2cache_l1_entries"))},
			{"Promoted to L1", count(m.value("l2cache_promotions_total", "stored"))},
			{"Overtaken during the read", count(m.value("l2cache_promotions_total", "overtaken"))},
			{"Expired on the way", count(m.value("l2cache_promotions_total", "expired"))},
			{"Mean read of L2", m.mean("l2cache_l2_read_duration_seconds", "hit")},
			{"Mean load", m.mean("l2cache_load_duration_seconds", "ok")},
			{"Stale served", count(m.value("l2cache_reads_total", "stale"))},
			{"Circuit breaker", m.state("l2cache_breaker_state")},
		},
	}
	bounds, ttl1 := m.histogram("l2cache_hit_remaining_ttl_seconds", "l1")
	_, ttl2 := m.histogram("l2cache_hit_remaining_ttl_seconds", "l2")
	ttl1 = append(ttl1, m.value("l2cache_no_expiry_hits_total", "l1"))
	ttl2 = append(ttl2, m.value("l2cache_no_expiry_hits_total", "l2"))
	labels := []string{}
	for _, b := range bounds {
		labels = append(labels, ttlLabel(b))
	}
	p.TTL = columns(append(labels, "more", "no end"), ttl1, ttl2)

	bounds, consumed := m.histogram("l2cache_hit_ttl_consumed_ratio")
	labels = nil
	for _, b := range bounds {
		labels = append(labels, fmt.Sprintf("%.0f %%", 100*b))
	}
	p.Consumed = columns(labels, consumed[:len(labels)], make([]float64, len(labels)))
	return p
}

func columns(labels []string, l1, l2 []float64) []column {
	highest := 1.0
	for i := range labels {
		highest = max(highest, l1[i]+l2[i])
	}
	all := make([]column, len(labels))
	for i, label := range labels {
		all[i] = column{label, count(l1[i] + l2[i]), 100 * l1[i] / highest, 100 * l2[i] / highest}
	}
	return all
}

// metrics are those of each name.
type metrics map[string][]*dto.Metric

// find returns the metrics of a name that have all these values of labels.
func (m metrics) find(name string, values ...string) (found []*dto.Metric) {
	for _, metric := range m[name] {
		has := map[string]bool{}
		for _, l := range metric.Label {
			has[l.GetValue()] = true
		}
		missing := false
		for _, v := range values {
			missing = missing || !has[v]
		}
		if !missing {
			found = append(found, metric)
		}
	}
	return found
}

// value returns the sum of the counters or gauges that find finds.
func (m metrics) value(name string, values ...string) (sum float64) {
	for _, metric := range m.find(name, values...) {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

// histogram returns the bounds of a histogram, and how often a value was below each, and
// not below the one before. The last is above all.
func (m metrics) histogram(name string, values ...string) (bounds, counts []float64) {
	for _, metric := range m.find(name, values...) {
		below := uint64(0)
		for _, b := range metric.GetHistogram().GetBucket() {
			if math.IsInf(b.GetUpperBound(), 1) {
				continue
			}
			bounds = append(bounds, b.GetUpperBound())
			counts = append(counts, float64(b.GetCumulativeCount()-below))
			below = b.GetCumulativeCount()
		}
		return bounds, append(counts, float64(metric.GetHistogram().GetSampleCount()-below))
	}
	return nil, nil
}

func (m metrics) mean(name string, values ...string) string {
	for _, metric := range m.find(name, values...) {
		if n := metric.GetHistogram().GetSampleCount(); n > 0 {
			mean := time.Duration(metric.GetHistogram().GetSampleSum() / float64(n) * float64(time.Second))
			return mean.Round(10 * time.Microsecond).String()
		}
	}
	return "–"
}

// state returns the value of the label state where a gauge is 1.
func (m metrics) state(name string) string {
	for _, metric := range m.find(name) {
		for _, l := range metric.Label {
			if l.GetName() == "state" && metric.GetGauge().GetValue() == 1 {
				return l.GetValue()
			}
		}
	}
	return "–"
}

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

// count returns n with a space between thousands.
func count(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func ttlLabel(seconds float64) string {
	for _, unit := range []struct {
		seconds float64
		name    string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}} {
		if seconds >= unit.seconds {
			return fmt.Sprintf("%g %s", seconds/unit.seconds, unit.name)
		}
	}
	return fmt.Sprintf("%g ms", seconds*1000)
}
