package natskv

import (
	"strings"
	"testing"

	"github.com/l2cache/l2cache"
)

// The forms are API: other programs know keys by them, and a later version must
// find what this one has stored.
var goldenKeys = []struct{ key, encoded string }{
	{"plain", "plain"},
	{"UPPER-lower_09", "UPPER-lower_09"},
	{"user:42:profile", "user=3A.42=3A.profile"},
	{"user:", "user=3A"},
	{":", "=3A"},
	{"::", "=3A.=3A"},
	{"a/b", "a/.b"},
	{"a/", "a/"},
	{"/", "/"},
	{"//", "/./"},
	{"a.b", "a=2E.b"},
	{".", "=2E"},
	{"..", "=2E.=2E"},
	{"a b", "a=20b"},
	{"*", "=2A"},
	{">", "=3E"},
	{"=", "=3D"},
	{"=3A", "=3D3A"},
	{"==.x", "=3D=3D=2E.x"},
	{"$JS.API.STREAM.PURGE.KV_b", "=24JS=2E.API=2E.STREAM=2E.PURGE=2E.KV_b"},
	{"\x00", "=00"},
	{"\r\nPUB x 0\r\n", "=0D=0APUB=20x=200=0D=0A"},
	{"é", "=C3=A9"},
	{"e\u0301", "e=CC=81"},
	{"\xff", "=FF"},
	{strings.Repeat("k", l2cache.MaxKeyLen), strings.Repeat("k", l2cache.MaxKeyLen)},
	{strings.Repeat(".", 512), strings.Repeat("=2E.", 511) + "=2E"},      // 2,047 bytes
	{strings.Repeat(" ", 682) + "xx", strings.Repeat("=20", 682) + "xx"}, // 2,048
	{strings.Repeat(" ", 682) + "xxx", "==." + strings.Repeat("ICAg", 227) + "IHh4eA"},
	{strings.Repeat("\xff", 768), "==." + strings.Repeat("_", 1024)},
}

func TestKeyForm(t *testing.T) {
	for _, g := range goldenKeys {
		if got := string(appendKey([]byte("$KV.b."), g.key)); got != "$KV.b."+g.encoded {
			t.Errorf("appendKey($KV.b., %q) = %q, want $KV.b.%s", g.key, got, g.encoded)
		}
		if got, err := decodeKey(g.encoded); got != g.key || err != nil {
			t.Errorf("decodeKey(%q) = %q, %v; want %q", g.encoded, got, err, g.key)
		}
	}
}

func TestDecodeKeyRefuses(t *testing.T) {
	for _, encoded := range []string{
		"",
		"a.b",                      // a dot that follows no separator
		"a=3a",                     // digits in lower case
		"a=3A.",                    // a dot at the end
		"=3Ab",                     // a separator that no dot follows
		"=",                        // no digits
		"a=4",                      // one digit
		"a=GG",                     // not hexadecimal
		"a=A*",                     // not hexadecimal
		"=61",                      // a byte that stays
		"a b",                      // bytes that do not stay
		"==.YQ",                    // base64 of a key that is short
		"==.Y",                     // not base64
		"==.",                      // of nothing
		"==.YR==",                  // padding
		strings.Repeat("=20", 683), // a key for base64
	} {
		if got, err := decodeKey(encoded); err == nil {
			t.Errorf("decodeKey(%q) = %q, want an error", encoded, got)
		}
	}
}

// checkSubject fails the test unless a server takes encoded for the end of one
// literal subject, and a KV client for a key.
func checkSubject(t *testing.T, key, encoded string) {
	t.Helper()
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/=."
	if i := strings.IndexFunc(encoded, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }); i >= 0 {
		t.Errorf("the form of %q has %q, which KV clients do not admit", key, encoded[i])
	}
	if encoded == "" || strings.HasPrefix(encoded, ".") || strings.HasSuffix(encoded, ".") || strings.Contains(encoded, "..") {
		t.Errorf("the form of %q is %q, which has an empty token", key, encoded)
	}
	if len(encoded) > maxEncoded {
		t.Errorf("the form of a key of %d bytes has %d, want at most %d", len(key), len(encoded), maxEncoded)
	}
}

// TestKeysDiffer takes all strings of up to five of the bytes that mean something.
func TestKeysDiffer(t *testing.T) {
	const alphabet = ".:/=*>2A a"
	seen := map[string]string{}
	var extend func(key string)
	extend = func(key string) {
		if key != "" {
			encoded := string(appendKey(nil, key))
			checkSubject(t, key, encoded)
			if other, ok := seen[encoded]; ok {
				t.Errorf("%q and %q both become %q", other, key, encoded)
			}
			seen[encoded] = key
		}
		if len(key) == 5 {
			return
		}
		for i := range len(alphabet) {
			extend(key + alphabet[i:i+1])
		}
	}
	extend("")
}

// A prefix that ends in a separator is a subject filter: what lies under it is under
// the prefix's form and a dot, and nothing else is.
func TestPrefixIsAFilter(t *testing.T) {
	for _, prefix := range []string{"user:", "a/b/", "x.", "user:42:"} {
		filter := string(appendKey(nil, prefix)) + "."
		for _, rest := range []string{"x", ":", "42:profile", ".", " "} {
			if got := string(appendKey(nil, prefix+rest)); !strings.HasPrefix(got, filter) {
				t.Errorf("%q is %q, want it under %q", prefix+rest, got, filter)
			}
		}
	}
	for _, key := range []string{"users:1", "user", "user=", "user;1"} {
		if got := string(appendKey(nil, key)); strings.HasPrefix(got, "user=3A.") {
			t.Errorf("%q is %q, want it not under user=3A.", key, got)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, g := range goldenKeys {
		f.Add(g.key, g.encoded)
	}
	f.Fuzz(func(t *testing.T, key, encoded string) {
		if key != "" && len(key) <= l2cache.MaxKeyLen {
			form := string(appendKey(nil, key))
			checkSubject(t, key, form)
			// That each form gives its own key back makes the forms differ.
			if got, err := decodeKey(form); got != key || err != nil {
				t.Errorf("decodeKey(%q) = %q, %v; want %q", form, got, err, key)
			}
		}
		if key, err := decodeKey(encoded); err == nil && string(appendKey(nil, key)) != encoded {
			t.Errorf("decodeKey(%q) = %q, whose form is another", encoded, key)
		}
	})
}
