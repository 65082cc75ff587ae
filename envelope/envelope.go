// Package envelope is the form in which a store keeps an entry when it cannot
// keep an exact deadline itself: the deadline and the TTL in front of the value.
//
// The layout, integers big-endian:
//
//	offset  size  field
//	     0     2  magic: 0xC5 0x4C
//	     2     1  version: 1
//	     3     1  flags: 0
//	     4     8  deadline in microseconds since 1970; 0: never
//	    12     8  TTL as it was set, in microseconds; 0: never expires
//	    20        value
//
// These bytes are API: every later version reads them.
package envelope

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/l2cache/l2cache"
)

// Overhead is the number of bytes in front of the value.
const Overhead = 20

const (
	magic0, magic1 = 0xC5, 0x4C
	version        = 1
)

// A Header says when an entry ends.
type Header struct {
	// Deadline is in microseconds since 1970 by the writer's clock, 0 for never:
	// what l2cache.Deadline returns.
	Deadline int64
	// TTL is what the entry was set with, l2cache.NoExpiry for never. It bounds
	// what a reader with another clock reports.
	TTL time.Duration
}

// NewHeader returns the header of an entry that is set at now for ttl, which is
// as l2cache.CheckTTL returns it.
func NewHeader(now time.Time, ttl time.Duration) Header {
	return Header{Deadline: l2cache.Deadline(now, ttl), TTL: ttl}
}

// Append appends the header's Overhead bytes to dst. The value follows them.
func (h Header) Append(dst []byte) []byte {
	var ttl int64
	if h.TTL != l2cache.NoExpiry {
		ttl = int64(h.TTL / time.Microsecond)
	}
	dst = append(dst, magic0, magic1, version, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Deadline))
	return binary.BigEndian.AppendUint64(dst, uint64(ttl))
}

// Remaining returns what is left of the entry at now, rounded down to resolution
// but at least 1 ns, and never more than it was set with; false if it has ended.
func (h Header) Remaining(now time.Time, resolution time.Duration) (time.Duration, bool) {
	return l2cache.Remaining(now, h.Deadline, h.TTL, resolution)
}

// Decode splits stored bytes into header and value. The value is a part of b, not
// a copy. If b is not an envelope the error matches l2cache.ErrCorrupt.
func Decode(b []byte) (Header, []byte, error) {
	if len(b) < Overhead || b[0] != magic0 || b[1] != magic1 {
		return Header{}, nil, fmt.Errorf("%w: not in an envelope", l2cache.ErrCorrupt)
	}
	if b[2] != version || b[3] != 0 {
		return Header{}, nil, fmt.Errorf("%w: envelope version %d, flags %#x; this program reads version %d",
			l2cache.ErrCorrupt, b[2], b[3], version)
	}
	deadline := int64(binary.BigEndian.Uint64(b[4:]))
	ttl := int64(binary.BigEndian.Uint64(b[12:]))
	// Both or neither: an entry without expiry has zero in both.
	if deadline < 0 || ttl < 0 || (deadline == 0) != (ttl == 0) || ttl > int64(l2cache.MaxTTL/time.Microsecond) {
		return Header{}, nil, fmt.Errorf("%w: deadline or TTL out of range", l2cache.ErrCorrupt)
	}
	h := Header{Deadline: deadline, TTL: time.Duration(ttl) * time.Microsecond}
	if deadline == 0 {
		h.TTL = l2cache.NoExpiry
	}
	return h, b[Overhead:], nil
}
