package conformance

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

var keyCases = []Case{
	{
		ID:    "keys/empty",
		Law:   "the empty key is ErrInvalidKey on every operation",
		cause: "an operation without a check, or a prefix that makes a key of nothing",
		run:   func(p *probe) { p.open().refusesKey("") },
	},
	{
		ID:    "keys/too-long",
		Law:   "a key over the profile's MaxKeyLen is ErrInvalidKey on every operation, never cut",
		cause: "keys that are cut or hashed instead of refused",
		run: func(p *probe) {
			n := p.e.profile.MaxKeyLen
			h := p.open()
			long := strings.Repeat("k", n)
			h.set(long, "of the longest key", time.Hour)
			h.refusesKey(long + "k")
			h.refusesKey(strings.Repeat("k", 10*n))
			h.wantHit(long, "of the longest key")
		},
	},
	{
		ID:    "keys/lengths",
		Law:   "keys of every length up to the profile's MaxKeyLen work, and those that differ in length differ",
		cause: "keys that are cut at the server's limit",
		run: func(p *probe) {
			var keys []string
			for _, n := range []int{1, 2, 63, 64, 128, 199, 200, 230, 247, 248, 249, 250, 251, 252, 255, 256, 257, 511, 512, 513, 1000} {
				if n < p.e.profile.MaxKeyLen {
					keys = append(keys, strings.Repeat("k", n))
				}
			}
			p.distinct(append(keys, strings.Repeat("k", p.e.profile.MaxKeyLen)))
		},
	},
	{
		ID:    "keys/long-differences",
		Law:   "long keys that differ in one byte only, whichever it is, do not collide",
		cause: "keys that are cut, or hashed without a check",
		run: func(p *probe) {
			var keys []string
			for _, n := range []int{100, 250, 251, 300, p.e.profile.MaxKeyLen} {
				n = min(n, p.e.profile.MaxKeyLen)
				for at := 0; at < n; at += 16 {
					key := []byte(strings.Repeat("k", n))
					key[at] = '0'
					keys = append(keys, string(key))
				}
				for c := range 3 {
					key := []byte(strings.Repeat("k", n))
					key[n-1] = byte('0' + c)
					keys = append(keys, string(key))
				}
			}
			p.distinct(keys)
		},
	},
	{
		ID:    "keys/bytes-alone",
		Law:   "each of the 256 bytes is a key of its own",
		cause: "an encoding that maps two bytes to one, or a server that refuses some",
		run: func(p *probe) {
			var keys []string
			for c := range 256 {
				keys = append(keys, string([]byte{byte(c)}))
			}
			p.distinct(keys)
		},
	},
	{
		ID:    "keys/bytes-inside",
		Law:   "each of the 256 bytes may stand within a key, and at its end",
		cause: "trimming, or an encoding that treats a byte at the end in another way",
		run: func(p *probe) {
			var keys []string
			for c := range 256 {
				keys = append(keys, "a"+string([]byte{byte(c)})+"b", "a"+string([]byte{byte(c)}))
			}
			p.distinct(keys)
		},
	},
	{
		ID:    "keys/space",
		Law:   "space at the beginning, at the end and inside a key is significant",
		cause: "trimming",
		run: func(p *probe) {
			p.distinct([]string{"a", " a", "a ", " a ", "a  ", "\ta", "a\t", "a b", "a  b", "a\tb", " ", "  ", "\t", "\n", "a\n", "\u00a0", "\u2003a"})
		},
	},
	{
		ID:    "keys/injection",
		Law:   "CR, LF and NUL in a key cannot end a command of the server's protocol",
		cause: "keys that go into a text protocol as they are",
		run: func(p *probe) {
			p.distinct([]string{
				"victim", "a\r\nset victim 0 0 3\r\nbad\r\n", "a\r\ndelete victim\r\n", "a\r\nflush_all\r\n",
				"a\r\nDEL victim\r\n", "a\r\nFLUSHALL\r\n", "a\nSET victim bad\n", "a\x00", "a\x00b", "a\r", "a\n", "a\r\n", "a",
			})
		},
	},
	{
		ID:    "keys/invalid-utf8",
		Law:   "a key that is not UTF-8 keeps its bytes",
		cause: "an encoding that goes by runes and replaces what it cannot decode",
		run: func(p *probe) {
			p.distinct([]string{"\xff", "\xfe", "\uFFFD", "a\xffb", "a\xfeb", "a\uFFFDb", "\xc3", "\xc3\x28", "\xed\xa0\x80", "\xf0\x9f", "\xc0\x80", "\x00"})
		},
	},
	{
		ID:    "keys/unicode-forms",
		Law:   "composed and decomposed forms of a character are different keys",
		cause: "Unicode normalisation",
		run: func(p *probe) {
			p.distinct([]string{"\u00e9", "e\u0301", "\u212b", "\u00c5", "A\u030a", "\ufb01", "fi", "\u1e9b\u0323", "日本", "😀", "👩‍👩‍👧", "\u200b", "a\u200b", "a"})
		},
	},
	{
		ID:    "keys/case",
		Law:   "keys are case sensitive",
		cause: "case folding",
		run: func(p *probe) {
			p.distinct([]string{"key", "Key", "KEY", "kEY", "ß", "SS", "ss", "İ", "i", "I", "ı"})
		},
	},
	{
		ID:    "keys/literals",
		Law:   "characters that are wildcards elsewhere stand for themselves",
		cause: "a key that is used as a pattern or a subject",
		run: func(p *probe) {
			p.distinct([]string{
				"*", "?", "[", "]", "[a]", "[a-z]", "\\", "\\*", ">", ".", "a", "b", "ab", "a*", "a?", "*a", "a.b", "a.*", "a.>", "a.b.c",
				"%", "%25", "%2A", "$", "$KV", "{a}", "{b}", "^a", "a$", "#", "&", "=", "+", "|", "~", "`", "'", "\"", "''", "--", ";",
			})
		},
	},
	{
		ID:    "keys/separators",
		Law:   "separators are literal: no path is cleaned, no part left out",
		cause: "path.Clean, or one separator written for another",
		run: func(p *probe) {
			p.distinct([]string{
				"a:b", "a/b", "a.b", "a_b", "a-b", "a|b", "a,b", "a;b", "a\\b", "ab", "a::b", "a//b", "a..b", "a:", ":a", "a/", "/a", "a.", ".a", ":", "/", ".", "..", "...", "::", "//",
				"./a", "../a", "a/..", "a/../b", "a/./b", "b", "/", "a/b/", "a:b:", "a.b.", "a:/b", "a/:b", "a.:b",
			})
		},
	},
	{
		ID:    "keys/odd",
		Law:   "keys that look like numbers, quotes, nil or options are only keys",
		cause: "keys that are parsed, or take part in a query",
		run: func(p *probe) {
			p.distinct([]string{
				"0", "00", "1", "01", "1.0", "1e0", "-1", "+1", "0x1", "true", "false", "null", "nil", "NaN", "undefined", "()", "NX", "PX", "noreply",
				`"`, `""`, `"a"`, `'`, "`", "a", "__proto__", "' OR 1=1 --", "${x}", "{{x}}", "<a>", "C:\\a", "con", "aux",
			})
		},
	},
	{
		ID:    "keys/injective",
		Law:   "a key that looks like the encoded form of another does not collide with it",
		cause: "an encoding that leaves its own escape character alone, or a hash beside plain keys",
		run:   func(p *probe) { p.distinct(lookalikes(p.e.profile.MaxKeyLen)) },
	},
	{
		ID:    "keys/reserved",
		Law:   "what the backend stores for itself is out of the reach of any key",
		cause: "the backend's own rows under names that a key can take",
		run:   reservedCase,
	},
}

// refusesKey wants ErrInvalidKey from each operation on key.
func (h *handle) refusesKey(key string) {
	for _, op := range h.p.operations() {
		if op.keyed {
			h.p.wantError(op, h.try(h.p.ctx, op, key), l2cache.ErrInvalidKey)
		}
	}
}

// distinct wants each key to keep a value of its own beside all others, and to
// be deleted alone.
func (p *probe) distinct(keys []string) {
	seen := map[string]bool{}
	unique := keys[:0:0]
	for _, key := range keys {
		if !seen[key] {
			seen[key] = true
			unique = append(unique, key)
		}
	}
	keys = unique
	h := p.open()
	const workers = 8
	each := func(f func(i int, key string)) {
		p.parallel(workers, func(w int) {
			for i := w; i < len(keys); i += workers {
				f(i, keys[i])
			}
		})
	}
	value := func(i int) string { return fmt.Sprintf("value %d of %q", i, keys[i]) }
	check := func(i int) {
		for _, how := range readers {
			if r := h.read(how, keys[i]); !h.spared(r) && (!r.hit() || string(r.value) != value(i)) {
				p.failf("%v | want %s", r, brief(value(i)))
			}
		}
	}
	each(func(i int, key string) { h.set(key, value(i), time.Hour) })
	each(func(i int, _ string) { check(i) })
	// Of every two neighbours in the list one goes and one stays.
	each(func(i int, key string) {
		if i%2 == 0 {
			h.delete(key)
		}
	})
	each(func(i int, key string) {
		if i%2 == 1 {
			check(i)
		} else {
			h.wantMiss(key)
		}
	})
}

// lookalikes are keys together with what common encodings make of them.
func lookalikes(maxLen int) []string {
	plain := []string{
		"a b", "a:b", "a/b", "a=b", "a.b", "a%b", "é", "\xff", " ", "=", "%", "%25", "=3D", ".", "==", "a=3Ab", "a%3Ab",
		strings.Repeat("x", 251), strings.Repeat("y ", 150), strings.Repeat("z", maxLen-1) + " ",
	}
	var keys []string
	for _, key := range plain {
		sum := sha256.Sum256([]byte(key))
		equals := strings.NewReplacer("%", "=", "+", "=20").Replace(url.QueryEscape(key))
		keys = append(keys, key,
			url.QueryEscape(key), url.PathEscape(key), equals, strings.ReplaceAll(equals, "=3A", "=3A."),
			base64.StdEncoding.EncodeToString([]byte(key)), base64.RawURLEncoding.EncodeToString([]byte(key)),
			"==."+base64.RawURLEncoding.EncodeToString([]byte(key)),
			hex.EncodeToString([]byte(key)), hex.EncodeToString(sum[:]),
			base64.RawURLEncoding.EncodeToString(sum[:]), string(sum[:]),
			fmt.Sprintf("%q", key), "\x00"+key, key+"\x00", "\x01"+key,
		)
		// A letter in front tells plain from encoded keys in many an encoding.
		for _, form := range []string{key, base64.RawURLEncoding.EncodeToString(sum[:]), hex.EncodeToString(sum[:])} {
			for _, mark := range []string{"k", "h", "b", "x", "#", "_", "$"} {
				keys = append(keys, mark+form)
			}
		}
	}
	fit := keys[:0]
	for _, key := range keys {
		if len(key) <= maxLen {
			fit = append(fit, key)
		}
	}
	return fit
}

func reservedCase(p *probe) {
	h := p.open()
	const safe = "an entry that is none of the backend's business"
	value := noise(40_000, 7) // large enough to be stored in parts
	set := h.set(safe, value, time.Hour)
	for _, name := range []string{
		"\x00", "\x01", "\x02", "\xff", "\x00meta", "meta", "_meta", "__meta__", "version", "format", "\x00version", "index", "ttl", "deadline", "expire",
		safe + ":ttl", safe + ".ttl", safe + ":meta", safe + ":0", safe + ":1", safe + "\x00", safe + "\x00\x00", safe + "\x00\x01", safe + "/0", safe + "#1",
		safe + "\x00\x00\x00\x00", safe + "\x00\x00\x00\x01", safe + "\x00\x00\x00\x00\x00\x00\x00\x01",
		"$KV", "$JS", "$SYS", "KV_x", "cas", "lru_crawler", "keys", "size", "lock",
	} {
		h.wantMiss(name)
		h.set(name, "x", time.Minute)
		h.wantHit(name, "x")
		h.delete(name)
		h.wantMiss(name)
	}
	h.wantHit(safe, value)
	p.judgeTTL(h.entry(safe), set, time.Hour)
}
