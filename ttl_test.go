package l2cache_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

func TestCheckTTL(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct{ ttl, resolution, want time.Duration }{
		{1, ms, ms},
		{ms - 1, ms, ms},
		{ms, ms, ms},
		{ms + 1, ms, 2 * ms},
		{1500 * time.Microsecond, ms, 2 * ms},
		{1, time.Second, time.Second},
		{1500 * ms, time.Second, 2 * time.Second},
		{l2cache.MaxTTL - 1, ms, l2cache.MaxTTL},
		{l2cache.MaxTTL, ms, l2cache.MaxTTL},
		{l2cache.MaxTTL + 1, ms, l2cache.MaxTTL},
		{l2cache.NoExpiry - 1, time.Second, l2cache.MaxTTL},
		{l2cache.NoExpiry, ms, l2cache.NoExpiry},
	} {
		if got, err := l2cache.CheckTTL(tt.ttl, tt.resolution); got != tt.want || err != nil {
			t.Errorf("CheckTTL(%v, %v) = %v, %v; want %v", tt.ttl, tt.resolution, got, err, tt.want)
		}
	}
	for _, ttl := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
		if got, err := l2cache.CheckTTL(ttl, ms); got != 0 || !errors.Is(err, l2cache.ErrInvalidTTL) {
			t.Errorf("CheckTTL(%v) = %v, %v; want ErrInvalidTTL", ttl, got, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	at := time.Unix(1_700_000_000, 1500) // 1.5 µs past the second
	const us = 1_700_000_000_000_000
	for _, tt := range []struct {
		now  time.Time
		ttl  time.Duration
		want int64
	}{
		{at, l2cache.NoExpiry, 0},
		{at, time.Millisecond, us + 2 + 1000},
		{at.Truncate(time.Second), time.Millisecond, us + 1000},
		{at.Truncate(time.Second), 1, us + 1},
		{at, l2cache.MaxTTL, us + 2 + int64(l2cache.MaxTTL/time.Microsecond)},
		{time.UnixMicro(math.MaxInt64), time.Hour, math.MaxInt64},
		{time.Unix(-1000, 0), time.Second, 1}, // never 0, which is no expiry
	} {
		if got := l2cache.Deadline(tt.now, tt.ttl); got != tt.want {
			t.Errorf("Deadline(%v, %v) = %d, want %d", tt.now.UnixNano(), tt.ttl, got, tt.want)
		}
	}
}

func TestRemaining(t *testing.T) {
	const ms = time.Millisecond
	at := time.Unix(1_700_000_000, 0)
	deadline := l2cache.Deadline(at, time.Second)
	for _, tt := range []struct {
		now      time.Time
		deadline int64
		ttl      time.Duration
		want     time.Duration
		live     bool
	}{
		{at, 0, l2cache.NoExpiry, l2cache.NoExpiry, true},
		{at, deadline, time.Second, time.Second, true},
		{at.Add(1), deadline, time.Second, 999 * ms, true},
		{at.Add(ms), deadline, time.Second, 999 * ms, true},
		{at.Add(999*ms + 1), deadline, time.Second, 1, true},
		{at.Add(time.Second - 1), deadline, time.Second, 1, true},
		{at.Add(time.Second), deadline, time.Second, 0, false},
		{at.Add(time.Hour), deadline, time.Second, 0, false},
		{at.Add(-time.Hour), deadline, time.Second, time.Second, true}, // the reader's clock is behind
		{at, math.MaxInt64, time.Second, time.Second, true},
		{time.Unix(-1<<40, 0), math.MaxInt64, time.Second, time.Second, true},
	} {
		got, live := l2cache.Remaining(tt.now, tt.deadline, tt.ttl, ms)
		if got != tt.want || live != tt.live {
			t.Errorf("Remaining(%v before the deadline) = %v, %v; want %v, %v",
				time.UnixMicro(tt.deadline).Sub(tt.now), got, live, tt.want, tt.live)
		}
	}
}

// FuzzTTL holds the three together: an entry is live until its TTL is over, and
// never reports more than was set.
func FuzzTTL(f *testing.F) {
	f.Add(int64(1_700_000_000_000_000_001), int64(1_500_000), int64(3_000_000))
	f.Add(int64(0), int64(1), int64(0))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64-1), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, nowNs, ttlNs, laterNs int64) {
		const ms = time.Millisecond
		now := time.Unix(0, max(nowNs, 0))
		stored, err := l2cache.CheckTTL(time.Duration(ttlNs), ms)
		if (err != nil) != (ttlNs <= 0) {
			t.Fatalf("CheckTTL(%d) = %v", ttlNs, err)
		}
		if err != nil {
			return
		}
		if stored < min(time.Duration(ttlNs), l2cache.MaxTTL) || stored%ms != 0 && stored != l2cache.NoExpiry {
			t.Fatalf("CheckTTL(%d) = %v: less than was given, or not whole", ttlNs, stored)
		}
		deadline := l2cache.Deadline(now, stored)
		later := time.Duration(max(laterNs, 0))
		left, live := l2cache.Remaining(now.Add(later), deadline, stored, ms)
		if stored == l2cache.NoExpiry {
			if left != l2cache.NoExpiry || !live {
				t.Fatalf("no expiry: %v, %v", left, live)
			}
			return
		}
		if later < stored && !live {
			t.Fatalf("set for %v, gone after %v", stored, later)
		}
		if later >= stored+time.Microsecond && live && now.Add(later).After(now) {
			t.Fatalf("set for %v, there after %v", stored, later)
		}
		if live && (left <= 0 || left > stored) {
			t.Fatalf("set for %v, after %v there is %v left", stored, later, left)
		}
	})
}
