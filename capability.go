package l2cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Capability is something that a backend can do beyond the contract's core, or
// a set of such.
type Capability uint

// Each of these has an interface and a function of the package. Callers use the
// function, which works on any backend: natively, by a fallback, or with
// errors.ErrUnsupported.
const (
	CanGetMany       Capability = 1 << iota // GetMany in few round trips
	CanSetMany                              // SetMany in few round trips
	CanDeleteMany                           // DeleteMany in few round trips
	CanTouch                                // Touch
	CanAdd                                  // Add
	CanDeletePattern                        // DeletePattern
	CanScan                                 // Scan
	CanWatch                                // Watch
)

var capabilityNames = []string{"GetMany", "SetMany", "DeleteMany", "Touch", "Add", "DeletePattern", "Scan", "Watch"}

// Has reports whether all of want are in c.
func (c Capability) Has(want Capability) bool { return c&want == want }

// String returns the names of the functions, as in "GetMany|Add", or "none".
func (c Capability) String() string {
	var names []string
	for i, name := range capabilityNames {
		if c.Has(1 << i) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// MarshalText returns what String does.
func (c Capability) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Capability) UnmarshalText(text []byte) error {
	var all Capability
	if string(text) != "none" {
		for name := range strings.SplitSeq(string(text), "|") {
			i := slices.Index(capabilityNames, name)
			if i < 0 {
				return fmt.Errorf("l2cache: unknown capability %q", name)
			}
			all |= 1 << i
		}
	}
	*c = all
	return nil
}

// unsupported is the error of a function that b has no method for.
func unsupported(ctx context.Context, b CacheBackend, op, key string) error {
	return NewError(ctx, b.Name(), op, key, errors.ErrUnsupported, nil)
}
