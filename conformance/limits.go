package conformance

import (
	"errors"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// tooLarge wants Add and SetMany to refuse value, and SetMany to store the rest.
func (h *handle) tooLarge(key string, value []byte) {
	p := h.p
	if p.e.profile.Supports.Has(l2cache.CanAdd) {
		added, err := l2cache.Add(p.ctx, h.b, "absent", value, time.Minute)
		if p.wantError(operation{name: "Add"}, outcome{err: err}, l2cache.ErrTooLarge); added {
			p.failf("Add = true with %v | want false", err)
		}
	}
	err := l2cache.SetMany(p.ctx, h.b, []l2cache.Item{
		{Key: "first", Value: []byte("v"), TTL: time.Hour},
		{Key: key, Value: value, TTL: time.Minute},
		{Key: "absent", Value: value, TTL: time.Minute},
		{Key: "last", Value: []byte("v"), TTL: time.Hour},
	})
	p.wantError(operation{name: "SetMany"}, outcome{err: err}, l2cache.ErrTooLarge)
	var failed l2cache.KeyErrors
	if !errors.As(err, &failed) || len(failed) != 2 || !errors.Is(failed[key], l2cache.ErrTooLarge) || !errors.Is(failed["absent"], l2cache.ErrTooLarge) {
		p.failf("SetMany with two values that are too large = %v | want KeyErrors with ErrTooLarge for their keys", err)
	}
	h.wantMiss("absent")
	for _, other := range []string{"first", "last"} {
		h.wantHit(other, "v")
		h.delete(other)
	}
}

var limitCases = []Case{
	{
		ID:    "limits/value",
		Law:   "a value of the declared MaxValueLen is stored whole; one byte more is ErrTooLarge, of a batch for that key only, and the old entry stays",
		cause: "a limit that does not count the backend's own overhead, or is found out by the server too late",
		needs: needLimit,
		run: func(p *probe) {
			h := p.open()
			limit := p.e.profile.MaxValueLen
			for _, key := range []string{"k", strings.Repeat("K", p.e.profile.MaxKeyLen)} {
				largest := noise(limit, 1)
				h.set(key, largest, time.Hour)
				h.wantHit(key, largest)
				h.setMany([]l2cache.Item{{Key: key, Value: []byte(largest), TTL: time.Minute}})
				h.wantHit(key, largest)
				if p.e.profile.Supports.Has(l2cache.CanAdd) {
					h.delete(key)
					h.add(key, largest, time.Hour, true)
					h.wantHit(key, largest)
				}
				set := h.set(key, "old", time.Hour)
				for _, n := range []int{limit + 1, limit + 100, 2 * limit} {
					s, err := h.trySet(p.ctx, key, make([]byte, n), time.Minute)
					p.wantError(operation{name: "Set"}, outcome{span: s, err: err}, l2cache.ErrTooLarge)
					h.tooLarge(key, make([]byte, n))
				}
				h.wantHit(key, "old")
				p.judgeTTL(h.entry(key), set, time.Hour)
				h.delete(key)
			}
		},
	},
	{
		ID:    "limits/undeclared",
		Law:   "a value beyond what is guaranteed is stored whole, or is ErrTooLarge and leaves the old entry; it is never cut",
		cause: "a length field that wraps, or a server that drops the old entry when it refuses the new one",
		run: func(p *probe) {
			h := p.open()
			for _, n := range []int{guaranteedValueLen + 1, 1 << 20, 1<<20 + 1, 3 << 20, 5 << 20} {
				h.set("k", "old", time.Hour)
				value := noise(n, uint64(n))
				_, err := h.trySet(p.ctx, "k", []byte(value), time.Hour)
				switch {
				case err == nil:
					for _, how := range readers {
						if r := h.read(how, "k"); !h.spared(r) && string(r.value) != value {
							p.failf("a value of %d bytes: %v | want it whole%s", n, r, firstDifference(r, value))
						}
					}
				case errors.Is(err, l2cache.ErrTooLarge):
					if limit := p.e.profile.MaxValueLen; limit >= n {
						p.failf("Set of %d bytes = %v | want nil: MaxValueLen is %d", n, err, limit)
					}
					h.wantHit("k", "old")
				default:
					p.failf("Set of %d bytes = %v | want nil or ErrTooLarge", n, err)
				}
			}
			h.delete("k")
		},
	},
}
