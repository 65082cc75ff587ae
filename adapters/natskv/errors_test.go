package natskv

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

func TestErrorKinds(t *testing.T) {
	api := func(code jetstream.ErrorCode) error { return &jetstream.APIError{ErrorCode: code, Code: 500} }
	tests := []struct{ err, want error }{
		{nats.ErrMaxPayload, l2cache.ErrTooLarge},
		{api(10054), l2cache.ErrTooLarge},
		{api(10023), l2cache.ErrFull},
		{api(10028), l2cache.ErrFull},
		{api(10047), l2cache.ErrFull},
		{fmt.Errorf("wrapped: %w", api(10077)), l2cache.ErrFull},
		{api(10008), l2cache.ErrUnavailable},
		{api(10059), l2cache.ErrUnavailable},
		{nats.ErrNoResponders, l2cache.ErrUnavailable},
		{nats.ErrConnectionClosed, l2cache.ErrUnavailable},
		{nats.ErrTimeout, l2cache.ErrUnavailable},
		{nats.ErrAuthorization, l2cache.ErrUnavailable},
		{errTimeout, l2cache.ErrUnavailable},
		{context.DeadlineExceeded, l2cache.ErrUnavailable},
		{l2cache.ErrClosed, l2cache.ErrClosed},
		{fmt.Errorf("%w: not in an envelope", l2cache.ErrCorrupt), l2cache.ErrCorrupt},
	}
	for _, test := range tests {
		got := l2cache.NewError(context.Background(), name, "get", "k", kind(test.err), test.err)
		var e *l2cache.Error
		if !errors.As(got, &e) || e.Kind != test.want {
			t.Errorf("the error of %v is %v, want the kind %v", test.err, got, test.want)
		}
	}
}
