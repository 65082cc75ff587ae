package l2cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

func TestErrorText(t *testing.T) {
	refused := errors.New("dial tcp 127.0.0.1:6379: connection refused")
	for _, tt := range []struct {
		err  *l2cache.Error
		want string
	}{
		{
			&l2cache.Error{Op: "get", Backend: "redis", Key: "user:1", Kind: l2cache.ErrUnavailable, Err: refused},
			`redis: get "user:1": unavailable: dial tcp 127.0.0.1:6379: connection refused`,
		},
		{&l2cache.Error{Op: "ping", Backend: "redis", Kind: l2cache.ErrClosed}, "redis: ping: closed"},
		{&l2cache.Error{Op: "open", Backend: "redis", Err: refused}, "redis: open: dial tcp 127.0.0.1:6379: connection refused"},
		{&l2cache.Error{Op: "set", Backend: "mem", Key: "a\r\nb", Kind: l2cache.ErrFull}, `mem: set "a\r\nb": store full`},
		{
			&l2cache.Error{Op: "get", Backend: "mem", Key: "k", Kind: l2cache.ErrCorrupt, Err: errors.New("one\r\ntwo\nthree")},
			`mem: get "k": corrupt entry: one; two; three`,
		},
		{
			&l2cache.Error{Op: "get", Backend: "mem", Key: strings.Repeat("k", 100), Kind: l2cache.ErrCorrupt},
			`mem: get "` + strings.Repeat("k", 64) + `"…: corrupt entry`,
		},
		{
			&l2cache.Error{Op: "set", Backend: "mem", Key: "k", Kind: l2cache.ErrInvalidKey, Err: l2cache.CheckKey("", 1)},
			`mem: set "k": invalid key: it is empty`,
		},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %s\nwant      %s", got, tt.want)
		}
	}
}

func TestNewError(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cause := errors.New("the user left")
	withCause, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(cause)
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	dialTimeout := &net.OpError{Op: "dial", Err: fmt.Errorf("i/o timeout: %w", context.DeadlineExceeded)}

	for _, tt := range []struct {
		name   string
		ctx    context.Context
		kind   error
		err    error
		is     []error
		isNot  []error
		target any // for errors.As
	}{
		{
			"a live ctx", t.Context(), l2cache.ErrUnavailable, io.ErrUnexpectedEOF,
			[]error{l2cache.ErrUnavailable, io.ErrUnexpectedEOF},
			[]error{context.Canceled, context.DeadlineExceeded, l2cache.ErrNotFound},
			new(*l2cache.Error),
		},
		{
			"a timeout of the driver's", t.Context(), l2cache.ErrUnavailable, dialTimeout,
			[]error{l2cache.ErrUnavailable},
			[]error{context.Canceled, context.DeadlineExceeded},
			new(*net.OpError),
		},
		{
			"a deadline of the connection's", t.Context(), nil, os.ErrDeadlineExceeded,
			[]error{l2cache.ErrUnavailable, os.ErrDeadlineExceeded},
			[]error{context.DeadlineExceeded},
			new(*l2cache.Error),
		},
		{
			"a cancelled ctx", cancelled, l2cache.ErrUnavailable, dialTimeout,
			[]error{context.Canceled},
			[]error{l2cache.ErrUnavailable, context.DeadlineExceeded},
			new(*l2cache.Error),
		},
		{
			"a ctx with a cause", withCause, l2cache.ErrUnavailable, io.EOF,
			[]error{context.Canceled, cause},
			[]error{l2cache.ErrUnavailable},
			new(*l2cache.Error),
		},
		{
			"a deadline that has passed", expired, l2cache.ErrUnavailable, io.EOF,
			[]error{context.DeadlineExceeded},
			[]error{l2cache.ErrUnavailable, context.Canceled},
			new(*l2cache.Error),
		},
		{
			"a kind that err has", t.Context(), nil, fmt.Errorf("row 3: %w", l2cache.ErrCorrupt),
			[]error{l2cache.ErrCorrupt},
			[]error{l2cache.ErrUnavailable},
			new(*l2cache.Error),
		},
		{
			"an operation that there is not", t.Context(), errors.ErrUnsupported, nil,
			[]error{errors.ErrUnsupported},
			[]error{l2cache.ErrUnavailable},
			new(*l2cache.Error),
		},
	} {
		err := l2cache.NewError(tt.ctx, "test", "get", "k", tt.kind, tt.err)
		for _, target := range tt.is {
			if !errors.Is(err, target) {
				t.Errorf("%s: %v does not match %v", tt.name, err, target)
			}
		}
		for _, target := range tt.isNot {
			if errors.Is(err, target) {
				t.Errorf("%s: %v matches %v", tt.name, err, target)
			}
		}
		if !errors.As(err, tt.target) {
			t.Errorf("%s: %v has no %T", tt.name, err, tt.target)
		}
	}
	if err := l2cache.NewError(t.Context(), "test", "get", "k", l2cache.ErrNotFound, io.EOF); err != l2cache.ErrNotFound {
		t.Errorf("NewError of a miss = %#v, want ErrNotFound itself", err)
	}
}

// lateTimer is a ctx whose deadline has passed before its timer has noticed.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestDeadlineCountsByTheClock(t *testing.T) {
	err := l2cache.Preflight(lateTimer{t.Context()}, "test", "get", "k", false)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Preflight past the deadline = %v, want DeadlineExceeded", err)
	}
}

func TestPreflightOrder(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	long := strings.Repeat("k", l2cache.MaxKeyLen+1)
	for _, tt := range []struct {
		ctx    context.Context
		key    string
		closed bool
		want   error
	}{
		{cancelled, "", true, context.Canceled},
		{t.Context(), "", true, l2cache.ErrClosed},
		{t.Context(), "", false, l2cache.ErrInvalidKey},
		{t.Context(), long, false, l2cache.ErrInvalidKey},
		{t.Context(), long[1:], false, nil},
	} {
		err := l2cache.Preflight(tt.ctx, "test", "get", tt.key, tt.closed)
		if !errors.Is(err, tt.want) {
			t.Errorf("Preflight(%d bytes, closed %v) = %v, want %v", len(tt.key), tt.closed, err, tt.want)
		}
	}
}
