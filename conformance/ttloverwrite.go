package conformance

import (
	"time"

	"github.com/l2cache/l2cache"
)

var ttlOverwriteCases = []Case{
	{
		ID:    "ttl/overwrite/value",
		Law:   "a Set replaces the value",
		cause: "a write that is only done when there is nothing yet",
		run: func(p *probe) {
			h := p.open()
			for _, value := range []string{"one", "another", "", "a third, which is longer", "x"} {
				h.set("k", value, time.Hour)
				h.wantHit("k", value)
			}
		},
	},
	{
		ID:    "ttl/overwrite/longer",
		Law:   "a Set replaces a short TTL by a longer one",
		cause: "the old deadline was kept",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			short := p.longer(250 * time.Millisecond)
			p.overwrite(h, "old", short, "new", 4*short)
		},
	},
	{
		ID:    "ttl/overwrite/shorter",
		Law:   "a Set replaces a long TTL by a shorter one",
		cause: "the old TTL was kept, or the later of the two deadlines",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			p.overwrite(h, "old", time.Hour, "new", p.longer(300*time.Millisecond))
		},
	},
	{
		ID:    "ttl/overwrite/tiny",
		Law:   "a Set replaces the old entry also if the new one has hardly any time left",
		cause: "a write that is left out because it is over so soon",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			for _, ttl := range []time.Duration{1, 999 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 60 * time.Millisecond} {
				for _, old := range []time.Duration{time.Hour, l2cache.NoExpiry} {
					h.set("k", "old", old)
					p.gone(h.set("k", "new", ttl), ttl)
					h.wantMiss("k")
				}
			}
		},
	},
	{
		ID:    "ttl/overwrite/to-no-expiry",
		Law:   "a Set with NoExpiry takes the deadline away",
		cause: "a write without a TTL that leaves the old one in force",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(250 * time.Millisecond)
			old := h.set("k", "old", ttl)
			set := h.set("k", "new", l2cache.NoExpiry)
			h.wantHit("k", "new")
			p.judgeTTL(h.entry("k"), set, l2cache.NoExpiry)
			p.gone(old, ttl)
			h.wantHit("k", "new")
			p.judgeTTL(h.entry("k"), set, l2cache.NoExpiry)
		},
	},
	{
		ID:    "ttl/overwrite/from-no-expiry",
		Law:   "a Set with a TTL ends an entry that had no expiry",
		cause: "an entry without expiry that stays so",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			p.overwrite(h, "old", l2cache.NoExpiry, "new", p.longer(300*time.Millisecond))
		},
	},
	{
		ID:    "ttl/overwrite/same-value",
		Law:   "a Set of the value that is there already starts its TTL anew, in either direction",
		cause: "a write that is left out because nothing seems to change",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			short := p.longer(250 * time.Millisecond)
			p.overwrite(h, "same", short, "same", 4*short)
			p.overwrite(h, "same", time.Hour, "same", short)
		},
	},
	{
		ID:    "ttl/overwrite/often",
		Law:   "however often an entry is set, the last Set's TTL counts from that Set",
		cause: "a TTL that counts from the first write, or adds up",
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(300 * time.Millisecond)
			var set span
			for range 6 {
				set = h.set("k", "v", ttl)
				time.Sleep(ttl / 5)
				h.wantHitDuring("k", "v", set, ttl)
			}
			h.follow("k", set, ttl, readers...)
		},
	},
}

// overwrite sets key twice and follows the second entry to its end.
func (p *probe) overwrite(h *handle, old string, oldTTL time.Duration, value string, ttl time.Duration) {
	h.set("k", old, oldTTL)
	set := h.set("k", value, ttl)
	h.wantHitDuring("k", value, set, ttl)
	h.follow("k", set, ttl, readers...)
}
