package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
)

// The cases of this group hold for every backend: one without batches of its own
// has those of package l2cache.
var batchCases = []Case{
	{
		ID:    "batch/get",
		Law:   "GetMany returns the entries that there are, each under its own key, with its TTL; a missing key is in neither map nor error; whichever handle has stored it",
		cause: "replies that are matched by position after a miss was left out",
		run: func(p *probe) {
			h, peer := p.peers()
			var keys []string
			sets := map[string]span{}
			for i := range 60 {
				key := fmt.Sprint("k", i)
				keys = append(keys, key)
				if i%3 != 1 {
					sets[key] = h.set(key, "value of "+key, batchTTL(i))
				}
			}
			sets["k2"] = h.set("k2", "", batchTTL(2)) // an empty value is there, too
			p.ageTTLs()
			got, s := peer.getMany(keys)
			for i, key := range keys {
				e, hit := got[key]
				set, live := sets[key]
				if hit != live || hit && string(e.Value) != "value of "+key && (key != "k2" || len(e.Value) > 0) {
					p.failf("GetMany: %s = %s, there: %v | want its own value, there: %v", key, brief(string(e.Value)), hit, live)
				}
				if live {
					p.judgeTTL(read{op: "GetMany", key: key, value: e.Value, ttl: e.TTL, span: s}, set, batchTTL(i))
				}
			}
			if len(got) != len(sets) {
				p.failf("GetMany of %d entries = %d | want those", len(sets), len(got))
			}
		},
	},
	{
		ID:    "batch/set",
		Law:   "SetMany stores each item under its key with its own value and TTL, whatever the TTL",
		cause: "one TTL for the whole batch",
		After: []string{"batch/get"},
		timed: true,
		run: func(p *probe) {
			h, peer := p.peers()
			ttl := p.longer(400 * time.Millisecond)
			items := []l2cache.Item{
				{Key: "short", Value: []byte("s"), TTL: ttl},
				{Key: "hour", Value: []byte("h"), TTL: time.Hour},
				{Key: "forever", Value: nil, TTL: l2cache.NoExpiry},
				{Key: "large", Value: []byte(noise(50_000, 1)), TTL: time.Minute},
			}
			h.set("hour", "old", l2cache.NoExpiry)
			s := peer.setMany(items)
			for _, item := range items[1:] {
				h.wantHit(item.Key, string(item.Value))
				p.judgeTTL(h.entry(item.Key), s, item.TTL)
			}
			h.follow("short", s, ttl, readers...)
			h.wantHit("hour", "h")
			h.spansBatch()
		},
	},
	{
		ID:    "batch/delete",
		Law:   "DeleteMany removes its keys, those that are missing without an error, and no others",
		cause: "a delete that stops at the first key that is not there",
		run: func(p *probe) {
			h, peer := p.peers()
			var keys []string
			for i := range 40 {
				key := fmt.Sprint("k", i)
				if i%4 != 0 {
					h.set(key, key, time.Hour)
				}
				if i%2 == 0 {
					keys = append(keys, key)
				}
			}
			if err := l2cache.DeleteMany(p.ctx, peer.b, keys); err != nil {
				p.failf("DeleteMany of %d keys, half of them missing = %v | want nil", len(keys), err)
			}
			for i := range 40 {
				key := fmt.Sprint("k", i)
				if i%2 == 0 {
					h.wantMiss(key)
				} else {
					h.wantHit(key, key)
				}
			}
		},
	},
	{
		ID:    "batch/empty",
		Law:   "a batch without keys is done at once, without an error, and an empty map is not nil",
		cause: "a command without arguments, which the server refuses",
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			for _, keys := range [][]string{nil, {}} {
				if got, err := l2cache.GetMany(p.ctx, h.b, keys); err != nil || got == nil || len(got) != 0 {
					p.failf("GetMany of no keys = %v, %v | want an empty map", got, err)
				}
				if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
					p.failf("DeleteMany of no keys = %v | want nil", err)
				}
			}
			if err := l2cache.SetMany(p.ctx, h.b, nil); err != nil {
				p.failf("SetMany of no items = %v | want nil", err)
			}
			if got, _ := h.getMany([]string{"a", "b", "c"}); got == nil || len(got) != 0 {
				p.failf("GetMany of missing keys = %v | want an empty map", got)
			}
			h.wantHit("k", "v")
		},
	},
	{
		ID:    "batch/duplicates",
		Law:   "a key may come several times; of several items with one key the last counts",
		cause: "replies that are counted by key, or items that are sent in another order",
		run: func(p *probe) {
			h := p.open()
			for round := range 20 {
				last := fmt.Sprint("last of ", round)
				s := h.setMany([]l2cache.Item{
					{Key: "a", Value: []byte("first"), TTL: time.Minute},
					{Key: "b", Value: []byte("b"), TTL: time.Hour},
					{Key: "a", Value: []byte("second"), TTL: l2cache.NoExpiry},
					{Key: "a", Value: []byte(last), TTL: 2 * time.Hour},
				})
				got, _ := h.getMany([]string{"a", "b", "a", "missing", "b", "a", "missing"})
				if len(got) != 2 || string(got["a"].Value) != last || string(got["b"].Value) != "b" {
					p.failf("GetMany after SetMany with duplicates = %v | want a: %s, b: b", got, last)
				}
				p.judgeTTL(h.entry("a"), s, 2*time.Hour)
			}
			if err := l2cache.DeleteMany(p.ctx, h.b, []string{"a", "a", "b", "a"}); err != nil {
				p.failf("DeleteMany with duplicates = %v | want nil", err)
			}
			h.wantMiss("a")
			h.wantMiss("b")
		},
	},
	{
		ID:    "batch/many",
		Law:   "a batch may have thousands of keys, and values of all sizes",
		cause: "a limit of the server's on one command, or a time limit on the whole",
		run: func(p *probe) {
			h := p.open()
			const n = 2500
			value := func(i int) string { return noise(i%700, uint64(i)) }
			var items []l2cache.Item
			var keys []string
			for i := range n {
				keys = append(keys, fmt.Sprint("k", i))
				items = append(items, l2cache.Item{Key: keys[i], Value: []byte(value(i)), TTL: batchTTL(i)})
			}
			set := h.setMany(items)
			got, _ := h.getMany(keys)
			for i, key := range keys {
				if e, hit := got[key]; hit && string(e.Value) != value(i) {
					p.failf("GetMany of %d keys: %s = %s | want its value", n, key, brief(string(e.Value)))
				}
			}
			h.judgeBatch(items, set)
			if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
				p.failf("DeleteMany of %d keys = %v | want nil", n, err)
			}
			if got, _ := h.getMany(keys); len(got) != 0 {
				p.failf("GetMany after DeleteMany of %d keys = %d entries | want none", n, len(got))
			}
		},
	},
	{
		ID:    "batch/counts",
		Law:   "a batch has all of its keys, however many they are",
		cause: "a page, a chunk or a buffer that is full with the last key",
		After: []string{"batch/get"},
		run: func(p *probe) {
			h := p.open()
			const pool = 16 // of keys, to which each count adds its own
			for _, n := range fewKeys(map[bool]int{true: 1024, false: 129}[p.e.profile.Supports.Has(l2cache.CanSetMany|l2cache.CanDeleteMany)]) {
				var items []l2cache.Item
				keys := []string{}
				for i := range n {
					keys = append(keys, fmt.Sprint(n, ".", i))
					items = append(items, l2cache.Item{Key: keys[i], Value: []byte(noise(i%pool, uint64(i))), TTL: time.Hour})
				}
				begin := h.setMany(items).call
				if got, _ := h.getMany(keys); len(got) != n && !p.e.profile.Evicts {
					p.missed(begin, "GetMany after SetMany of %d keys = %d entries | want all", n, len(got))
				}
				for _, at := range []int{0, n - 1} {
					if r := h.read(readers[0], keys[at]); !h.spared(r) && string(r.value) != string(items[at].Value) {
						p.missed(begin, "%v after SetMany of %d keys | want %s", r, n, brief(string(items[at].Value)))
					}
				}
				if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
					p.failf("DeleteMany of %d keys = %v | want nil", n, err)
				}
				if got, _ := h.getMany(keys); len(got) != 0 {
					p.failf("GetMany after DeleteMany of %d keys = %d entries | want none", n, len(got))
				}
			}
			keys := make([]string, counts[len(counts)-1]) // and those that are set alone
			begin := time.Now()
			p.parallel(16, func(w int) {
				for i := w; i < len(keys); i += 16 {
					keys[i] = fmt.Sprint("alone", i)
					h.set(keys[i], "", time.Hour)
				}
			})
			for _, n := range counts {
				if got, _ := h.getMany(keys[:n]); len(got) != n && !p.e.profile.Evicts {
					p.missed(begin, "GetMany of %d keys = %d entries | want all", n, len(got))
				}
			}
		},
	},
	{
		ID:    "batch/large",
		Law:   "a batch may have values of many megabytes in all",
		cause: "replies that together are too large for one message",
		run: func(p *probe) {
			h := p.open()
			const n, size = 24, 400_000
			var keys []string
			for i := range n {
				keys = append(keys, fmt.Sprint("k", i))
			}
			items := make([]l2cache.Item, n)
			for i, key := range keys {
				items[i] = l2cache.Item{Key: key, Value: []byte(noise(size, uint64(i))), TTL: time.Hour}
			}
			h.setMany(items)
			got, _ := h.getMany(keys)
			for i, key := range keys {
				if e, hit := got[key]; hit && string(e.Value) != string(items[i].Value) || !hit && !p.e.profile.Evicts {
					p.failf("GetMany of %d values of %d bytes: %s, there: %v | want it whole", n, size, brief(string(e.Value)), hit)
				}
			}
			if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
				p.failf("DeleteMany = %v | want nil", err)
			}
		},
	},
	{
		ID:    "batch/expired",
		Law:   "an expired entry is in no batch",
		cause: "a batch that reads past the check of the deadline",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 200 * time.Millisecond
			s := h.setMany([]l2cache.Item{{Key: "a", TTL: ttl}, {Key: "b", TTL: time.Hour}, {Key: "c", TTL: ttl}})
			p.gone(s, ttl)
			if got, _ := h.getMany([]string{"a", "b", "c"}); len(got) != 1 || got["b"].TTL == 0 {
				p.failf("GetMany = %v | want b only", slices.Collect(maps.Keys(got)))
			}
			if err := l2cache.DeleteMany(p.ctx, h.b, []string{"a", "c"}); err != nil {
				p.failf("DeleteMany of expired keys = %v | want nil", err)
			}
		},
	},
	{
		ID:    "batch/invalid",
		Law:   "if one key or TTL of a batch is invalid, nothing is done",
		cause: "a batch that is sent up to the item that is refused",
		run:   invalidBatchCase,
	},
	{
		ID:    "batch/same-as-single",
		Law:   "a batch gives what single calls give",
		cause: "a second path to the store, with other encodings or limits",
		run: func(p *probe) {
			h := p.open()
			keys := append(someLookalikes(p.e.profile.MaxKeyLen, 120), "a\r\nb", "\xff", " ", "*")
			var items []l2cache.Item
			for i, key := range keys {
				items = append(items, l2cache.Item{Key: key, Value: []byte(noise(i*3, uint64(i))), TTL: batchTTL(i)})
			}
			s := h.setMany(items)
			want := map[string]l2cache.Item{}
			for _, item := range items {
				want[item.Key] = item
			}
			got, _ := h.getMany(keys)
			for key, item := range want {
				r := h.read((*handle).tryEntry, key)
				if h.spared(r) {
					continue
				}
				if !r.hit() || string(r.value) != string(item.Value) || string(got[key].Value) != string(item.Value) {
					p.failf("%v, GetMany: %s | want %s from both", r, brief(string(got[key].Value)), brief(string(item.Value)))
				}
				p.judgeTTL(r, s, item.TTL)
			}
		},
	},
	{
		ID:    "batch/memory",
		Law:   "a batch neither keeps nor changes its arguments, and its results belong to the caller",
		cause: "keys that are sorted or prefixed in place, or values that share a buffer",
		run:   batchMemoryCase,
	},
	{
		ID:    "batch/ended-context",
		Law:   "a batch whose ctx has ended, or whose backend is closed, fails as a single call does, and does nothing",
		cause: "a batch that looks at its ctx only between items",
		run: func(p *probe) {
			h := p.open()
			h.set("there", "old", time.Hour)
			ctx, cancel := context.WithCancel(p.ctx)
			cancel()
			for _, op := range batchOperations {
				p.wantError(op, h.try(ctx, op, "there"), context.Canceled)
				p.wantError(op, h.try(ctx, op, "absent"), context.Canceled)
			}
			h.wantHit("there", "old")
			h.wantMiss("absent")
			h.close()
			for _, op := range batchOperations {
				p.wantError(op, h.try(p.ctx, op, "there"), l2cache.ErrClosed)
			}
		},
	},
	{
		ID:    "batch/down",
		Law:   "a batch that cannot be answered is ErrUnavailable for its keys, never a map without them and no error",
		cause: "a partial result that is returned as if it were all",
		needs: needDown,
		Alone: true,
		run: func(p *probe) {
			h := p.open()
			h.set("k0", "v", time.Hour)
			h.set("k1", "v", time.Hour)
			p.down()
			for range 2 {
				for _, op := range batchOperations {
					p.wantError(op, h.try(p.ctx, op, "k"), l2cache.ErrUnavailable)
				}
			}
			p.up()
			h.settle()
			for _, op := range batchOperations {
				if o := h.try(p.ctx, op, "k"); o.err != nil {
					p.failf("%s after recovery = %v | want nil", op.name, o.err)
				}
			}
		},
	},
	{
		ID:    "batch/stalled",
		Law:   "a batch against a server that does not answer returns when its ctx ends, by its deadline or by cancellation",
		cause: "a batch that honours ctx between its round trips only",
		needs: needStall,
		Alone: true,
		run: func(p *probe) {
			p.promptly(batchOperations, context.DeadlineExceeded, func(end time.Time) (context.Context, context.CancelFunc) {
				return context.WithDeadline(p.ctx, end)
			})
			p.promptly(batchOperations, context.Canceled, func(end time.Time) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(p.ctx)
				time.AfterFunc(time.Until(end), cancel)
				return ctx, cancel
			})
		},
	},
	{
		ID:    "batch/damaged",
		Law:   "a key that cannot be read fails alone: the error names it, and the others are in the map",
		cause: "a batch that fails, or is cut short, at the first bad reply",
		needs: needDamage,
		run: func(p *probe) {
			p.damaged(func(h *handle, key, name string) {
				h.set("other", "whole", time.Hour)
				got, err := l2cache.GetMany(p.ctx, h.b, []string{"other", key, "missing", "neighbour"})
				var failed l2cache.KeyErrors
				if !errors.As(err, &failed) || len(failed) != 1 || !errors.Is(failed[key], l2cache.ErrCorrupt) {
					p.failf("GetMany with a damaged key (%s) = %v | want KeyErrors with ErrCorrupt for it alone", name, err)
				}
				if len(got) != 2 || string(got["other"].Value) != "whole" || string(got["neighbour"].Value) != "whole" {
					p.failf("GetMany with a damaged key (%s) = %d entries | want the two others", name, len(got))
				}
			})
		},
	},
}

// batchTTL gives the items of a batch TTLs that differ.
func batchTTL(i int) time.Duration {
	if i%5 == 4 {
		return l2cache.NoExpiry
	}
	return time.Duration(i+1) * time.Minute
}

// ageTTLs waits until a TTL that was set before is no longer what is left of it.
func (p *probe) ageTTLs() { time.Sleep(2*p.resolution() + time.Millisecond) }

// batchOperations are the batches as operations, on two keys that begin as told.
var batchOperations = []operation{
	{"GetMany", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		_, err := l2cache.GetMany(ctx, b, []string{key + "0", key, key + "1"})
		return nil, err
	}},
	{"SetMany", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, l2cache.SetMany(ctx, b, []l2cache.Item{{Key: key, Value: []byte("written"), TTL: time.Hour}, {Key: key + "1", TTL: time.Hour}})
	}},
	{"DeleteMany", true, func(ctx context.Context, b l2cache.L2CacheBackend, key string) ([]byte, error) {
		return nil, l2cache.DeleteMany(ctx, b, []string{key + "1", key})
	}},
}

// getMany reads keys, which must not fail.
func (h *handle) getMany(keys []string) (map[string]l2cache.Entry, span) {
	s := span{call: time.Now()}
	got, err := l2cache.GetMany(h.p.ctx, h.b, keys)
	s.done = time.Now()
	h.note("GetMany(%d)@%v", len(keys), h.p.at(time.Now()))
	if err != nil {
		h.p.failf("GetMany of %d keys = %v | want nil", len(keys), err)
	}
	return got, s
}

// setMany stores items, which must not fail.
func (h *handle) setMany(items []l2cache.Item) span {
	s := span{call: time.Now()}
	err := l2cache.SetMany(h.p.ctx, h.b, items)
	s.done = time.Now()
	h.note("SetMany(%d)@%v", len(items), h.p.at(time.Now()))
	if err != nil {
		h.p.failf("SetMany of %d items = %v | want nil", len(items), err)
	}
	return s
}

// spansBatch is spans for one batch.
func (h *handle) spansBatch() {
	p, ttls := h.p, spread()
	items := make([]l2cache.Item, len(ttls))
	for i, ttl := range ttls {
		items[i] = l2cache.Item{Key: fmt.Sprint("span", i), Value: []byte("v"), TTL: ttl}
	}
	var e evidence
	p.inParts(len(items), func(from, to int) { // each is followed once, and all are in each batch
		s := h.setMany(items)
		h.judgeBatch(items, s)
		p.parallel(to-from, func(i int) { h.glance(items[from+i].Key, s, items[from+i].TTL, &e) })
		h.judgeBatch(items, s)
	})
	e.want(p)
}

// judgeBatch wants GetMany to give those of items, stored in span set, that have not
// ended, each with its TTL.
func (h *handle) judgeBatch(items []l2cache.Item, set span) {
	keys := make([]string, len(items))
	for i, item := range items {
		keys[i] = item.Key
	}
	got, s := h.getMany(keys)
	for _, item := range items {
		e, hit := got[item.Key]
		r := read{op: "GetMany", key: item.Key, value: e.Value, ttl: e.TTL, span: s}
		if !hit {
			r.err = l2cache.ErrNotFound
		}
		h.p.judgeListed(r, set, item.TTL)
	}
}

// judgeListed judges an entry as a batch or a Scan has found it.
func (p *probe) judgeListed(r read, set span, ttl time.Duration) {
	switch {
	case r.hit() && r.call.After(p.end(set, ttl)):
		p.failf("%v at %v | want a miss from %v", r, p.at(r.call), p.at(p.end(set, ttl)))
	case r.hit():
		p.judgeTTL(r, set, ttl)
	case !p.e.profile.Evicts && r.done.Before(set.call.Add(min(ttl, p.e.profile.MaxTTL))):
		p.failf("%v at %v | want a hit: it was set for %s at %v", r, p.at(r.done), ttlText(ttl), p.at(set.call))
	}
}

func invalidBatchCase(p *probe) {
	h := p.open()
	set := h.set("there", "old", time.Hour)
	long := noise(p.e.profile.MaxKeyLen+1, 1)
	many := operation{name: "SetMany"}
	for _, key := range []string{"", long} {
		for _, at := range []int{0, 1, 2} {
			keys := slices.Insert([]string{"there", "absent"}, at, key)
			var items []l2cache.Item
			for _, key := range keys {
				items = append(items, l2cache.Item{Key: key, Value: []byte("new"), TTL: time.Minute})
			}
			got, err := l2cache.GetMany(p.ctx, h.b, keys)
			p.wantError(operation{name: "GetMany"}, outcome{err: err}, l2cache.ErrInvalidKey)
			if len(got) != 0 {
				p.failf("GetMany with an invalid key = %d entries | want none", len(got))
			}
			p.wantError(many, outcome{err: l2cache.SetMany(p.ctx, h.b, items)}, l2cache.ErrInvalidKey)
			p.wantError(operation{name: "DeleteMany"}, outcome{err: l2cache.DeleteMany(p.ctx, h.b, keys)}, l2cache.ErrInvalidKey)
		}
	}
	for _, ttl := range []time.Duration{0, -1, -time.Hour} {
		for _, at := range []int{0, 1, 2} {
			items := []l2cache.Item{{Key: "there", TTL: time.Minute}, {Key: "absent", TTL: time.Minute}, {Key: "third", TTL: time.Minute}}
			items[at].TTL = ttl
			p.wantError(many, outcome{err: l2cache.SetMany(p.ctx, h.b, items)}, l2cache.ErrInvalidTTL)
		}
	}
	h.wantHit("there", "old")
	h.wantMiss("absent")
	h.wantMiss("third")
	p.judgeTTL(h.entry("there"), set, time.Hour)
}

func batchMemoryCase(p *probe) {
	h := p.open()
	keys := []string{"c", "a", "b", "a"}
	items := []l2cache.Item{
		{Key: "c", Value: []byte("value of c"), TTL: time.Hour},
		{Key: "a", Value: []byte("value of a"), TTL: time.Hour},
		{Key: "b", Value: []byte("value of b"), TTL: 1500 * time.Microsecond * 1e6},
	}
	before := slices.Clone(items)
	h.setMany(items)
	for i := range items {
		if items[i].Key != before[i].Key || items[i].TTL != before[i].TTL || string(items[i].Value) != "value of "+before[i].Key {
			p.failf("SetMany changed its item %d to %v | want it left alone", i, items[i])
		}
		for j := range items[i].Value {
			items[i].Value[j] = 'x'
		}
		items[i].Key = "x"
	}
	first, _ := h.getMany(keys)
	if !slices.Equal(keys, []string{"c", "a", "b", "a"}) {
		p.failf("GetMany changed its keys to %q | want them left alone", keys)
	}
	second, _ := h.getMany(keys)
	for _, key := range []string{"a", "b", "c"} {
		if got := string(first[key].Value); got != "value of "+key {
			p.failf("GetMany of %s = %q after another value of the same result was appended to | want its value", key, got)
		}
		for i := range first[key].Value {
			first[key].Value[i] = 'y'
		}
		_ = append(first[key].Value, '!')
		delete(first, key)
	}
	for _, key := range []string{"a", "b", "c"} {
		if got := string(second[key].Value); got != "value of "+key {
			p.failf("GetMany of %s = %q after another result was changed | want its value", key, got)
		}
		h.wantHit(key, "value of "+key)
	}
	if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil || !slices.Equal(keys, []string{"c", "a", "b", "a"}) {
		p.failf("DeleteMany = %v, keys %q | want nil, and its keys left alone", err, keys)
	}
}
