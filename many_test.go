package l2cache_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

// bare hides all that a backend can do beyond the core.
type bare struct{ l2cache.L2CacheBackend }

// failing is bare, and fails for keys that begin with "bad".
type failing struct{ l2cache.L2CacheBackend }

func (f failing) fails(key string) error {
	if strings.HasPrefix(key, "bad") {
		return &l2cache.Error{Op: "get", Backend: "test", Key: key, Kind: l2cache.ErrUnavailable}
	}
	return nil
}

func (f failing) GetWithTTL(ctx context.Context, key string) (l2cache.Entry, error) {
	if err := f.fails(key); err != nil {
		return l2cache.Entry{}, err
	}
	return f.L2CacheBackend.GetWithTTL(ctx, key)
}

func (f failing) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := f.fails(key); err != nil {
		return err
	}
	return f.L2CacheBackend.Set(ctx, key, value, ttl)
}

func (f failing) Delete(ctx context.Context, key string) error {
	if err := f.fails(key); err != nil {
		return err
	}
	return f.L2CacheBackend.Delete(ctx, key)
}

func TestManyFallsBack(t *testing.T) {
	ctx := t.Context()
	for _, b := range []l2cache.L2CacheBackend{
		mem.New(mem.NewStore()),
		bare{mem.New(mem.NewStore())},
		l2cache.WithPrefix(bare{mem.New(mem.NewStore())}, "app:"),
		l2cache.Observe(l2cache.WithPrefix(mem.New(mem.NewStore()), "app:"), func(context.Context, l2cache.Op) {}),
	} {
		var items []l2cache.Item
		var keys []string
		for i := range 100 {
			items = append(items, l2cache.Item{Key: fmt.Sprint("k", i%90), Value: []byte(fmt.Sprint(i)), TTL: time.Duration(i+1) * time.Minute})
			keys = append(keys, fmt.Sprint("k", i))
		}
		if err := l2cache.SetMany(ctx, b, items); err != nil {
			t.Fatal(err)
		}
		entries, err := l2cache.GetMany(ctx, b, append(keys, keys...))
		if err != nil || len(entries) != 90 {
			t.Fatalf("GetMany = %d entries, %v; want 90", len(entries), err)
		}
		for i := range 90 {
			last := i
			if i < 10 {
				last += 90 // of several items with one key the last counts
			}
			e := entries[fmt.Sprint("k", i)]
			ttl := time.Duration(last+1) * time.Minute
			if string(e.Value) != fmt.Sprint(last) || e.TTL > ttl || e.TTL < ttl-10*time.Second {
				t.Errorf("GetMany of k%d = %q, %v; want %d, about %v", i, e.Value, e.TTL, last, ttl)
			}
		}
		if err := l2cache.DeleteMany(ctx, b, keys[:50]); err != nil {
			t.Fatal(err)
		}
		if entries, err := l2cache.GetMany(ctx, b, keys); err != nil || len(entries) != 40 {
			t.Errorf("GetMany after DeleteMany = %d entries, %v; want 40", len(entries), err)
		}
	}
}

func TestManyDoesNothingIfOneIsInvalid(t *testing.T) {
	ctx := t.Context()
	for _, b := range []l2cache.L2CacheBackend{mem.New(mem.NewStore()), bare{mem.New(mem.NewStore())}} {
		if err := b.Set(ctx, "k", []byte("old"), time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, items := range [][]l2cache.Item{
			{{Key: "k", TTL: time.Hour}, {Key: "", TTL: time.Hour}},
			{{Key: "k", TTL: time.Hour}, {Key: strings.Repeat("k", l2cache.MaxKeyLen+1), TTL: time.Hour}},
		} {
			if err := l2cache.SetMany(ctx, b, items); !errors.Is(err, l2cache.ErrInvalidKey) {
				t.Errorf("SetMany = %v, want ErrInvalidKey", err)
			}
		}
		if err := l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "k", TTL: time.Hour}, {Key: "l", TTL: 0}}); !errors.Is(err, l2cache.ErrInvalidTTL) {
			t.Errorf("SetMany = %v, want ErrInvalidTTL", err)
		}
		if err := l2cache.DeleteMany(ctx, b, []string{"k", ""}); !errors.Is(err, l2cache.ErrInvalidKey) {
			t.Errorf("DeleteMany = %v, want ErrInvalidKey", err)
		}
		if v, err := b.Get(ctx, "k"); string(v) != "old" {
			t.Errorf("Get(k) = %q, %v; want it untouched", v, err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := l2cache.GetMany(cancelled, b, []string{"k"}); !errors.Is(err, context.Canceled) {
			t.Errorf("GetMany = %v, want context.Canceled", err)
		}
	}
}

func TestKeyErrors(t *testing.T) {
	ctx := t.Context()
	b := l2cache.WithPrefix(l2cache.Observe(failing{mem.New(mem.NewStore())}, func(context.Context, l2cache.Op) {}), "")
	if err := b.Set(ctx, "good", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	entries, err := l2cache.GetMany(ctx, b, []string{"good", "missing", "bad1", "bad2"})
	var failed l2cache.KeyErrors
	if !errors.As(err, &failed) || len(failed) != 2 || failed["bad1"] == nil || failed["bad2"] == nil {
		t.Errorf("GetMany = %v, want KeyErrors of bad1 and bad2", err)
	}
	if len(entries) != 1 || string(entries["good"].Value) != "v" {
		t.Errorf("GetMany = %v, want what was read", entries)
	}
	if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, l2cache.ErrNotFound) || !strings.Contains(err.Error(), `2 of the keys failed, one of them: test: get "bad1": unavailable`) {
		t.Errorf("error = %v, want it to match ErrUnavailable only", err)
	}

	// Behind a prefix the keys and the errors are the caller's.
	b = l2cache.WithPrefix(failing{mem.New(mem.NewStore())}, "bad:")
	err = l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "k", TTL: time.Hour}})
	var e *l2cache.Error
	if !errors.As(err, &failed) || failed["k"] == nil || !errors.As(failed["k"], &e) || e.Key != "k" {
		t.Errorf("SetMany behind a prefix = %v, want KeyErrors of k", err)
	}
	if err := l2cache.DeleteMany(ctx, b, []string{"k"}); !errors.As(err, &failed) || failed["k"] == nil {
		t.Errorf("DeleteMany behind a prefix = %v, want KeyErrors of k", err)
	}
}

func TestUnsupported(t *testing.T) {
	ctx := t.Context()
	b := bare{mem.New(mem.NewStore())}
	for name, b := range map[string]l2cache.L2CacheBackend{
		"bare": b, "prefixed": l2cache.WithPrefix(b, "app:"), "observed": l2cache.Observe(b, func(context.Context, l2cache.Op) {}),
	} {
		_, addErr := l2cache.Add(ctx, b, "k", nil, time.Hour)
		errs := map[string]error{
			"Touch": l2cache.Touch(ctx, b, "k", time.Hour), "Add": addErr, "DeletePattern": l2cache.DeletePattern(ctx, b, "k*"),
		}
		for _, err := range l2cache.Scan(ctx, b, "") {
			errs["Scan"] = err
		}
		for _, err := range l2cache.Watch(ctx, b, "") {
			errs["Watch"] = err
		}
		for _, fn := range []string{"Touch", "Add", "DeletePattern", "Scan", "Watch"} {
			if err := errs[fn]; !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, l2cache.ErrUnavailable) {
				t.Errorf("%s of a backend that lacks it (%s) = %v, want errors.ErrUnsupported", fn, name, err)
			}
		}
		if p := l2cache.ProfileOf(b); p.Supports != 0 {
			t.Errorf("Supports (%s) = %v, want none", name, p.Supports)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, key string
		want         bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "a", true},
		{"a*", "abc", true},
		{"a*", "ba", false},
		{"*a", "bca", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyyd", false},
		{"*ab*ab", "abab", true},
		{"*ab*ab", "abxaab", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a?c", "a\xffc", true}, // one byte
		{"??", "é", true},
		{`a\*`, "a*", true},
		{`a\*`, "ab", false},
		{`a\?b`, "a?b", true},
		{`a\\b`, `a\b`, true},
		{`a\b`, "ab", true},
		{"[a-z]", "[a-z]", true},
		{"[a-z]", "b", false},
		{"a.c", "abc", false},
		{"", "a", false},
		{"a", "", false},
		{"A*", "a", false},
		{"*\x00*", "a\x00b", true},
	} {
		if err := l2cache.CheckPattern(tt.pattern); err != nil {
			t.Errorf("CheckPattern(%q) = %v", tt.pattern, err)
		}
		if got := l2cache.MatchPattern(tt.pattern, tt.key); got != tt.want {
			t.Errorf("MatchPattern(%q, %q) = %v, want %v", tt.pattern, tt.key, got, tt.want)
		}
		if prefix := l2cache.PatternPrefix(tt.pattern); tt.want && !strings.HasPrefix(tt.key, prefix) {
			t.Errorf("PatternPrefix(%q) = %q, and %q matches", tt.pattern, prefix, tt.key)
		}
	}
	for _, pattern := range []string{`\`, `a\`, `a\\\`, "*", "**", "*?", "?*"} {
		if err := l2cache.CheckPattern(pattern); !errors.Is(err, path.ErrBadPattern) {
			t.Errorf("CheckPattern(%q) = %v, want path.ErrBadPattern", pattern, err)
		}
	}
}

func FuzzQuotePattern(f *testing.F) {
	f.Add(`a*b?c\d`, "x")
	f.Fuzz(func(t *testing.T, s, other string) {
		q := l2cache.QuotePattern(s)
		if err := l2cache.CheckPattern(q); err != nil {
			t.Fatalf("CheckPattern(QuotePattern(%q)) = %v", s, err)
		}
		if !l2cache.MatchPattern(q, s) || l2cache.MatchPattern(q, other) != (s == other) || l2cache.PatternPrefix(q) != s {
			t.Fatalf("%q is not quoted by %q", s, q)
		}
		if !l2cache.MatchPattern(q+"*", s+other) || !l2cache.MatchPattern("*"+q, other+s) {
			t.Fatalf("%q with a * does not match %q", q, s+other)
		}
	})
}

func TestPatternThatMatchesAllNeedsAPrefix(t *testing.T) {
	ctx := t.Context()
	store := mem.New(mem.NewStore())
	app := l2cache.Observe(l2cache.WithPrefix(store, "a*p:"), func(context.Context, l2cache.Op) {})
	for _, key := range []string{"a*p:1", "a*p:2", "axp:1", "other"} {
		if err := store.Set(ctx, key, nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := l2cache.DeletePattern(ctx, store, "*"); !errors.Is(err, path.ErrBadPattern) || errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("DeletePattern(*) without a prefix = %v, want path.ErrBadPattern", err)
	}
	if err := l2cache.DeletePattern(ctx, app, "*"); err != nil {
		t.Errorf("DeletePattern(*) behind a prefix = %v, want nil", err)
	}
	var left []string
	for info, err := range l2cache.Scan(ctx, store, "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, info.Key)
	}
	if len(left) != 2 || strings.Contains(strings.Join(left, " "), "a*p:") {
		t.Errorf("left: %q, want axp:1 and other", left)
	}
}

func TestHubCoalescesAndGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub l2cache.Hub
		closed := make(chan struct{})
		var got []l2cache.Event
		var last error
		// The reader stops after its second and its fourth event.
		pauses := map[int]chan struct{}{2: make(chan struct{}), 4: make(chan struct{})}
		go func() {
			for event, err := range hub.Watch(t.Context(), "test", "k", closed) {
				if err != nil {
					last = err
					break
				}
				got = append(got, event)
				if pause := pauses[len(got)]; pause != nil {
					<-pause
				}
			}
		}()
		synctest.Wait()
		hub.Changed("other")
		hub.Changed("k1")
		synctest.Wait()
		want := []l2cache.Event{{Gap: true}, {Key: "k1"}}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("events = %v, want %v", got, want)
		}
		for range 3 { // while the reader is busy
			hub.Changed("k2")
			hub.Changed("k3")
		}
		close(pauses[2])
		synctest.Wait()
		want = append(want, l2cache.Event{Key: "k2"}, l2cache.Event{Key: "k3"})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("events = %v, want %v", got, want)
		}
		for i := range 10_000 {
			hub.Changed(fmt.Sprint("k", i))
		}
		close(pauses[4])
		synctest.Wait()
		if want = append(want, l2cache.Event{Gap: true}); !reflect.DeepEqual(got, want) {
			t.Errorf("%d events, the last %v; want a Gap in place of 10,000", len(got), got[len(got)-1])
		}
		hub.Gap()
		synctest.Wait()
		if want = append(want, l2cache.Event{Gap: true}); !reflect.DeepEqual(got, want) {
			t.Errorf("events end with %v, want another Gap", got[len(got)-1])
		}
		close(closed)
		synctest.Wait()
		if !errors.Is(last, l2cache.ErrClosed) || !hub.Idle() {
			t.Errorf("last = %v, idle %v; want ErrClosed, true", last, hub.Idle())
		}
		for event, err := range hub.Watch(t.Context(), "test", "", closed) {
			if !errors.Is(err, l2cache.ErrClosed) {
				t.Errorf("Watch of what is closed = %v, %v; want ErrClosed at once", event, err)
			}
		}
	})
}

func TestObserve(t *testing.T) {
	ctx := t.Context()
	var ops []l2cache.Op
	b := l2cache.Observe(mem.New(mem.NewStore()), func(_ context.Context, op l2cache.Op) { ops = append(ops, op) })
	b.Set(ctx, "k", []byte("value"), time.Hour)
	b.Get(ctx, "k")
	b.GetWithTTL(ctx, "missing")
	b.GetWithTTL(ctx, "k")
	b.Set(ctx, "", nil, time.Hour)
	l2cache.GetMany(ctx, b, []string{"k", "l", "m"})
	l2cache.Touch(ctx, b, "l", time.Minute)
	l2cache.Add(ctx, b, "l", []byte("xy"), time.Minute)
	for range l2cache.Scan(ctx, b, "") {
	}
	l2cache.Add(ctx, b, "l", []byte("xyz"), time.Minute)
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	for range l2cache.Watch(watchCtx, b, "") {
		stop()
	}
	b.Delete(ctx, "k")
	b.Ping(ctx)
	want := []string{
		"set k ok 1 0 0 5 1h0m0s", "get k hit 1 1 0 5 0s", "get missing miss 1 0 1 0 0s", "get k hit 1 1 0 5 1h0m0s", "set  error 1 0 0 0 1h0m0s",
		"getmany  hit 3 1 2 5 0s", "touch l miss 1 0 1 0 1m0s", "add l ok 1 0 0 2 1m0s", "scan  ok 2 0 0 0 0s", "add l hit 1 1 0 0 1m0s", "watch  ok 1 0 0 0 0s", "delete k ok 1 0 0 0 0s", "ping  ok 0 0 0 0 0s",
	}
	for i, op := range ops {
		got := fmt.Sprintln(op.Name, op.Key, op.Outcome(), op.Keys, op.Hits, op.Misses, op.Bytes, op.TTL.Round(time.Second))
		if i >= len(want) || strings.TrimSpace(got) != want[i] {
			t.Errorf("op %d = %s, want %q", i, got, want[min(i, len(want)-1)])
		}
		if op.Backend != "mem" || op.Start.IsZero() || op.Duration < 0 {
			t.Errorf("op %d = %+v, want backend, start and duration", i, op)
		}
	}
	if len(ops) != len(want) {
		t.Errorf("%d ops, want %d", len(ops), len(want))
	}
}

// TestCauseIsNoMiss: an errgroup cancels the calls of others with the first error.
func TestCauseIsNoMiss(t *testing.T) {
	for _, cause := range []error{l2cache.ErrNotFound, l2cache.ErrUnavailable, fmt.Errorf("a call: %w", l2cache.ErrNotFound)} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := mem.New(mem.NewStore()).Get(ctx, "k")
		if !errors.Is(err, context.Canceled) || errors.Is(err, l2cache.ErrNotFound) || errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("Get under a ctx that was cancelled with %v = %v, want context.Canceled only", cause, err)
		}
	}
}

func TestMissDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { l2cache.NewError(t.Context(), "test", "get", "k", nil, l2cache.ErrNotFound) }); n != 0 {
		t.Errorf("NewError of a miss allocates %v times, want 0", n)
	}
}

// An error that does not know of the key is told with it.
func TestKeyErrorsName(t *testing.T) {
	err := l2cache.KeyErrors{"b": errors.New("no"), "a": errors.New("db\ndown")}
	if got, want := err.Error(), `2 of the keys failed, one of them: "a": db; down`; got != want {
		t.Errorf("KeyErrors says %q, want %q", got, want)
	}
}
