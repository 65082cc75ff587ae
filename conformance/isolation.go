package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var isolationCases = []Case{
	{
		ID:    "isolation/namespace",
		Law:   "two namespaces that the tests open share no entry",
		cause: "the OpenFunc of the tests ignores its namespace",
		run: func(p *probe) {
			a, b := p.open(), p.openIn(p.e.namespace())
			a.set("k", "of a", time.Hour)
			for _, how := range readers {
				if r := how(b, p.ctx, "k"); r.hit() && string(r.value) == "of a" {
					p.failf("%v in another namespace | want a miss", r)
				}
			}
			b.set("k", "of b", time.Hour)
			a.wantHit("k", "of a")
			b.delete("k")
			a.wantHit("k", "of a")
		},
	},
	{
		ID:    "isolation/prefix",
		Law:   "the same key under two prefixes is two entries, and both are apart from the bare key",
		cause: "a prefix that is put on some operations and not on others",
		run: func(p *probe) {
			bare := p.open()
			app, app2 := p.prefixed(bare, "app:"), p.prefixed(bare, "app2:")
			all := []*handle{bare, app, app2}
			for i, h := range all {
				h.set("k", fmt.Sprint("of ", i), time.Hour+time.Duration(i)*time.Hour)
			}
			for i, h := range all {
				h.wantHit("k", fmt.Sprint("of ", i))
			}
			bare.wantHit("app:k", "of 1")
			bare.wantHit("app2:k", "of 2")
			app.delete("k")
			app.wantMiss("k")
			bare.wantMiss("app:k")
			bare.wantHit("k", "of 0")
			app2.wantHit("k", "of 2")
		},
	},
	{
		ID:    "isolation/prefix-keys",
		Law:   "behind a prefix every key works that fits, the longest too, and none that does not",
		cause: "a limit that does not count the prefix, or an empty key that becomes the prefix",
		run: func(p *probe) {
			h := p.prefixed(p.open(), "app:")
			n := p.e.profile.MaxKeyLen - len("app:")
			if got := l2cache.ProfileOf(h.b).MaxKeyLen; got != n {
				p.failf("MaxKeyLen behind a prefix of 4 bytes = %d | want %d", got, n)
			}
			for _, key := range []string{"k", "app:", "\x00", "*", strings.Repeat("k", n)} {
				h.set(key, "v", time.Hour)
				h.wantHit(key, "v")
				h.delete(key)
				h.wantMiss(key)
			}
			for _, key := range []string{"", strings.Repeat("k", n+1)} {
				for _, op := range p.operations() {
					if op.keyed {
						p.wantError(op, h.try(p.ctx, op, key), l2cache.ErrInvalidKey)
					}
				}
			}
		},
	},
	{
		ID:    "isolation/prefix-errors",
		Law:   "errors behind a prefix speak of the caller's key",
		cause: "an error that is passed through as the backend made it",
		run: func(p *probe) {
			h := p.prefixed(p.open(), "app:")
			long := strings.Repeat("k", l2cache.MaxKeyLen)
			for _, c := range []struct {
				key string
				err error
			}{
				{"k", h.b.Set(p.ctx, "k", nil, -1)},
				{long, h.b.Set(p.ctx, long, nil, time.Hour)},
				{long, h.b.Delete(p.ctx, long)},
			} {
				e, ok := c.err.(*l2cache.Error)
				if !ok {
					continue // a backend may have errors of its own, around one of ours too
				}
				if e.Key != c.key || strings.Contains(c.err.Error(), "app:") {
					p.failf("error of key %s: %v | want it to name that key", brief(c.key), c.err)
				}
			}
		},
	},
	{
		ID:    "isolation/error-names-key",
		Level: Should,
		Law:   "an error says which operation failed on which backend and key, in one line",
		cause: "an error that is returned as the driver made it",
		run: func(p *probe) {
			h := p.open()
			err := h.b.Set(p.ctx, "the key\r\n", nil, -1)
			var e *l2cache.Error
			if !errors.As(err, &e) || e.Key != "the key\r\n" || e.Op != "set" || e.Backend != h.b.Name() {
				p.failf("Set with a TTL of -1ns = %#v | want an *l2cache.Error with Op set, Backend %s and the key", err, h.b.Name())
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				p.failf("error %q | want one line", err)
			}
		},
	},
}

// prefixed is a handle on h's data behind a prefix; closing it closes h, which the
// case leaves to the end.
func (p *probe) prefixed(h *handle, prefix string) *handle {
	return &handle{b: l2cache.WithPrefix(h.b, prefix), p: p, closed: true}
}
