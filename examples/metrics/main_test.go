package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/tiered"
)

// TestRun runs the example as the README says to, until its page shows hits of both tiers,
// and then once more: L2 has what the first run left.
func TestRun(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		out, in := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := run(ctx, in, "127.0.0.1:0", "")
			in.CloseWithError(io.EOF)
			ended <- err
		}()
		line, _ := bufio.NewReader(out).ReadString('\n')
		address := regexp.MustCompile(`http://[\d.:]+`).FindString(line)
		if address == "" {
			t.Fatalf("run said %q, and ended with %v", line, <-ended)
		}
		hits := regexp.MustCompile(`L1, memory<b>[1-9](?s:.*)L2, bolt<b>(?:[1-9]|0\.[1-9])`)
		for deadline := time.Now().Add(30 * time.Second); !hits.MatchString(get(t, address)); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no hits after 30 s:\n%s", get(t, address))
			}
		}
		if text := get(t, address+"/metrics"); !regexp.MustCompile(`\nl2cache_reads_total\{cache="shop",outcome="hit",tier="l1"\} [1-9]`).MatchString(text) {
			t.Errorf("/metrics has no hits:\n%s", text)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run ended with %v", err)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", url, response.Status, err, body)
	}
	return string(body)
}

// TestPage checks what the page says about known events.
func TestPage(t *testing.T) {
	m := l2prom.New(nil)
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	m.SetStats(func() tiered.Stats { return tiered.Stats{Entries: 1234, Breaker: tiered.BreakerOpen} })
	read := func(n int, tier tiered.Tier, outcome tiered.Outcome, ttl time.Duration, consumed float64) {
		for range n {
			m.Event(t.Context(), tiered.Event{Kind: tiered.EventRead, Tier: tier, Outcome: outcome, TTL: ttl, Consumed: consumed, Duration: 2 * time.Millisecond})
		}
	}
	read(5, tiered.TierL1, tiered.OutcomeHit, 4*time.Second, .25)
	read(1, tiered.TierL1, tiered.OutcomeHit, l2cache.NoExpiry, -1)
	read(4, tiered.TierL1, tiered.OutcomeMiss, 0, -1)
	read(3, tiered.TierL2, tiered.OutcomeHit, 4*time.Second, -1)
	read(1, tiered.TierL2, tiered.OutcomeMiss, 0, -1)
	for _, outcome := range []tiered.Outcome{tiered.OutcomeStored, tiered.OutcomeNotStored, tiered.OutcomeNotFound} {
		m.Event(t.Context(), tiered.Event{Kind: tiered.EventLoad, Outcome: outcome, Duration: time.Second})
	}

	w := httptest.NewRecorder()
	pageOf(registry, "<mem>").ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	html := strings.ReplaceAll(w.Body.String(), "\u202f", " ")
	for _, want := range []string{
		"L1, memory<b>60.0 %</b><p>6 hits of 10 look-ups<",
		"L2, &lt;mem&gt;<b>30.0 %</b><p>3 hits of 4 look-ups: 75.0 %<",
		"the loader<b>20.0 %</b><p>2 loads; 0 callers",
		`>8<i class="l2" style="height:37.5%"></i><i class="l1" style="height:62.5%"></i></div>5 s<`,
		`>1<i class="l2" style="height:0.0%"></i><i class="l1" style="height:12.5%"></i></div>no end<`,
		`>5<i class="l1" style="height:100.0%"></i></div>30 %<`,
		"<dt>Entries in L1</dt><dd>1 234</dd>",
		"<dt>Mean read of L2</dt><dd>2ms</dd>",
		"<dt>Mean load</dt><dd>1s</dd>",
		"<dt>Circuit breaker</dt><dd>open</dd>",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if t.Failed() {
		t.Log(html)
	}
}
