package l2cache

import (
	"fmt"
	"time"
)

// A Profile says what a backend has and where it differs from the contract's
// defaults. It is constant for the life of a backend. The zero value of each
// field is the default. JSON has durations in nanoseconds.
type Profile struct {
	// Supports is what the backend can do beyond the core; none by default.
	Supports Capability `json:"supports"`

	// Resolution is the unit that TTLs are rounded to, up when set and down when
	// reported; 1 ms by default, at most 1 s.
	Resolution time.Duration `json:"resolution"`

	// MaxTTL is the longest TTL that the backend keeps: a longer one, NoExpiry
	// too, is stored as MaxTTL, and reported so. NoExpiry, the default, is no
	// limit but that of the package's MaxTTL on finite TTLs.
	MaxTTL time.Duration `json:"maxTTL"`

	// MaxKeyLen is the longest key in bytes; the package's MaxKeyLen by default.
	// It is negative behind a prefix that leaves no room for a key.
	MaxKeyLen int `json:"maxKeyLen"`

	// MaxValueLen is the longest value in bytes, at least 1,000,000. Zero: the
	// backend declares no limit.
	MaxValueLen int `json:"maxValueLen"`

	// Clock is the clock that decides when an entry ends.
	Clock Clock `json:"clock"`

	// Evicts: the backend may drop live entries when it is short of space.
	Evicts bool `json:"evicts"`

	// Durable: entries survive a restart of the store.
	Durable bool `json:"durable"`

	// Embedded: the store runs in this process; no network is involved, and
	// conformance has no server to break.
	Embedded bool `json:"embedded"`

	// Exclusive: one handle at a time can have the store open.
	Exclusive bool `json:"exclusive"`
}

// defaultResolution is that of a profile without one.
const defaultResolution = time.Millisecond

// A Clock says whose clock a backend's deadlines are on.
type Clock int

const (
	// ClientClock: the writer's clock sets the deadline and the reader's clock
	// compares with it. The contract's bounds shift by the skew between them.
	ClientClock Clock = iota
	// ServerClock: the server's clock does both; the bounds hold between any
	// machines.
	ServerClock
)

// String returns "client clock" or "server clock".
func (c Clock) String() string {
	if c == ServerClock {
		return "server clock"
	}
	return "client clock"
}

// MarshalText returns what String does.
func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Clock) UnmarshalText(text []byte) error {
	for _, clock := range []Clock{ClientClock, ServerClock} {
		if string(text) == clock.String() {
			*c = clock
			return nil
		}
	}
	return fmt.Errorf("l2cache: unknown clock %q", text)
}

// A Profiler is a backend with a profile of its own. Callers use [ProfileOf].
type Profiler interface {
	Profile() Profile
}

// ProfileOf returns b's profile with all defaults filled in. A backend that is
// not a [Profiler] has the defaults.
func ProfileOf(b CacheBackend) Profile {
	var p Profile
	if b, ok := b.(Profiler); ok {
		p = b.Profile()
	}
	if p.Resolution == 0 {
		p.Resolution = defaultResolution
	}
	if p.MaxTTL == 0 {
		p.MaxTTL = NoExpiry
	}
	if p.MaxKeyLen == 0 {
		p.MaxKeyLen = MaxKeyLen
	}
	return p
}
