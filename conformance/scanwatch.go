package conformance

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var patternCases = []Case{
	{
		ID:         "delete-pattern/matches",
		Law:        "DeletePattern removes what its pattern matches as a whole, case counts, and nothing else",
		cause:      "a pattern that is taken for a substring, or by the rules of the server's own patterns",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			keys := []string{
				"user:1", "user:2", "user:12", "User:1", "a user:1", "user:1 b", "user", "user:", "users", "user/1", "item:1", "item:22", "item:333",
				"a*b", "a?b", "axb", "a/b", "user:1/2", `a\b`, "a[x]b", "a^b", "ab", "axxb", "[a-z]", "b", "a.b", "a>b", "{x}", "x", "user:\x00", "user:\xff", "user:\r\n", "日本",
			}
			for _, pattern := range []string{
				"user:1", "user:?", "user:*", "*:1", "item:??", "it*:*3", "*e*r*:*1*", `a\*b`, `a\?b`, `a\\b`, "a?b", "a*b", "[a-z]", "a[x]b", "a^b", "{x}", "a.b", "a>b",
				"a.*", "a>*", "no such key", "no such key*", "?", "日?????", "日???", "??????", "user:\x00", "user:\xff", "*\n", "User*", "",
			} {
				p.deletesPattern(keys, pattern)
			}
		},
	},
	{
		ID:         "delete-pattern/quoted",
		Law:        "QuotePattern makes any key a pattern for itself alone",
		cause:      "characters that are special to the server and not escaped",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			keys := []string{"a*", "a?", `a\`, `a\*`, "a[b]", "a[^b]", "a]", "[", "ab", "a", "a-z", "a{b,c}", "a.b", "a.>", "*a", ">a", "a\x00*", "é?"}
			for _, key := range keys {
				p.deletesPattern(keys, l2cache.QuotePattern(key))
			}
			p.deletesPattern(keys, l2cache.QuotePattern("a[")+"*")
			p.deletesPattern(keys, "*"+l2cache.QuotePattern(`\`)+"*")
		},
	},
	{
		ID:         "delete-pattern/many",
		Law:        "DeletePattern removes thousands of matches, and leaves thousands of others",
		cause:      "only the first page of a listing is deleted",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			h := p.open()
			const n = 2500
			var items []l2cache.Item
			for i := range n {
				items = append(items,
					l2cache.Item{Key: fmt.Sprint("go:", i), TTL: time.Hour}, l2cache.Item{Key: fmt.Sprint("stay:", i), TTL: time.Hour})
			}
			h.setMany(items)
			h.deletePattern("go:*")
			var going, staying []string
			for i := range n {
				going, staying = append(going, fmt.Sprint("go:", i)), append(staying, fmt.Sprint("stay:", i))
			}
			if got, _ := h.getMany(going); len(got) != 0 {
				p.failf("%d of %d matches are left | want none", len(got), n)
			}
			if got, _ := h.getMany(staying); len(got) != n && !p.e.profile.Evicts {
				p.failf("%d of %d others are left | want all", len(got), n)
			}
		},
	},
	{
		ID:         "delete-pattern/none",
		Law:        "a pattern that nothing matches is no error",
		cause:      "the server's error for a command without keys",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			h := p.open()
			h.deletePattern("nothing*")
			h.set("k", "v", time.Hour)
			h.deletePattern("nothing*")
			h.wantHit("k", "v")
		},
	},
	{
		ID:         "delete-pattern/bad",
		Law:        "a pattern that ends in a lone backslash is path.ErrBadPattern; with an ended ctx or after Close nothing is deleted",
		cause:      "a pattern that is passed on to the server unchecked",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			h := p.open()
			h.set(`k\`, "v", time.Hour)
			h.set("k", "v", time.Hour)
			for _, pattern := range []string{`k\`, `\`, `k*\`, `k\\\`} {
				if err := l2cache.DeletePattern(p.ctx, h.b, pattern); !errors.Is(err, path.ErrBadPattern) || errors.Is(err, l2cache.ErrUnavailable) {
					p.failf("DeletePattern(%q) = %v | want path.ErrBadPattern", pattern, err)
				}
			}
			ctx, cancel := context.WithCancel(p.ctx)
			cancel()
			op := operation{name: "DeletePattern"}
			p.wantError(op, outcome{err: l2cache.DeletePattern(ctx, h.b, "k*")}, context.Canceled)
			h.wantHit("k", "v")
			h.wantHit(`k\`, "v")
			h.close()
			p.wantError(op, outcome{err: l2cache.DeletePattern(p.ctx, h.b, "k*")}, l2cache.ErrClosed)
		},
	},
	{
		ID:         "delete-pattern/prefix",
		Law:        "behind a prefix, DeletePattern never leaves it, whatever prefix and pattern look like; a * takes all behind it",
		cause:      "a prefix with a character that is special in a pattern",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			bare := p.open()
			for _, prefix := range []string{"app:", "a*:", "a?", `a\`, "[a]", "a.b."} {
				h := p.prefixed(bare, prefix)
				others := []string{"k", "app2:k", "ab:k", "abk", "a:k", "ak", "x" + prefix + "k"}
				for _, key := range others {
					bare.set(key, "other", time.Hour)
				}
				for _, pattern := range []string{"*", "k*", "*k"} {
					h.set("k", "v", time.Hour)
					h.deletePattern(pattern)
					h.wantMiss("k")
					for _, key := range others {
						bare.wantHit(key, "other")
					}
				}
			}
		},
	},
	{
		ID:         "delete-pattern/down",
		Law:        "DeletePattern that cannot be answered is ErrUnavailable, never a silent success",
		cause:      "an error between two pages that ends the loop",
		Capability: l2cache.CanDeletePattern,
		needs:      needDown,
		alone:      true,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			p.down()
			p.wantError(operation{name: "DeletePattern"}, outcome{err: l2cache.DeletePattern(p.ctx, h.b, "k*")}, l2cache.ErrUnavailable)
			p.up()
			h.settle()
			h.set("k", "v", time.Hour)
			h.deletePattern("k*")
			h.wantMiss("k")
		},
	},
}

// deletesPattern sets keys, deletes by pattern, and wants those to be gone that
// l2cache.MatchPattern says.
func (p *probe) deletesPattern(keys []string, pattern string) {
	h := p.openIn(p.e.namespace())
	var items []l2cache.Item
	for _, key := range keys {
		items = append(items, l2cache.Item{Key: key, Value: []byte(key), TTL: time.Hour})
	}
	h.setMany(items)
	h.deletePattern(pattern)
	got, _ := h.getMany(keys)
	for _, key := range keys {
		_, there := got[key]
		if there == l2cache.MatchPattern(pattern, key) {
			p.failf("after DeletePattern(%q), %q is there: %v | want %v", pattern, key, there, !there)
		}
	}
	h.close()
}

func (h *handle) deletePattern(pattern string) {
	call := time.Now()
	err := l2cache.DeletePattern(h.p.ctx, h.b, pattern)
	h.p.note("DeletePattern(%q)@%v%s", pattern, h.p.at(call), failure(err))
	if err != nil {
		h.p.failf("DeletePattern(%q) = %v | want nil", pattern, err)
	}
}

var scanCases = []Case{
	{
		ID:         "scan/complete",
		Law:        "Scan yields each live key at least once, as the caller knows it, with the size of its value, and nothing that is none of the caller's",
		cause:      "keys in their encoded form, or the backend's own rows",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			want := map[string]int{}
			for i, key := range slices.Concat(lookalikes(p.e.profile.MaxKeyLen)[:80], []string{"a", "a:b", "a/b", "a.b", "\x00", "\xff", " ", "*", "a\r\nb", "日本", strings.Repeat("k", p.e.profile.MaxKeyLen)}) {
				h.set(key, noise(i*50, 1), time.Hour)
				want[key] = i * 50
			}
			h.set("large", noise(100_000, 1), l2cache.NoExpiry)
			want["large"] = 100_000
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
		Law:        "the TTL of each key is what GetWithTTL gives",
		cause:      "the time that was set, or whole seconds",
		Capability: l2cache.CanScan,
		run: func(p *probe) {
			h := p.open()
			sets := map[string]span{}
			for i := range 30 {
				sets[fmt.Sprint("k", i)] = h.set(fmt.Sprint("k", i), "v", batchTTL(i))
			}
			p.ageTTLs()
			s := span{call: time.Now()}
			infos := h.scan("")
			s.done = time.Now()
			for i := range 30 {
				key := fmt.Sprint("k", i)
				p.judgeTTL(read{op: "Scan", key: key, ttl: infos[key].TTL, span: s}, sets[key], batchTTL(i))
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
		alone:      true,
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
		alone:      true,
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
	h.p.note("Scan(%q)@%v:%d", prefix, h.p.at(call), len(infos))
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

var watchCases = []Case{
	{
		ID:         "watch/sees",
		Law:        "the first event is a Gap, and every change after it is seen: by Set, Delete, SetMany and what else there is, through this handle",
		cause:      "a subscription that begins later than the first event says",
		Capability: l2cache.CanWatch,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			w := h.watch("")
			defer w.stop()
			w.sees(h, "k", func() { h.set("k", "w", time.Hour) })
			w.sees(h, "k", func() { h.delete("k") })
			w.sees(h, "a\r\n*", func() { h.set("a\r\n*", "", l2cache.NoExpiry) })
			w.sees(h, "b", func() { h.setMany([]l2cache.Item{{Key: "b", TTL: time.Hour}}) })
			w.sees(h, "b", func() {
				if err := l2cache.DeleteMany(p.ctx, h.b, []string{"b"}); err != nil {
					p.failf("DeleteMany = %v | want nil", err)
				}
			})
			supports := p.e.profile.Supports
			if supports.Has(l2cache.CanTouch) {
				w.sees(h, "c", func() { h.set("c", "v", time.Hour) })
				w.sees(h, "c", func() { h.touch("c", time.Minute) })
			}
			if supports.Has(l2cache.CanAdd) {
				w.sees(h, "d", func() { h.add("d", "v", time.Hour, true) })
			}
			if supports.Has(l2cache.CanDeletePattern) {
				w.sees(h, "e1", func() { h.set("e1", "v", time.Hour) })
				w.sees(h, "e1", func() { h.deletePattern("e*") })
			}
		},
	},
	{
		ID:         "watch/peer",
		Law:        "changes made through another handle are seen",
		cause:      "a backend that tells of its own writes only",
		Capability: l2cache.CanWatch,
		needs:      needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			w := a.watch("")
			defer w.stop()
			for i := range 20 {
				key := fmt.Sprint("k", i)
				w.sees(b, key, func() { b.set(key, "v", time.Hour) })
			}
			w.sees(b, "k0", func() { b.delete("k0") })
		},
	},
	{
		ID:         "watch/prefix",
		Law:        "only keys that begin with the prefix are told, as the caller knows them",
		cause:      "a prefix that is used as a pattern, or keys in their encoded form",
		Capability: l2cache.CanWatch,
		run: func(p *probe) {
			h := p.open()
			for _, prefix := range []string{"app:", "a*", "a.b", "a"} {
				w := h.watch(prefix)
				for _, key := range []string{"b", "A", "xapp:", "ap", "app", "ab", "a", "a.", "axb", "a*", "a.b", "app:1"} {
					h.set(key, "v", time.Hour)
				}
				w.sees(h, prefix+"/last", func() { h.set(prefix+"/last", "v", time.Hour) })
				for _, key := range w.keys() {
					if !strings.HasPrefix(key, prefix) {
						p.failf("Watch(%q) tells of %q | want keys that begin so", prefix, key)
					}
				}
				w.stop()
			}
			w := p.prefixed(h, "pre:").watch("k")
			defer w.stop()
			h.set("k0", "v", time.Hour)
			w.sees(h, "k1", func() { h.set("pre:k1", "v", time.Hour) })
			for _, key := range w.keys() {
				if key != "k1" {
					p.failf("Watch behind a prefix tells of %q | want k1", key)
				}
			}
		},
	},
	{
		ID:         "watch/burst",
		Law:        "after the last change of each key there is an event of it or a Gap, however fast the writers and slow the reader",
		cause:      "a full buffer whose overflow is dropped silently",
		Capability: l2cache.CanWatch,
		run:        watchBurstCase,
	},
	{
		ID:         "watch/ends",
		Law:        "Watch ends when the loop or its ctx does, or the backend is closed; the error is last, and nothing is left behind",
		cause:      "a subscription or a goroutine that stays",
		Capability: l2cache.CanWatch,
		alone:      true,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			before, _ := p.e.goroutines()
			for range 15 {
				for _, err := range l2cache.Watch(p.ctx, h.b, "") {
					if err != nil {
						p.failf("Watch = %v | want a Gap first", err)
					}
					break
				}
				w := h.watch("")
				w.stop()
				w.wantEnd(context.Canceled)
			}
			p.fewGoroutines(before, 8)
			w := h.watch("")
			h.close()
			w.wantEnd(l2cache.ErrClosed)
			var last error
			for _, err := range l2cache.Watch(p.ctx, h.b, "") {
				last = err
				break
			}
			p.wantError(operation{name: "Watch"}, outcome{err: last}, l2cache.ErrClosed)
		},
	},
	{
		ID:         "watch/reconnect",
		Law:        "a connection that was lost is a Gap, and changes after it are seen",
		cause:      "a subscription that is renewed silently, or not at all",
		Capability: l2cache.CanWatch,
		needs:      needDown,
		alone:      true,
		run: func(p *probe) {
			h := p.open()
			w := h.watch("")
			defer w.stop()
			w.sees(h, "before", func() { h.set("before", "v", time.Hour) })
			gaps := w.gaps()
			p.down()
			p.up()
			h.settle()
			if !w.waitFor(patience, func() bool { return w.gaps() > gaps }) {
				p.failf("no Gap within %v after the server was back | want one", patience)
			}
			w.sees(h, "after", func() { h.set("after", "v", time.Hour) })
		},
	},
}

// A watching is a loop over Watch that runs in the background.
type watching struct {
	p      *probe
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events []l2cache.Event // guarded by mu
	last   error           // guarded by mu
	pause  time.Duration   // of the reader, after each event; guarded by mu
}

// watch begins to watch, and waits for the first event, which must be a Gap.
func (h *handle) watch(prefix string) *watching {
	ctx, cancel := context.WithCancel(h.p.ctx)
	w := &watching{p: h.p, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer h.p.catch()
		for event, err := range l2cache.Watch(ctx, h.b, prefix) {
			w.mu.Lock()
			if w.last != nil {
				h.p.record(Fail, fmt.Sprintf("Watch goes on after %v | want the error to be last", w.last))
			}
			if w.last = err; err == nil {
				w.events = append(w.events, event)
			}
			pause := w.pause
			w.mu.Unlock()
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	if !w.waitFor(patience, func() bool { return w.count() > 0 || w.hasEnded() }) {
		h.p.failf("no event within %v of the beginning of Watch | want a Gap", patience)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil || !w.events[0].Gap || w.events[0].Key != "" {
		h.p.failf("Watch begins with %+v, %v | want a Gap", w.events, w.last)
	}
	return w
}

func (w *watching) stop() { w.cancel() }

// waitFor polls until ok, which it reports.
func (w *watching) waitFor(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) || w.p.failed() {
			return false
		}
	}
	return true
}

func (w *watching) hasEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last != nil
}

// since returns the events from number n on.
func (w *watching) since(n int) []l2cache.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events[n:])
}

func (w *watching) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events)
}

func (w *watching) gaps() (n int) {
	for _, event := range w.since(0) {
		if event.Gap {
			n++
		}
	}
	return n
}

func (w *watching) keys() (keys []string) {
	for _, event := range w.since(0) {
		if !event.Gap {
			keys = append(keys, event.Key)
		}
	}
	return keys
}

// sees makes a change, and wants an event of key or a Gap after it began.
func (w *watching) sees(_ *handle, key string, change func()) {
	n := w.count()
	change()
	seen := func() bool {
		return slices.ContainsFunc(w.since(n), func(e l2cache.Event) bool { return e.Gap || e.Key == key })
	}
	if !w.waitFor(patience, seen) {
		w.p.stopIfFailed()
		w.p.failf("no event of %s within %v of its change | want one, or a Gap", brief(key), patience)
	}
}

func (w *watching) wantEnd(want error) {
	select {
	case <-w.ended:
	case <-time.After(patience):
		w.p.failf("Watch has not ended %v after it had to | want it to", patience)
	}
	w.mu.Lock()
	last := w.last
	w.mu.Unlock()
	w.p.wantError(operation{name: "Watch"}, outcome{err: last}, want)
}

func watchBurstCase(p *probe) {
	h := p.open()
	w := h.watch("")
	defer w.stop()
	w.mu.Lock()
	w.pause = 50 * time.Microsecond
	w.mu.Unlock()
	const writers, keys, rounds = 8, 250, 5 // 10,000 changes
	last := make([][]int, writers)          // events that had come when a key was changed for the last time
	p.parallel(writers, func(wr int) {
		last[wr] = make([]int, keys)
		for range rounds {
			for k := range keys {
				last[wr][k] = w.count()
				h.set(fmt.Sprintf("k%d.%d", wr, k), "v", time.Hour)
			}
		}
	})
	w.mu.Lock()
	w.pause = 0
	w.mu.Unlock()
	var missing string
	if !w.waitFor(patience, func() bool {
		events := w.since(0)
		latest := map[string]int{}
		gap := -1
		for i, event := range events {
			if event.Gap {
				gap = i
			}
			latest[event.Key] = i
		}
		missing = ""
		for wr := range writers {
			for k := range keys {
				key := fmt.Sprintf("k%d.%d", wr, k)
				if i, seen := latest[key]; (!seen || i < last[wr][k]) && gap < last[wr][k] {
					missing = key
					return false
				}
			}
		}
		return true
	}) {
		p.stopIfFailed()
		p.failf("of a burst of %d changes, the last of %s has no event and no Gap after it | want one for each key", writers*keys*rounds, missing)
	}
}

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
