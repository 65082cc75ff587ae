package conformance

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

// A model is what a backend holds after a sequence of operations, one after another,
// through any of its handles.
type model struct {
	p       *probe
	handles []*handle
	keys    []string
	entries map[string]modelEntry
}

type modelEntry struct {
	value string
	set   span
	ttl   time.Duration
}

// anySequenceCase has random operations of all sorts, and time, go over a few keys that
// are easily confused, and compares what each sees with a model.
func anySequenceCase(p *probe) {
	a, b := p.peers()
	m := &model{p: p, handles: []*handle{a, b}, entries: map[string]modelEntry{}}
	begin := time.Now()
	enough := func(i int) bool { // the fewer, the longer they have taken
		took := time.Since(begin)
		return i >= 3000 || i >= 1000 && took > p.horizon() || i >= 150 && took > p.horizon()+p.e.o.CaseTimeout/8
	}
	for i := 0; !enough(i); i++ {
		if i%200 == 0 {
			m.renew(strings.Repeat("k", min(i/200, p.e.profile.MaxKeyLen-1)))
		}
		key := m.step(i)
		if i%2 == 0 {
			m.judge(m.handles[i/2%2].read(readers[i/4%2], key))
		}
	}
}

// renew deletes what there is, and goes on with keys that nobody has had yet.
func (m *model) renew(prefix string) {
	if err := l2cache.DeleteMany(m.p.ctx, m.handles[0].b, m.keys); err != nil {
		m.p.failf("DeleteMany = %v | want nil", err)
	}
	m.keys = m.keys[:0]
	clear(m.entries)
	longest := m.p.e.profile.MaxKeyLen
	for _, key := range []string{"a", "A", "a ", "a/", "a:", "a:b", "ab", "\x00", "*", "a*", "\xff", "日", "b", strings.Repeat("l", max(longest-len(prefix), 1))} {
		if len(prefix)+len(key) <= longest {
			m.keys = append(m.keys, prefix+key)
		}
	}
}

func (m *model) key() string { return m.keys[rand.IntN(len(m.keys))] }

// ttl is mostly long, and sometimes one that ends during the case.
func (m *model) ttl() time.Duration {
	switch rand.IntN(5) {
	case 0:
		return l2cache.NoExpiry
	case 1:
		ttls := spread()
		return ttls[rand.IntN(len(ttls))]
	case 2:
		return 1 + rand.N(m.p.horizon()/20)
	}
	return time.Hour + rand.N(time.Hour)
}

// state tells whether an operation in span s must find an entry of key, or must not.
// Neither is certain about its end, and where entries are evicted.
func (m *model) state(key string, s span) (live, gone bool) {
	e, known := m.entries[key]
	if !known {
		return false, true
	}
	profile := m.p.e.profile
	live = !profile.Evicts && s.done.Before(e.set.call.Add(min(e.ttl, profile.MaxTTL)))
	return live, s.call.After(m.p.end(e.set, e.ttl))
}

// judge compares what an operation has found under a key.
func (m *model) judge(r read) {
	live, gone := m.state(r.key, r.span)
	e := m.entries[r.key]
	switch {
	case !r.hit() && live:
		m.p.failf("%v, set to %s for %s at %v | want a hit", r, brief(e.value), ttlText(e.ttl), m.p.at(e.set.call))
	case !r.hit():
		delete(m.entries, r.key) // and it stays away
	case gone:
		m.p.failf("%v | want a miss", r)
	case r.op != "Scan" && string(r.value) != e.value:
		m.p.failf("%v | want %s", r, brief(e.value))
	case r.op != "Get":
		m.p.judgeTTL(r, e.set, e.ttl)
	}
}

// step does one operation, and returns the key, or one of them.
func (m *model) step(i int) (key string) {
	p, h := m.p, m.handles[rand.IntN(len(m.handles))]
	key = m.key()
	supports := p.e.profile.Supports
	value, ttl := noise(rand.IntN(200), uint64(i)), m.ttl()
	switch turn := rand.IntN(16); {
	case turn < 3:
		m.entries[key] = modelEntry{value, h.set(key, value, ttl), ttl}
	case turn == 3:
		h.delete(key)
		delete(m.entries, key)
	case turn == 4:
		items := []l2cache.Item{{Key: key, Value: []byte(value), TTL: ttl}}
		for range rand.IntN(4) {
			items = append(items, l2cache.Item{Key: m.key(), Value: []byte(noise(rand.IntN(200), rand.Uint64())), TTL: m.ttl()})
		}
		s := h.setMany(items)
		for _, item := range items {
			m.entries[item.Key] = modelEntry{string(item.Value), s, item.TTL}
		}
	case turn == 5:
		keys := []string{key, m.key()}
		if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
			p.failf("DeleteMany = %v | want nil", err)
		}
		p.note("DeleteMany(%q)", keys)
		delete(m.entries, keys[0])
		delete(m.entries, keys[1])
	case turn == 6 && supports.Has(l2cache.CanDeletePattern):
		pattern := l2cache.QuotePattern(key)
		if i%2 == 0 {
			pattern += "*"
		}
		h.deletePattern(pattern)
		for other := range m.entries {
			if l2cache.MatchPattern(pattern, other) {
				delete(m.entries, other)
			}
		}
	case turn < 9 && supports.Has(l2cache.CanAdd):
		m.add(h, key, value, ttl)
	case turn < 11 && supports.Has(l2cache.CanTouch):
		m.touch(h, key, ttl)
	case turn == 11 && supports.Has(l2cache.CanScan):
		m.scan(h, []string{"", key, key[:len(key)-1], "zz"}[i%4])
	case turn == 12:
		keys := []string{key, m.key(), m.key()}
		got, s := h.getMany(keys)
		for _, key := range keys {
			r := read{op: "GetMany", key: key, span: s, err: l2cache.ErrNotFound}
			if e, hit := got[key]; hit {
				r.value, r.ttl, r.err = e.Value, e.TTL, nil
			}
			m.judge(r)
		}
	case turn == 13 && i%4 == 0:
		time.Sleep(rand.N(p.horizon() / 100))
	default:
		m.judge(h.read(readers[i%2], key))
	}
	return key
}

func (m *model) add(h *handle, key, value string, ttl time.Duration) {
	s := span{call: time.Now()}
	added, err := l2cache.Add(m.p.ctx, h.b, key, []byte(value), ttl)
	s.done = time.Now()
	h.note("Add(%s,%s)@%v:%v%s", brief(key), ttlText(ttl), m.p.at(s.call), added, failure(err))
	live, gone := m.state(key, s)
	if err != nil || added && live || !added && gone {
		m.p.failf("Add(%s) = %v, %v where there is an entry: %v | want %v", brief(key), added, err, !gone, gone)
	}
	if added {
		m.entries[key] = modelEntry{value, s, ttl}
	}
}

func (m *model) touch(h *handle, key string, ttl time.Duration) {
	s := span{call: time.Now()}
	err := l2cache.Touch(m.p.ctx, h.b, key, ttl)
	s.done = time.Now()
	h.note("Touch(%s,%s)@%v%s", brief(key), ttlText(ttl), m.p.at(s.call), failure(err))
	live, gone := m.state(key, s)
	missing := errors.Is(err, l2cache.ErrNotFound)
	switch {
	case err != nil && !missing, missing && live, !missing && gone:
		m.p.failf("Touch(%s) = %v where there is an entry: %v | want nil or ErrNotFound accordingly", brief(key), err, !gone)
	case missing:
		delete(m.entries, key)
	default:
		m.entries[key] = modelEntry{m.entries[key].value, s, ttl}
	}
}

func (m *model) scan(h *handle, prefix string) {
	s := span{call: time.Now()}
	infos := h.scan(prefix)
	s.done = time.Now()
	for key, info := range infos {
		e, known := m.entries[key]
		if !known || !strings.HasPrefix(key, prefix) || info.Size != len(e.value) {
			m.p.failf("Scan(%q): %s with size %d, known: %v | want what is there, with size %d", prefix, brief(key), info.Size, known, len(e.value))
		}
		m.judge(read{op: "Scan", key: key, ttl: info.TTL, span: s})
	}
	for _, key := range m.keys {
		_, seen := infos[key]
		if live, _ := m.state(key, s); live && !seen && strings.HasPrefix(key, prefix) {
			m.p.failf("Scan(%q) leaves out %s | want it", prefix, brief(key))
		}
	}
}

// counts are numbers of keys about which pages, buffers and limits have their ends.
var counts = []int{1, 2, 3, 5, 10, 16, 20, 25, 32, 50, 64, 99, 100, 101, 127, 128, 129, 200, 250, 255, 256, 257, 300, 500, 512, 999, 1000, 1001, 1024}

// fewKeys are the counts that are not more than n.
func fewKeys(n int) (few []int) {
	for _, count := range counts {
		if count <= n {
			few = append(few, count)
		}
	}
	return few
}

// peers returns two handles on the same data, or one twice if there can be no second.
func (p *probe) peers() (a, b *handle) {
	a = p.open()
	if p.e.profile.Exclusive {
		return a, a
	}
	return a, p.open()
}
