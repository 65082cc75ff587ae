package l2prom_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/exporters/l2prom"
	"github.com/l2cache/l2cache/tiered"
)

// A faulty backend answers with ErrUnavailable while it is down.
type faulty struct {
	*mem.Cache
	down atomic.Bool
}

func (b *faulty) fail(ctx context.Context, op, key string) error {
	if !b.down.Load() {
		return nil
	}
	return l2cache.NewError(ctx, b.Name(), op, key, l2cache.ErrUnavailable, errors.New("down"))
}

func (b *faulty) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := b.fail(ctx, "get", key); err != nil {
		return l2cache.Entry{}, err
	}
	return b.Cache.GetWithTTL(ctx, key)
}

func (b *faulty) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := b.fail(ctx, "set", key); err != nil {
		return err
	}
	return b.Cache.Set(ctx, key, value, ttl)
}

func (b *faulty) Delete(ctx context.Context, key string) error {
	if err := b.fail(ctx, "delete", key); err != nil {
		return err
	}
	return b.Cache.Delete(ctx, key)
}

// newMetrics returns Metrics, and a function that returns the values of what they
// export: a histogram's as name_count, name_sum and name_bucket. The label cache is left
// out of the names.
func newMetrics(t testing.TB) (*l2prom.Metrics, func() map[string]float64) {
	t.Helper()
	m := l2prom.New(&l2prom.Options{Cache: "test"})
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(m); err != nil {
		t.Fatal(err)
	}
	return m, func() map[string]float64 { return gather(t, reg) }
}

func gather(t testing.TB, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.Metric {
			var labels []string
			hasCache := false
			for _, l := range metric.Label {
				if l.GetName() == "cache" {
					hasCache = l.GetValue() == "test"
					continue
				}
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if !hasCache {
				t.Errorf("%s%v has no label cache=test", f.GetName(), metric.Label)
			}
			name := func(suffix string, more ...string) string {
				all := append(labels[:len(labels):len(labels)], more...)
				if len(all) == 0 {
					return f.GetName() + suffix
				}
				return f.GetName() + suffix + "{" + strings.Join(all, ",") + "}"
			}
			switch {
			case metric.Counter != nil:
				values[name("")] = metric.Counter.GetValue()
			case metric.Gauge != nil:
				values[name("")] = metric.Gauge.GetValue()
			case metric.Histogram != nil:
				values[name("_count")] = float64(metric.Histogram.GetSampleCount())
				values[name("_sum")] = metric.Histogram.GetSampleSum()
				for _, b := range metric.Histogram.Bucket {
					values[name("_bucket", fmt.Sprintf("le=\"%v\"", b.GetUpperBound()))] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return values
}

// wantValues checks some of what is exported.
func wantValues(t testing.TB, got, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, w)
		}
	}
}

func TestBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m, values := newMetrics(t)
		inner := &faulty{Cache: mem.New(mem.NewStore())}
		b := l2cache.Observe(inner, m.Op)
		b.Set(ctx, "a", []byte("four"), 10*time.Second)
		b.Set(ctx, "b", nil, l2cache.NoExpiry)
		time.Sleep(4 * time.Second)
		b.GetWithTTL(ctx, "a")
		b.GetWithTTL(ctx, "b")
		b.Get(ctx, "absent")
		l2cache.GetMany(ctx, b, []string{"a", "b", "absent", "absent, too"})
		l2cache.Add(ctx, b, "a", []byte("five!"), time.Hour) // is there
		l2cache.Touch(ctx, b, "absent", time.Hour)
		b.Set(ctx, "a", nil, 0)
		inner.down.Store(true)
		b.Delete(ctx, "a")
		b.Delete(ctx, "b")
		watched, stop := context.WithCancel(ctx)
		defer stop()
		for range l2cache.Watch(watched, b, "") {
			stop()
		}

		got := values()
		wantValues(t, got, map[string]float64{
			`l2cache_operation_duration_seconds_count{backend="mem",operation="set",outcome="ok"}`:               2,
			`l2cache_operation_duration_seconds_count{backend="mem",operation="set",outcome="error"}`:            1,
			`l2cache_operation_duration_seconds_count{backend="mem",operation="get",outcome="hit"}`:              2,
			`l2cache_operation_duration_seconds_count{backend="mem",operation="get",outcome="miss"}`:             1,
			`l2cache_operation_duration_seconds_count{backend="mem",operation="getmany",outcome="hit"}`:          1,
			`l2cache_operation_duration_seconds_count{backend="mem",operation="add",outcome="hit"}`:              1,
			`l2cache_operation_duration_seconds_bucket{backend="mem",operation="get",outcome="hit",le="0.0001"}`: 2, // time stands still

			`l2cache_operation_errors_total{backend="mem",kind="invalid_ttl",operation="set"}`:    1,
			`l2cache_operation_errors_total{backend="mem",kind="unavailable",operation="delete"}`: 2,

			`l2cache_operation_keys_total{backend="mem",operation="get",outcome="hit"}`:      2,
			`l2cache_operation_keys_total{backend="mem",operation="get",outcome="miss"}`:     1,
			`l2cache_operation_keys_total{backend="mem",operation="getmany",outcome="hit"}`:  2,
			`l2cache_operation_keys_total{backend="mem",operation="getmany",outcome="miss"}`: 2,

			`l2cache_operation_value_bytes_total{backend="mem",operation="set"}`:     4,
			`l2cache_operation_value_bytes_total{backend="mem",operation="get"}`:     4,
			`l2cache_operation_value_bytes_total{backend="mem",operation="getmany"}`: 4,

			`l2cache_operation_ttl_seconds_sum{backend="mem",operation="set"}`:            10,
			`l2cache_operation_ttl_seconds_sum{backend="mem",operation="get"}`:            6,
			`l2cache_operation_ttl_seconds_bucket{backend="mem",operation="get",le="5"}`:  0,
			`l2cache_operation_ttl_seconds_bucket{backend="mem",operation="get",le="10"}`: 1,
			`l2cache_operation_no_expiry_total{backend="mem",operation="set"}`:            1,
			`l2cache_operation_no_expiry_total{backend="mem",operation="get"}`:            1,
		})
		for _, none := range []string{
			`l2cache_operation_duration_seconds_count{backend="mem",operation="watch",outcome="ok"}`,
			`l2cache_operation_ttl_seconds_sum{backend="mem",operation="add"}`, // stored nothing
			`l2cache_operation_ttl_seconds_sum{backend="mem",operation="touch"}`,
			`l2cache_l1_entries`, // no SetStats
		} {
			if v, ok := got[none]; ok {
				t.Errorf("%s is %v, want none", none, v)
			}
		}
	})
}

// newCache returns a cache that m observes.
func newCache(t testing.TB, m *l2prom.Metrics, l2 l2cache.L2CacheBackend, o tiered.Options[string]) *tiered.Cache[string] {
	t.Helper()
	o.Observer = m.Event
	cache, err := tiered.New(l2, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	m.SetStats(cache.Stats)
	return cache
}

func TestHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m, values := newMetrics(t)
		l2 := mem.New(mem.NewStore())
		cache := newCache(t, m, l2, tiered.Options[string]{NoWatch: true})
		cache.Set(ctx, "own", "v", 10*time.Second)
		l2.Set(ctx, "other's", []byte(`"v"`), 10*time.Second)
		l2.Set(ctx, "forever", []byte(`"v"`), l2cache.NoExpiry)
		time.Sleep(4 * time.Second)
		for range 2 {
			for _, key := range []string{"own", "other's", "forever"} {
				if r, err := cache.Get(ctx, key); err != nil || r.Value != "v" {
					t.Errorf("Get(%q) = %+v, %v", key, r, err)
				}
			}
		}
		wantValues(t, values(), map[string]float64{
			`l2cache_reads_total{outcome="hit",tier="l1"}`:                4,
			`l2cache_reads_total{outcome="miss",tier="l1"}`:               2,
			`l2cache_reads_total{outcome="hit",tier="l2"}`:                2,
			`l2cache_hit_remaining_ttl_seconds_count{tier="l1"}`:          3, // own twice, other's once
			`l2cache_hit_remaining_ttl_seconds_sum{tier="l1"}`:            3 * 6,
			`l2cache_hit_remaining_ttl_seconds_bucket{tier="l1",le="5"}`:  0,
			`l2cache_hit_remaining_ttl_seconds_bucket{tier="l1",le="10"}`: 3,
			`l2cache_hit_remaining_ttl_seconds_sum{tier="l2"}`:            6,
			`l2cache_no_expiry_hits_total{tier="l1"}`:                     1,
			`l2cache_no_expiry_hits_total{tier="l2"}`:                     1,
			`l2cache_hit_ttl_consumed_ratio_count`:                        2, // own, twice
			`l2cache_hit_ttl_consumed_ratio_sum`:                          2 * .4,
			`l2cache_hit_ttl_consumed_ratio_bucket{le="0.3"}`:             0,
			`l2cache_hit_ttl_consumed_ratio_bucket{le="0.4"}`:             2,
			`l2cache_l2_read_duration_seconds_count{outcome="hit"}`:       2,
			`l2cache_promotions_total{outcome="stored"}`:                  2,
			`l2cache_l1_entries`:                                          3,
			`l2cache_watching`:                                            0,
		})
		m.SetStats(nil)
		if v, ok := values()["l2cache_l1_entries"]; ok {
			t.Errorf("l2cache_l1_entries is %v after SetStats(nil), want none", v)
		}
	})
}

// TestAgreesWithStats takes a cache through a working day, and compares what it counted
// itself.
func TestAgreesWithStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m, values := newMetrics(t)
		l2 := &faulty{Cache: mem.New(mem.NewStore())}
		cache := newCache(t, m, l2, tiered.Options[string]{
			OnFailure: tiered.ServeStale, StaleFor: time.Hour, BreakerFailures: 3, BreakerOpenFor: time.Minute,
		})
		synctest.Wait() // it watches L2 from now on

		load := func(ttl time.Duration, err error) tiered.Loader[string] {
			return func(context.Context, string, *string) (tiered.Loaded[string], error) {
				time.Sleep(20 * time.Millisecond)
				return tiered.Loaded[string]{Value: "v", TTL: ttl}, err
			}
		}
		cache.GetOrLoad(ctx, "stored", load(time.Hour, nil))
		cache.GetOrLoad(ctx, "not stored", load(0, nil))
		cache.GetOrLoad(ctx, "not found", load(0, l2cache.ErrNotFound))
		cache.GetOrLoad(ctx, "error", load(0, errors.New("failed")))
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() { cache.GetOrLoad(ctx, "joined", load(time.Hour, nil)) })
		}
		callers.Go(func() { cache.GetOrLoad(ctx, "overtaken", load(time.Hour, nil)) })
		time.Sleep(10 * time.Millisecond)
		cache.Delete(ctx, "overtaken")
		callers.Wait()
		synctest.Wait()
		for _, key := range []string{"stored", "joined", "overtaken"} {
			cache.Get(ctx, key)
			cache.Get(ctx, key)
		}
		l2.Cache.Set(ctx, "stored", []byte(`"new"`), l2cache.NoExpiry)
		synctest.Wait()
		cache.Get(ctx, "stored")
		cache.Get(ctx, "stored")

		time.Sleep(2 * time.Minute) // L1 keeps an entry for one, and then as a stale one
		l2.down.Store(true)
		for range 4 {
			cache.Get(ctx, "joined")
		}
		cache.Delete(ctx, "joined")
		open, during := cache.Stats(), values()
		l2.down.Store(false)
		time.Sleep(2 * time.Minute)
		cache.Get(ctx, "stored")

		wantValues(t, during, map[string]float64{
			`l2cache_breaker_state{state="open"}`:   1,
			`l2cache_breaker_state{state="closed"}`: 0,
			`l2cache_pending_deletes`:               float64(open.PendingDeletes),
		})
		if open.Breaker != tiered.BreakerOpen || open.PendingDeletes != 1 {
			t.Errorf("breaker is %v and %d deletes wait, want open and 1", open.Breaker, open.PendingDeletes)
		}
		s, got := cache.Stats(), values()
		stored := s.Loads - s.LoadsNotStored - s.LoadsNotFound - s.LoadsOvertaken - s.LoadErrors
		for name, want := range map[string]uint64{
			`l2cache_reads_total{outcome="hit",tier="l1"}`:      s.L1Hits,
			`l2cache_reads_total{outcome="miss",tier="l1"}`:     s.L1Misses,
			`l2cache_reads_total{outcome="stale",tier="l1"}`:    s.Stale,
			`l2cache_reads_total{outcome="hit",tier="l2"}`:      s.L2Hits,
			`l2cache_reads_total{outcome="miss",tier="l2"}`:     s.L2Misses,
			`l2cache_reads_total{outcome="error",tier="l2"}`:    s.L2Errors,
			`l2cache_promotions_total{outcome="stored"}`:        s.Promoted,
			`l2cache_loads_total{outcome="stored"}`:             stored,
			`l2cache_loads_total{outcome="not_stored"}`:         s.LoadsNotStored,
			`l2cache_loads_total{outcome="not_found"}`:          s.LoadsNotFound,
			`l2cache_loads_total{outcome="overtaken"}`:          s.LoadsOvertaken,
			`l2cache_loads_total{outcome="error"}`:              s.LoadErrors,
			`l2cache_load_duration_seconds_count{outcome="ok"}`: s.Loads - s.LoadErrors,
			`l2cache_coalesced_reads_total`:                     s.Joined,
			`l2cache_invalidations_total{outcome="changed"}`:    s.Invalidations,
			`l2cache_invalidations_total{outcome="gap"}`:        s.Gaps,
			`l2cache_delete_resends_total{outcome="stored"}`:    s.DeletesResent,
			`l2cache_l1_entries`:                                uint64(s.Entries),
			`l2cache_breaker_changes_total{state="open"}`:       1,
			`l2cache_breaker_changes_total{state="half-open"}`:  1,
			`l2cache_breaker_changes_total{state="closed"}`:     1,
			`l2cache_breaker_state{state="closed"}`:             1,
			`l2cache_watching`:                                  1,
		} {
			if want == 0 {
				t.Errorf("%s: the test did nothing that counts there", name)
			}
			if g, ok := got[name]; !ok || g != float64(want) {
				t.Errorf("%s is %v (there: %v), want %v", name, g, ok, want)
			}
		}
		noExpiry := got[`l2cache_no_expiry_hits_total{tier="l1"}`] + got[`l2cache_no_expiry_hits_total{tier="l2"}`]
		if noExpiry != float64(s.NoExpiryHits) || noExpiry == 0 {
			t.Errorf("%v hits without expiry, want %v", noExpiry, s.NoExpiryHits)
		}
	})
}

// TestCardinality sends keys and errors that are all different.
func TestCardinality(t *testing.T) {
	m, values := newMetrics(t)
	m.SetStats(func() tiered.Stats { return tiered.Stats{} })
	storm := func(from, to int) int {
		for i := from; i < to; i++ {
			key := fmt.Sprintf("key-%d", i)
			err := &l2cache.Error{Op: "get", Backend: "mem", Key: key, Kind: l2cache.ErrUnavailable, Err: fmt.Errorf("error-%d", i)}
			ttl := time.Duration(i) * time.Second
			m.Op(t.Context(), l2cache.Op{Name: "get", Backend: "mem", Key: key, Err: err})
			m.Op(t.Context(), l2cache.Op{Name: "get", Backend: "mem", Key: key, Hits: 1, Keys: 1, Bytes: i + 1, TTL: ttl + 1})
			for _, e := range []tiered.Event{
				{Kind: tiered.EventRead, Outcome: tiered.OutcomeHit, Tier: tiered.TierL1, TTL: ttl, Consumed: float64(i) / 1000},
				{Kind: tiered.EventRead, Outcome: tiered.OutcomeError, Tier: tiered.TierL2, Err: err},
				{Kind: tiered.EventLoad, Outcome: tiered.OutcomeError, Err: err},
				{Kind: tiered.EventInvalidation, Outcome: tiered.OutcomeChanged},
				{Kind: tiered.EventInvalidation, Outcome: tiered.OutcomeError, Err: err},
			} {
				e.Key = key
				m.Event(t.Context(), e)
			}
		}
		got := values()
		for name := range got {
			if strings.Contains(name, "key-") || strings.Contains(name, "error-") {
				t.Errorf("%s has a key or the text of an error", name)
			}
		}
		return len(got)
	}
	few := storm(0, 1)
	if many := storm(1, 1000); many != few {
		t.Errorf("%d values after 1,000 keys, %d after one", many, few)
	}
	wantValues(t, values(), map[string]float64{
		`l2cache_reads_total{outcome="hit",tier="l1"}`:                                     1000,
		`l2cache_invalidations_total{outcome="error"}`:                                     1000,
		`l2cache_operation_errors_total{backend="mem",kind="unavailable",operation="get"}`: 1000,
	})
}

func TestRegisterTwice(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	users := &l2prom.Options{Cache: "users"}
	for _, m := range []*l2prom.Metrics{l2prom.New(nil), l2prom.New(users)} {
		if err := reg.Register(m); err != nil {
			t.Errorf("the first with its label: %v", err)
		}
	}
	for name, m := range map[string]*l2prom.Metrics{"default": l2prom.New(nil), "users": l2prom.New(users)} {
		if err := reg.Register(m); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			t.Errorf("a second one with cache=%q: %v, want an AlreadyRegisteredError", name, err)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

func TestL1HitAllocations(t *testing.T) {
	m := l2prom.New(nil)
	e := tiered.Event{Kind: tiered.EventRead, Outcome: tiered.OutcomeHit, Tier: tiered.TierL1, Key: "k", TTL: time.Minute, Consumed: .5}
	if n := testing.AllocsPerRun(1000, func() { m.Event(t.Context(), e) }); n != 0 {
		t.Errorf("%v allocations for an L1 hit, want 0", n)
	}
}

// TestConcurrent: no observation is lost while others observe and collect.
func TestConcurrent(t *testing.T) {
	m, values := newMetrics(t)
	const goroutines, each = 8, 2000
	var observers sync.WaitGroup
	for range goroutines {
		observers.Go(func() {
			for range each {
				m.Event(t.Context(), tiered.Event{Kind: tiered.EventRead, Outcome: tiered.OutcomeHit, Tier: tiered.TierL1, TTL: 2 * time.Second, Consumed: .5})
			}
		})
	}
	observers.Go(func() { values() })
	observers.Wait()
	wantValues(t, values(), map[string]float64{
		`l2cache_reads_total{outcome="hit",tier="l1"}`:     goroutines * each,
		`l2cache_hit_remaining_ttl_seconds_sum{tier="l1"}`: goroutines * each * 2,
		`l2cache_hit_ttl_consumed_ratio_sum`:               goroutines * each / 2,
	})
}
