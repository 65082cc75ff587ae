package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// guaranteedValueLen is the value that every backend takes, in bytes.
const guaranteedValueLen = 1_000_000

var valueCases = []Case{
	{
		ID:    "values/empty",
		Law:   "an empty and a nil value are hits, as empty values",
		cause: "a length of zero that is taken for a miss or for a delete",
		run: func(p *probe) {
			h := p.open()
			for i, value := range [][]byte{{}, nil} {
				key := fmt.Sprintf("k%d", i)
				for _, before := range []string{"", "an older value"} {
					if before != "" {
						h.set(key, before, time.Hour)
					}
					if _, err := h.trySet(p.ctx, key, value, time.Hour); err != nil {
						p.failf("Set(%q, %#v) = %v | want nil", key, value, err)
					}
					h.wantHit(key, "")
				}
			}
		},
	},
	{
		ID:    "values/bytes",
		Law:   "values keep all of their bytes, whatever they are",
		cause: "a value that is treated as text: cut at NUL, trimmed, or repaired as UTF-8",
		run: func(p *probe) {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			p.keepsValues([]string{
				string(all), "\x00", "\x00\x00", "a\x00b", "\xff", "\xff\xfe", "\xef\xbb\xbfa", "\xc3\x28", " ", " a ", "\n", "a\n", "\r\n",
				"0", "null", "nil", `""`, "e\u0301", "\u00e9", "\uFFFD", "true", "{}",
			})
		},
	},
	{
		ID:    "values/protocol",
		Law:   "a value that looks like a part of the server's protocol is only a value",
		cause: "a reader that looks for the end of a value instead of counting",
		run: func(p *probe) {
			p.keepsValues([]string{
				"\r\nEND\r\n", "END\r\n", "STORED\r\n", "VALUE k 0 1\r\na\r\nEND\r\n", "\r\n", "$-1\r\n", "*0\r\n", "+OK\r\n", "-ERR\r\n", "$3\r\nabc\r\n",
				"MSG a 1 2\r\nxx\r\n", "-ERR 'x'\r\n", "PING\r\n", "EN 0\r\n", "HD\r\n", "ERROR\r\n",
			})
		},
	},
	{
		ID:    "values/lookalike",
		Law:   "a value that looks like the backend's own stored form, or like compressed data, comes back as it is",
		cause: "a reader that guesses the form from the value instead of knowing it",
		run: func(p *probe) {
			var zipped bytes.Buffer
			w := gzip.NewWriter(&zipped)
			w.Write([]byte("text"))
			w.Close()
			// The header of package envelope, with a deadline that is long past.
			envelope := "\xC5\x4C\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"
			p.keepsValues([]string{
				envelope + "value", envelope, envelope[:19], envelope[:4], "\xC5\x4C", "\xC5\x4C\x02" + envelope[3:], envelope + envelope + "v",
				zipped.String(), "\x1f\x8b", "\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "\xff\x06\x00\x00sNaPpY",
				`{"value":"a","ttl":1}`, `{"v":1,"exp":1}`, "\x80\x02}q\x00.", "\x00\x00\x00\x00\x00\x00\x00\x01v", "1700000000|v", "0:v", "\x82\xa1v\xa1a\xa1e\x01",
			})
		},
	},
	{
		ID:    "values/sizes",
		Law:   "values of every size up to 1,000,000 bytes come back whole",
		cause: "a buffer or a field of fixed size, or a limit of the server's that is lower",
		run:   sizesCase,
	},
	{
		ID:    "values/equal",
		Law:   "keys with the same value are apart: what is done to one leaves the others",
		cause: "equal values that are stored once",
		run: func(p *probe) {
			h := p.open()
			for _, value := range []string{"", "the same", noise(20_000, 1)} {
				for _, key := range []string{"a", "b", "c", "d"} {
					h.set(key, value, time.Hour)
				}
				short := h.set("d", value, time.Minute)
				h.set("a", "another", time.Hour)
				h.delete("b")
				h.wantHit("a", "another")
				h.wantMiss("b")
				h.wantHit("c", value)
				h.wantHit("d", value)
				p.judgeTTL(h.entry("d"), short, time.Minute)
			}
		},
	},
	{
		ID:    "values/shrink",
		Law:   "a shorter value that replaces a longer one leaves nothing of it behind",
		cause: "a value that is stored in parts, of which some stay; a buffer that is used again",
		run: func(p *probe) {
			h := p.open()
			for i, n := range []int{200_000, 70_000, 40_000, 16_001, 16_000, 300, 1, 0, 50_000, 2} {
				value := noise(n, uint64(i))
				h.set("k", value, time.Hour)
				h.wantHit("k", value)
			}
		},
	},
	{
		ID:    "values/argument",
		Law:   "Set does not keep the caller's slice, and does not change it",
		cause: "the slice itself is stored, or written to after Set has returned",
		run:   argumentCase,
	},
	{
		ID:    "values/argument-after-cancel",
		Law:   "once Set has returned, also early, its argument may be changed: what is stored is the value as it was, or nothing",
		cause: "a Set that goes on in the background with the caller's slice",
		run:   argumentAfterCancelCase,
	},
	{
		ID:    "values/result",
		Law:   "what a read returned belongs to the caller: it may be changed and appended to, and shares no memory with anything",
		cause: "the store's own slice is returned, or a buffer that two results share",
		run:   resultCase,
	},
	{
		ID:    "values/result-outlives",
		Law:   "a result stays as it is after the entry was replaced or deleted and the backend closed",
		cause: "memory of the store, or of a mapped file, or of a buffer in a pool",
		run: func(p *probe) {
			h := p.open()
			values := []string{"short", noise(10_000, 1), noise(100_000, 2)}
			var results []read
			for i, value := range values {
				h.set(fmt.Sprintf("k%d", i), value, time.Hour)
				for _, how := range readers {
					results = append(results, h.read(how, fmt.Sprintf("k%d", i)))
				}
			}
			for i := range values {
				h.set(fmt.Sprintf("k%d", i), noise(len(values[i]), 99), time.Hour)
				h.wantHit(fmt.Sprintf("k%d", i), noise(len(values[i]), 99))
				h.delete(fmt.Sprintf("k%d", i))
			}
			h.close()
			for i, r := range results {
				if want := values[i/len(readers)]; string(r.value) != want {
					p.failf("%v after overwrite, Delete and Close | want %s as it was read%s", r, brief(want), firstDifference(r, want))
				}
			}
		},
	},
}

// keepsValues wants each value to come back exactly.
func (p *probe) keepsValues(values []string) {
	h := p.open()
	for i, value := range values {
		key := fmt.Sprintf("k%d", i)
		h.set(key, value, time.Hour)
		h.wantHit(key, value)
	}
}

func sizesCase(p *probe) {
	h := p.open()
	sizes := []int{
		1, 2, 3, 100, 255, 256, 1023, 1024, 1025, 4095, 4096, 4097, 15_999, 16_000, 16_001, 16_384, 31_999, 32_000, 32_001,
		32_768, 65_535, 65_536, 65_537, 131_072, 300_000, 524_288, 999_999, guaranteedValueLen,
	}
	for i, n := range sizes {
		value := noise(n, uint64(i))
		h.set("k", value, time.Hour)
		for _, how := range readers {
			r := h.read(how, "k")
			if !h.spared(r) && (!r.hit() || string(r.value) != value) {
				p.failf("a value of %d bytes: %v | want it whole%s", n, r, firstDifference(r, value))
			}
		}
	}
	h.delete("k")
}

func argumentCase(p *probe) {
	h := p.open()
	for _, n := range []int{10, 1000, 50_000} {
		arg := []byte(noise(n, 3))
		want := string(arg)
		// Capacity beyond the length is the caller's as well.
		arg = append(arg, "tail"...)[:n]
		if _, err := h.trySet(p.ctx, "k", arg, time.Hour); err != nil {
			p.failf("Set = %v | want nil", err)
		}
		if string(arg) != want || string(arg[:n+4][n:]) != "tail" {
			p.failf("Set changed its argument | want it left alone")
		}
		for i := range arg {
			arg[i] ^= 0xff
		}
		h.wantHit("k", want)
	}
}

func argumentAfterCancelCase(p *probe) {
	h := p.open()
	// Every slice is filled with one byte, which is changed as soon as Set has
	// returned, mostly by cancellation. A stored mix, or the byte of afterwards,
	// shows that Set went on with the slice.
	const n, rounds = 30_000, 60
	trip := h.roundTrip("k")
	p.parallel(4, func(w int) {
		key := fmt.Sprintf("k%d", w)
		for i := range rounds {
			arg := bytes.Repeat([]byte{byte(i)}, n)
			ctx, cancel := context.WithCancel(p.ctx)
			go func() {
				time.Sleep(trip * time.Duration(i) / 30)
				cancel()
			}()
			_, err := h.trySet(ctx, key, arg, time.Hour)
			for j := range arg {
				arg[j] = 0xEE
			}
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				p.failf("Set with a ctx that is cancelled = %v | want nil or context.Canceled", err)
			}
			for _, how := range readers {
				r := h.read(how, key)
				if !r.hit() {
					continue
				}
				if len(r.value) != n || r.value[0] == 0xEE || bytes.Count(r.value, r.value[:1]) != n {
					p.failf("%v: %d bytes, mixed or of afterwards | want %d equal bytes as they were at the call", r, len(r.value), n)
				}
			}
		}
	})
}

func resultCase(p *probe) {
	h := p.open()
	for _, value := range []string{"value", strings.Repeat("v", 5000)} {
		h.set("k", value, time.Hour)
		h.set("neighbour", "its value", time.Hour)
		for _, first := range readers {
			for _, second := range readers {
				a, b := h.read(first, "k"), h.read(second, "k")
				if !a.hit() || !b.hit() {
					p.failf("%v, %v | want two hits", a, b)
				}
				if got := append(a.value, "appended"...); string(got) != value+"appended" {
					p.failf("append to %v gave %s | want the value and what was appended", a, brief(string(got)))
				}
				for i := range a.value {
					a.value[i] ^= 0xff
				}
				if string(b.value) != value {
					p.failf("%v after another result was changed | want %s", b, brief(value))
				}
				h.wantHit("k", value)
				h.wantHit("neighbour", "its value")
			}
		}
	}
}
