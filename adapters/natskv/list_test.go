package natskv

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/l2cache/l2cache"
)

func TestFilters(t *testing.T) {
	for prefix, want := range map[string]string{
		"":                                     ">",
		"user":                                 ">",
		"user:":                                "user=3A user=3A.> ==.>",
		"user:4":                               "user=3A.> ==.>",
		"user:42:":                             "user=3A.42=3A user=3A.42=3A.> ==.>",
		"a/b":                                  "a/.> ==.>",
		"a.*":                                  "a=2E.> ==.>",
		":":                                    "=3A =3A.> ==.>",
		"*/":                                   "=2A/ =2A/.> ==.>",
		"==.":                                  "=3D=3D=2E =3D=3D=2E.> ==.>",
		"\x00.\xff.":                           "=00=2E.=FF=2E =00=2E.=FF=2E.> ==.>",
		strings.Repeat(":", l2cache.MaxKeyLen): "==.>",
	} {
		if got := strings.Join(filters(prefix), " "); got != want {
			t.Errorf("filters(%.20q) = %.100s, want %.100s", prefix, got, want)
		}
	}
}

// Whatever begins with a prefix is in one of its filters, and in one only.
func TestFiltersMatch(t *testing.T) {
	const alphabet = "ab:/.=*>\x00"
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		key := make([]byte, 1+random.IntN(6))
		for i := range key {
			key[i] = alphabet[random.IntN(len(alphabet))]
		}
		if random.IntN(50) == 0 {
			key = append(key, strings.Repeat("\xff", l2cache.MaxKeyLen-len(key))...) // long
		}
		prefix := string(key[:random.IntN(len(key)+1)])
		form := string(appendKey(nil, string(key)))
		n := 0
		for _, filter := range filters(prefix) {
			if before, ok := strings.CutSuffix(filter, ">"); ok && strings.HasPrefix(form, before) && form != before || form == filter {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%.20q begins with %q: %d of its filters %q match %.40s, want 1", key, prefix, n, filters(prefix), form)
		}
	}
}
