package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/l2cache/l2cache"
)

var errorCases = []Case{
	{
		ID:    "errors/precedence",
		Law:   "where several errors apply, the first of these is returned: the ctx's own, ErrClosed, ErrInvalidKey, ErrInvalidTTL, ErrTooLarge",
		cause: "arguments that are looked at before the ctx, or after the work has begun",
		run:   precedenceCase,
	},
	{
		ID:    "errors/down",
		Law:   "a backend that cannot answer gives ErrUnavailable, never a miss, on every operation",
		cause: "an error that is swallowed, or taken for a miss",
		needs: needDown,
		Alone: true,
		run:   downCase,
	},
	{
		ID:    "errors/recovers",
		Law:   "the same handle works again when the server is back, with every operation",
		cause: "a connection that is given up for good, or stale ones in a pool",
		needs: needDown,
		Alone: true,
		After: []string{"errors/down"},
		run: func(p *probe) {
			h := p.open()
			h.set("k", "before", time.Hour)
			p.down()
			h.tryGet(p.ctx, "k")
			p.up()
			h.settle()
			h.set("k", "after", time.Hour)
			h.wantHit("k", "after")
			if !p.e.profile.Exclusive {
				p.open().wantHit("k", "after") // it is the same data as before
			}
			h.delete("k")
			h.wantMiss("k")
			h.set("k", "v", time.Hour)
			for _, op := range append(p.operations(), batchOperations...) {
				if o := h.try(p.ctx, op, "k"); o.err != nil && !errors.Is(o.err, l2cache.ErrNotFound) {
					p.failf("%s after the server was back = %v | want nil or a miss", op.name, o.err)
				}
			}
		},
	},
	{
		ID:    "errors/no-replay",
		Law:   "a write that failed because the server was gone does not happen when it is back",
		cause: "a queue of the driver's for writes without a connection, which is sent after the next connect",
		needs: needDown,
		Alone: true,
		After: []string{"errors/down"},
		run:   noReplayCase,
	},
	{
		ID:    "errors/open-dead",
		Law:   "opening a backend whose server is gone ends, with an error or with a backend that says ErrUnavailable",
		cause: "a constructor that waits for ever, or hides that it could not connect",
		needs: needDown,
		Alone: true,
		run: func(p *probe) {
			p.down()
			ctx, cancel := context.WithTimeout(p.ctx, patience)
			defer cancel()
			b, err := p.e.open(ctx, p.ns)
			if ctx.Err() != nil {
				p.failf("open of a dead server took all of %v | want an error before", patience)
			}
			if err == nil {
				h := p.wrap(b)
				p.wantError(operations[0], h.try(p.ctx, operations[0], "k"), l2cache.ErrUnavailable)
			} else if errors.Is(err, l2cache.ErrNotFound) || isContextErr(err) {
				p.failf("open of a dead server = %v | want neither a miss nor a context error", err)
			}
			p.up()
			p.opens()
		},
	},
	{
		ID:    "errors/corrupt",
		Law:   "stored bytes that are not an entry are ErrCorrupt: not served, not a miss, and no panic",
		cause: "a decoder that trusts what it reads, or an unknown error that counts as a miss",
		needs: needDamage,
		run: func(p *probe) {
			p.damaged(func(h *handle, key, name string) {
				for _, op := range operations[:2] {
					o := h.try(p.ctx, op, key)
					if !errors.Is(o.err, l2cache.ErrCorrupt) {
						p.failf("%s after damage (%s) = %d bytes, %v | want ErrCorrupt", op.name, name, len(o.value), o.err)
					}
					p.wantError(op, o, l2cache.ErrCorrupt)
				}
			})
		},
	},
	{
		ID:    "errors/corrupt-replaced",
		Law:   "what cannot be read can be replaced by Set and removed by Delete, alone, in a batch or by pattern, also if nobody has read it before",
		cause: "a write that looks at what is there",
		needs: needDamage,
		run: func(p *probe) {
			p.damaged(func(h *handle, key, _ string) {
				set := h.set(key, "new", time.Minute)
				h.wantHit(key, "new")
				p.judgeTTL(h.entry(key), set, time.Minute)
			})
			p.damaged(func(h *handle, key, _ string) {
				h.delete(key)
				h.wantMiss(key)
			})
			p.damaged(func(h *handle, key, _ string) {
				set := h.setMany([]l2cache.Item{{Key: key, Value: []byte("new"), TTL: time.Minute}, {Key: "other", TTL: time.Minute}})
				h.wantHit(key, "new")
				p.judgeTTL(h.entry(key), set, time.Minute)
			})
			p.damaged(func(h *handle, key, name string) {
				if err := l2cache.DeleteMany(p.ctx, h.b, []string{"missing", key}); err != nil {
					p.failf("DeleteMany with a damaged key (%s) = %v | want nil", name, err)
				}
				h.wantMiss(key)
			})
			if p.e.profile.Supports.Has(l2cache.CanDeletePattern) {
				p.damaged(func(h *handle, key, _ string) {
					h.deletePattern("k?")
					h.wantMiss(key)
					h.wantHit("neighbour", "whole")
				})
			}
		},
	},
	{
		ID:    "errors/corrupt-stays",
		Law:   "a read does not delete what it cannot read, and does no harm to other keys; Set replaces it and Delete removes it",
		cause: "a read that cleans up after a decoder's error",
		needs: needDamage | needStored,
		run: func(p *probe) {
			p.damaged(func(h *handle, key, name string) {
				for _, op := range operations[:2] {
					h.try(p.ctx, op, key)
				}
				stored, err := p.e.o.Raw.Stored(p.ctx, p.ns, key)
				if err != nil || !stored {
					p.failf("after a read of what was damaged (%s), the store has it: %v, %v | want it left alone", name, stored, err)
				}
				h.wantHit("neighbour", "whole")
				h.set(key, "new", time.Hour)
				h.wantHit(key, "new")
				h.delete(key)
				h.wantMiss(key)
			})
		},
	},
}

func precedenceCase(p *probe) {
	large := []byte{}
	if n := p.e.profile.MaxValueLen; n > 0 && n <= maxTestedValue {
		large = make([]byte, n+1)
	}
	ended, cancel := context.WithCancel(p.ctx)
	cancel()
	h := p.open()
	check := func(ctx context.Context, key string, ttl time.Duration, want error) {
		for _, op := range p.operations() {
			if op.keyed || want == context.Canceled || want == l2cache.ErrClosed {
				p.wantError(op, h.try(ctx, op, key), want)
			}
		}
		s, err := h.trySet(ctx, key, large, ttl)
		p.wantError(operation{name: "Set"}, outcome{span: s, err: err}, want)
	}
	check(ended, "", 0, context.Canceled)
	check(p.ctx, "", 0, l2cache.ErrInvalidKey)
	s, err := h.trySet(p.ctx, "k", large, -1)
	p.wantError(operation{name: "Set"}, outcome{span: s, err: err}, l2cache.ErrInvalidTTL)
	h.close()
	check(ended, "", 0, context.Canceled)
	check(p.ctx, "", 0, l2cache.ErrClosed)
}

func downCase(p *probe) {
	h := p.open()
	h.set("k", "v", time.Hour)
	h.wantHit("k", "v")
	p.down()
	for round := range 2 { // idle connections first, then none
		for _, op := range p.operations() {
			for _, key := range []string{"k", "absent"} {
				p.wantError(op, h.try(p.ctx, op, key), l2cache.ErrUnavailable)
			}
		}
		// With a deadline of the caller's that is far away it is no other.
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		for _, op := range p.operations() {
			p.wantError(op, h.try(ctx, op, fmt.Sprint("k", round)), l2cache.ErrUnavailable)
		}
		cancel()
	}
	p.up()
	h.settle()
}

// noReplayCase writes to a server that is gone, and then to one that is back. What
// failed before must not overtake what has succeeded since.
func noReplayCase(p *probe) {
	h := p.open()
	h.set("deleted", "old", time.Hour)
	p.down()
	h.tryGet(p.ctx, "k") // has the handle notice
	if _, err := h.trySet(p.ctx, "k", []byte("while it was down"), time.Hour); err == nil {
		p.failf("Set = nil from a server that is down | want ErrUnavailable")
	}
	if err := h.tryDelete(p.ctx, "deleted"); err == nil {
		p.failf("Delete = nil from a server that is down | want ErrUnavailable")
	}
	supports := p.e.profile.Supports
	writes := map[string]func() error{
		"SetMany": func() error {
			return l2cache.SetMany(p.ctx, h.b, []l2cache.Item{{Key: "k", TTL: time.Hour}, {Key: "k2", TTL: time.Hour}})
		},
		"DeleteMany": func() error { return l2cache.DeleteMany(p.ctx, h.b, []string{"deleted", "k2"}) },
	}
	if supports.Has(l2cache.CanAdd) {
		writes["Add"] = func() error { _, err := l2cache.Add(p.ctx, h.b, "k", nil, time.Hour); return err }
	}
	if supports.Has(l2cache.CanDeletePattern) {
		writes["DeletePattern"] = func() error { return l2cache.DeletePattern(p.ctx, h.b, "del*") }
	}
	for name, write := range writes {
		if write() == nil {
			p.failf("%s = nil from a server that is down | want ErrUnavailable", name)
		}
	}
	p.up()
	h.settle()
	h.set("deleted", "since", time.Hour)
	for range 20 {
		h.wantMiss("k")
		h.wantMiss("k2")
		h.wantHit("deleted", "since")
		time.Sleep(50 * time.Millisecond)
	}
}

// opens waits until the backend can be opened again: a case that follows does not.
func (p *probe) opens() {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var b l2cache.L2CacheBackend
		if b, err = p.e.open(p.ctx, p.ns); err == nil {
			p.wrap(b).settle()
			return
		}
	}
	p.failf("open = %v, %v after the server was back | want a backend", err, patience)
}

// damaged runs f on an entry for each way in which one can be damaged.
func (p *probe) damaged(f func(h *handle, key, name string)) {
	h := p.open()
	for i, damage := range p.e.o.Raw.Damage {
		key := fmt.Sprint("k", i)
		h.set("neighbour", "whole", time.Hour)
		h.set(key, "a value that will be damaged", time.Hour)
		if err := damage.Do(p.ctx, p.ns, key); err != nil {
			p.failf("Raw.Damage %q = %v | want nil", damage.Name, err)
		}
		p.note("[%s: %s]", key, damage.Name)
		f(h, key, damage.Name)
		h.delete(key)
	}
	h.close()
}
