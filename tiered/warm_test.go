package tiered_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/tiered"
)

// inL1 returns the keys of all that L1 answers.
func inL1(t testing.TB, cache *tiered.Cache[[]byte], keys []string) (found []string) {
	t.Helper()
	for _, key := range keys {
		if _, err := cache.Get(t.Context(), key, tiered.SkipL2()); err == nil {
			found = append(found, key)
		}
	}
	return found
}

func TestWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l2 := newBackend()
		var keys []string
		for i := range 250 {
			key := fmt.Sprintf("k%03d", i)
			keys = append(keys, key)
			put(t, l2, key, "0123456789", time.Duration(i+1)*time.Second)
		}
		put(t, l2, "k-forever", "0123456789", l2cache.NoExpiry)
		put(t, l2, "other", "0123456789", l2cache.NoExpiry)
		keys = append(keys, "k-forever", "other")
		time.Sleep(500 * time.Millisecond)
		for _, test := range []struct {
			name string
			o    tiered.WarmOptions
			want []string
			p    tiered.WarmProgress
		}{
			{"all", tiered.WarmOptions{}, keys, tiered.WarmProgress{Scanned: 252, Chosen: 252}},
			{"prefix", tiered.WarmOptions{Prefix: "o"}, keys[251:], tiered.WarmProgress{Scanned: 1, Chosen: 1}},
			{"min TTL", tiered.WarmOptions{Prefix: "k", MinTTL: 200 * time.Second}, keys[200:251], tiered.WarmProgress{Scanned: 251, Chosen: 51}},
			{"longest", tiered.WarmOptions{Prefix: "k", MaxEntries: 3}, keys[248:251], tiered.WarmProgress{Scanned: 251, Chosen: 3}},
			{"bytes", tiered.WarmOptions{Prefix: "k", MaxBytes: 4*(4+10+128) + 5 + 141}, keys[247:251], tiered.WarmProgress{Scanned: 251, Chosen: 4}},
		} {
			cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: time.Hour})
			var last tiered.WarmProgress
			test.o.Progress = func(p tiered.WarmProgress) { last = p }
			p, err := cache.Warm(ctx, &test.o)
			test.p.Read, test.p.Stored, test.p.Bytes = len(test.want), len(test.want), 10*len(test.want)
			if err != nil || p != test.p || last != p {
				t.Errorf("%s: Warm = %+v, %v; want %+v; the last progress was %+v", test.name, p, err, test.p, last)
			}
			if got := inL1(t, cache, keys); !slices.Equal(got, test.want) {
				t.Errorf("%s: L1 has %v, want %v", test.name, got, test.want)
			}
			r, err := cache.Get(ctx, test.want[0])
			if err != nil || r.Tier != tiered.TierL1 {
				t.Errorf("%s: Get = %+v, %v", test.name, r, err)
			}
		}

		// What L1 got has the TTL that was left.
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: time.Hour})
		if _, err := cache.Warm(ctx, nil); err != nil {
			t.Fatal(err)
		}
		wantGet(t, cache, "k009", "0123456789", 9500*time.Millisecond, tiered.TierL1)
		time.Sleep(9500 * time.Millisecond)
		wantGone(t, cache, "k009")
	})
}

func TestWarmRateAndCtx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		for i := range 100 {
			put(t, l2, fmt.Sprint(i), "v", l2cache.NoExpiry)
		}
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxL1TTL: time.Hour})
		began := time.Now()
		batches := 0
		p, err := cache.Warm(t.Context(), &tiered.WarmOptions{Rate: 10, Progress: func(p tiered.WarmProgress) {
			batches++
			if most := 10*time.Since(began).Seconds() + 1.01; float64(p.Read) > most {
				t.Errorf("%d entries after %v", p.Read, time.Since(began))
			}
		}})
		if err != nil || p.Stored != 100 || batches != 100 {
			t.Errorf("Warm = %+v, %v, in %d batches", p, err, batches)
		}
		if d := time.Since(began); d < 9*time.Second || d > 10*time.Second {
			t.Errorf("100 entries at 10 a second took %v", d)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		p, err = cache.Warm(ctx, &tiered.WarmOptions{Rate: 10})
		if !errors.Is(err, context.DeadlineExceeded) || p.Read < 45 || p.Read > 55 {
			t.Errorf("Warm for 5 s = %+v, %v; want about 50 entries and DeadlineExceeded", p, err)
		}
	})
}

// Warm does not undo what happens meanwhile, and goes on where an entry is bad.
func TestWarmMeetsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[int]{NoWatch: noWatch})
		put(t, l2, "bad", "?", time.Minute)
		put(t, l2, "gone", "1", time.Second)
		put(t, l2, "changed", "1", time.Minute)
		put(t, l2, "good", "1", time.Minute)
		l2.setAfter(func(op, _ string) {
			if op == "getmany" {
				l2.setAfter(nil)
				if err := cache.Set(t.Context(), "changed", 2, time.Minute); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			}
		})
		p, err := cache.Warm(t.Context(), nil)
		want := tiered.WarmProgress{Scanned: 4, Chosen: 4, Read: 4, Stored: 1, Gone: 1, Failed: 1, Bytes: 1}
		if err != nil || p != want {
			t.Errorf("Warm = %+v, %v; want %+v", p, err, want)
		}
		if r, err := cache.Get(t.Context(), "changed"); err != nil || r.Value != 2 {
			t.Errorf("Get = %+v, %v; want 2", r, err)
		}
	})
}

// Warm does not bring back what was deleted here.
func TestWarmOfAPendingDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		for _, key := range []string{"deleted", "other"} {
			put(t, l2, key, "v", time.Hour)
		}
		l2.down()
		wantUnavailable(t, "Delete", cache.Delete(t.Context(), "deleted"))
		l2.up()
		p, err := cache.Warm(t.Context(), nil)
		if err != nil || p.Stored != 1 || p.Gone != 1 {
			t.Errorf("Warm = %+v, %v; want 1 stored, 1 gone", p, err)
		}
		wantGone(t, cache, "deleted")
		wantGet(t, cache, "other", "v", time.Hour, tiered.TierL1)
	})
}

func TestWarmOfABackendThatCannotScan(t *testing.T) {
	// Embedding the interface alone hides what else the backend has.
	l2 := struct{ l2cache.L2CacheBackend }{newBackend()}
	cache := newCache(t, l2, &tiered.Options[int]{})
	if p, err := cache.Warm(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Warm = %+v, %v; want ErrUnsupported", p, err)
	}
	if _, err := cache.Warm(t.Context(), &tiered.WarmOptions{Rate: -1}); err == nil {
		t.Error("Warm with a negative rate: no error")
	}
}

// What Warm reads is what L1 has room for, as L1 itself counts bytes.
func TestWarmFitsIntoL1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprintf("k%03d", i))
			put(t, l2, keys[i], "0123456789", time.Duration(i+1)*time.Minute)
		}
		put(t, l2, "huge", string(make([]byte, 10_000)), l2cache.NoExpiry)
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch, MaxBytes: 50 * (4 + 10 + 128), MaxL1TTL: time.Hour})
		p, err := cache.Warm(t.Context(), nil)
		want := tiered.WarmProgress{Scanned: 101, Chosen: 50, Read: 50, Stored: 50, Bytes: 500}
		if err != nil || p != want {
			t.Errorf("Warm = %+v, %v; want %+v", p, err, want)
		}
		synctest.Wait() // L1 evicts in the background
		if got := inL1(t, cache, keys); !slices.Equal(got, keys[50:]) {
			t.Errorf("L1 has %v, want %v", got, keys[50:])
		}
	})
}

func TestCloseEndsTheScanOfAWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l2 := newBackend()
		cache := newCache(t, l2, &tiered.Options[[]byte]{NoWatch: noWatch})
		l2.setBefore(func(ctx context.Context, op, key string) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
			return l2cache.NewError(ctx, "mem", op, key, l2cache.ErrUnavailable, nil)
		})
		began := time.Now()
		time.AfterFunc(time.Second, func() { cache.Close() })
		_, err := cache.Warm(t.Context(), nil)
		if !errors.Is(err, l2cache.ErrClosed) || errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("Warm = %v after %v; want ErrClosed after 1 s", err, time.Since(began))
		}
	})
}
