package tiered_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/bolt"
	_ "github.com/l2cache/l2cache/adapters/memcached"
	_ "github.com/l2cache/l2cache/adapters/natskv"
	_ "github.com/l2cache/l2cache/adapters/redis"
	"github.com/l2cache/l2cache/internal/servertest"
	"github.com/l2cache/l2cache/tiered"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var (
	redisServer     = servertest.Shared(servertest.StartRedis)
	memcachedServer = servertest.Shared(servertest.StartMemcached)
	natsServer      = servertest.Shared(servertest.StartNATS)
)

// urls are those of real backends for a test of its own.
var urls = map[string]func(t testing.TB) string{
	"redis": func(t testing.TB) string {
		return "redis://" + redisServer(t).Addr + "?op_timeout=30s&prefix=" + space(t) + "/"
	},
	"memcached": func(t testing.TB) string {
		return "memcached://" + memcachedServer(t).Addr + "?op_timeout=30s&prefix=" + space(t) + "/"
	},
	"nats": func(t testing.TB) string {
		return "nats://" + natsServer(t).Addr + "/" + space(t) + "?op_timeout=30s"
	},
	"bolt": func(t testing.TB) string {
		return "bolt://" + filepath.Join(t.TempDir(), "l2.db") + "?sync=false&op_timeout=30s"
	},
}

// space is a name that no other test has, for a bucket or a prefix.
func space(t testing.TB) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
}

func open(t testing.TB, name string) l2cache.L2CacheBackend {
	t.Helper()
	l2, err := l2cache.Open(t.Context(), urls[name](t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l2.Close() })
	return l2
}

// How much TestFire does on each backend. A value names the write that it came by, so
// that for each read it is known when what it got had to be gone.
const (
	fireEntries  = 10_000
	fireReads    = 100_000 // begun within fireWindow of the end of the entry
	fireWindow   = 10 * time.Millisecond
	firePollers  = 128
	fireDeadline = 3 * time.Minute // on a machine that has nothing to spare
)

var fireShare = flag.Int("fire.share", 1, "have TestFire do one in so many of its entries and reads")

// A fire is what one backend's part of TestFire counts.
type fire struct {
	cache      *tiered.Cache[[]byte]
	l2         l2cache.L2CacheBackend
	resolution time.Duration
	began      time.Time

	ends    sync.Map // of a value: when it has to be gone, as a time.Time
	ids     atomic.Int64
	entries atomic.Int64
	near    atomic.Int64 // reads that began within fireWindow of the end
	nearL1  atomic.Int64 // those of them that L1 answered
	late    atomic.Int64 // reads that L1 answered and that began after the end
	tooLong atomic.Int64 // reads that L1 answered with a TTL beyond the end
	worst   atomic.Int64 // how long after the end the last of the late ones began
}

// An ending is when an entry ends: not before first, and not after last.
type ending struct{ first, last time.Time }

// write sets key past L1, as another process does.
func (f *fire) write(ctx context.Context, key string, ttl time.Duration) (end ending, err error) {
	id := strconv.FormatInt(f.ids.Add(1), 10)
	// Nobody can read it before that; if Set fails it is in doubt, and may land for a
	// second longer.
	f.ends.Store(id, time.Now().Add(time.Hour))
	end.first = time.Now().Add(ttl)
	err = f.l2.Set(ctx, key, []byte(id), ttl)
	end.last = time.Now().Add(ttl + f.resolution)
	f.ends.Store(id, end.last)
	return end, err
}

// read reads key once and checks what L1 answers.
func (f *fire) read(ctx context.Context, key string, end ending, opts ...tiered.Option) error {
	began := time.Now()
	r, err := f.cache.Get(ctx, key, opts...)
	if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
		return err
	}
	near := end.last.Sub(began) <= fireWindow && began.Sub(end.first) <= fireWindow
	if near {
		f.near.Add(1)
	}
	if err != nil || r.Tier != tiered.TierL1 {
		return nil
	}
	v, known := f.ends.Load(string(r.Value))
	if !known {
		return fmt.Errorf("%q has the value %q, which nobody wrote", key, r.Value)
	}
	hasToBeGone := v.(time.Time)
	if near {
		f.nearL1.Add(1)
	}
	if late := began.Sub(hasToBeGone); late > 0 {
		f.late.Add(1)
		f.worst.Store(max(f.worst.Load(), int64(late)))
	}
	if began.Add(r.TTL).After(hasToBeGone) {
		f.tooLong.Add(1)
	}
	return nil
}

// poll takes one entry after another from its Set through its end.
func (f *fire) poll(ctx context.Context, name string, done func() bool) error {
	for n := 0; !done(); n++ {
		key := fmt.Sprintf("%s-%d", name, n)
		end, err := f.write(ctx, key, fireTTL())
		if err != nil {
			return err
		}
		f.entries.Add(1)
		// Half of the entries come into L1 early, half just before their end.
		if n%2 == 0 {
			if err := f.read(ctx, key, end); err != nil {
				return err
			}
		}
		time.Sleep(time.Until(end.last) - fireWindow)
		for i := 0; time.Since(end.first) < fireWindow; i++ {
			var opts []tiered.Option
			if i%8 > 0 {
				opts = []tiered.Option{tiered.SkipL2()}
			}
			if err := f.read(ctx, key, end, opts...); err != nil {
				return err
			}
			if i%8 == 4 { // a writer races with what comes next
				go f.race(ctx, key)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
	return nil
}

// fireTTL is 50 to 500 ms, more often short than long, and no fraction of a millisecond:
// backends would round that up.
func fireTTL() time.Duration {
	u := rand.Float64()
	return time.Duration(50+450*u*u) * time.Millisecond
}

// race changes key once in a while, past L1 or through it.
func (f *fire) race(ctx context.Context, key string) {
	ttl := fireTTL()
	switch rand.IntN(40) {
	case 0:
		f.write(ctx, key, ttl)
	case 1:
		id := strconv.FormatInt(f.ids.Add(1), 10)
		f.ends.Store(id, time.Now().Add(time.Hour))
		f.cache.Set(ctx, key, []byte(id), ttl)
		f.ends.Store(id, time.Now().Add(ttl+f.resolution))
	case 2:
		f.cache.Delete(ctx, key)
	}
}

// The promise of the package: no read that begins after an entry's end in L2, plus L2's
// resolution, gets it from L1, and none is told a TTL beyond that. With Watch, each write
// takes what it changes out of L1, so that L1 has less to do.
func TestFire(t *testing.T) {
	for name := range urls {
		t.Run(name, func(t *testing.T) { onFire(t, name, &tiered.Options[[]byte]{NoWatch: true}) })
		if name != "memcached" { // which cannot be watched
			t.Run(name+" with Watch", func(t *testing.T) { onFire(t, name, &tiered.Options[[]byte]{}) })
		}
	}
}

func onFire(t *testing.T, name string, o *tiered.Options[[]byte]) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), fireDeadline)
	defer cancel()
	real := open(t, name)
	slow := over(real)
	slow.setAfter(func(op, _ string) { // answers are on their way for up to 20 ms
		if op == "get" && rand.IntN(4) == 0 {
			time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		}
	})
	o.MaxEntries, o.BreakerFailures = 100_000, -1
	f := &fire{
		cache:      newCache(t, slow, o),
		l2:         real,
		resolution: l2cache.ProfileOf(real).Resolution,
		began:      time.Now(),
	}
	share := int64(*fireShare)
	done := func() bool {
		return f.entries.Load() >= fireEntries/share && f.near.Load() >= fireReads/share || ctx.Err() != nil
	}
	var wg sync.WaitGroup
	for i := range firePollers {
		wg.Go(func() {
			if err := f.poll(ctx, fmt.Sprintf("fire-%d", i), done); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := f.cache.Stats()
	t.Logf("%s: %d entries and %d reads within %v of their end in %v: L1 answered %d, %d of them late (up to %v), %d with too long a TTL; "+
		"promotions: %d stored, %d expired, %d overtaken; %d changes heard of, %d gaps", t.Name(), f.entries.Load(), f.near.Load(), fireWindow,
		time.Since(f.began).Round(time.Millisecond), f.nearL1.Load(), f.late.Load(), time.Duration(f.worst.Load()), f.tooLong.Load(),
		s.Promoted, s.PromotionsExpired, s.PromotionsOvertaken, s.Invalidations, s.Gaps)
	if !t.Failed() && ctx.Err() != nil {
		t.Errorf("not done after %v", fireDeadline)
	}
	if f.late.Load() > 0 || f.tooLong.Load() > 0 {
		t.Errorf("L1 answered %d reads that began after the end of the entry, and %d with a TTL beyond it; want 0", f.late.Load(), f.tooLong.Load())
	}
	if f.nearL1.Load() < fireReads/share/20 {
		t.Errorf("L1 answered %d reads near the end of the entry: too few to mean anything", f.nearL1.Load())
	}
	if !o.NoWatch && s.Invalidations == 0 {
		t.Error("L2 told of no change")
	}
}
