package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var scanCases = []Case{
	{
		ID:         "scan/complete",
		Law:        "Scan yields each live key at least once, as the caller knows it, with the size of its value, and nothing that is none of the caller's",
		cause:      "keys in their encoded form, or the backend's own rows",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			want := map[string]int{}
			for i, key := range slices.Concat(someLookalikes(p.e.profile.MaxKeyLen, 80), []string{"a", "a:b", "a/b", "a.b", "\x00", "\xff", " ", "*", "a\r\nb", "日本", strings.Repeat("k", p.e.profile.MaxKeyLen)}) {
				h.set(key, noise(i*50, 1), time.Hour)
				want[key] = i * 50
			}
			for key, n := range map[string]int{"o": 0, "p": 100_000, "q": 300_000, "r": guaranteedValueLen} {
				h.set(key, noise(n, 1), l2cache.NoExpiry)
				want[key] = n
			}
			h.set("deleted", "v", time.Hour)
			h.delete("deleted")
			infos := h.scan("")
			for key, size := range want {
				if info, seen := infos[key]; !seen || info.Size != size {
					p.failf("Scan: %s, seen: %v, size %d | want it with %d", brief(key), seen, info.Size, size)
				}
			}
			for key := range infos {
				if _, ours := want[key]; !ours {
					p.failf("Scan yields %s | want only keys that were set", brief(key))
				}
			}
		},
	},
	{
		ID:         "scan/ttl",
		Law:        "the TTL of each of many keys is what GetWithTTL gives, and the size that of its value",
		cause:      "the time that was set, or whole seconds",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			// A few first, for on a busy machine many take their time.
			for i := range 30 {
				key := fmt.Sprint("one", i)
				set := h.set(key, "v", batchTTL(i))
				p.ageTTLs()
				s := span{call: time.Now()}
				info, seen := h.scan(key)[key]
				s.done = time.Now()
				r := read{op: "Scan", key: key, ttl: info.TTL, span: s}
				if !seen {
					r.err = l2cache.ErrNotFound
				}
				p.judgeListed(r, set, batchTTL(i))
				h.delete(key)
			}
			var items []l2cache.Item
			for _, ttl := range spread() {
				items = append(items, l2cache.Item{Key: fmt.Sprint("k", len(items)), Value: []byte(noise(len(items), 1)), TTL: ttl})
			}
			for i := range 1200 {
				items = append(items, l2cache.Item{Key: fmt.Sprint("k", len(items)), Value: []byte(noise(len(items), 1)), TTL: batchTTL(i)})
			}
			set := h.setMany(items)
			p.ageTTLs()
			s := span{call: time.Now()}
			infos := h.scan("")
			s.done = time.Now()
			for _, item := range items {
				info, seen := infos[item.Key]
				r := read{op: "Scan", key: item.Key, ttl: info.TTL, span: s}
				if !seen {
					r.err = l2cache.ErrNotFound
				} else if info.Size != len(item.Value) {
					p.failf("Scan: %s with size %d | want %d", item.Key, info.Size, len(item.Value))
				}
				p.judgeListed(r, set, item.TTL)
			}
		},
	},
	{
		ID:         "scan/expired",
		Law:        "Scan never yields an expired entry",
		cause:      "a listing that does not look at deadlines",
		Capability: l2cache.CanScan,
		timed:      true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 150 * time.Millisecond
			var s span
			for i := range 50 {
				s = h.set(fmt.Sprint("gone", i), "v", ttl)
			}
			h.set("stays", "v", time.Hour)
			p.gone(s, ttl)
			if infos := h.scan(""); len(infos) != 1 || infos["stays"].TTL == 0 {
				p.failf("Scan yields %d keys | want the live one only", len(infos))
			}
		},
	},
	{
		ID:         "scan/prefix",
		Law:        "Scan yields the keys that begin with the prefix, byte for byte",
		cause:      "a prefix that is used as a pattern or a path",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			keys := []string{"a", "ab", "a:", "a:b", "a:b:c", "a/b", "a.b", "A", "b", "a*", "a*b", "a?", "a[b]", `a\b`, "*", "\xff", "\xffa", "a\x00", "a:b/c", "aa"}
			for _, key := range keys {
				h.set(key, "v", time.Hour)
			}
			for _, prefix := range append(keys, "", "a:b:", "a/", "a.", "x", "a[", "?") {
				infos := h.scan(prefix)
				for _, key := range keys {
					if _, seen := infos[key]; seen != strings.HasPrefix(key, prefix) {
						p.failf("Scan(%q): %q seen: %v | want %v", prefix, key, seen, !seen)
					}
				}
			}
		},
	},
	{
		ID:         "scan/many",
		Law:        "Scan yields every one of thousands of keys that are there all the time, while others come and go",
		cause:      "only the first page, or a cursor that loses its place",
		Capability: l2cache.CanScan,
		run:        scanManyCase,
	},
	{
		ID:         "scan/counts",
		Law:        "Scan yields all keys, however many there are, none too",
		cause:      "a page that is full with the last key, or the server's error for an empty store",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			if infos := h.scan(""); len(infos) != 0 {
				p.failf("Scan of an empty store yields %d keys | want none", len(infos))
			}
			n, begin := 0, time.Now()
			for _, count := range counts {
				var items []l2cache.Item
				for ; n < count; n++ {
					items = append(items, l2cache.Item{Key: fmt.Sprintf("k:%04d", n), TTL: time.Hour})
				}
				h.setMany(items)
				for _, prefix := range []string{"", "k:"} {
					if infos := h.scan(prefix); len(infos) != n && !p.e.profile.Evicts {
						p.missed(begin, "Scan(%q) of %d keys yields %d | want all", prefix, n, len(infos))
					}
				}
			}
			longest := strings.Repeat("p", p.e.profile.MaxKeyLen)
			h.set(longest, "v", time.Hour)
			if infos := h.scan(longest); len(infos) != 1 && !p.e.profile.Evicts {
				p.failf("Scan with the longest key for a prefix yields %d keys | want that key", len(infos))
			}
		},
	},
	{
		ID:         "scan/peer",
		Law:        "Scan yields what any handle has stored, by any operation, and no longer what one has deleted",
		cause:      "an index of keys that a handle has for itself, or that some operation does not keep",
		Capability: l2cache.CanScan,
		timed:      true,
		run: func(p *probe) {
			a, b := p.peers()
			supports := p.e.profile.Supports
			ttl := p.longer(100 * time.Millisecond)
			var short span
			for _, h := range []*handle{b, a} {
				begin := time.Now()
				a.set("set", "v", time.Hour)
				a.setMany([]l2cache.Item{{Key: "set many", TTL: time.Hour}, {Key: "set too", TTL: time.Hour}})
				want := []string{"set", "set many", "set too", "longer"}
				if supports.Has(l2cache.CanAdd) {
					want = append(want, "added")
					a.add("added", "v", time.Hour, true)
				}
				short = a.set("longer", "v", ttl)
				a.set("longer", "v", time.Hour)
				if supports.Has(l2cache.CanTouch) {
					want = append(want, "touched")
					short = a.set("touched", "v", ttl)
					a.touchBefore(short.call.Add(ttl), "touched", time.Hour)
				}
				p.gone(short, ttl)
				infos := h.scan("")
				for _, key := range want {
					if _, seen := infos[key]; !seen && !p.e.profile.Evicts {
						p.missed(begin, "Scan leaves out %q | want it", key)
					}
				}
				for i, key := range want {
					switch {
					case i%3 == 0:
						a.delete(key)
					case i%3 == 1 && supports.Has(l2cache.CanDeletePattern):
						b.deletePattern(l2cache.QuotePattern(key))
					default:
						if err := l2cache.DeleteMany(p.ctx, a.b, []string{key}); err != nil {
							p.failf("DeleteMany = %v | want nil", err)
						}
					}
				}
				if infos := h.scan(""); len(infos) != 0 {
					p.failf("Scan after all was deleted yields %d keys | want none", len(infos))
				}
			}
		},
	},
	{
		ID:         "scan/side-by-side",
		Law:        "several Scans at a time, also one in the loop of another, do not disturb each other",
		cause:      "a cursor or a buffer that belongs to the handle",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			const n, inner = 300, 20
			var items []l2cache.Item
			for i := range n {
				items = append(items, l2cache.Item{Key: fmt.Sprint("k", i), TTL: time.Hour})
			}
			for i := range inner {
				items = append(items, l2cache.Item{Key: fmt.Sprint("in", i), TTL: time.Hour})
			}
			begin := h.setMany(items).call
			all := func(got int, prefix string, want int) {
				if got != want && !p.e.profile.Evicts {
					p.missed(begin, "Scan(%q) beside others yields %d keys | want %d", prefix, got, want)
				}
			}
			p.parallel(6, func(w int) {
				prefix, want := []string{"k", "in"}[w%2], []int{n, inner}[w%2]
				for range 5 {
					all(len(h.scan(prefix)), prefix, want)
				}
			})
			seen := map[string]bool{}
			for info, err := range l2cache.Scan(p.ctx, h.b, "k") {
				if err != nil {
					p.failf("Scan = %v | want no error", err)
				}
				if seen[info.Key] = true; len(seen)%50 == 1 {
					all(len(h.scan("in")), "in", inner)
				}
			}
			all(len(seen), "k", n)
		},
	},
	{
		ID:         "scan/calls-inside",
		Law:        "the loop over a Scan may call the backend: nothing is held while it does",
		cause:      "a transaction or a connection that stays open between two keys",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			for i := range 60 {
				h.set(fmt.Sprint("k", i), "old", time.Hour)
			}
			seen := map[string]bool{}
			for info, err := range l2cache.Scan(p.ctx, h.b, "k") {
				if err != nil {
					p.failf("Scan = %v | want no error", err)
				}
				seen[info.Key] = true
				h.set(info.Key, noise(20_000, 1), time.Hour)
				h.set("new:"+info.Key, "v", time.Hour)
				h.wantHit("new:"+info.Key, "v")
			}
			for i := range 60 {
				if key := fmt.Sprint("k", i); !seen[key] {
					p.failf("Scan left out %s, which was replaced meanwhile | want it", key)
				}
				h.wantHit(fmt.Sprint("k", i), noise(20_000, 1))
			}
			for info, err := range l2cache.Scan(p.ctx, h.b, "k") { // and deletes
				if err != nil {
					p.failf("Scan = %v | want no error", err)
				}
				h.delete(info.Key)
			}
			if infos := h.scan("k"); len(infos) != 0 {
				p.failf("Scan after all were deleted yields %d keys | want none", len(infos))
			}
		},
	},
	{
		ID:         "scan/break",
		Law:        "a loop that is left early frees what the Scan held; the sequence may be used again",
		cause:      "a goroutine that waits to hand over the next key",
		Capability: l2cache.CanScan,
		Alone:      true,
		run: func(p *probe) {
			h := p.open()
			for i := range 300 {
				h.set(fmt.Sprint("k", i), "v", time.Hour)
			}
			before, _ := p.e.goroutines()
			seq := l2cache.Scan(p.ctx, h.b, "")
			for range 20 {
				for _, err := range seq {
					if err != nil {
						p.failf("Scan = %v | want no error", err)
					}
					break
				}
			}
			p.fewGoroutines(before, 10)
			seen := map[string]bool{}
			for info, err := range seq {
				if err != nil {
					p.failf("Scan = %v | want no error", err)
				}
				seen[info.Key] = true
			}
			if len(seen) != 300 && !p.e.profile.Evicts {
				p.failf("the same Scan, after 20 loops that were left, yields %d keys | want all 300", len(seen))
			}
			h.set("k", "v", time.Hour)
			h.wantHit("k", "v")
		},
	},
	{
		ID:         "scan/ends",
		Law:        "Scan ends with an error when its ctx ends, the backend is closed or cannot answer: a short list is never taken for all",
		cause:      "an error that ends the loop silently",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			for i := range 300 {
				h.set(fmt.Sprint("k", i), "v", time.Hour)
			}
			ctx, cancel := context.WithCancel(p.ctx)
			defer cancel()
			n := 0
			var last error
			for info, err := range l2cache.Scan(ctx, h.b, "") {
				if last != nil {
					p.failf("Scan goes on after %v | want the error to be last", last)
				}
				if last = err; err != nil && info != (l2cache.Info{}) {
					p.failf("Scan = %+v with %v | want the zero Info", info, err)
				}
				if n++; n == 3 {
					cancel()
				}
			}
			op := operation{name: "Scan"}
			p.wantError(op, outcome{err: last}, context.Canceled)
			last = nil
			for _, err := range l2cache.Scan(ctx, h.b, "") {
				last = err
			}
			p.wantError(op, outcome{err: last}, context.Canceled)
			h.close()
			last = nil
			for _, err := range l2cache.Scan(p.ctx, h.b, "") {
				last = err
			}
			p.wantError(op, outcome{err: last}, l2cache.ErrClosed)
		},
	},
	{
		ID:         "scan/down",
		Law:        "Scan of a server that is gone is ErrUnavailable, also in the middle",
		cause:      "an error that ends the loop silently",
		Capability: l2cache.CanScan,
		needs:      needDown,
		Alone:      true,
		run: func(p *probe) {
			h := p.open()
			var items []l2cache.Item
			for i := range 5000 {
				items = append(items, l2cache.Item{Key: fmt.Sprint("k", i), TTL: time.Hour})
			}
			h.setMany(items)
			n := 0
			var last error
			for _, err := range l2cache.Scan(p.ctx, h.b, "") {
				if n++; n == 1 {
					p.down()
				}
				last = err
			}
			// All may have been read before the server was gone.
			if last != nil || n < len(items) && !p.e.profile.Evicts {
				p.wantError(operation{name: "Scan"}, outcome{err: last}, l2cache.ErrUnavailable)
			}
			last = nil
			for _, err := range l2cache.Scan(p.ctx, h.b, "") {
				last = err
			}
			p.wantError(operation{name: "Scan"}, outcome{err: last}, l2cache.ErrUnavailable)
			p.up()
			h.settle()
			h.scan("")
		},
	},
}

// scan collects what Scan yields, which must not be an error.
func (h *handle) scan(prefix string) map[string]l2cache.Info {
	infos := map[string]l2cache.Info{}
	call := time.Now()
	for info, err := range l2cache.Scan(h.p.ctx, h.b, prefix) {
		if err != nil {
			h.p.failf("Scan(%q) = %v | want no error", prefix, err)
		}
		if info.TTL <= 0 {
			h.p.failf("Scan(%q): %s with TTL %v | want it above zero", prefix, brief(info.Key), info.TTL)
		}
		infos[info.Key] = info
	}
	h.note("Scan(%q)@%v:%d", prefix, h.p.at(call), len(infos))
	return infos
}

func scanManyCase(p *probe) {
	h := p.open()
	const n = 2500
	var items []l2cache.Item
	for i := range n {
		items = append(items, l2cache.Item{Key: fmt.Sprint("stays:", i), Value: []byte("v"), TTL: time.Hour})
	}
	h.setMany(items)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer p.catch()
		for i := 0; !stop.Load(); i++ {
			h.set(fmt.Sprint("comes:", i%500), noise(i%3000, 1), time.Hour)
			h.delete(fmt.Sprint("comes:", (i*7)%500))
		}
	})
	infos := h.scan("stays:")
	all := h.scan("")
	stop.Store(true)
	wg.Wait()
	p.stopIfFailed()
	for i := range n {
		key := fmt.Sprint("stays:", i)
		_, seen := infos[key]
		_, seenAll := all[key]
		if (!seen || !seenAll) && !p.e.profile.Evicts {
			p.failf("Scan of %d keys left out %s | want all", n, key)
		}
	}
}

// fewGoroutines wants less than n goroutines more than before, soon.
func (p *probe) fewGoroutines(before, n int) {
	now, stacks := p.e.goroutines()
	for end := time.Now().Add(3 * time.Second); now >= before+n && time.Now().Before(end); now, stacks = p.e.goroutines() {
		time.Sleep(20 * time.Millisecond)
	}
	if now >= before+n {
		p.failf("%d goroutines more than before | want none\n%s", now-before, stacks)
	}
}
