package conformance

import (
	"fmt"
	"time"
)

var deleteCases = []Case{
	{
		ID:    "delete/gone",
		Law:   "after Delete the entry is gone at once",
		cause: "a delete that does nothing, or later",
		run: func(p *probe) {
			h := p.open()
			for i := range 20 {
				h.set("k", fmt.Sprint(i), time.Hour)
				h.delete("k")
				h.wantMiss("k")
			}
		},
	},
	{
		ID:    "delete/missing",
		Law:   "Delete of an absent key is nil",
		cause: "the driver's own error for a key that is not there",
		run: func(p *probe) {
			h := p.open()
			h.delete("never set")
			h.set("k", "v", time.Hour)
			h.delete("k")
			h.delete("k")
			h.wantMiss("k")
		},
	},
	{
		ID:    "delete/expired",
		Law:   "Delete of an expired key is nil",
		cause: "the driver's own error for a key that is not there",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const ttl = 20 * time.Millisecond
			p.gone(h.set("k", "v", ttl), ttl)
			h.delete("k")
			h.wantMiss("k")
		},
	},
	{
		ID:    "delete/neighbours",
		Law:   "Delete removes the key that it was given, and none that begins with it or looks like it",
		cause: "a delete by prefix or pattern",
		run: func(p *probe) {
			h := p.open()
			neighbours := []string{"k1", "k/x", "k:x", "k.x", "k ", " k", "K", "kk", "k\x00", "j", "l", "k*"}
			for _, key := range neighbours {
				h.set(key, "of "+key, time.Hour)
			}
			for _, key := range []string{"k", "k*", "*", "k?", "k[1x]", ".", ">", "k.>", "k.*", "k/"} {
				h.set(key, "to go", time.Hour)
				h.delete(key)
				h.wantMiss(key)
				for _, neighbour := range neighbours {
					if neighbour != key {
						h.wantHit(neighbour, "of "+neighbour)
					} else {
						h.set(key, "of "+key, time.Hour)
					}
				}
			}
		},
	},
	{
		ID:    "delete/forgets-ttl",
		Law:   "an entry that is set after a Delete has its own TTL only",
		cause: "a deadline that outlives the entry, or a tombstone that takes the new entry with it",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(250 * time.Millisecond)
			h.set("k", "old", ttl)
			h.delete("k")
			set := h.set("k", "new", 8*ttl)
			h.follow("k", set, 8*ttl, readers...)
			h.set("k", "old", time.Hour)
			h.delete("k")
			set = h.set("k", "new", ttl)
			h.follow("k", set, ttl, readers...)
		},
	},
	{
		ID:    "delete/peer",
		Law:   "a Delete is seen by every other handle at once",
		cause: "entries that a handle keeps for itself",
		needs: needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			for i := range 20 {
				a.set("k", fmt.Sprint(i), time.Hour)
				b.wantHit("k", fmt.Sprint(i))
				a.delete("k")
				b.wantMiss("k")
				a, b = b, a
			}
		},
	},
}
