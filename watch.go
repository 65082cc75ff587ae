package l2cache

import (
	"context"
	"iter"
	"strings"
	"sync"
)

// An Event is that an entry has changed, or that something may have been missed.
type Event struct {
	// Gap: from here on changes are seen. Any number may have gone unseen before:
	// whoever keeps copies has to drop or check all of them.
	Gap bool
	// Key of an entry that was set, touched or deleted; empty for a Gap.
	Key string
}

// A Watcher is a backend that can tell of changes.
type Watcher interface {
	L2CacheBackend
	Watch(ctx context.Context, prefix string) iter.Seq2[Event, error]
}

// Watch tells of changes to the keys that begin with prefix, made through any
// handle. The first event is always a Gap: changes after it are seen. After the
// last change of a key there comes at least one event of that key, or a Gap;
// several changes may come as one event, and a reader that is too slow gets a Gap
// in place of what it missed. So does one whose connection was lost for a while.
// That an entry has expired is not told: its TTL is known.
//
// It ends when the loop does, or ctx: then ctx's error comes last, as any error
// does, with the zero Event.
//
// Where b is not a [Watcher], the error is errors.ErrUnsupported.
func Watch(ctx context.Context, b L2CacheBackend, prefix string) iter.Seq2[Event, error] {
	if b, ok := b.(Watcher); ok {
		return b.Watch(ctx, prefix)
	}
	return func(yield func(Event, error) bool) { yield(Event{}, unsupported(ctx, b, "watch", prefix)) }
}

// A Hub hands changes on to watchers: what a backend needs for Watch when it gets
// to know of changes in one place. The zero value is ready. All methods may be
// called from any goroutine, and none but the loop over Watch ever waits.
type Hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{} // guarded by mu
}

// maxPending is how many keys wait for a slow reader before it gets a Gap.
const maxPending = 4096

// A watcher holds the events that its reader has not taken yet. The Hub's mu
// guards it.
type watcher struct {
	prefix  string
	gap     bool
	pending []string
	known   map[string]struct{} // what is in pending
	failed  error
	wake    chan struct{} // has room for one
}

// Changed tells the watchers that key has changed. It is called after the change
// can be read.
func (h *Hub) Changed(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !strings.HasPrefix(key, w.prefix) || w.gap {
			continue // a Gap that was not taken yet covers it
		}
		if _, known := w.known[key]; known {
			continue
		}
		if len(w.pending) == maxPending {
			w.missed()
			continue
		}
		w.pending = append(w.pending, key)
		w.known[key] = struct{}{}
		w.rouse()
	}
}

// Gap tells all watchers that changes may have gone unseen.
func (h *Hub) Gap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.missed()
	}
}

// Fail ends those who watch now with err, once they have taken what there is.
func (h *Hub) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.failed = err
		w.rouse()
	}
}

// Watch is the Watch of a backend of that Name. It ends with ErrClosed when closed
// is.
func (h *Hub) Watch(ctx context.Context, backend, prefix string, closed <-chan struct{}) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := h.join(prefix)
		defer h.leave(w)
		for {
			if err := preflight(ctx, backend, "watch", prefix, isClosed(closed)); err != nil {
				yield(Event{}, err)
				return
			}
			events, failed := h.take(w)
			for _, event := range events {
				if !yield(event, nil) {
					return
				}
				if contextErr(ctx) != nil {
					break
				}
			}
			if len(events) > 0 {
				continue
			}
			if failed != nil {
				yield(Event{}, NewError(ctx, backend, "watch", prefix, nil, failed))
				return
			}
			select {
			case <-w.wake:
			case <-ctx.Done():
			case <-closed:
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (h *Hub) join(prefix string) *watcher {
	w := &watcher{prefix: prefix, gap: true, known: map[string]struct{}{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	return w
}

func (h *Hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// take returns the events that wait, and why there will be none after them.
func (h *Hub) take(w *watcher) ([]Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var events []Event
	if w.gap {
		events = append(events, Event{Gap: true})
	}
	for _, key := range w.pending {
		events = append(events, Event{Key: key})
	}
	w.gap, w.pending = false, w.pending[:0]
	clear(w.known)
	return events, w.failed
}

// missed puts a Gap in place of what is pending.
func (w *watcher) missed() {
	w.gap, w.pending = true, nil
	clear(w.known)
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
