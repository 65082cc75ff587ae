package conformance

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
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
			h.refusesKey(strings.Repeat("é", n/2+1)) // bytes count, not characters
			h.refusesKey(strings.Repeat("日", n))
			h.wantHit(long, "of the longest key")
		},
	},
	{
		ID:    "keys/lengths",
		Law:   "keys of every length up to the profile's MaxKeyLen work, whatever their bytes, and those that differ in length differ",
		cause: "keys that are cut at the server's limit, or grow beyond it when they are encoded",
		run: func(p *probe) {
			var keys []string
			for _, n := range []int{1, 2, 63, 64, 128, 199, 200, 230, 247, 248, 249, 250, 251, 252, 255, 256, 257, 511, 512, 513, 1000} {
				if n < p.e.profile.MaxKeyLen {
					keys = append(keys, strings.Repeat("k", n))
				}
			}
			for range 40 { // and some in between
				keys = append(keys, strings.Repeat("k", 1+rand.IntN(p.e.profile.MaxKeyLen)))
			}
			for _, n := range []int{50, 85, 130, 200, 255, 340, 400, 700} {
				if n < p.e.profile.MaxKeyLen {
					keys = append(keys, strings.Repeat(" ", n), strings.Repeat("\xff", n))
				}
			}
			for _, c := range []string{"k", " ", "\x00", "\xff", "%", "*", `\`, "/", ".", ":", "a/", "é"} {
				longest := strings.Repeat(c, p.e.profile.MaxKeyLen)[:p.e.profile.MaxKeyLen]
				keys = append(keys, longest, longest[:len(longest)-1], longest[:max(len(longest)-1, 0)]+"~")
			}
			p.distinct(slices.DeleteFunc(keys, func(key string) bool { return key == "" }))
		},
	},
	{
		ID:    "keys/long-differences",
		Law:   "long keys that differ in one byte only, whichever it is, do not collide, nor do keys that a common hash makes equal",
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
			// Equal under a common hash, and so is what they are the beginning of.
			for _, pair := range hashAlike {
				for _, n := range []int{0, 251, 300, p.e.profile.MaxKeyLen} {
					for _, key := range pair {
						if key += strings.Repeat("k", max(n-len(key), 0)); len(key) <= p.e.profile.MaxKeyLen {
							keys = append(keys, key)
						}
					}
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
			p.distinct([]string{"a", " a", "a ", " a ", "a  ", "\ta", "a\t", "a b", "a  b", "a\tb", " ", "  ", "\t", "\n", "a\n", "\u00a0", "\u2003a", "a\u00a0b", "a\u2003b", "a\u0085", "\u0085", "\u2028", "a\v", "a\f", "a\r"})
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
				"%", "%25", "%2A", "$", "$KV", "{a}", "{b}", "^a", "a$", "#", "&", "=", "+", "|", "~", "`", "'", "\"", "''", "--", ";", "<", "&lt;", "a&b", "a&amp;b", "a&#38;b", "a&ampb", "a&", "&a",
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
				strings.Repeat("a/", 20) + "b", strings.Repeat("a/", 20) + "c", strings.Repeat("a/", 21) + "b", strings.Repeat("a.", 20) + "b", strings.Repeat("a.", 20) + "c",
				"a.", "a..", "a...", "a....", `a\b\c`, "a/b/c", "a.b.c", "a:b:c", "a%2fb", "a%2Fb",
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
				"9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "-0", " 1", "1 ", "1_000", "1000", "1e3",
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
		ID:    "keys/operations",
		Law:   "a key means the same entry to every operation, batches too",
		cause: "an operation that encodes, trims or folds keys in a way of its own",
		run:   keyOperationsCase,
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
		if !seen[key] && len(key) <= p.e.profile.MaxKeyLen {
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

// someLookalikes are n of the lookalikes, or all if there are fewer.
func someLookalikes(maxLen, n int) []string {
	keys := lookalikes(maxLen)
	return keys[:min(n, len(keys))]
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
			fmt.Sprintf("%q", key), strings.Trim(strconv.QuoteToASCII(key), `"`), jsonEscape(key), html.EscapeString(key),
			url.QueryEscape(url.QueryEscape(key)), strings.ToLower(url.QueryEscape(key)), strings.ToUpper(hex.EncodeToString([]byte(key))),
			base32.StdEncoding.EncodeToString([]byte(key)), "\x00"+key, key+"\x00", "\x01"+key,
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

// jsonEscape has every byte of s as a JSON escape.
func jsonEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\u%04x`, s[i])
	}
	return b.String()
}

// hashAlike are pairs of keys that the named hash makes equal.
var hashAlike = [][2]string{
	{"mhktumbm", "hwbrvggu"}, // CRC-32, IEEE
	{"oilrtgpp", "ybprhiuc"}, // CRC-32, Castagnoli
	{"wuazcnqv", "kczwytra"}, // Adler-32
	{"jpqwjcbw", "cqaobxth"}, // FNV-1, 32 bits
	{"lixwshef", "qcrnhazy"}, // FNV-1a, 32 bits
	{"dwachhbk", "mvnketla"}, // FNV-1a, low half of 64 bits
	{"cfkxaqbp", "rosyduke"}, // h*31 + c
	{"qujyurro", "xpoqpwkw"}, // h*33 + c
	{"uekodwrz", "wwaedtnu"}, // h*33 ^ c
	{"sjwqhxzx", "fhrvyien"}, // sdbm
	{"qxemries", "kbzkwgnv"}, // MD5, first 4 bytes
	{"bvzojbay", "prvdhxqb"}, // SHA-1, first 4 bytes
	{"eafvkbhc", "aausyxgm"}, // SHA-256, first 4 bytes
	md5Alike(),
}

// md5Alike are two keys with one MD5: X. Wang et al., "Collisions for Hash Functions MD4,
// MD5, HAVAL-128 and RIPEMD", 2004.
func md5Alike() [2]string {
	a, _ := hex.DecodeString("d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89" +
		"55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b" +
		"d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0" +
		"e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70")
	b := bytes.Clone(a)
	for _, at := range []int{19, 45, 59, 83, 109, 123} {
		b[at] ^= 0x80
	}
	return [2]string{string(a), string(b)}
}

// keyOperationsCase has keys that are easily confused go through each operation, one
// in sight of all others.
func keyOperationsCase(p *probe) {
	h := p.open()
	supports, longest := p.e.profile.Supports, p.e.profile.MaxKeyLen
	keys := []string{
		"a", "A", "a ", " a", "a\x00", "a\x00b", "\x00", "a/", "a/b", "a//b", "a/../a", "./a", "a:", "a.", "a\n", "a\r\n", "\xff", "a\xff", "\uFFFD", "é", "e\u0301",
		"*", "a*", "?", "[a]", `\`, `\a`, `\*`, "%", "%61", "a+b", "a b", "a%20b", "=", "==", "$", "{a}", ">", "a.>", "日", "ab",
	}
	for _, n := range []int{64, 250, 251, longest} {
		if n <= longest {
			keys = append(keys, strings.Repeat("k", n), strings.Repeat("k", n-1)+"l", strings.Repeat(" ", n))
		}
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return len(key) > longest })
	slices.Sort(keys)
	keys = slices.Compact(keys)
	value := func(i int) string { return fmt.Sprint("value ", i) }
	entries := make([]struct { // what is there
		set span
		ttl time.Duration // 0: nothing
	}, len(keys))
	ended := func(i int) bool { // the profile's MaxTTL is short
		return entries[i].ttl > 0 && time.Since(entries[i].set.call) >= p.e.profile.MaxTTL
	}
	const readersAtOnce = 16 // or it would take minutes on a server that is far away
	check := func(after string) {
		got, s := h.getMany(keys)
		p.parallel(readersAtOnce, func(w int) {
			for i := w; i < len(keys); i += readersAtOnce {
				e, batch := got[keys[i]]
				r, want := h.read(readers[1], keys[i]), entries[i]
				if p.e.profile.Evicts && (!batch || !r.hit()) || ended(i) {
					continue
				}
				if there := want.ttl > 0; batch != there || r.hit() != there || there && (string(e.Value) != value(i) || string(r.value) != value(i)) {
					p.failf("after %s, %v; GetMany: %s, there: %v | want %s, there: %v", after, r, brief(string(e.Value)), batch, value(i), there)
				}
				if want.ttl > 0 {
					p.judgeTTL(r, want.set, want.ttl)
					p.judgeTTL(read{op: "GetMany", key: keys[i], value: e.Value, ttl: e.TTL, span: s}, want.set, want.ttl)
				}
			}
		})
	}
	// Each key is stored and deleted in all ways, and stays while others go.
	for round := range 6 {
		for i, key := range keys {
			if entries[i].ttl > 0 {
				continue
			}
			ttl := time.Hour + time.Duration(i)*time.Minute
			var set span
			switch way := (i + round) % 3; {
			case way == 0:
				set = h.setMany([]l2cache.Item{{Key: key, Value: []byte(value(i)), TTL: ttl}})
			case way == 1 && supports.Has(l2cache.CanAdd):
				set = h.add(key, value(i), ttl, true)
			default:
				set = h.set(key, value(i), ttl)
			}
			entries[i].set, entries[i].ttl = set, ttl
		}
		check("Set, SetMany and Add")
		for i, key := range keys {
			if !supports.Has(l2cache.CanTouch) || p.e.profile.Evicts {
				break
			}
			if ended(i) {
				continue
			}
			end := entries[i].set.call.Add(min(entries[i].ttl, p.e.profile.MaxTTL))
			entries[i].ttl = 5*time.Hour + time.Duration(i)*time.Minute
			entries[i].set = h.touchBefore(end, key, entries[i].ttl)
		}
		check("Touch")
		for i, key := range keys {
			if supports.Has(l2cache.CanAdd) && !p.e.profile.Evicts && p.e.profile.MaxTTL >= time.Hour {
				h.add(key, "another", time.Minute, false)
			}
			if (i+round)%2 == 0 {
				continue
			}
			entries[i].ttl = 0
			switch way := round / 2; {
			case way == 0:
				h.delete(key)
			case way == 1 && supports.Has(l2cache.CanDeletePattern):
				h.deletePattern(l2cache.QuotePattern(key))
			default:
				if err := l2cache.DeleteMany(p.ctx, h.b, []string{key}); err != nil {
					p.failf("DeleteMany(%s) = %v | want nil", brief(key), err)
				}
			}
		}
		check("Delete, DeleteMany or DeletePattern of every other one")
		if supports.Has(l2cache.CanScan) && !p.e.profile.Evicts {
			infos := h.scan("")
			for i, key := range keys {
				if info, seen := infos[key]; !ended(i) && seen != (entries[i].ttl > 0) || seen && info.Size != len(value(i)) {
					p.failf("Scan: %s, seen: %v, size %d | want it as it is there: %v", brief(key), seen, info.Size, entries[i].ttl > 0)
				}
			}
		}
	}
}

func reservedCase(p *probe) {
	h := p.open()
	safe := "an entry that is none of the backend's business"
	safe = safe[:min(len(safe), max(p.e.profile.MaxKeyLen-9, 1))]
	value := noise(40_000, 7) // large enough to be stored in parts
	if err := h.b.Ping(p.ctx); err != nil {
		p.failf("Ping = %v | want nil", err)
	}
	set := h.set(safe, value, time.Hour)
	for _, name := range []string{
		"\x00", "\x01", "\x02", "\xff", "\x00meta", "meta", "_meta", "__meta__", "version", "format", "\x00version", "index", "ttl", "deadline", "expire",
		safe + ":ttl", safe + ".ttl", safe + ":meta", safe + ":0", safe + ":1", safe + "\x00", safe + "\x00\x00", safe + "\x00\x01", safe + "/0", safe + "#1",
		safe + "\x00\x00\x00\x00", safe + "\x00\x00\x00\x01", safe + "\x00\x00\x00\x00\x00\x00\x00\x01",
		"$KV", "$JS", "$SYS", "KV_x", "cas", "lru_crawler", "keys", "size", "lock",
		"ping", "Ping", "PING", "health", "healthcheck", "_health", "__ping__", "test", "l2cache",
	} {
		if len(name) > p.e.profile.MaxKeyLen {
			continue
		}
		h.wantMiss(name)
		h.set(name, "x", time.Minute)
		h.wantHit(name, "x")
		h.delete(name)
		h.wantMiss(name)
	}
	h.wantHit(safe, value)
	p.judgeTTL(h.entry(safe), set, time.Hour)
}
