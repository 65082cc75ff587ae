package conformance

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// Fuzz has the fuzzer write programs of operations, with any keys and values, which
// run on the backend and on a map: what they give has to be the same. Each program
// has a namespace of its own.
//
//	func FuzzBackend(f *testing.F) { conformance.Fuzz(f, open, nil) }
func Fuzz(f *testing.F, open OpenFunc, o *Options) {
	e, err := newEngine(f.Context(), open, o)
	if err != nil {
		f.Fatal(err)
	}
	for _, program := range []string{
		"s\x01kvs\x01kwg\x01kd\x01kg\x01k",
		"s\x03a:bvs\x02abwg\x03a:bg\x02abd\x02ab*\x00",
		"s\xffvg\xffs\xfevg\xfeg\x00s\x00v",
		"a\x01kva\x01kwt\x01kg\x01kd\x01kt\x01k",
		"S\x01k\x02k\x00vwG\x01k\x02k\x00D\x01k\x02k\x00*\x00",
		"s\x02a*vs\x02abwp\x02a*s\x01\xffvs\x04\x00\r\n v*\x00",
	} {
		f.Add([]byte(program))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		c := Case{
			ID:  "fuzz",
			Law: "a backend gives what a map would give",
			run: func(p *probe) { p.runProgram(&tape{rest: program}) },
		}
		if r := e.attempts(t.Context(), c, false); r.Status == Fail {
			t.Errorf("%s | %s", r.Law, r.Evidence)
		}
	})
}

// maxOperations bounds a program.
const maxOperations = 60

// A tape is what is left of a program.
type tape struct{ rest []byte }

func (t *tape) next() byte {
	if len(t.rest) == 0 {
		return 0
	}
	b := t.rest[0]
	t.rest = t.rest[1:]
	return b
}

// key is a length and as many bytes; 0xff is the longest key that there is, and
// 0xfe one that is too long.
func (t *tape) key(max int) string {
	switch n := int(t.next()); n {
	case 0xff:
		return strings.Repeat("k", max)
	case 0xfe:
		return strings.Repeat("k", max+1)
	default:
		n = min(n, len(t.rest), max)
		key := string(t.rest[:n])
		t.rest = t.rest[n:]
		return key
	}
}

// value is one byte, some times over: up to 4064.
func (t *tape) value() []byte {
	b := t.next()
	return bytes.Repeat([]byte{b}, int(b)*int(b)/16)
}

// A fuzzed is a backend and the map that it is compared with.
type fuzzed struct {
	*handle
	want map[string][]byte
}

func (p *probe) runProgram(t *tape) {
	f := &fuzzed{handle: p.open(), want: map[string][]byte{}}
	for n := 0; len(t.rest) > 0 && n < maxOperations; n++ {
		f.step(t)
	}
	for key := range f.want {
		f.compare(key)
	}
}

func (f *fuzzed) step(t *tape) {
	p := f.p
	supports, ctx := p.e.profile.Supports, p.ctx
	op, key := t.next(), t.key(p.e.profile.MaxKeyLen)
	valid := key != "" && len(key) <= p.e.profile.MaxKeyLen
	_, there := f.want[key]
	check := func(name string, err error) bool {
		switch {
		case !valid:
			p.wantError(operation{name: name}, outcome{err: err}, l2cache.ErrInvalidKey)
		case err != nil:
			p.failf("%s(%s) = %v | want nil", name, brief(key), err)
		}
		return valid
	}
	switch op {
	case 's':
		value := t.value()
		if _, err := f.trySet(ctx, key, value, time.Hour); check("Set", err) {
			f.want[key] = value
		}
	case 'd':
		if check("Delete", f.tryDelete(ctx, key)) {
			delete(f.want, key)
		}
	case 'a':
		value := t.value()
		if !supports.Has(l2cache.CanAdd) {
			return
		}
		added, err := l2cache.Add(ctx, f.b, key, value, time.Hour)
		if !check("Add", err) {
			return
		}
		if added == there && !p.e.profile.Evicts {
			p.failf("Add(%s) = %t | want %t", brief(key), added, !there)
		}
		if added {
			f.want[key] = value
		}
	case 't':
		if !supports.Has(l2cache.CanTouch) {
			return
		}
		err := l2cache.Touch(ctx, f.b, key, 2*time.Hour)
		if valid && errors.Is(err, l2cache.ErrNotFound) && (!there || p.e.profile.Evicts) {
			return
		}
		if check("Touch", err) && !there {
			p.failf("Touch(%s) = nil | want ErrNotFound", brief(key))
		}
	case 'S':
		other := t.key(p.e.profile.MaxKeyLen)
		items := []l2cache.Item{{Key: key, Value: t.value(), TTL: time.Hour}, {Key: other, Value: t.value(), TTL: time.Hour}}
		valid = valid && other != "" && len(other) <= p.e.profile.MaxKeyLen
		if check("SetMany", l2cache.SetMany(ctx, f.b, items)) {
			for _, item := range items {
				f.want[item.Key] = item.Value
			}
		}
	case 'G', 'D':
		keys := []string{key, t.key(p.e.profile.MaxKeyLen)}
		valid = valid && keys[1] != "" && len(keys[1]) <= p.e.profile.MaxKeyLen
		if op == 'D' {
			if check("DeleteMany", l2cache.DeleteMany(ctx, f.b, keys)) {
				delete(f.want, keys[0])
				delete(f.want, keys[1])
			}
			return
		}
		got, err := l2cache.GetMany(ctx, f.b, keys)
		if !check("GetMany", err) {
			return
		}
		for _, key := range keys {
			value, live := f.want[key]
			e, ok := got[key]
			if ok != live && !(live && p.e.profile.Evicts) || ok && !bytes.Equal(e.Value, value) {
				p.failf("GetMany: %s is there: %t, %d bytes | want %t, %d bytes", brief(key), ok, len(e.Value), live, len(value))
			}
		}
	case 'p':
		if !supports.Has(l2cache.CanDeletePattern) || !valid {
			return
		}
		f.deletePattern(l2cache.QuotePattern(key) + "*")
		for other := range f.want {
			if strings.HasPrefix(other, key) {
				delete(f.want, other)
			}
		}
	case '*':
		if supports.Has(l2cache.CanScan) && len(key) <= p.e.profile.MaxKeyLen {
			f.scan(key)
		}
	default:
		if valid {
			f.compare(key)
			return
		}
		p.wantError(operation{name: "Get"}, outcome{err: f.tryGet(ctx, key).err}, l2cache.ErrInvalidKey)
	}
}

// compare reads key in both ways.
func (f *fuzzed) compare(key string) {
	value, live := f.want[key]
	for _, how := range readers {
		r := f.read(how, key)
		if live && f.spared(r) {
			continue
		}
		if r.hit() != live || !bytes.Equal(r.value, value) {
			f.p.failf("%v | want %d bytes, there: %t", r, len(value), live)
		}
	}
}

func (f *fuzzed) scan(prefix string) {
	var got, want []string
	for info, err := range l2cache.Scan(f.p.ctx, f.b, prefix) {
		if err != nil {
			f.p.failf("Scan(%s) = %v | want nil", brief(prefix), err)
		}
		if info.Size != len(f.want[info.Key]) {
			f.p.failf("Scan(%s): size of %s is %d | want %d", brief(prefix), brief(info.Key), info.Size, len(f.want[info.Key]))
		}
		got = append(got, info.Key)
	}
	for key := range f.want {
		if strings.HasPrefix(key, prefix) {
			want = append(want, key)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) && !f.p.e.profile.Evicts {
		f.p.failf("Scan(%s) = %q | want %q", brief(prefix), got, want)
	}
}
