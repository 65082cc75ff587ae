package memcached

import (
	"fmt"
	"math"
	"testing"
)

func selectorOf(t *testing.T, n int) *Selector {
	t.Helper()
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("cache%d.example.com:11211", i+1))
	}
	s, err := NewSelector(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pickAll(t *testing.T, s *Selector, keys int) []string {
	t.Helper()
	picked := make([]string, keys)
	for i := range picked {
		addr, err := s.PickServer(fmt.Sprintf("kuser:%d", i))
		if err != nil {
			t.Fatal(err)
		}
		picked[i] = addr.String()
	}
	return picked
}

func TestSelectorBalance(t *testing.T) {
	const keys = 20_000
	for n := 1; n <= 16; n++ {
		count := map[string]int{}
		for _, addr := range pickAll(t, selectorOf(t, n), keys) {
			count[addr]++
		}
		if len(count) != n {
			t.Errorf("%d servers: %d have keys", n, len(count))
		}
		// Binomial: five standard deviations.
		p := 1 / float64(n)
		mean, most := keys*p, 5*math.Sqrt(keys*p*(1-p))
		for addr, got := range count {
			if math.Abs(float64(got)-mean) > most {
				t.Errorf("%d servers: %s has %d of %d keys, want %.0f ± %.0f", n, addr, got, keys, mean, most)
			}
		}
	}
}

func TestSelectorMovesFewKeys(t *testing.T) {
	const keys = 20_000
	for n := 1; n < 10; n++ {
		added := fmt.Sprintf("cache%d.example.com:11211", n+1)
		before, after := pickAll(t, selectorOf(t, n), keys), pickAll(t, selectorOf(t, n+1), keys)
		moved := 0
		for i := range before {
			if before[i] == after[i] {
				continue
			}
			moved++
			if after[i] != added {
				t.Fatalf("%d to %d servers: key %d moved from %s to %s, which was there before", n, n+1, i, before[i], after[i])
			}
		}
		if want := float64(keys) / float64(n+1); math.Abs(float64(moved)-want) > 0.06*want {
			t.Errorf("%d to %d servers: %d of %d keys moved, want %.0f", n, n+1, moved, keys, want)
		}
	}
}

// Where a key is must not change from one version to the next.
func TestSelectorGolden(t *testing.T) {
	addrs := []string{"cache1:11211", "cache2:11211", "10.0.0.3:11212", "[::1]:11211"}
	reversed := []string{addrs[3], addrs[2], addrs[1], addrs[0]}
	for _, order := range [][]string{addrs, reversed} {
		s, err := NewSelector(order...)
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{
			"ka":      "cache1:11211",
			"kb":      "10.0.0.3:11212",
			"kuser:1": "cache2:11211",
			"kuser:2": "10.0.0.3:11212",
			"kuser:3": "10.0.0.3:11212",
			"hK7WKGSABaosiI3myun1SKTuYjGoRlUHjWuGe1hDW8a8": "10.0.0.3:11212",
		} {
			if addr, err := s.PickServer(key); err != nil || addr.String() != want || addr.Network() != "tcp" {
				t.Errorf("PickServer(%q) = %v, %v; want %s", key, addr, err, want)
			}
		}
	}
}

func TestSelectorRefuses(t *testing.T) {
	for _, addrs := range [][]string{{}, {"host"}, {"a:1", "b:1", "a:1"}} {
		if _, err := NewSelector(addrs...); err == nil {
			t.Errorf("NewSelector(%q) is no error", addrs)
		}
	}
}

func BenchmarkSelector(b *testing.B) {
	s, err := NewSelector("cache1:11211", "cache2:11211", "cache3:11211", "cache4:11211")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.pick("kuser:123456789012")
	}
}
