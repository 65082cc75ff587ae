package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/l2cache/l2cache"
)

var concurrencyCases = []Case{
	{
		ID:    "concurrency/linearizable",
		Law:   "concurrent operations on one key take effect one after another, each between its call and its return",
		cause: "a write that is acknowledged before it is done, or a read from an older copy",
		After: []string{"basic/read-your-writes"},
		Busy:  true,
		run: func(p *probe) {
			h := p.open()
			p.linearizable(h, h, 0)
		},
	},
	{
		ID:    "concurrency/linearizable-peers",
		Law:   "so do those of different handles",
		cause: "a local copy, or reads from a replica",
		After: []string{"basic/peer"},
		needs: needPeer,
		Busy:  true,
		run:   func(p *probe) { p.linearizable(p.open(), p.open(), 0) },
	},
	{
		ID:    "concurrency/whole-values",
		Law:   "a value is read as one writer wrote it, never as a mix of two",
		cause: "a value that is written or read in parts",
		Busy:  true,
		run: func(p *probe) {
			h := p.open()
			const n = 64 << 10
			h.set("k", strings.Repeat("\x00", n), time.Hour)
			begin := time.Now()
			var changes atomic.Int64 // how often a reader has seen another value than before
			p.parallel(8, func(w int) {
				last := byte(0)
				for i := 0; time.Since(begin) < time.Second || changes.Load() < 100 && time.Since(begin) < 8*time.Second; i++ {
					if w < 3 {
						// Lengths differ too, so that parts would not fit.
						h.set("k", string(bytes.Repeat([]byte{byte(w*50 + i%50)}, n-w*5000)), time.Hour)
						continue
					}
					r := h.read(readers[i%2], "k")
					if !r.hit() {
						p.failf("%v | want a hit: it is always set", r)
					}
					first := r.value[0]
					if first != last {
						changes.Add(1)
						last = first
					}
					if bytes.Count(r.value, r.value[:1]) != len(r.value) || len(r.value) != n-int(first)/50*5000 {
						p.failf("%v: a mix of values | want one of them", r)
					}
				}
			})
		},
	},
	{
		ID:    "concurrency/cross-talk",
		Law:   "concurrent callers each get the value of the key that they asked for",
		cause: "replies that are given to the wrong caller, or a buffer that two calls share",
		run: func(p *probe) {
			h := p.open()
			const keys = 16
			value := func(i int) string { return noise(i*i*40, uint64(i)) + fmt.Sprint(i) }
			for i := range keys {
				h.set(fmt.Sprint("k", i), value(i), time.Hour)
			}
			p.parallel(keys, func(w int) {
				for i := range 60 {
					key := (w*7 + i) % (keys + 4)
					r := h.read(readers[i%2], fmt.Sprint("k", key))
					if key >= keys && r.hit() || key < keys && (!r.hit() || string(r.value) != value(key)) {
						p.failf("%v | want the value of that key", r)
					}
					if i%3 > 0 {
						continue
					}
					mine := fmt.Sprint("k", w)
					s := h.setMany([]l2cache.Item{{Key: mine, Value: []byte(value(w)), TTL: time.Hour}, {Key: fmt.Sprint("of ", w, ".", i), Value: []byte(mine), TTL: time.Hour}})
					asked := []string{mine, fmt.Sprint("k", key), fmt.Sprint("of ", w, ".", i)}
					got, _ := h.getMany(asked)
					for _, key := range asked {
						e, hit := got[key]
						n := 0
						want := mine
						if _, err := fmt.Sscanf(key, "k%d", &n); err == nil {
							want = value(n)
						}
						if live := n < keys; hit && string(e.Value) != want || hit != live && !h.spared(read{key: key, span: s, err: l2cache.ErrNotFound}) {
							p.failf("GetMany beside others: %s = %s, there: %v | want %s, there: %v", key, brief(string(e.Value)), hit, brief(want), live)
						}
					}
				}
			})
		},
	},
	{
		ID:    "concurrency/many-callers",
		Law:   "any number of callers is served, more than there are connections too",
		cause: "a pool that hands out errors instead of making callers wait, or deadlocks",
		run: func(p *probe) {
			h := p.open()
			p.parallel(200, func(w int) {
				key := fmt.Sprint("k", w)
				h.set(key, key, time.Hour)
				if r := h.read(readers[w%2], key); !h.spared(r) && (!r.hit() || string(r.value) != key) {
					p.failf("%v | want %q", r, key)
				}
				if err := h.b.Ping(p.ctx); err != nil {
					p.failf("Ping among 200 callers = %v | want nil", err)
				}
				h.delete(key)
			})
		},
	},
	{
		ID:    "concurrency/no-goroutine-left",
		Law:   "no goroutine is left after Close",
		cause: "a goroutine without an end, or a Close that does not wait for it",
		Alone: true,
		run:   noGoroutineLeftCase,
	},
}

// A registerOp is an operation on one key, for porcupine.
type registerOp struct {
	kind  string // "set", "get", "delete", "add", "touch", or "lost" by a restart
	key   string
	value string // to set
}

// register is one key of a cache: its value, or "" for none.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(registerOp).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		switch op := input.(registerOp); op.kind {
		case "set":
			return true, op.value
		case "delete", "lost":
			return true, ""
		case "add":
			if output == "added" {
				return state == "", op.value
			}
			return state != "", state
		case "touch":
			return (output == "touched") == (state != ""), state
		}
		return output == state, state
	},
}

// linearizable has callers work on few keys through two handles, which may be the
// same, and looks for an order of all that explains what each saw. They use what
// is in with, besides the core. It does so again and again for a second: on a fast
// store callers seldom meet.
func (p *probe) linearizable(a, b *handle, with l2cache.Capability) {
	const callers, each, keys = 8, 60, 3
	begin := time.Now()
	for round := 0; round < 2 || round < 20 && time.Since(begin) < time.Second; round++ {
		var mu sync.Mutex
		var history []porcupine.Operation
		p.parallel(callers, func(w int) {
			h := []*handle{a, b}[w%2]
			for i := range each {
				in := registerOp{kind: "get", key: fmt.Sprint("k", round, ".", rand.IntN(keys))}
				var out string
				call := time.Since(begin)
				switch turn := rand.IntN(9); {
				case turn < 2:
					in.kind, in.value = "set", fmt.Sprintf("%d.%d", w, i)
					h.set(in.key, in.value, time.Hour)
				case turn < 4:
					in.kind = "delete"
					h.delete(in.key)
				case turn == 4 && with.Has(l2cache.CanAdd):
					in.kind, in.value = "add", fmt.Sprintf("%d.%d", w, i)
					added, err := l2cache.Add(p.ctx, h.b, in.key, []byte(in.value), time.Hour)
					if err != nil {
						p.failf("Add = %v | want nil", err)
					}
					if added {
						out = "added"
					}
				case turn == 5 && with.Has(l2cache.CanTouch):
					in.kind = "touch"
					err := l2cache.Touch(p.ctx, h.b, in.key, time.Hour)
					if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
						p.failf("Touch = %v | want nil or ErrNotFound", err)
					}
					if err == nil {
						out = "touched"
					}
				default:
					out = string(h.read(readers[i%2], in.key).value)
				}
				op := porcupine.Operation{ClientId: w, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(begin))}
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
		switch porcupine.CheckOperationsTimeout(register, history, 20*time.Second) {
		case porcupine.Illegal:
			p.failf("no order of %d operations of %d callers explains what they saw | want one", len(history), callers)
		case porcupine.Unknown:
			p.again("no order of %d operations was found in 20s, nor that there is none", len(history))
		}
	}
}

func noGoroutineLeftCase(p *probe) {
	use := func() {
		h := p.open()
		p.parallel(20, func(w int) {
			h.set(fmt.Sprint("k", w), "v", time.Hour)
			h.wantHit(fmt.Sprint("k", w), "v")
			for range 3 {
				ctx, cancel := context.WithTimeout(p.ctx, rand.N(200*time.Microsecond))
				h.tryGet(ctx, "k")
				cancel()
			}
		})
		h.close()
	}
	use() // what a driver starts once for the process does not count
	before, _ := p.e.goroutines()
	for range 10 { // what is ending counts neither
		time.Sleep(10 * time.Millisecond)
		n, _ := p.e.goroutines()
		before = min(before, n)
	}
	const handles = 5
	for range handles {
		use()
	}
	// What is ending may take a moment; what stays, stays.
	now, stacks := p.e.goroutines()
	for end := time.Now().Add(3 * time.Second); now >= before+handles && time.Now().Before(end); now, stacks = p.e.goroutines() {
		time.Sleep(10 * time.Millisecond)
	}
	if now >= before+handles {
		p.failf("%d goroutines more after %d handles were closed | want none\n%s", now-before, handles, stacks)
	}
}

// goroutines counts the goroutines of this run, by the label that they inherit,
// and shows their stacks. Whatever else goes on in the process has no part in it.
func (e *engine) goroutines() (n int, stacks string) {
	record := regexp.MustCompile(`(?m)^(\d+) @.*\n# labels: .*"` + e.id + `".*\n(?:#\t.*\n)*`)
	var profile strings.Builder
	pprof.Lookup("goroutine").WriteTo(&profile, 1)
	for _, match := range record.FindAllStringSubmatch(profile.String(), -1) {
		count, _ := strconv.Atoi(match[1])
		n += count
		stacks += match[0] + "\n"
	}
	return n, stacks
}
