package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// A write is one thing that was done to a key: a Set, a Touch or a Delete.
type write struct {
	value int           // number of the value that is there afterwards; 0 after a Delete
	ttl   time.Duration // as given
	start time.Time     // of the call
	by    time.Time     // when it had certainly taken effect; zero as long as that is in doubt
	acked bool
}

// A history is what is known of one key. It has one writer, and any number of
// readers. A write that failed is in doubt: it may take effect at any time after
// its call, or never.
type history struct {
	key string

	mu     sync.Mutex
	writes []write // guarded by mu; in the order of their calls
	values int     // guarded by mu; how many were numbered
}

// next returns the number of a value that was not set before.
func (h *history) next() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values++
	return h.values
}

// begin notes a write that is about to be called, and returns its number.
func (h *history) begin(value int, ttl time.Duration) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, write{value: value, ttl: ttl, start: time.Now()})
	return len(h.writes) - 1
}

// ack notes that write i was acknowledged.
func (h *history) ack(i int) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &h.writes[i]
	w.acked = true
	if w.by.IsZero() {
		w.by = now
	}
}

// drop notes that write i, the last that has begun, did nothing.
func (h *history) drop(i int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = h.writes[:i]
}

// last returns the newest write, and whether everything about the key is certain.
func (h *history) last() (w write, certain bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	certain = true
	for _, w = range h.writes {
		certain = certain && w.acked
	}
	return w, certain
}

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.writes)
}

// A violation is a broken law. The kinds are the columns of the report.
type violation struct {
	kind string
	text string
}

// hit checks a read that began at a, ended at b and found value with the given
// remaining TTL; ttl is 0 if the read did not ask for it.
func (h *history) hit(value int, ttl time.Duration, a, b time.Time) *violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []*write
	worst := ""
	for i := range h.writes {
		w := &h.writes[i]
		if w.value != value || w.value == 0 || w.start.After(b) {
			continue
		}
		found = append(found, w)
		switch kind := h.faultLocked(w, ttl, a, b); kind {
		case "":
			if len(found) == 1 && w.by.IsZero() && !h.moreLocked(i, b) {
				w.by = b // a write in doubt has been seen: it has landed, and must not land again
			}
			return nil
		default:
			worst = kind
		}
	}
	if len(found) == 0 {
		return &violation{"wrong", fmt.Sprintf("read of %s: value %d, which nobody has set", h.key, value)}
	}
	return &violation{worst, fmt.Sprintf("read of %s: value %d with %v left, called %v ago and answered %v ago; writes: %s",
		h.key, value, ttl, time.Since(a), time.Since(b), h.textLocked())}
}

// moreLocked reports whether a write after i gave the same value.
func (h *history) moreLocked(i int, b time.Time) bool {
	for _, w := range h.writes[i+1:] {
		if w.value == h.writes[i].value && w.start.Before(b) {
			return true
		}
	}
	return false
}

// faultLocked returns why w does not explain a read in [a, b] that found its value
// with ttl left, or "" if it does.
func (h *history) faultLocked(w *write, ttl time.Duration, a, b time.Time) string {
	for i := range h.writes {
		o := &h.writes[i]
		if o != w && o.acked && o.by.Before(a) && !w.by.IsZero() && !w.by.After(o.start) {
			return "wrong" // overwritten or deleted before the read began
		}
	}
	set := roundUp(w.ttl)
	forever := w.ttl == l2cache.NoExpiry
	if !forever && !w.by.IsZero() && a.After(w.by.Add(set+resolution)) {
		return "late"
	}
	switch {
	case ttl == 0:
	case forever != (ttl == l2cache.NoExpiry):
		return "torn"
	case forever:
	case ttl < 0 || ttl > set:
		return "torn"
	case ttl < w.start.Add(w.ttl).Sub(b)-resolution:
		return "torn"
	case !w.by.IsZero() && ttl > w.by.Add(set+resolution).Sub(a):
		return "torn"
	}
	return ""
}

// held checks a call that began at a, ended at b and said that there is an entry.
func (h *history) held(a, b time.Time) *violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.writes {
		w := &h.writes[i]
		if w.value != 0 && !w.start.After(b) && h.faultLocked(w, 0, a, b) == "" {
			return nil
		}
	}
	return &violation{"wrong", fmt.Sprintf("%s has an entry, though none can be left, called %v ago and answered %v ago; writes: %s",
		h.key, time.Since(a), time.Since(b), h.textLocked())}
}

// miss checks a read that began at a, ended at b and found nothing. wiped are
// the times in which the store may have lost all it had.
func (h *history) miss(a, b time.Time, wiped []span) *violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.writes {
		w := &h.writes[i]
		if !w.acked || w.value == 0 || !w.by.Before(a) || h.mayBeGoneLocked(w, b, wiped) {
			continue
		}
		left := end(w).Sub(b)
		kind := "early"
		if left > time.Second && left > w.ttl/2 {
			kind = "lost"
		}
		return &violation{kind, fmt.Sprintf("read of %s: a miss with %v left, called %v ago and answered %v ago; writes: %s",
			h.key, left, time.Since(a), time.Since(b), h.textLocked())}
	}
	return nil
}

// mayBeGoneLocked reports whether anything can explain that w, which had landed,
// was not there at some time before b.
func (h *history) mayBeGoneLocked(w *write, b time.Time, wiped []span) bool {
	for _, s := range wiped {
		if s.to.After(w.start) && s.from.Before(b) {
			return true
		}
	}
	if !end(w).After(b) {
		return true
	}
	for i := range h.writes {
		o := &h.writes[i]
		before := !o.by.IsZero() && !o.by.After(w.start)
		after := o.start.After(b)
		if o == w || before || after {
			continue
		}
		if o.value == 0 || !end(o).After(b) {
			return true
		}
	}
	return false
}

func (h *history) textLocked() string {
	text := ""
	for _, w := range h.writes[max(0, len(h.writes)-6):] {
		by := "in doubt"
		if !w.by.IsZero() {
			by = fmt.Sprintf("landed %v ago", time.Since(w.by))
		}
		text += fmt.Sprintf(" {value %d for %v, called %v ago, %s}", w.value, w.ttl, time.Since(w.start), by)
	}
	return text
}

// end returns the earliest time at which the entry that w made may be gone.
func end(w *write) time.Time {
	if w.ttl == l2cache.NoExpiry {
		return w.start.AddDate(1, 0, 0)
	}
	return w.start.Add(w.ttl)
}

// resolution is that of every backend here.
const resolution = time.Millisecond

func roundUp(d time.Duration) time.Duration {
	if d == l2cache.NoExpiry {
		return d
	}
	return (d + resolution - 1).Truncate(resolution)
}

// A span of time.
type span struct{ from, to time.Time }
