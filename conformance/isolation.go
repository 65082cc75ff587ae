package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
			p.prefixesShareNothing(bare, app, app2)
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
			ended, cancel := context.WithCancel(p.ctx)
			cancel()
			for _, op := range p.operations() {
				if op.keyed {
					p.wantKeyNamed(op.name, h.try(p.ctx, op, long).err, long)
					p.wantKeyNamed(op.name, h.try(ended, op, "k").err, "k")
				}
			}
			for _, op := range batchOperations {
				p.wantKeyNamed(op.name, h.try(p.ctx, op, long).err, long, long+"0", long+"1")
				p.wantKeyNamed(op.name, h.try(ended, op, "k").err, "k", "k0", "k1", "")
			}
			for _, ttl := range []time.Duration{0, -1} {
				p.wantKeyNamed("Set", h.b.Set(p.ctx, "k", nil, ttl), "k")
				p.wantKeyNamed("SetMany", l2cache.SetMany(p.ctx, h.b, []l2cache.Item{{Key: "k", TTL: ttl}}), "k")
				if p.e.profile.Supports.Has(l2cache.CanTouch) {
					p.wantKeyNamed("Touch", l2cache.Touch(p.ctx, h.b, "k", ttl), "k")
				}
				if p.e.profile.Supports.Has(l2cache.CanAdd) {
					_, err := l2cache.Add(p.ctx, h.b, "k", nil, ttl)
					p.wantKeyNamed("Add", err, "k")
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
			const key = "the key\r\n"
			named := func(call, op string, err error) {
				var e *l2cache.Error
				if !errors.As(err, &e) || e.Key != key || e.Op != op || e.Backend != h.b.Name() {
					p.failf("%s = %#v | want an *l2cache.Error with Op %s, Backend %s and the key", call, err, op, h.b.Name())
				}
				if strings.ContainsAny(err.Error(), "\r\n") {
					p.failf("error %q | want one line", err)
				}
			}
			named("Set with a TTL of -1ns", "set", h.b.Set(p.ctx, key, nil, -1))
			if p.e.o.Raw == nil {
				return
			}
			for _, damage := range p.e.o.Raw.Damage {
				h.set(key, "v", time.Hour)
				if err := damage.Do(p.ctx, p.ns, key); err != nil {
					p.failf("Raw.Damage %q = %v | want nil", damage.Name, err)
				}
				_, err := h.b.Get(p.ctx, key)
				named("Get of an entry with "+damage.Name, "get", err)
				h.delete(key)
			}
		},
	},
}

// prefixesShareNothing does to one of three key spaces whatever else can be done,
// and looks at the others.
func (p *probe) prefixesShareNothing(bare, app, app2 *handle) {
	supports := p.e.profile.Supports
	for _, h := range []*handle{bare, app, app2} {
		h.set("k", "v", time.Hour)
		h.delete("new")
	}
	keys := []string{"k", "new"}
	app.setMany([]l2cache.Item{{Key: "k", Value: []byte("of app"), TTL: time.Hour}, {Key: "new", Value: []byte("of app"), TTL: time.Hour}})
	for _, h := range []*handle{bare, app2} {
		if got, _ := h.getMany(keys); len(got) != 1 || string(got["k"].Value) != "v" {
			p.failf("GetMany after SetMany behind another prefix = %d entries | want the one that was there", len(got))
		}
		if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
			p.failf("DeleteMany = %v | want nil", err)
		}
		h.set("k", "v", time.Hour)
	}
	app.wantHit("k", "of app")
	app.wantHit("new", "of app")
	if supports.Has(l2cache.CanTouch) {
		if err := l2cache.Touch(p.ctx, app.b, "k", time.Minute); err != nil {
			p.failf("Touch = %v | want nil", err)
		}
		for _, h := range []*handle{bare, app2} {
			if r := h.entry("k"); p.stored(time.Hour) > time.Minute && r.ttl <= time.Minute {
				p.failf("%v after Touch behind another prefix | want its own TTL", r)
			}
		}
	}
	if supports.Has(l2cache.CanAdd) {
		for _, h := range []*handle{bare, app2} {
			if added, err := l2cache.Add(p.ctx, h.b, "new", []byte("v"), time.Hour); !added || err != nil {
				p.failf("Add of a key that is there behind another prefix = %t, %v | want true", added, err)
			}
		}
		app.wantHit("new", "of app")
	}
	if supports.Has(l2cache.CanScan) {
		for info, err := range l2cache.Scan(p.ctx, app.b, "") {
			if err != nil || info.Key != "k" && info.Key != "new" {
				p.failf("Scan behind a prefix = %q, %v | want its own two keys", info.Key, err)
			}
		}
	}
	if supports.Has(l2cache.CanDeletePattern) {
		app.deletePattern("*")
		app.wantMiss("k")
		bare.wantHit("k", "v")
		app2.wantHit("k", "v")
	}
}

// wantKeyNamed wants err, of an operation behind the prefix app:, to name one of
// the caller's keys. A backend may have errors of its own, around one of ours too.
func (p *probe) wantKeyNamed(op string, err error, keys ...string) {
	if err == nil {
		p.failf("%s of key %s, which is invalid or whose ctx has ended, = nil | want an error", op, brief(keys[0]))
	}
	if failed, ok := err.(l2cache.KeyErrors); ok {
		for key, err := range failed {
			if !slices.Contains(keys, key) {
				p.failf("%s: the error is of key %s | want the caller's key", op, brief(key))
			}
			p.wantKeyNamed(op, err, key)
		}
		return
	}
	e, ok := err.(*l2cache.Error)
	if ok && (!slices.Contains(keys, e.Key) || strings.Contains(err.Error(), "app:")) {
		p.failf("%s: error of key %s: %v | want it to name that key", op, brief(keys[0]), err)
	}
}

// prefixed is a handle on h's data behind a prefix; closing it closes h, which the
// case leaves to the end.
func (p *probe) prefixed(h *handle, prefix string) *handle {
	return &handle{b: l2cache.WithPrefix(h.b, prefix), p: p, closed: true}
}
