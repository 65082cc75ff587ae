package conformance

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

func openMem(context.Context, string) (l2cache.L2CacheBackend, error) {
	return mem.New(mem.NewStore()), nil
}

func FuzzMem(f *testing.F) { Fuzz(f, openMem, nil) }

// trimmed is a backend that takes the space at the end of a key for none.
type trimmed struct{ l2cache.L2CacheBackend }

func (b trimmed) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if short := strings.TrimRight(key, " "); short != "" {
		key = short
	}
	return b.L2CacheBackend.Set(ctx, key, value, ttl)
}

// TestPrograms runs programs as Fuzz does, on a store that is right and on one that
// is not.
func TestPrograms(t *testing.T) {
	broken := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		b, err := openMem(ctx, namespace)
		return trimmed{b}, err
	}
	for _, c := range []struct {
		program string
		open    OpenFunc
		want    Status
	}{
		{"s\x02k xs\x01kyg\x02k ", openMem, Pass},
		{"s\x02k xs\x01kyg\x02k ", broken, Fail},
		{"s\x02k x", broken, Fail}, // all is read at the end
		{"s\x01kxg\x01k", broken, Pass},
		{strings.Repeat("s\x01kx", 2*maxOperations), openMem, Pass},
	} {
		e, err := newEngine(t.Context(), c.open, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := e.attempts(t.Context(), Case{ID: "fuzz", run: func(p *probe) { p.runProgram(&tape{rest: []byte(c.program)}) }}, false)
		if r.Status != c.want {
			t.Errorf("%.20q = %s, %s; want %s", c.program, r.Status, r.Evidence, c.want)
		}
	}
}
