package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

var durabilityCases = []Case{
	{
		ID:    "durability/reopen",
		Law:   "what any operation has done to key, value and deadline survives that the backend is closed and opened again",
		cause: "a deadline that is kept in memory only, or starts anew",
		needs: needDurable,
		timed: true,
		run: func(p *probe) {
			h := p.open()
			hour := h.set("hour", "v", time.Hour)
			forever := h.set("forever", noise(50_000, 1), l2cache.NoExpiry)
			others := map[string]string{
				"empty": "", "\x00\xff\x00 ": "\x00", strings.Repeat("k", p.e.profile.MaxKeyLen): "of the longest key",
				"large": noise(guaranteedValueLen, 2),
			}
			for key, value := range others {
				h.set(key, value, time.Hour)
			}
			h.set("deleted", "v", time.Hour)
			h.delete("deleted")
			supports := p.e.profile.Supports
			ttls := map[string]time.Duration{"set many": 2 * time.Hour, "many too": 60 * 24 * time.Hour}
			many := h.setMany([]l2cache.Item{
				{Key: "set many", Value: []byte("v"), TTL: ttls["set many"]},
				{Key: "many too", Value: []byte("v"), TTL: ttls["many too"]},
				{Key: "deleted 1", TTL: time.Hour},
				{Key: "deleted 2", TTL: time.Hour},
			})
			sets := map[string]span{"set many": many, "many too": many}
			if err := l2cache.DeleteMany(p.ctx, h.b, []string{"deleted 1"}); err != nil {
				p.failf("DeleteMany = %v | want nil", err)
			}
			if h.delete("deleted 2"); supports.Has(l2cache.CanDeletePattern) {
				h.set("deleted 2", "v", time.Hour)
				h.deletePattern("deleted*2")
			}
			if supports.Has(l2cache.CanAdd) {
				ttls["added"] = 3 * time.Hour
				sets["added"] = h.add("added", "v", ttls["added"], true)
			}
			if supports.Has(l2cache.CanTouch) {
				ttls["touched"] = 4 * time.Hour
				h.set("touched", "v", time.Minute)
				sets["touched"] = h.touch("touched", ttls["touched"])
			}
			for range 2 {
				h.close()
				h = p.open()
				h.wantHit("hour", "v")
				h.wantHit("forever", noise(50_000, 1))
				for _, key := range []string{"deleted", "deleted 1", "deleted 2"} {
					h.wantMiss(key)
				}
				for key, ttl := range ttls {
					h.wantHit(key, "v")
					p.judgeTTL(h.entry(key), sets[key], ttl)
				}
				p.foundAgain(h, ttls, sets)
				for key, value := range others {
					h.wantHit(key, value)
				}
				p.judgeTTL(h.entry("hour"), hour, time.Hour)
				p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
			}
		},
	},
	{
		ID:    "durability/time-counts",
		Law:   "time counts while the backend is closed: an entry that ends meanwhile is a miss, another has that much less",
		cause: "a remaining TTL that is stored instead of a deadline",
		needs: needDurable,
		timed: true,
		run: func(p *probe) {
			h := p.open()
			const short, long = 300 * time.Millisecond, 10 * time.Second
			set := h.set("long", "v", long)
			end := h.set("short", "v", short)
			h.close()
			p.gone(end, short)
			h = p.open()
			h.wantMiss("short")
			h.wantHit("long", "v")
			p.judgeTTL(h.entry("long"), set, long)
			h.delete("short")
			fresh := h.set("short", "fresh", time.Hour)
			h.wantHit("short", "fresh")
			p.judgeTTL(h.entry("short"), fresh, time.Hour)
		},
	},
	{
		ID:    "durability/ends-after-reopen",
		Law:   "an entry that lives through a reopening ends when it would have",
		cause: "a deadline that starts anew at the reopening",
		needs: needDurable,
		timed: true,
		run: func(p *probe) {
			h := p.open()
			ttl := p.longer(800 * time.Millisecond)
			hour := h.set("hour", "v", time.Hour)
			set := h.set("k", "v", ttl)
			h.close()
			sleepUntil(set.call.Add(ttl / 2))
			h = p.open()
			p.judgeTTL(h.entry("hour"), hour, time.Hour)
			h.follow("k", set, ttl, readers...)
		},
	},
	{
		ID:    "durability/exclusive",
		Law:   "a second opener of an exclusive store gets an error, soon, and does no harm to the first",
		cause: "a wait for a lock without end, or no lock",
		needs: needLock,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			ctx, cancel := context.WithTimeout(p.ctx, patience)
			defer cancel()
			b, err := p.e.open(ctx, p.ns)
			if err == nil {
				b.Close()
				p.failf("open of a store that is open = nil | want an error: the profile says Exclusive")
			}
			if ctx.Err() != nil {
				p.failf("open of a store that is open took all of %v | want an error before", patience)
			}
			h.wantHit("k", "v")
			h.set("k", "w", time.Hour)
			h.close()
			p.open().wantHit("k", "w")
		},
	},
	{
		ID:    "durability/restart",
		Law:   "entries survive a restart of the server, with their deadlines",
		cause: "a server that was not told to write to disk before it answers",
		needs: needDurable | needDown,
		Alone: true,
		run: func(p *probe) {
			h := p.open()
			hour := h.set("hour", "v", time.Hour)
			forever := h.set("forever", noise(50_000, 1), l2cache.NoExpiry)
			const ttl = 200 * time.Millisecond
			short := h.set("short", "v", ttl)
			h.set("deleted", "v", time.Hour)
			h.delete("deleted")
			many := h.setMany([]l2cache.Item{{Key: "set many", Value: []byte("v"), TTL: time.Hour}, {Key: "many too", Value: []byte("v"), TTL: time.Hour}})
			later := map[string]span{"set many": many, "many too": many}
			if p.e.profile.Supports.Has(l2cache.CanAdd) {
				later["added"] = h.add("added", "v", time.Hour, true)
			}
			if p.e.profile.Supports.Has(l2cache.CanTouch) {
				h.set("touched", "v", time.Minute)
				later["touched"] = h.touch("touched", time.Hour)
			}
			p.down()
			p.gone(short, ttl)
			p.up()
			h.settle()
			h.wantHit("hour", "v")
			h.wantHit("forever", noise(50_000, 1))
			h.wantMiss("short")
			h.wantMiss("deleted")
			p.judgeTTL(h.entry("hour"), hour, time.Hour)
			p.judgeTTL(h.entry("forever"), forever, l2cache.NoExpiry)
			for key, set := range later {
				h.wantHit(key, "v")
				p.judgeTTL(h.entry(key), set, time.Hour)
			}
		},
	},
	{
		ID:    "durability/volatile-restart",
		Law:   "after a restart of a server that forgets, entries are misses, not errors",
		cause: "a handle that goes on with what it knew about the server",
		needs: needForget | needDown,
		Alone: true,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			p.down()
			p.up()
			h.settle()
			// A volatile server may still have kept it.
			for _, how := range readers {
				if r := h.read(how, "k"); r.hit() && string(r.value) != "v" {
					p.failf("%v after a restart | want \"v\" or a miss", r)
				}
			}
			h.set("k", "w", time.Hour)
			h.wantHit("k", "w")
		},
	},
	{
		ID:    "durability/cut-off",
		Law:   "a write that was cut off leaves the old entry, the new one or a miss, never a mix; one that was acknowledged by a durable store stays",
		cause: "a value that is stored in parts without a transaction, or an acknowledgement ahead of the disk",
		needs: needDown,
		Alone: true,
		run: func(p *probe) {
			h := p.open()
			for round := range 3 {
				p.cutOff(h, round)
			}
		},
	},
}

// foundAgain wants the operations that may go by an index of their own to find entries
// with the value "v", and not the key deleted.
func (p *probe) foundAgain(h *handle, ttls map[string]time.Duration, sets map[string]span) {
	supports := p.e.profile.Supports
	got, s := h.getMany(append(slices.Collect(maps.Keys(ttls)), "deleted"))
	if len(got) != len(ttls) {
		p.failf("GetMany = %d entries | want %d", len(got), len(ttls))
	}
	for key, ttl := range ttls {
		if string(got[key].Value) != "v" {
			p.failf("GetMany: %s = %s | want v", key, brief(string(got[key].Value)))
		}
		p.judgeTTL(read{op: "GetMany", key: key, value: got[key].Value, ttl: got[key].TTL, span: s}, sets[key], ttl)
		if supports.Has(l2cache.CanAdd) {
			h.add(key, "another", time.Minute, false)
		}
		if supports.Has(l2cache.CanTouch) {
			sets[key] = h.touch(key, ttl)
		}
	}
	if !supports.Has(l2cache.CanScan) {
		return
	}
	infos := h.scan("")
	for key := range ttls {
		if infos[key].Size != 1 {
			p.failf("Scan: %s with size %d | want 1", key, infos[key].Size)
		}
	}
	if _, seen := infos["deleted"]; seen {
		p.failf("Scan yields what was deleted | want it gone")
	}
}

// cutOff takes the server down under writers.
func (p *probe) cutOff(h *handle, round int) {
	const writers = 6
	key := func(w int) string { return fmt.Sprintf("k%d.%d", round, w) }
	value := func(w, i int) string {
		return fmt.Sprintf("%d.%d:", w, i) + strings.Repeat(string(rune('a'+(w+i)%26)), 20_000)
	}
	// Beside one key that it sets again and again, a writer sets others once.
	once := func(w, i int) string { return fmt.Sprintf("once %d.%d.%d", round, w, i) }
	var mu sync.Mutex
	acknowledged := make([]int, writers) // the last Set that succeeded; guarded by mu
	begun := make([]int, writers)        // the last Set that was begun; guarded by mu
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.parallelNoExit(writers, func(w int) {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				begun[w] = i
				mu.Unlock()
				_, err := h.trySet(p.ctx, key(w), []byte(value(w, i)), time.Hour)
				if err == nil {
					_, err = h.trySet(p.ctx, once(w, i), []byte(value(w, i)[:10]), time.Hour)
				}
				if err != nil {
					if !errors.Is(err, l2cache.ErrUnavailable) {
						p.record(Fail, fmt.Sprintf("Set while the server goes down = %v | want nil or ErrUnavailable", err))
					}
					return
				}
				mu.Lock()
				acknowledged[w] = i
				mu.Unlock()
			}
		})
	}()
	// Not before every writer has got going.
	slowest := func() int {
		mu.Lock()
		defer mu.Unlock()
		return slices.Min(acknowledged)
	}
	for end := time.Now().Add(patience); slowest() < 5 && !p.failed() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	p.down()
	close(stop)
	<-done
	p.stopIfFailed()
	p.up()
	h.settle()
	for w := range writers {
		for i := 1; i <= acknowledged[w] && p.e.profile.Durable; i++ {
			h.wantHit(once(w, i), value(w, i)[:10])
		}
		for _, how := range readers {
			r := h.read(how, key(w))
			if !r.hit() {
				if p.e.profile.Durable && begun[w] == acknowledged[w] {
					p.failf("%v after a restart, though Set %d was acknowledged, and none begun after it | want it", r, acknowledged[w])
				}
				continue // a write that was cut off can leave a miss
			}
			// What the server acknowledged is there, or the one that was cut off.
			from := acknowledged[w]
			if !p.e.profile.Durable {
				from = 1
			}
			found := false
			for i := from; i <= begun[w] && !found; i++ {
				found = string(r.value) == value(w, i)
			}
			if !found {
				p.failf("%v after a restart | want a value from Set %d to %d, whole", r, from, begun[w])
			}
		}
	}
}
