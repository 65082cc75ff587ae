package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// A load writes and reads through a handle while servers come and go. Each worker has
// keys of its own, so it knows what it has to read.
type load struct {
	b      l2cache.L2CacheBackend
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex
	calls  int       // guarded by mu
	failed int       // guarded by mu
	first  time.Time // when a call failed first; zero if none has; guarded by mu
	last   time.Time // when the last one that failed began; guarded by mu
	ended  time.Time // when it failed; guarded by mu
	lost   int       // reads of what was there before a write that was acknowledged; guarded by mu
	wrong  []string  // guarded by mu
	other  []error   // that are not ErrUnavailable; guarded by mu
}

const loadKeys = 40 // of each worker

// startLoad begins with a Set of each key. The names of keys have what tag returns.
func startLoad(t *testing.T, b l2cache.L2CacheBackend, workers int, tag func(i int) string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{b: b, cancel: cancel}
	for w := range workers {
		k := &worker{load: l}
		for i := range loadKeys {
			k.keys = append(k.keys, &loaded{key: fmt.Sprintf("load%s:%d.%d", tag(i), w, i)})
		}
		if err := k.setMany(context.Background()); err != nil {
			t.Fatal(err)
		}
		l.all.Go(func() { k.run(ctx) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.all.Wait()
}

// failures returns how many calls failed so far, and when the last did.
func (l *load) failures() (n int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, l.last
}

// count returns how many calls there were.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// report ends the load and wants nothing wrong.
func (l *load) report(t *testing.T) {
	t.Helper()
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, wrong := range l.wrong {
		t.Errorf("wrong: %s", wrong)
	}
	for _, err := range l.other {
		t.Errorf("error: %v", err)
	}
	t.Logf("%d calls, %d failed, over %v; %d reads of what was before an acknowledged write",
		l.calls, l.failed, l.ended.Sub(l.first).Round(time.Millisecond), l.lost)
}

// note counts a call.
func (l *load) note(ctx context.Context, begin time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	l.calls++
	if err == nil {
		return
	}
	l.failed++
	l.ended = time.Now()
	if begin.After(l.last) {
		l.last = begin
	}
	if l.first.IsZero() {
		l.first = time.Now()
	}
	var keys l2cache.KeyErrors
	if !errors.As(err, &keys) {
		keys = l2cache.KeyErrors{"": err}
	}
	for _, err := range keys {
		if !errors.Is(err, l2cache.ErrUnavailable) && len(l.other) < 10 {
			l.other = append(l.other, err)
		}
	}
}

type worker struct {
	*load
	keys []*loaded
}

// loaded is what a worker knows of a key: the value is the key and a version, and the
// TTL tells whether that is even.
type loaded struct {
	key     string
	sent    int  // the last version that was sent
	least   int  // the one that was acknowledged last
	present bool // it was not deleted since
}

func (k *loaded) item() l2cache.Item {
	k.sent++
	ttl := 1000 * time.Second
	if k.sent%2 == 0 {
		ttl = 100 * time.Second
	}
	return l2cache.Item{Key: k.key, Value: fmt.Appendf(nil, "%s|%d", k.key, k.sent), TTL: ttl}
}

func (k *loaded) acknowledged() { k.least, k.present = k.sent, true }

func (w *worker) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		k := w.keys[i%len(w.keys)]
		item := k.item()
		begin := time.Now()
		err := w.b.Set(ctx, item.Key, item.Value, item.TTL)
		w.note(ctx, begin, err)
		if err == nil {
			k.acknowledged()
		}
		begin = time.Now()
		e, err := w.b.GetWithTTL(ctx, k.key)
		w.check(ctx, "GetWithTTL", k, begin, e, err)
		begin = time.Now()
		switch i % 40 {
		case 7:
			value, err := w.b.Get(ctx, k.key)
			w.check(ctx, "Get", k, begin, l2cache.Entry{Value: value}, err)
		case 13:
			added, err := l2cache.Add(ctx, w.b, k.key, []byte("added"), time.Minute)
			w.note(ctx, begin, err)
			if added { // it was lost, or not stored before
				w.note(ctx, begin, w.b.Delete(ctx, k.key))
				w.missing(k)
			}
		case 19:
			w.setMany(ctx)
		case 23, 31:
			w.getMany(ctx)
		case 37:
			keys := make([]string, len(w.keys))
			for i, k := range w.keys {
				keys[i], k.present = k.key, false
			}
			w.note(ctx, begin, l2cache.DeleteMany(ctx, w.b, keys))
			w.setMany(ctx)
		}
	}
}

func (w *worker) setMany(ctx context.Context) error {
	var items []l2cache.Item
	for _, k := range w.keys {
		items = append(items, k.item())
	}
	begin := time.Now()
	err := l2cache.SetMany(ctx, w.b, items)
	w.note(ctx, begin, err)
	var failed l2cache.KeyErrors
	errors.As(err, &failed)
	for _, k := range w.keys {
		if failed[k.key] == nil && (err == nil || failed != nil) {
			k.acknowledged()
		}
	}
	return err
}

func (w *worker) getMany(ctx context.Context) {
	keys := make([]string, len(w.keys))
	for i, k := range w.keys {
		keys[i] = k.key
	}
	begin := time.Now()
	entries, err := l2cache.GetMany(ctx, w.b, keys)
	w.note(ctx, begin, err)
	var failed l2cache.KeyErrors
	errors.As(err, &failed)
	for _, k := range w.keys {
		if e, ok := entries[k.key]; ok {
			w.verify("GetMany", k, e)
		} else if failed[k.key] == nil && (err == nil || failed != nil) {
			w.missing(k)
		}
	}
}

func (w *worker) check(ctx context.Context, op string, k *loaded, begin time.Time, e l2cache.Entry, err error) {
	if err == l2cache.ErrNotFound {
		w.note(ctx, begin, nil)
		w.missing(k)
		return
	}
	w.note(ctx, begin, err)
	if err == nil {
		w.verify(op, k, e)
	}
}

// missing takes that k is not there.
func (w *worker) missing(k *loaded) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k.present {
		w.lost++
		k.present = false
	}
}

// verify takes what was read of k.
func (w *worker) verify(op string, k *loaded, e l2cache.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, version, _ := strings.Cut(string(e.Value), "|")
	n, err := strconv.Atoi(version)
	switch {
	case err != nil && string(e.Value) == "added":
	case err != nil || key != k.key || n > k.sent:
		w.wrong = append(w.wrong, fmt.Sprintf("%s(%q) = %q after version %d", op, k.key, e.Value, k.sent))
	case op != "Get" && (n%2 == 0) != (e.TTL <= 100*time.Second):
		w.wrong = append(w.wrong, fmt.Sprintf("%s(%q) = %q with a TTL of %v", op, k.key, e.Value, e.TTL))
	case n < k.least:
		w.lost++
		k.least = n
	}
}
