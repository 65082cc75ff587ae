package l2cache_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"testing"

	"github.com/l2cache/l2cache"
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
