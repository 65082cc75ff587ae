package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

var watchCases = []Case{
	{
		ID:         "watch/sees",
		Law:        "the first event is a Gap, and every change after it is seen: by Set, Delete, SetMany and what else there is, through this handle",
		cause:      "a subscription that begins later than the first event says",
		Capability: l2cache.CanWatch,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			w := h.watch("")
			defer w.stop()
			w.sees("k", func() { h.set("k", "w", time.Hour) })
			w.sees("k", func() { h.set("k", "w", time.Minute) }) // the same value, another TTL
			for _, n := range []int{0, 20_000, 80_000, 300_000, guaranteedValueLen} {
				w.sees("k", func() { h.set("k", noise(n, 1), time.Hour) })
			}
			w.seesAll(h)
			for _, key := range []string{"a\r\n*", "\x00", "\xff", "a ", "日", "a.b", ">", strings.Repeat("k", 300), strings.Repeat("k", p.e.profile.MaxKeyLen), strings.Repeat("\xff", p.e.profile.MaxKeyLen)} {
				if len(key) <= p.e.profile.MaxKeyLen {
					w.sees(key, func() { h.set(key, "", l2cache.NoExpiry) })
					w.sees(key, func() { h.delete(key) })
				}
			}
		},
	},
	{
		ID:         "watch/peer",
		Law:        "changes made through another handle are seen, whatever the operation, also when one of the handles is closed",
		cause:      "a backend that tells of its own writes only",
		Capability: l2cache.CanWatch,
		needs:      needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			w := a.watch("")
			defer w.stop()
			for i := range 20 {
				key := fmt.Sprint("k", i)
				w.sees(key, func() { b.set(key, "v", time.Hour) })
			}
			w.sees("k0", func() { b.delete("k0") })
			w.seesAll(b)
			a.set("touched by b", "v", time.Hour)
			if p.e.profile.Supports.Has(l2cache.CanTouch) {
				w.sees("touched by b", func() { b.touch("touched by b", time.Minute) })
			}
			c := p.open()
			c.close() // is nothing to the others
			for range 10 {
				time.Sleep(2 * time.Millisecond) // what is on its way still comes
				w.sees("k0", func() { b.set("k0", "v", time.Hour) })
			}
		},
	},
	{
		ID:         "watch/prefix",
		Law:        "only keys that begin with the prefix are told, as the caller knows them",
		cause:      "a prefix that is used as a pattern, or keys in their encoded form",
		Capability: l2cache.CanWatch,
		run: func(p *probe) {
			h := p.open()
			for _, prefix := range []string{"app:", "a*", "a.b", "a"} {
				w := h.watch(prefix)
				for _, key := range []string{"b", "A", "xapp:", "ap", "app", "ab", "a", "a.", "axb", "a*", "a.b", "app:1"} {
					h.set(key, "v", time.Hour)
				}
				w.sees(prefix, func() { h.set(prefix, "v", time.Hour) })
				w.sees(prefix+"/last", func() { h.set(prefix+"/last", "v", time.Hour) })
				for _, key := range w.keys() {
					if !strings.HasPrefix(key, prefix) {
						p.failf("Watch(%q) tells of %q | want keys that begin so", prefix, key)
					}
				}
				w.stop()
			}
			w := p.prefixed(h, "pre:").watch("k")
			defer w.stop()
			h.set("k0", "v", time.Hour)
			w.sees("k1", func() { h.set("pre:k1", "v", time.Hour) })
			for _, key := range w.keys() {
				if key != "k1" {
					p.failf("Watch behind a prefix tells of %q | want k1", key)
				}
			}
		},
	},
	{
		ID:         "watch/several",
		Law:        "each of several watchers sees every change, through one handle or many, with its own prefix",
		cause:      "watchers that share a queue, of which each event goes to one",
		Capability: l2cache.CanWatch,
		run: func(p *probe) {
			a, b := p.peers()
			all := []*watching{a.watch(""), a.watch(""), a.watch("k"), b.watch(""), b.watch("k1")}
			for _, w := range all {
				defer w.stop()
			}
			for i := range 20 {
				key := fmt.Sprint("k1", i)
				before := make([]int, len(all))
				for j, w := range all {
					before[j] = w.count()
				}
				[]*handle{a, b}[i%2].set(key, "v", time.Hour)
				for j, w := range all {
					w.wantSince(before[j], key)
				}
				if i == 10 { // the others go on
					all[0].stop()
					all[0].wantEnd(context.Canceled)
					all = all[1:]
				}
			}
		},
	},
	{
		ID:         "watch/copies",
		Law:        "who drops the copy of a key at each event of it, and all at a Gap, soon has none that is out of date",
		cause:      "an event that comes before the change can be read",
		Capability: l2cache.CanWatch,
		run:        watchCopiesCase,
	},
	{
		ID:         "watch/burst",
		Law:        "after the last change of each key there is an event of it or a Gap, however fast the writers and slow the reader",
		cause:      "a full buffer whose overflow is dropped silently",
		Capability: l2cache.CanWatch,
		run:        watchBurstCase,
	},
	{
		ID:         "watch/ends",
		Law:        "Watch ends when the loop or its ctx does, or the backend is closed; the error is last, and nothing is left behind",
		cause:      "a subscription or a goroutine that stays",
		Capability: l2cache.CanWatch,
		Alone:      true,
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			before, _ := p.e.goroutines()
			for range 15 {
				for _, err := range l2cache.Watch(p.ctx, h.b, "") {
					if err != nil {
						p.failf("Watch = %v | want a Gap first", err)
					}
					break
				}
				w := h.watch("")
				w.stop()
				w.wantEnd(context.Canceled)
			}
			p.fewGoroutines(before, 8)
			ended, cancel := context.WithCancel(p.ctx)
			cancel()
			var events int
			var last error
			for event, err := range l2cache.Watch(ended, h.b, "") {
				if last = err; err == nil {
					events++
				} else if event != (l2cache.Event{}) {
					p.failf("Watch = %+v with %v | want the zero Event", event, err)
				}
			}
			if p.wantError(operation{name: "Watch"}, outcome{err: last}, context.Canceled); events > 0 {
				p.failf("Watch with a ctx that had ended = %d events | want none", events)
			}
			w := h.watch("")
			h.close()
			w.wantEnd(l2cache.ErrClosed)
			last = nil
			for _, err := range l2cache.Watch(p.ctx, h.b, "") {
				last = err
				break
			}
			p.wantError(operation{name: "Watch"}, outcome{err: last}, l2cache.ErrClosed)
		},
	},
	{
		ID:         "watch/reconnect",
		Law:        "a connection that was lost is a Gap, and changes after it are seen",
		cause:      "a subscription that is renewed silently, or not at all",
		Capability: l2cache.CanWatch,
		needs:      needDown,
		Alone:      true,
		run: func(p *probe) {
			h := p.open()
			w := h.watch("")
			defer w.stop()
			w.sees("before", func() { h.set("before", "v", time.Hour) })
			gaps := w.gaps()
			p.down()
			p.up()
			h.settle()
			if !w.waitFor(patience, func() bool { return w.gaps() > gaps }) {
				p.failf("no Gap within %v after the server was back | want one", patience)
			}
			w.sees("after", func() { h.set("after", "v", time.Hour) })
		},
	},
}

// A watching is a loop over Watch that runs in the background.
type watching struct {
	p      *probe
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	events []l2cache.Event // guarded by mu
	last   error           // guarded by mu
	pause  time.Duration   // of the reader, after each event; guarded by mu
}

// watch begins to watch, and waits for the first event, which must be a Gap.
func (h *handle) watch(prefix string) *watching {
	ctx, cancel := context.WithCancel(h.p.ctx)
	w := &watching{p: h.p, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer h.p.catch()
		for event, err := range l2cache.Watch(ctx, h.b, prefix) {
			w.mu.Lock()
			if w.last != nil {
				h.p.record(Fail, fmt.Sprintf("Watch goes on after %v | want the error to be last", w.last))
			}
			if w.last = err; err == nil {
				w.events = append(w.events, event)
			}
			pause := w.pause
			w.mu.Unlock()
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	if !w.waitFor(patience, func() bool { return w.count() > 0 || w.hasEnded() }) {
		h.p.failf("no event within %v of the beginning of Watch | want a Gap", patience)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil || !w.events[0].Gap || w.events[0].Key != "" {
		h.p.failf("Watch begins with %+v, %v | want a Gap", w.events, w.last)
	}
	return w
}

func (w *watching) stop() { w.cancel() }

// waitFor polls until ok, which it reports.
func (w *watching) waitFor(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) || w.p.failed() {
			return false
		}
	}
	return true
}

func (w *watching) hasEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last != nil
}

// since returns the events from number n on.
func (w *watching) since(n int) []l2cache.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events[n:])
}

func (w *watching) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.events)
}

func (w *watching) gaps() (n int) {
	for _, event := range w.since(0) {
		if event.Gap {
			n++
		}
	}
	return n
}

func (w *watching) keys() (keys []string) {
	for _, event := range w.since(0) {
		if !event.Gap {
			keys = append(keys, event.Key)
		}
	}
	return keys
}

// sees makes a change, and wants an event of each key or a Gap after it began.
func (w *watching) sees(key string, change func(), others ...string) {
	n := w.count()
	change()
	for _, key := range append(others, key) {
		w.wantSince(n, key)
	}
}

// seesAll has h change keys by every operation.
func (w *watching) seesAll(h *handle) {
	p := w.p
	supports := p.e.profile.Supports
	items := []l2cache.Item{{Key: "b1", TTL: time.Hour}, {Key: "b2", Value: []byte("v"), TTL: time.Hour}, {Key: "b3", TTL: time.Minute}}
	keys := []string{"b1", "b2", "b3"}
	w.sees("b1", func() { h.setMany(items) }, "b2", "b3")
	w.sees("b1", func() { h.setMany(items[:1]) })
	w.sees("b1", func() {
		if err := l2cache.DeleteMany(p.ctx, h.b, keys); err != nil {
			p.failf("DeleteMany = %v | want nil", err)
		}
	}, "b2", "b3")
	if supports.Has(l2cache.CanTouch) {
		w.sees("c", func() { h.set("c", "v", time.Hour) })
		w.sees("c", func() { h.touch("c", time.Minute) })
	}
	if supports.Has(l2cache.CanAdd) {
		w.sees("d", func() { h.add("d", "v", time.Hour, true) })
	}
	if supports.Has(l2cache.CanDeletePattern) {
		for _, key := range []string{"e1", "e2", "e3"} {
			w.sees(key, func() { h.set(key, "v", time.Hour) })
		}
		w.sees("e1", func() { h.deletePattern("e*") }, "e2", "e3")
	}
}

// wantSince wants an event of key or a Gap among the events from number n on.
func (w *watching) wantSince(n int, key string) {
	seen := func() bool {
		return slices.ContainsFunc(w.since(n), func(e l2cache.Event) bool { return e.Gap || e.Key == key })
	}
	if !w.waitFor(patience, seen) {
		w.p.stopIfFailed()
		w.p.failf("no event of %s within %v of its change | want one, or a Gap", brief(key), patience)
	}
}

func (w *watching) wantEnd(want error) {
	select {
	case <-w.ended:
	case <-time.After(patience):
		w.p.failf("Watch has not ended %v after it had to | want it to", patience)
	}
	w.mu.Lock()
	last := w.last
	w.mu.Unlock()
	w.p.wantError(operation{name: "Watch"}, outcome{err: last}, want)
}

// watchCopiesCase keeps copies as the documentation of Watch tells: it reads a key
// again after each event of it, and all of them after a Gap.
func watchCopiesCase(p *probe) {
	a, b := p.peers()
	const keys, rounds, writers = 40, 5, 4
	key := func(i int) string { return fmt.Sprint("k", i) }
	var mu sync.Mutex
	copies := map[string]string{} // guarded by mu
	latest := time.Now()          // when one was read; guarded by mu
	ctx, stop := context.WithCancel(p.ctx)
	begun, done := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		defer close(done)
		defer p.catch()
		for event, err := range l2cache.Watch(ctx, a.b, "") {
			if err != nil {
				return
			}
			begin()
			stale := []string{event.Key}
			if event.Gap {
				stale = stale[:0]
				for i := range keys {
					stale = append(stale, key(i))
				}
			}
			for _, key := range stale {
				value, err := a.b.Get(p.ctx, key)
				if err != nil && !errors.Is(err, l2cache.ErrNotFound) {
					p.record(Fail, fmt.Sprintf("Get(%s) in the loop over Watch = %v | want a hit or a miss", key, err))
					return
				}
				mu.Lock()
				copies[key], latest = string(value), time.Now()
				mu.Unlock()
			}
		}
	}()
	defer func() {
		stop()
		<-done
	}()
	select {
	case <-begun:
	case <-done:
	case <-time.After(patience):
		p.failf("no event within %v of the beginning of Watch | want a Gap", patience)
	}
	want := make([]string, keys)
	p.parallel(writers, func(w int) {
		for round := range rounds {
			for i := w; i < keys; i += writers {
				want[i] = fmt.Sprint("value ", round, " of ", i)
				h := []*handle{a, b}[i%2]
				switch {
				case i%5 == 4 && round == rounds-1:
					want[i] = ""
					h.delete(key(i))
				case i%5 == 3:
					h.setMany([]l2cache.Item{{Key: key(i), Value: []byte(want[i]), TTL: time.Hour}})
				default:
					h.set(key(i), want[i], time.Hour)
				}
			}
		}
	})
	var text string
	same := func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i, value := range want {
			if copies[key(i)] != value {
				text = fmt.Sprintf("the copy of %s is %q, stored is %q", key(i), copies[key(i)], value)
				return false
			}
		}
		return true
	}
	idle := func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Since(latest)
	}
	for last := time.Now(); !same(); time.Sleep(5 * time.Millisecond) {
		if p.stopIfFailed(); time.Since(last) > patience && idle() > patience {
			p.failf("%s, %v after the last change and the last event | want no copy that is out of date", text, patience)
		}
	}
}

func watchBurstCase(p *probe) {
	h := p.open()
	w := h.watch("")
	defer w.stop()
	w.mu.Lock()
	w.pause = 50 * time.Microsecond
	w.mu.Unlock()
	const writers, keys, rounds = 8, 250, 5        // 10,000 changes, or what the store takes in time
	until := time.Now().Add(p.e.o.CaseTimeout / 4) // for a Set may take 100 ms where there is no burst to be had
	last := make([][]int, writers)                 // events that had come when a key was changed for the last time
	var changes atomic.Int64
	p.parallel(writers, func(wr int) {
		for i := 0; i < rounds*keys && time.Now().Before(until); i++ {
			if i < keys {
				last[wr] = append(last[wr], 0)
			}
			last[wr][i%keys] = w.count()
			h.set(fmt.Sprintf("k%d.%d", wr, i%keys), "v", time.Hour)
			changes.Add(1)
		}
	})
	w.mu.Lock()
	w.pause = 0
	w.mu.Unlock()
	var missing string
	if !w.waitFor(patience, func() bool {
		events := w.since(0)
		latest := map[string]int{}
		gap := -1
		for i, event := range events {
			if event.Gap {
				gap = i
			}
			latest[event.Key] = i
		}
		missing = ""
		for wr := range writers {
			for k, before := range last[wr] {
				key := fmt.Sprintf("k%d.%d", wr, k)
				if i, seen := latest[key]; (!seen || i < before) && gap < before {
					missing = key
					return false
				}
			}
		}
		return true
	}) {
		p.stopIfFailed()
		p.failf("of a burst of %d changes, the last of %s has no event and no Gap after it | want one for each key", changes.Load(), missing)
	}
}
