package memcached

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
)

const day = 24 * time.Hour

func TestExptime(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 999_999_999, time.UTC)
	const in2100, never = 4102444800, 0
	for _, test := range []struct {
		now  time.Time
		ttl  time.Duration
		want int64
	}{
		{now, time.Millisecond, 7},
		{now, time.Second, 7},
		{now, time.Second + time.Millisecond, 8},
		{now, 30*day - 6*time.Second - time.Millisecond, 30 * 86400},
		{now, 30*day - 6*time.Second, 30 * 86400},
		{now, 30*day - 6*time.Second + time.Millisecond, now.Unix() + 1 + 30*86400 - 5 + 86400},
		{now, 30 * day, now.Unix() + 1 + 30*86400 + 86400},
		{now, 30*day + time.Second, now.Unix() + 1 + 30*86400 + 1 + 86400},
		{now, 31 * day, now.Unix() + 1 + 31*86400 + 86400},
		{now, time.Unix(math.MaxInt32, 0).Sub(now), never},
		{now, l2cache.MaxTTL, never},
		{now, l2cache.NoExpiry, never},
		{time.Unix(math.MaxInt32-86400-31*86400-1, 0), 31 * day, math.MaxInt32},
		{time.Unix(math.MaxInt32-86400-31*86400, 0), 31 * day, never},
		{time.Unix(in2100, 0), time.Second, 7},
		{time.Unix(in2100, 0), 31 * day, never},
	} {
		if got := exptime(test.now, test.ttl); int64(got) != test.want {
			t.Errorf("exptime(%v, %v) = %d, want %d", test.now, test.ttl, got, test.want)
		}
	}
}

func TestItemKey(t *testing.T) {
	long := strings.Repeat("x", 250)
	for _, test := range []struct{ key, want string }{
		{"a", "ka"},
		{"user:1", "kuser:1"},
		{"é\xff\x80", "ké\xff\x80"},
		{long[:249], "k" + long[:249]},
		{long, "hCG1KHCk73jGNwf7JohudgounY3vL3FzbQmYv2EtzPp8"},
		{"a b", "h"},
		{"a\r\nflush_all\r\n", "h"},
		{"\x7f", "h"},
		{"\x00", "h"},
	} {
		got := itemKey(test.key)
		if test.want == "h" && got[0] == 'h' {
			test.want = got
		}
		if got != test.want || len(got) > maxItemKey || !plain(got[1:]) {
			t.Errorf("itemKey(%q) = %q, want %q", test.key, got, test.want)
		}
	}
}

// The bytes that are stored are API.
func TestGolden(t *testing.T) {
	now := time.UnixMicro(1_767_225_600_000_001)
	for _, test := range []struct {
		key, itemKey string
		value        string
		ttl          time.Duration
		flags        uint32
		exptime      int32
		data         string
	}{
		{
			"user:1", "kuser:1", "value", 1500 * time.Millisecond, 0xC54C0100, 8,
			"c54c0100" + "0006474846372361" + "000000000016e360" + hex.EncodeToString([]byte("value")),
		},
		{
			"user 1", "hK7WKGSABaosiI3myun1SKTuYjGoRlUHjWuGe1hDW8a8", "", l2cache.NoExpiry, 0xC54C0101, 0,
			"0006" + hex.EncodeToString([]byte("user 1")) + "c54c0100" + "0000000000000000" + "0000000000000000",
		},
	} {
		out := encode(test.key, []byte(test.value), now, test.ttl)
		if out.Key != test.itemKey || out.Flags != test.flags || out.Expiration != test.exptime ||
			hex.EncodeToString(out.Value) != test.data {
			t.Errorf("encode(%q, %q, %v) = %q %#x %d %x\nwant %q %#x %d %s", test.key, test.value, test.ttl,
				out.Key, out.Flags, out.Expiration, out.Value, test.itemKey, test.flags, test.exptime, test.data)
		}
		header, value, err := decode(&out.Item, test.key)
		if err != nil || string(value) != test.value || header.TTL != test.ttl {
			t.Errorf("decode(%x) = %v, %q, %v; want %q for %v", out.Value, header, value, err, test.value, test.ttl)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	ours := func(key string) memcache.Item { return encode(key, []byte("v"), time.Now(), time.Hour).Item }
	for _, test := range []struct {
		name   string
		key    string
		change func(*memcache.Item)
	}{
		{"flags of another program", "k", func(i *memcache.Item) { i.Flags = 0 }},
		{"hashed flags, plain key", "k", func(i *memcache.Item) { i.Flags = flagsHashed }},
		{"plain flags, hashed key", "a b", func(i *memcache.Item) { i.Flags = flagsPlain }},
		{"no data", "k", func(i *memcache.Item) { i.Value = nil }},
		{"no data, hashed key", "a b", func(i *memcache.Item) { i.Value = nil }},
		{"cut in the header", "k", func(i *memcache.Item) { i.Value = i.Value[:19] }},
		{"cut in the key", "a b", func(i *memcache.Item) { i.Value = i.Value[:4] }},
		{"another key", "a b", func(i *memcache.Item) { i.Value = bytes.Replace(i.Value, []byte("a b"), []byte("a c"), 1) }},
		{"a longer key", "a b", func(i *memcache.Item) { i.Value[1]++ }},
		{"not an envelope", "k", func(i *memcache.Item) { i.Value = bytes.Repeat([]byte("x"), 40) }},
	} {
		item := ours(test.key)
		test.change(&item)
		if _, value, err := decode(&item, test.key); !errors.Is(err, l2cache.ErrCorrupt) || value != nil {
			t.Errorf("%s: decode = %q, %v; want ErrCorrupt", test.name, value, err)
		}
	}
}

func FuzzItemKey(f *testing.F) {
	f.Add("a", "ka")
	f.Add("a b", itemKey("a b"))
	f.Add(strings.Repeat("x", 249), strings.Repeat("x", 250))
	f.Fuzz(func(t *testing.T, a, b string) {
		if a == "" || b == "" {
			return
		}
		ka, kb := itemKey(a), itemKey(b)
		if (ka == kb) != (a == b) {
			t.Errorf("itemKey(%q) = %q, itemKey(%q) = %q", a, ka, b, kb)
		}
		if len(ka) > maxItemKey || !plain(ka[1:]) {
			t.Errorf("itemKey(%q) = %q, which memcached does not accept", a, ka)
		}
	})
}
