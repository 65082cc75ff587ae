package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/l2cache/l2cache"
)

var basicCases = []Case{
	{
		ID:    "basic/profile",
		Law:   "name and profile are constant, and the profile stays within what the contract allows",
		cause: "a field that depends on what the backend has found out meanwhile",
		run:   profileCase,
	},
	{
		ID:    "basic/roundtrip",
		Law:   "an entry that was set is read back, by Get and by GetWithTTL",
		cause: "value or key is changed on the way",
		run: func(p *probe) {
			h := p.open()
			h.set("k", "value", time.Hour)
			h.wantHit("k", "value")
		},
	},
	{
		ID:    "basic/miss",
		Law:   "a key that was never set is ErrNotFound, with a nil value and no TTL",
		cause: "the driver's own error for a miss, or an empty hit",
		run: func(p *probe) {
			h := p.open()
			h.set("other", "value", time.Hour)
			h.wantMiss("never set")
		},
	},
	{
		ID:    "basic/ping",
		Law:   "Ping of a backend that can answer is nil",
		cause: "Ping asks for something that the server does not let this user do",
		run: func(p *probe) {
			h := p.open()
			for _, ctx := range []context.Context{p.ctx, context.Background()} {
				if err := h.b.Ping(ctx); err != nil {
					p.failf("Ping = %v | want nil", err)
				}
			}
		},
	},
	{
		ID:    "basic/read-keeps",
		Law:   "reading an entry does not consume it",
		cause: "a read that takes the entry out",
		run: func(p *probe) {
			h := p.open()
			h.set("k", "value", time.Hour)
			for range 5 {
				h.wantHit("k", "value")
			}
		},
	},
	{
		ID:    "basic/read-your-writes",
		Law:   "what Set or Delete has done is seen by the next call",
		cause: "writes in the background, reads from a replica or from a local copy",
		run: func(p *probe) {
			h := p.open()
			for i := range 100 {
				value := fmt.Sprintf("value %d", i)
				h.set("k", value, time.Hour)
				h.wantHit("k", value)
				if i%10 == 9 {
					h.delete("k")
					h.wantMiss("k")
				}
			}
		},
	},
	{
		ID:    "basic/background",
		Law:   "a ctx that cannot be cancelled works like any other",
		cause: "a select on a nil Done channel, or a path of its own for such a ctx",
		run: func(p *probe) {
			h := p.open()
			p.ctx = context.Background()
			for i := range 20 {
				value := fmt.Sprintf("value %d", i)
				h.set("k", value, time.Hour)
				h.wantHit("k", value)
			}
			h.delete("k")
			h.wantMiss("k")
		},
	},
	{
		ID:    "basic/peer",
		Law:   "another handle on the same data sees what a call has done as soon as it has returned",
		cause: "data that is kept in the handle, or a test that opens another store each time",
		needs: needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			for i := range 10 {
				key := fmt.Sprint("k", i)
				b.wantMiss(key)
				for j := range 6 {
					value := fmt.Sprintf("value %d", j)
					if j == 5 {
						value = noise([]int{0, 5000, 50_000, 150_000, 400_000, guaranteedValueLen}[i%6], uint64(i))
					}
					a.set(key, value, time.Hour)
					b.wantHit(key, value)
					if j%2 == 1 {
						a, b = b, a
					}
				}
				a.delete(key)
				b.wantMiss(key)
			}
		},
	},
	{
		ID:    "basic/many-keys",
		Law:   "each of many keys keeps its own value",
		cause: "keys that collide, or a write that gets lost now and then",
		run:   manyKeysCase,
	},
	{
		ID:    "basic/random-operations",
		Law:   "after any sequence of operations, reads give what the last write of each key left",
		cause: "state that one operation leaves behind for another",
		After: []string{"basic/read-your-writes"},
		run:   randomOperationsCase,
	},
}

func profileCase(p *probe) {
	h := p.open()
	name, profile := h.b.Name(), l2cache.ProfileOf(h.b)
	if name == "" {
		p.failf("Name is empty | want the kind of the store")
	}
	switch {
	case profile.Resolution < 1 || profile.Resolution > time.Second:
		p.failf("Resolution = %v | want at most 1s", profile.Resolution)
	case profile.MaxTTL < time.Second:
		p.failf("MaxTTL = %v | want at least 1s", profile.MaxTTL)
	case profile.MaxKeyLen < 1 || profile.MaxKeyLen > l2cache.MaxKeyLen:
		p.failf("MaxKeyLen = %d | want 1 to %d", profile.MaxKeyLen, l2cache.MaxKeyLen)
	case profile.MaxValueLen != 0 && profile.MaxValueLen < guaranteedValueLen:
		p.failf("MaxValueLen = %d | want at least %d", profile.MaxValueLen, guaranteedValueLen)
	}
	h.set("k", "value", time.Hour)
	h.wantHit("k", "value")
	h.close()
	if again := l2cache.ProfileOf(h.b); again != profile || h.b.Name() != name {
		p.failf("%q, %+v after use and Close | want %q, %+v as before", h.b.Name(), again, name, profile)
	}
	other := p.openIn(p.e.namespace())
	if again := l2cache.ProfileOf(other.b); again != profile || other.b.Name() != name {
		p.failf("%q, %+v on another handle | want %q, %+v", other.b.Name(), again, name, profile)
	}
}

func manyKeysCase(p *probe) {
	h := p.open()
	const workers = 16
	begin := time.Now()
	last := make([]int, workers) // key that each has set
	key := func(i int) string { return fmt.Sprintf("key:%d", i) }
	// On a fast store far more than on a slow one: many a limit is not met earlier.
	p.parallel(workers, func(w int) {
		for i := w; i < 1100 || i < 20_000 && time.Since(begin) < 3*time.Second; i += workers {
			h.set(key(i), fmt.Sprintf("value of %d", i), time.Hour)
			last[w] = i
		}
	})
	p.parallel(workers, func(w int) {
		for i := w; i <= last[w]; i += workers {
			want := fmt.Sprintf("value of %d", i)
			for _, how := range readers {
				if r := h.read(how, key(i)); !h.spared(r) && (!r.hit() || string(r.value) != want) {
					p.failf("%v | want %q", r, want)
				}
			}
		}
	})
}

// randomOperationsCase compares a backend with a map, over keys that are easily
// confused, and under contexts of every sort.
func randomOperationsCase(p *probe) {
	h := p.open()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	p.note("seed %d", seed)
	keys := []string{"a", "A", "a ", "a/", "a:b", "a/b", "ab", "\x00", "*", "a*"}
	want := map[string]string{}
	deadline, cancel := context.WithTimeout(p.ctx, time.Hour)
	defer cancel()
	contexts := []context.Context{p.ctx, context.Background(), deadline}
	for i, start := 0, time.Now(); i < 300 || i < 20_000 && time.Since(start) < 2*time.Second; i++ {
		key, ctx := keys[rng.IntN(len(keys))], contexts[rng.IntN(len(contexts))]
		switch rng.IntN(5) {
		case 0, 1:
			value := noise(rng.IntN(300), uint64(i))
			if _, err := h.trySet(ctx, key, []byte(value), time.Hour+time.Duration(rng.IntN(1e9))); err != nil {
				p.failf("Set(%q) = %v | want nil", key, err)
			}
			want[key] = value
			if i%2 == 0 {
				h.wantHit(key, value)
			}
		case 2:
			if err := h.tryDelete(ctx, key); err != nil {
				p.failf("Delete(%q) = %v | want nil", key, err)
			}
			delete(want, key)
		default:
			r := readers[rng.IntN(len(readers))](h, ctx, key)
			value, live := want[key]
			if live != r.hit() || string(r.value) != value || !live && !errors.Is(r.err, l2cache.ErrNotFound) {
				p.failf("operation %d of seed %d: %v | want %s, live: %v", i, seed, r, brief(value), live)
			}
		}
	}
}
