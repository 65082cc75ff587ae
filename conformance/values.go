package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
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
				"007", "-0", "+1", "1.50", "1e3", "0x10", "9007199254740993", " 12", "12\n", "NaN", `"quoted"`, "'quoted'", `a\nb`, `\u0041`, "a\tb", "A", "a ", "\x00a\x00",
				"%41", "a+b", "a%20b", "&amp;", "aGVsbG8=", "68656c6c6f", `{ "b" : 1, "a" : [ 1.0 ] }`, "[ 1 , 2 ]", "<a b='c'/>", "\xff\xfea\x00", "\u0085", "\u2028", "\x1a", "\x7f",
				strings.Repeat("a line\r\n", 40), strings.Repeat("a line\n", 40) + "\n\n", strings.Repeat("\x00", 300), noise(3000, 1) + strings.Repeat("\x00", 50), noise(3000, 2) + "\r\n", noise(3000, 3) + "  ",
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
		Law:   "a write does not keep the caller's slice, and does not change it",
		cause: "the slice itself is stored, or written to after Set has returned",
		run:   argumentCase,
	},
	{
		ID:    "values/argument-after-cancel",
		Law:   "once Set has returned, also early, its argument may be changed: what is stored is the value as it was, or nothing; nothing only if Set says so",
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
		1, 2, 3, 10, 100, 255, 256, 512, 1000, 1023, 1024, 1025, 1536, 2048, 4095, 4096, 4097, 8191, 8192, 8193, 10_000, 15_999, 16_000, 16_001, 16_384, 31_999, 32_000, 32_001,
		32_768, 65_535, 65_536, 65_537, 100_000, 131_072, 300_000, 524_288, 999_999, guaranteedValueLen,
	}
	for _, size := range sizes[3:] { // and others in between
		sizes = append(sizes, min(size+rand.IntN(size), guaranteedValueLen))
	}
	for i, n := range sizes {
		// What compresses well goes another way in some backends.
		for _, value := range []string{noise(n, uint64(i)), strings.Repeat("\x00", n), strings.Repeat("a line\r\n", n/8+1)[:n]} {
			ttl := time.Hour + time.Duration(i)*time.Minute
			set := h.set("k", value, ttl)
			for _, how := range readers {
				r := h.read(how, "k")
				if h.spared(r) {
					continue
				}
				if !r.hit() || string(r.value) != value {
					p.failf("a value of %d bytes: %v | want it whole%s", n, r, firstDifference(r, value))
				}
				if r.op == "GetWithTTL" {
					p.judgeTTL(r, set, ttl)
				}
			}
			if n < 100 || n > 600_000 && i%3 != 0 {
				break
			}
		}
	}
	h.delete("k")
}

func argumentCase(p *probe) {
	h := p.open()
	writes := []struct {
		name  string
		needs l2cache.Capability
		run   func(key string, value []byte) error
	}{
		{"Set", 0, func(key string, value []byte) error { return h.b.Set(p.ctx, key, value, time.Hour) }},
		{"SetMany", 0, func(key string, value []byte) error {
			return l2cache.SetMany(p.ctx, h.b, []l2cache.Item{{Key: key, Value: value, TTL: time.Hour}, {Key: key + "2", Value: value, TTL: time.Hour}})
		}},
		{"Add", l2cache.CanAdd, func(key string, value []byte) error {
			added, err := l2cache.Add(p.ctx, h.b, key, value, time.Hour)
			if err == nil && !added {
				return errors.New("not added")
			}
			return err
		}},
	}
	for _, write := range writes {
		if !p.e.profile.Supports.Has(write.needs) {
			continue
		}
		for _, n := range []int{10, 1000, 50_000, 200_000, guaranteedValueLen} {
			arg := []byte(noise(n, 3))
			want := string(arg)
			// Capacity beyond the length is the caller's as well.
			arg = append(arg, "tail"...)[:n]
			// Several callers may pass one slice at the same time.
			key := func(w int) string { return fmt.Sprint(write.name, n, ".", w) }
			callers := 4
			if n > 50_000 {
				callers = 1
			}
			p.parallel(callers, func(w int) {
				if err := write.run(key(w), arg); err != nil {
					p.failf("%s of %d bytes = %v | want nil", write.name, n, err)
				}
			})
			if string(arg) != want || string(arg[:n+4][n:]) != "tail" {
				p.failf("%s changed its argument | want it left alone", write.name)
			}
			for i := range arg {
				arg[i] ^= 0xff
			}
			for w := range callers {
				h.wantHit(key(w), want)
				h.delete(key(w))
			}
		}
	}
	// Nor is it written to for the time of the call.
	arg := []byte(noise(1000, 4))
	want := string(arg)
	p.parallel(4, func(w int) {
		for i := range 50 {
			key := fmt.Sprint("shared", w, ".", i)
			if err := h.b.Set(p.ctx, key, arg, time.Hour); err != nil {
				p.failf("Set = %v | want nil", err)
			}
			if r := h.read(readers[i%2], key); !h.spared(r) && string(r.value) != want {
				p.failf("%v, of an argument that 4 callers pass at the same time | want it as it was%s", r, firstDifference(r, want))
			}
		}
	})
}

func argumentAfterCancelCase(p *probe) {
	h := p.open()
	// Every slice is filled with one byte, which is changed as soon as Set has
	// returned, mostly by cancellation. A stored mix, or the byte of afterwards,
	// shows that Set went on with the slice.
	const workers, n, rounds = 4, 30_000, 60
	trip := h.roundTrip("k")
	// No key has two writes: an earlier one could still land.
	key := func(w, i int) string { return fmt.Sprintf("k%d.%d", w, i) }
	whole := func(w, i int, done bool) {
		for _, how := range readers {
			r := h.read(how, key(w, i))
			if !r.hit() {
				if done && !h.spared(r) {
					p.failf("%v after a Set that returned nil while its ctx was cancelled | want a hit", r)
				}
				continue
			}
			if len(r.value) != n || r.value[0] != byte(i) || bytes.Count(r.value, r.value[:1]) != n {
				p.failf("%v: %d bytes, mixed or of afterwards | want %d equal bytes as they were at the call", r, len(r.value), n)
			}
		}
	}
	p.parallel(workers, func(w int) {
		var done [rounds]bool
		trip := trip // of the fastest Set so far: that it was slow once must not put all cancels behind the ends
		for i := range rounds {
			arg := bytes.Repeat([]byte{byte(i)}, n)
			ctx, cancel := context.WithCancel(p.ctx)
			pause := trip * time.Duration(i) / 30
			go func() {
				time.Sleep(pause)
				cancel()
			}()
			s, err := h.trySet(ctx, key(w, i), arg, time.Hour)
			if err == nil {
				trip = min(trip, s.done.Sub(s.call))
			}
			for j := range arg {
				arg[j] = 0xEE
			}
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				p.failf("Set with a ctx that is cancelled = %v | want nil or context.Canceled", err)
			}
			done[i] = err == nil
			whole(w, i, done[i])
		}
		for i := range rounds { // what went on in the background is over
			whole(w, i, done[i])
			h.delete(key(w, i))
		}
	})
}

func resultCase(p *probe) {
	h := p.open()
	many := func(h *handle, ctx context.Context, key string) read {
		r := read{op: "GetMany", key: key, span: span{call: time.Now()}, err: l2cache.ErrNotFound}
		got, err := l2cache.GetMany(ctx, h.b, []string{key, "neighbour"})
		r.done = time.Now()
		if e, there := got[key]; there {
			r.value, r.ttl, r.err = e.Value, e.TTL, nil
		} else if err != nil {
			r.err = err
		}
		return r
	}
	ways := append(slices.Clone(readers), many)
	for _, n := range []int{5, 5000, 70_000, 250_000, guaranteedValueLen} {
		value := strings.Repeat("v", n)
		h.set("k", value, time.Hour)
		h.set("neighbour", "its value", time.Hour)
		for _, first := range ways {
			for _, second := range ways {
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
