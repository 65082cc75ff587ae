package conformance

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
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
				"a*b", "a?b", "axb", "a/b", "user:1/2", `a\b`, "a[x]b", "a^b", "ab", "axxb", "[a-z]", "b", "a.b", "a>b", "{x}", "x", "user:\x00", "user:\xff", "user:\r\n", "日本", "é1", "É1", "Éa", "ß", "SS", "ss",
			}
			for _, pattern := range []string{
				"user:1", "user:?", "user:*", "*:1", "item:??", "it*:*3", "*e*r*:*1*", `a\*b`, `a\?b`, `a\\b`, "a?b", "a*b", "[a-z]", "a[x]b", "a^b", "{x}", "a.b", "a>b",
				`\u\s\e\r:1`, `user\:*`, `a\\*`, `*\\*`, `\*`, "u*s*e*r*:*1*", "*a*b*", "**1", "user:1**", "*?*?*?*?*?*?*?*", "a?*", "*?1", "u?*?1",
				"é*", "É?", "*ß", "ss", "S*",
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
			for _, c := range []string{"k", "*", "?", `\`, "\xff"} { // patterns may be longer than keys
				long := strings.Repeat(c, p.e.profile.MaxKeyLen)
				long = long[:p.e.profile.MaxKeyLen]
				p.deletesPattern([]string{long, long[:len(long)-1] + "z", "a"}, l2cache.QuotePattern(long))
				p.deletesPattern([]string{long, long[:len(long)-1] + "z", "a"}, strings.Repeat("*?", len(long)-1)+l2cache.QuotePattern(c))
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
		ID:         "delete-pattern/counts",
		Law:        "DeletePattern removes all matches, however many there are, also those that another handle has stored",
		cause:      "a page that is full with the last match, or an index that a handle has for itself",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			a, b := p.peers()
			for _, n := range counts {
				var items []l2cache.Item
				keys := []string{"stays"}
				for i := range n {
					keys = append(keys, fmt.Sprint("go:", i))
					items = append(items, l2cache.Item{Key: keys[i+1], TTL: time.Hour})
				}
				a.setMany(items)
				begin := a.set("stays", "v", time.Hour).call
				b.deletePattern("go:*")
				if got, _ := a.getMany(keys); len(got) > 1 || len(got) == 0 && !p.e.profile.Evicts {
					p.missed(begin, "%d of %d matches and one other are left | want that one", len(got), n)
				}
			}
		},
	},
	{
		ID:         "delete-pattern/all",
		Law:        "a pattern that matches every key is path.ErrBadPattern of a backend without a prefix, and deletes nothing; else it deletes what is behind the prefix, and no more",
		cause:      "a pattern for everything that is neither refused nor carried out",
		Capability: l2cache.CanDeletePattern,
		run: func(p *probe) {
			h, other := p.open(), p.openIn(p.e.namespace())
			for _, pattern := range []string{"*", "**", "*?", "?*", "***"} {
				h.set("k", "v", time.Hour)
				other.set("k", "of another", time.Hour)
				err := l2cache.DeletePattern(p.ctx, h.b, pattern)
				switch {
				case err == nil:
					h.wantMiss("k")
				case errors.Is(err, path.ErrBadPattern) && !errors.Is(err, l2cache.ErrUnavailable):
					h.wantHit("k", "v")
				default:
					p.failf("DeletePattern(%q) = %v | want nil or path.ErrBadPattern", pattern, err)
				}
				other.wantHit("k", "of another")
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
		Alone:      true,
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
	h.note("DeletePattern(%q)@%v%s", pattern, h.p.at(call), failure(err))
	if err != nil {
		h.p.failf("DeletePattern(%q) = %v | want nil", pattern, err)
	}
}
