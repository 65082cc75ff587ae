package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/l2cache/l2cache"
)

var capabilityCases = []Case{
	{
		ID:    "capability/honest",
		Law:   "what the profile supports is never ErrUnsupported; what it does not support is, and does nothing",
		cause: "a wrapper that hides a capability, or a profile that was not kept up",
		run: func(p *probe) {
			h := p.open()
			set := h.set("k", "v", time.Hour)
			supports := p.e.profile.Supports
			for _, c := range []struct {
				capability l2cache.Capability
				call       func() error
			}{
				{l2cache.CanTouch, func() error { return l2cache.Touch(p.ctx, h.b, "k", time.Minute) }},
				{l2cache.CanAdd, func() error { _, err := l2cache.Add(p.ctx, h.b, "added", nil, time.Hour); return err }},
				{l2cache.CanDeletePattern, func() error { return l2cache.DeletePattern(p.ctx, h.b, "k?") }},
				{l2cache.CanDeletePattern, func() error { return l2cache.DeletePattern(p.ctx, h.b, "?") }},
				{l2cache.CanScan, func() error { return first(l2cache.Scan(p.ctx, h.b, "")) }},
				{l2cache.CanWatch, func() error { return first(l2cache.Watch(p.ctx, h.b, "")) }},
			} {
				err := c.call()
				switch {
				case supports.Has(c.capability) && err != nil:
					p.failf("%v, which is declared, = %v | want nil", c.capability, err)
				case !supports.Has(c.capability):
					p.wantError(operation{name: c.capability.String()}, outcome{err: err}, errors.ErrUnsupported)
				}
			}
			if !supports.Has(l2cache.CanDeletePattern) {
				h.wantHit("k", "v")
			}
			if !supports.Has(l2cache.CanTouch) && !supports.Has(l2cache.CanDeletePattern) {
				p.judgeTTL(h.entry("k"), set, time.Hour)
			}
			if !supports.Has(l2cache.CanAdd) {
				h.wantMiss("added")
			}
		},
	},
	{
		ID:    "capability/any-sequence",
		Law:   "after any sequence of whatever operations the backend has, through any handle, each finds what the others have left",
		cause: "an index, a cache or a timer that one of the operations or handles does not know of",
		After: []string{"basic/random-operations"},
		timed: true,
		run:   anySequenceCase,
	},
	{
		ID:    "capability/forwarded",
		Law:   "WithPrefix and Observe have the capabilities of what they wrap",
		cause: "a wrapper that hides the methods that it does not know",
		run: func(p *probe) {
			h := p.open()
			for _, b := range []l2cache.L2CacheBackend{
				l2cache.WithPrefix(h.b, "app:"), l2cache.Observe(h.b, func(context.Context, l2cache.Op) {}), l2cache.WithPrefix(l2cache.Observe(h.b, func(context.Context, l2cache.Op) {}), "x"),
			} {
				if got := l2cache.ProfileOf(b).Supports; got != p.e.profile.Supports {
					p.failf("wrapped: %v | want %v", got, p.e.profile.Supports)
				}
			}
		},
	},
}

// first returns the error that a sequence begins with, if it does.
func first[T any](seq func(func(T, error) bool)) error {
	for _, err := range seq {
		return err
	}
	return nil
}
