package l2cache

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// CheckTTL returns ttl as a backend stores it: rounded up to a multiple of
// resolution, 1 ms if that is zero, and MaxTTL at most; NoExpiry as it is. For a ttl
// that is zero or negative the error matches ErrInvalidTTL.
func CheckTTL(ttl, resolution time.Duration) (time.Duration, error) {
	resolution = cmp.Or(resolution, defaultResolution)
	switch {
	case ttl <= 0:
		return 0, fmt.Errorf("%w: %v is not positive", ErrInvalidTTL, ttl)
	case ttl == NoExpiry:
		return NoExpiry, nil
	case ttl > MaxTTL:
		return MaxTTL, nil
	}
	if rest := ttl % resolution; rest != 0 {
		ttl += resolution - rest // no overflow: ttl <= MaxTTL
	}
	return ttl, nil
}

// Deadline returns the instant at which an entry that is set at now for ttl
// ends, in microseconds since 1970, rounded up: the stored form of a deadline.
// It is 0 for NoExpiry and positive otherwise. It never overflows.
func Deadline(now time.Time, ttl time.Duration) int64 {
	if ttl == NoExpiry {
		return 0
	}
	us := now.UnixMicro()
	if now.Nanosecond()%1000 != 0 {
		us++
	}
	left := int64(ttl / time.Microsecond)
	if ttl%time.Microsecond > 0 {
		left++
	}
	if us > math.MaxInt64-left {
		return math.MaxInt64
	}
	return max(us+left, 1)
}

// Remaining returns what is left, at now, of an entry that was set for ttl and
// ends at deadline (as [Deadline] gives it): rounded down to resolution, but at
// least 1 ns, and never more than ttl, however the clocks of writer and reader
// differ. It is false if nothing is left.
func Remaining(now time.Time, deadline int64, ttl, resolution time.Duration) (time.Duration, bool) {
	if deadline == 0 {
		return NoExpiry, true
	}
	us := now.UnixMicro()
	if us >= deadline {
		return 0, false
	}
	left := NoExpiry
	// The difference is below zero if it overflowed: a clock far before 1970.
	if d := deadline - us; d > 0 && d <= int64(NoExpiry/time.Microsecond) {
		left = time.Duration(d)*time.Microsecond - time.Duration(now.Nanosecond()%1000)
	}
	return RoundRemaining(min(left, ttl), resolution), true
}

// RoundRemaining rounds a remaining TTL down to resolution, but not below 1 ns:
// an entry that can still be read is never reported as having nothing left.
// NoExpiry stays NoExpiry. A resolution of zero is 1 ms.
func RoundRemaining(left, resolution time.Duration) time.Duration {
	resolution = cmp.Or(resolution, defaultResolution)
	if left == NoExpiry {
		return NoExpiry
	}
	return max(left-left%resolution, 1)
}
