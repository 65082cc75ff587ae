package l2cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

func TestOpErrorKind(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	failed := func(ctx context.Context, kind error) error {
		return l2cache.NewError(ctx, "mem", "get", "k", kind, errors.New("why"))
	}
	ctx := context.Background()
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{l2cache.ErrNotFound, ""},
		{failed(ended, l2cache.ErrUnavailable), "canceled"},
		{fmt.Errorf("late: %w", context.DeadlineExceeded), "deadline_exceeded"},
		{failed(ctx, l2cache.ErrInvalidKey), "invalid_key"},
		{failed(ctx, l2cache.ErrInvalidTTL), "invalid_ttl"},
		{failed(ctx, l2cache.ErrTooLarge), "too_large"},
		{failed(ctx, l2cache.ErrFull), "full"},
		{failed(ctx, l2cache.ErrCorrupt), "corrupt"},
		{failed(ctx, l2cache.ErrClosed), "closed"},
		{failed(ctx, errors.ErrUnsupported), "unsupported"},
		{failed(ctx, path.ErrBadPattern), "bad_pattern"},
		{failed(ctx, l2cache.ErrUnavailable), "unavailable"},
		{errors.New("of a backend that keeps no contract"), "unavailable"},
		{l2cache.KeyErrors{"a": failed(ctx, l2cache.ErrUnavailable), "b": failed(ctx, l2cache.ErrFull)}, "full"},
	} {
		if got := (l2cache.Op{Err: test.err}).ErrorKind(); got != test.want {
			t.Errorf("ErrorKind of %v is %q, want %q", test.err, got, test.want)
		}
	}
}

func TestHandlesPrintTheirName(t *testing.T) {
	b := mem.New(mem.NewStore())
	if got := l2cache.Observe(b, nil); got != l2cache.L2CacheBackend(b) {
		t.Errorf("Observe with nobody to tell = %T, want the backend itself", got)
	}
	app := l2cache.Observe(l2cache.WithPrefix(b, "app:"), func(context.Context, l2cache.Op) {})
	for format, want := range map[string]string{"%v": `mem with prefix "app:"`, "%+v": `mem with prefix "app:"`, "%s": `mem with prefix "app:"`} {
		if got := fmt.Sprintf(format, app); got != want {
			t.Errorf("%s of a backend = %s, want %s", format, got, want)
		}
	}
	if got := fmt.Sprintf("%v %+v %#v", b, b, b); got != "mem mem mem" {
		t.Errorf("mem prints as %s", got)
	}
}

// secretive is a backend that somebody else has made.
type secretive struct {
	l2cache.L2CacheBackend
	password string
}

func TestWrappersPrintNoFields(t *testing.T) {
	b := &secretive{mem.New(mem.NewStore()), "hunter2"}
	app := l2cache.Observe(l2cache.WithPrefix(b, "app:"), func(context.Context, l2cache.Op) {})
	for _, format := range []string{"%v", "%+v", "%s", "%q", "%#v"} {
		if got := fmt.Sprintf(format, app); strings.Contains(got, b.password) {
			t.Errorf("%s of a wrapped backend = %s", format, got)
		}
	}
}

func TestProfileAsJSON(t *testing.T) {
	for _, want := range []l2cache.Profile{
		{},
		{Supports: l2cache.CanAdd | l2cache.CanTouch, Resolution: time.Second, MaxTTL: l2cache.NoExpiry, Clock: l2cache.ServerClock, Durable: true},
	} {
		text, err := json.Marshal(want)
		for _, field := range []string{fmt.Sprintf(`"supports":"%v",`, want.Supports), fmt.Sprintf(`"clock":"%v"`, want.Clock)} {
			if err != nil || !strings.Contains(string(text), field) {
				t.Errorf("Marshal = %s, %v; want %s in it", text, err, field)
			}
		}
		var got l2cache.Profile
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Errorf("Unmarshal(%s) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{`{"supports":"Add|Fly"}`, `{"supports":""}`, `{"clock":"sundial"}`} {
		got := l2cache.Profile{Clock: l2cache.ServerClock}
		if err := json.Unmarshal([]byte(text), &got); err == nil || got != (l2cache.Profile{Clock: l2cache.ServerClock}) {
			t.Errorf("Unmarshal(%s) = %+v, %v; want an error", text, got, err)
		}
	}
}
