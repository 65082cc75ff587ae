package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
)

// patience is how long a backend may take to notice that its server is back, or
// gone, before a case fails.
const patience = 10 * time.Second

var faultCases = []Case{
	{
		ID:    "faults/ping",
		Law:   "Ping is nil exactly while the server answers, and obeys its ctx",
		cause: "an answer that Ping remembers, or a pool that hides the server's state",
		needs: needDown | needStall,
		Alone: true,
		run:   pingCase,
	},
	{
		ID:    "faults/cut-read",
		Law:   "a read whose connection is cut in the middle of the reply is ErrUnavailable, or it is repeated: never a miss or another value; the handle recovers",
		cause: "the length of a reply that is not checked, or the end of the stream that is taken for the end of the value",
		needs: needCut,
		Alone: true,
		run:   cutReadCase,
	},
	{
		ID:    "faults/cut-write",
		Law:   "a write whose connection is cut in the middle of the reply is ErrUnavailable and in doubt: the old entry, the new one or a miss, with its own TTL, and no later write is overtaken",
		cause: "value and TTL that are sent in two commands, or a write that is sent again after a reconnect",
		needs: needCut,
		Alone: true,
		run:   cutWriteCase,
	},
	{
		ID:         "faults/cut-add",
		Law:        "an Add whose connection is cut in the middle of the reply is ErrUnavailable and in doubt, and is not sent again",
		cause:      "a retry by the driver, which finds the value that the first try has stored",
		Capability: l2cache.CanAdd,
		needs:      needCut,
		Alone:      true,
		run:        cutAddCase,
	},
	{
		ID:    "faults/cut-batch",
		Law:   "after a cut in the middle of a batch's replies, every key is in the result or named by the error",
		cause: "an error in the middle of the replies that ends the batch as if it were complete",
		needs: needCut,
		Alone: true,
		run:   cutBatchCase,
	},
	{
		ID:         "faults/cut-scan",
		Law:        "a Scan whose connection is cut ends with an error, or is complete",
		cause:      "an error between two pages that is taken for the last page",
		Capability: l2cache.CanScan,
		needs:      needCut,
		Alone:      true,
		run:        cutScanCase,
	},
	{
		ID:    "faults/linearizable",
		Law:   "through kills, stalls and cuts, operations on one key take effect one after another; one in doubt takes effect at most once, after its call",
		cause: "a write that is sent again after a fault, or a read that is answered from what was known before it",
		needs: needDown | needStall | needCut,
		After: []string{"concurrency/linearizable"},
		Alone: true,
		run:   linearizableUnderFaultsCase,
	},
}

// down takes the server down, and brings it back when the case ends.
func (p *probe) down() {
	p.fault("Down", p.e.o.Faults.Down)
	p.restore("Up", p.e.o.Faults.Up)
}

func (p *probe) up() {
	p.fault("Up", p.e.o.Faults.Up)
	p.restored()
}

func (p *probe) stall() {
	p.fault("Stall", p.e.o.Faults.Stall)
	p.restore("Resume", p.e.o.Faults.Resume)
}

func (p *probe) resume() {
	p.fault("Resume", p.e.o.Faults.Resume)
	p.restored()
}

func (p *probe) fault(name string, hook func(context.Context) error) {
	if err := hook(p.ctx); err != nil {
		p.failf("Faults.%s = %v | want nil", name, err)
	}
	p.note("[%s]@%v", name, p.at(time.Now()))
}

// settle waits until the backend has noticed that its server is back. How soon it
// does is for the backend's own tests; here it has to within patience.
func (h *handle) settle() {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = h.b.Ping(h.p.ctx); err == nil {
			return
		}
		if errors.Is(err, l2cache.ErrNotFound) || isContextErr(err) {
			h.p.failf("Ping = %v while the server comes back | want ErrUnavailable", err)
		}
	}
	h.p.failf("Ping = %v, %v after the server was back | want nil", err, patience)
}

// cut lets n more bytes of replies pass on each open connection.
func (p *probe) cut(n int) {
	hook := p.e.o.Faults.CutMidReply
	p.fault(fmt.Sprintf("CutMidReply(%d)", n), func(ctx context.Context) error { return hook(ctx, n) })
	p.restore("CutMidReply(-1)", func(ctx context.Context) error { return hook(ctx, -1) })
}

// uncut takes back what is still to be cut, and waits until the backend has noticed
// what was.
func (p *probe) uncut(h *handle) {
	p.fault("CutMidReply(-1)", func(ctx context.Context) error { return p.e.o.Faults.CutMidReply(ctx, -1) })
	p.restored()
	h.settle()
}

// wantDoubt wants a call that met a fault to have succeeded, or failed with
// ErrUnavailable.
func (p *probe) wantDoubt(op string, err error) {
	if err != nil {
		p.wantError(operation{name: op}, outcome{err: err}, l2cache.ErrUnavailable)
	}
}

func pingCase(p *probe) {
	h := p.open()
	up := func() {
		for range 5 {
			if err := h.b.Ping(p.ctx); err != nil {
				p.failf("Ping = %v | want nil: the server answers", err)
			}
			h.wantMiss("absent")
		}
	}
	ping := operations[slices.IndexFunc(operations, func(op operation) bool { return op.name == "Ping" })]
	up()
	p.down()
	for range 3 {
		p.wantError(ping, h.try(p.ctx, ping, ""), l2cache.ErrUnavailable)
	}
	p.up()
	h.settle()
	up()
	p.stall()
	ctx, cancel := context.WithTimeout(p.ctx, min(50*time.Millisecond, p.e.o.OpTimeout/4))
	p.wantError(ping, h.try(ctx, ping, ""), context.DeadlineExceeded)
	cancel()
	p.wantError(ping, h.try(p.ctx, ping, ""), l2cache.ErrUnavailable)
	p.resume()
	h.settle()
	up()
}

// cuts are after how many bytes of a reply the connection is cut: within its first
// line, behind it, and deep in a value of cutValueLen bytes.
var cuts = []int{0, 1, 3, 8, 30, 90, 400, 5000, 30_000}

const cutValueLen = 40_000

func cutReadCase(p *probe) {
	h := p.open()
	values := map[string]string{"large": noise(cutValueLen, 1), "small": "v"}
	for key, value := range values {
		h.set(key, value, time.Hour)
	}
	other := map[string]string{"large": "small", "small": "absent", "absent": "large"}
	for i, n := range cuts {
		for _, key := range []string{"large", "small", "absent"} {
			if n > 100 && key != "large" {
				continue
			}
			p.cut(n)
			// The second read could get the rest of the first one's reply.
			for _, key := range []string{key, other[key]} {
				r := readers[i%2](h, p.ctx, key)
				value, there := values[key]
				switch {
				case r.hit() && (!there || string(r.value) != value):
					p.failf("%v from a connection that was cut after %d bytes | want %s or ErrUnavailable%s", r, n, brief(value), firstDifference(r, value))
				case errors.Is(r.err, l2cache.ErrNotFound) && there:
					p.failf("%v from a connection that was cut after %d bytes | want %s or ErrUnavailable", r, n, brief(value))
				case !r.hit() && !errors.Is(r.err, l2cache.ErrNotFound):
					p.wantError(operation{name: r.op}, outcome{value: r.value, err: r.err}, l2cache.ErrUnavailable)
				}
			}
			p.uncut(h)
			for key, value := range values {
				h.wantHit(key, value)
			}
			h.wantMiss("absent")
		}
	}
}

func cutWriteCase(p *probe) {
	h := p.open()
	const oldTTL, newTTL = time.Hour, time.Minute
	for i, n := range []int{0, 1, 4, 0, 2, 7} {
		key, removed := fmt.Sprint("k", i), fmt.Sprint("removed", i)
		h.set(key, "old", oldTTL)
		h.set(removed, "old", oldTTL)
		p.cut(n)
		_, err := h.trySet(p.ctx, key, []byte("new"), newTTL)
		p.wantDoubt("Set", err)
		p.uncut(h)
		p.cut(n)
		gone := h.tryDelete(p.ctx, removed)
		p.wantDoubt("Delete", gone)
		p.uncut(h)
		for range 2 {
			r := h.read((*handle).tryEntry, key)
			switch {
			case err == nil && (!r.hit() || string(r.value) != "new"), r.hit() && string(r.value) != "new" && string(r.value) != "old":
				p.failf("%v after a Set that was cut off = %v | want the new value, or if it failed the old one or a miss", r, err)
			case r.hit() && p.stored(oldTTL) > 2*newTTL && (string(r.value) == "new") != (r.ttl <= newTTL+p.resolution()):
				p.failf("%v after a Set that was cut off | want the new value with %v, or the old one with %v", r, newTTL, oldTTL)
			}
			r = h.read((*handle).tryGet, removed)
			if r.hit() && (gone == nil || string(r.value) != "old") {
				p.failf("%v after a Delete that was cut off = %v | want a miss, or if it failed the old value", r, gone)
			}
		}
		h.set(key, "since", oldTTL)
		h.set(removed, "since", oldTTL)
		for range 10 {
			h.wantHit(key, "since")
			h.wantHit(removed, "since")
			time.Sleep(15 * time.Millisecond)
		}
	}
}

func cutAddCase(p *probe) {
	h := p.open()
	for i, n := range []int{0, 1, 3, 0, 2, 5} {
		key := fmt.Sprint("k", i)
		h.wantMiss(key)
		p.cut(n)
		added, err := l2cache.Add(p.ctx, h.b, key, []byte("v"), time.Hour)
		p.note("Add(%q)@%v%s", key, p.at(time.Now()), failure(err))
		p.wantDoubt("Add", err)
		if err == nil && !added {
			p.failf("Add of an absent key = false after its connection was cut | want true or ErrUnavailable: it was sent twice")
		}
		p.uncut(h)
		for range 2 {
			r := h.read((*handle).tryGet, key)
			if added && !r.hit() || r.hit() && string(r.value) != "v" {
				p.failf("%v after Add = %t, %v | want \"v\", or a miss if it failed", r, added, err)
			}
		}
	}
}

func cutBatchCase(p *probe) {
	h := p.open()
	const keys, size = 20, 2000
	var all []string
	var items []l2cache.Item
	for i := range keys {
		all = append(all, fmt.Sprint("k", i))
		items = append(items, l2cache.Item{Key: all[i], Value: []byte(noise(size, uint64(i))), TTL: time.Hour})
	}
	h.setMany(items)
	// lost are the keys that failed: all of them if the error does not name them.
	lost := func(op string, err error) map[string]bool {
		p.wantDoubt(op, err)
		failed := map[string]bool{}
		var named l2cache.KeyErrors
		for _, key := range all {
			if errors.As(err, &named) {
				failed[key] = named[key] != nil
			} else {
				failed[key] = err != nil
			}
		}
		return failed
	}
	for _, n := range []int{0, 5, 100, 1900, 10_000, 25_000, keys*size - 100} {
		p.cut(n)
		got, err := l2cache.GetMany(p.ctx, h.b, slices.Concat([]string{"absent"}, all))
		p.note("GetMany(%d)@%v%s", keys+1, p.at(time.Now()), failure(err))
		failed := lost("GetMany", err)
		for i, key := range all {
			e, ok := got[key]
			if ok && string(e.Value) != string(items[i].Value) {
				p.failf("GetMany cut after %d bytes has %s under %q | want its own value", n, brief(string(e.Value)), key)
			}
			if !ok && !failed[key] {
				p.failf("GetMany cut after %d bytes = %d entries, %v; %q is in neither | want it in the map or in the error", n, len(got), err, key)
			}
		}
		p.uncut(h)
	}
	for round, n := range []int{0, 3, 20, 60} {
		value := fmt.Sprint("of round ", round)
		for i := range items {
			items[i].Value = []byte(value)
		}
		p.cut(n)
		err := l2cache.SetMany(p.ctx, h.b, items)
		p.note("SetMany(%d)@%v%s", keys, p.at(time.Now()), failure(err))
		failed := lost("SetMany", err)
		p.uncut(h)
		for _, key := range all {
			if r := h.read((*handle).tryGet, key); !failed[key] && (!r.hit() || string(r.value) != value) {
				p.failf("%v after SetMany = %v | want %q, or an error for the key", r, err, value)
			}
		}
		p.cut(n)
		err = l2cache.DeleteMany(p.ctx, h.b, all)
		p.note("DeleteMany(%d)@%v%s", keys, p.at(time.Now()), failure(err))
		failed = lost("DeleteMany", err)
		p.uncut(h)
		for _, key := range all {
			if r := h.read((*handle).tryGet, key); !failed[key] && r.hit() {
				p.failf("%v after DeleteMany = %v | want a miss, or an error for the key", r, err)
			}
		}
	}
}

func cutScanCase(p *probe) {
	h := p.open()
	const keys = 1000
	var items []l2cache.Item
	for i := range keys {
		items = append(items, l2cache.Item{Key: fmt.Sprintf("key %04d", i), Value: []byte("v"), TTL: time.Hour})
	}
	h.setMany(items)
	scan := func() (map[string]bool, error) {
		seen := map[string]bool{}
		for info, err := range l2cache.Scan(p.ctx, h.b, "") {
			if err != nil {
				return seen, err
			}
			seen[info.Key] = true
		}
		return seen, nil
	}
	for _, n := range []int{0, 10, 1000, 5000, 20_000} {
		p.cut(n)
		seen, err := scan()
		p.note("Scan@%v%s", p.at(time.Now()), failure(err))
		p.wantDoubt("Scan", err)
		if err == nil && len(seen) != keys {
			p.failf("Scan cut after %d bytes = %d keys without an error | want %d, or an error", n, len(seen), keys)
		}
		p.uncut(h)
	}
	if seen, err := scan(); len(seen) != keys || err != nil {
		p.failf("Scan after the cuts = %d keys, %v | want %d", len(seen), err, keys)
	}
}
