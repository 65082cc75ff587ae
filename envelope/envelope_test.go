package envelope_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// The golden bytes are what stores hold. They may be added to, never changed.
var golden = []struct {
	name   string
	hex    string
	header envelope.Header
	value  string
}{
	{
		"1.5 s from 2026-01-02 03:04:05.000006 UTC", "c54c0100" + "0006475ef663d6a6" + "000000000016e360" + "76616c7565",
		envelope.Header{Deadline: 1767323046500006, TTL: 1500 * time.Millisecond},
		"value",
	},
	{"no expiry, empty value", "c54c010000000000000000000000000000000000", envelope.Header{TTL: l2cache.NoExpiry}, ""},
	{
		"100 years from then", "c54c0100" + "00117b8dae107346" + "000b342eb7c38000" + "00",
		envelope.Header{Deadline: 4920923045000006, TTL: l2cache.MaxTTL},
		"\x00",
	},
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		stored, err := hex.DecodeString(g.hex)
		if err != nil {
			t.Fatal(err)
		}
		header, value, err := envelope.Decode(stored)
		if err != nil || header != g.header || string(value) != g.value {
			t.Errorf("%s: Decode = %+v, %q, %v; want %+v, %q", g.name, header, value, err, g.header, g.value)
		}
		if got := append(g.header.Append(nil), g.value...); !bytes.Equal(got, stored) {
			t.Errorf("%s: Append = %x, want %s", g.name, got, g.hex)
		}
	}
}

func TestNewHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6001, time.UTC)
	h := envelope.NewHeader(now, 1500*time.Millisecond)
	if left, live := h.Remaining(now, time.Millisecond); left != 1500*time.Millisecond || !live {
		t.Errorf("Remaining at once = %v, %v; want all of 1.5s", left, live)
	}
	if left, live := h.Remaining(now.Add(1500*time.Millisecond), time.Millisecond); left != 1 || !live {
		// The deadline was rounded up to a microsecond, 999 ns here.
		t.Errorf("Remaining at the end = %v, %v; want 1ns", left, live)
	}
	if left, live := h.Remaining(now.Add(1501*time.Millisecond), time.Millisecond); left != 0 || live {
		t.Errorf("Remaining after it = %v, %v; want none", left, live)
	}
	if left, live := h.Remaining(now.Add(-time.Hour), time.Millisecond); left != 1500*time.Millisecond || !live {
		t.Errorf("Remaining by a clock that is behind = %v, %v; want 1.5s at most", left, live)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := envelope.NewHeader(time.Now(), time.Minute).Append(nil)
	edit := func(at int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], b)
		return bad
	}
	for name, bad := range map[string][]byte{
		"nothing":             nil,
		"a value of another":  []byte("a value that another program stored"),
		"half a header":       good[:19],
		"another magic":       edit(0, 0xC4),
		"a later version":     edit(2, 2),
		"version zero":        edit(2, 0),
		"unknown flags":       edit(3, 1),
		"a negative deadline": edit(4, 0x80),
		"a deadline, no TTL":  edit(12, 0, 0, 0, 0, 0, 0, 0, 0),
		"a TTL, no deadline":  edit(4, 0, 0, 0, 0, 0, 0, 0, 0),
		"a TTL beyond MaxTTL": edit(12, 0x7f, 0xff),
		"a negative TTL":      edit(12, 0xff),
	} {
		if h, value, err := envelope.Decode(bad); !errors.Is(err, l2cache.ErrCorrupt) || value != nil {
			t.Errorf("Decode of %s = %+v, %q, %v; want ErrCorrupt", name, h, value, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		stored, _ := hex.DecodeString(g.hex)
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		h, value, err := envelope.Decode(stored)
		if err != nil {
			return
		}
		if again := append(h.Append(nil), value...); !bytes.Equal(again, stored) {
			t.Fatalf("Decode then Append of %x = %x", stored, again)
		}
		if left, live := h.Remaining(time.Unix(0, 0), time.Millisecond); live && (left <= 0 || left > h.TTL) {
			t.Fatalf("%+v has %v left", h, left)
		}
		if h.TTL == 0 || h.Deadline == math.MinInt64 {
			t.Fatalf("Decode accepted %+v", h)
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	value := bytes.Repeat([]byte("v"), 100)
	now := time.Now()
	var buf []byte
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = append(envelope.NewHeader(now, time.Hour).Append(buf[:0]), value...)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := envelope.Decode(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
