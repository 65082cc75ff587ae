// Package backends has the tests that look at all five backends side by side.
package backends

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"

	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/mem"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
)

var update = flag.Bool("update", false, "write the table into docs/backends.md")

// all are the URLs of the five backends, by name.
func all(t *testing.T) []struct{ name, url string } {
	return []struct{ name, url string }{
		{"mem", "mem://"},
		{"bolt", "bolt://" + filepath.ToSlash(filepath.Join(t.TempDir(), "cache.db"))},
		{"redis", "redis://" + servertest.Redis(t).Addr},
		{"memcached", "memcached://" + servertest.Memcached(t).Addr},
		{"nats", "nats://" + servertest.NATS(t).Addr + "/cache"},
	}
}

// A row is what one TTL looks like on one backend.
type row struct {
	reported time.Duration // by the first read
	after    time.Duration // from the return of Set to the call of that read
	lastHit  time.Duration // from the call of Set to the call of the last read that hit
	gone     time.Duration // from the return of Set to the return of the first read that missed; 0: not waited for
}

// TestTTLTable looks at entries of short and long TTLs on every backend, from Set
// to their end, and prints what it saw. With -update it writes docs/backends.md.
func TestTTLTable(t *testing.T) {
	const day = 24 * time.Hour
	ttls := []time.Duration{time.Millisecond, 300 * time.Millisecond, 1500 * time.Millisecond, 31 * day, l2cache.MaxTTL, l2cache.NoExpiry}
	var table strings.Builder
	table.WriteString("| backend | TTL | reported right after Set | seen last | gone by |\n|---|---|---|---|---|\n")
	for _, backend := range all(t) {
		b, err := l2cache.Open(t.Context(), backend.url)
		if err != nil {
			t.Fatalf("Open of %s: %v", backend.name, err)
		}
		rows := make([]row, len(ttls))
		var wg sync.WaitGroup
		for i, ttl := range ttls {
			wg.Go(func() { rows[i] = watch(t, b, fmt.Sprint("k", i), ttl) })
		}
		wg.Wait()
		if err := b.Close(); err != nil {
			t.Errorf("Close of %s: %v", backend.name, err)
		}
		for i, ttl := range ttls {
			fmt.Fprintf(&table, "| %s | %s | %s\n", backend.name, ttlText(ttl), rows[i])
		}
	}
	t.Logf("\n%s", &table)
	if *update {
		replaceBetween(t, "../../docs/backends.md", "<!-- ttl table -->\n", "<!-- end -->\n", table.String())
	}
}

// watch sets key for ttl and reads it until it is gone; one that lives for days
// until it has been there for longer than a second. What it sees must keep rules
// 2 and 3 of the contract.
func watch(t *testing.T, b l2cache.L2CacheBackend, key string, ttl time.Duration) row {
	ctx, resolution := t.Context(), l2cache.ProfileOf(b).Resolution
	const long = time.Hour
	call := time.Now()
	if err := b.Set(ctx, key, []byte("v"), ttl); err != nil {
		t.Errorf("%s: Set(%v) = %v", b.Name(), ttl, err)
		return row{}
	}
	set := time.Now()
	var r row
	for {
		start := time.Now()
		entry, err := b.GetWithTTL(ctx, key)
		end := time.Now()
		switch {
		case err == nil:
			if ttl != l2cache.NoExpiry && start.Sub(set) > ttl+resolution {
				t.Errorf("%s: an entry of %v is there %v after its Set", b.Name(), ttl, start.Sub(set))
			}
			if entry.TTL > ttl || ttl != l2cache.NoExpiry && entry.TTL < ttl-end.Sub(call)-resolution {
				t.Errorf("%s: an entry of %v reports %v after %v", b.Name(), ttl, entry.TTL, start.Sub(set))
			}
			if r.reported == 0 {
				r.reported, r.after = entry.TTL, start.Sub(set)
			}
			r.lastHit = start.Sub(call)
		case errors.Is(err, l2cache.ErrNotFound):
			if end.Sub(call) < ttl {
				t.Errorf("%s: an entry of %v is gone %v after the call of Set", b.Name(), ttl, end.Sub(call))
			}
			r.gone = end.Sub(set)
			return r
		default:
			t.Errorf("%s: GetWithTTL = %v", b.Name(), err)
			return r
		}
		if ttl > long && r.lastHit > 1100*time.Millisecond {
			return r
		}
		if left := ttl - time.Since(call); left > 5*time.Millisecond {
			time.Sleep(min(left-2*time.Millisecond, 100*time.Millisecond))
		}
	}
}

func (r row) String() string {
	reported, last, gone := "–", "–", "not waited for"
	if r.reported != 0 {
		reported = ttlText(r.reported)
		last = round(r.lastHit)
	}
	if r.gone != 0 {
		gone = round(r.gone)
	}
	return fmt.Sprintf("%s | %s | %s |", reported, last, gone)
}

func round(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

func ttlText(ttl time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case ttl == l2cache.NoExpiry:
		return "NoExpiry"
	case ttl == l2cache.MaxTTL:
		return "100 years"
	case ttl >= 1000*day:
		return fmt.Sprintf("100 years − %v", l2cache.MaxTTL-ttl)
	case ttl == 31*day:
		return "31 days"
	case ttl >= day:
		return fmt.Sprintf("31 days − %v", 31*day-ttl)
	}
	return ttl.String()
}

// replaceBetween puts text between two marks of a file.
func replaceBetween(t *testing.T, file, from, to, text string) {
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(old), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q and %q", file, from, to)
	}
	if err := os.WriteFile(file, []byte(before+from+text+to+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
