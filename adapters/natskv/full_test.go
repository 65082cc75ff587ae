package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
)

// The server has no room for any bucket: writes are ErrFull, reads and deletes go on.
func TestServerIsFull(t *testing.T) {
	t.Parallel()
	srv := configured(t, `jetstream {max_file_store: 8MB}`)
	b := open(t, srv, "b")
	ctx := context.Background()
	set(t, b, "k", "v", time.Hour)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = b.Set(ctx, fmt.Sprint("filler", n), make([]byte, 500_000), time.Hour)
	}
	t.Logf("full after %d Sets: %v", n, err)
	for what, err := range map[string]error{
		"Set":     b.Set(ctx, "k", make([]byte, 500_000), time.Hour),
		"SetMany": l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "k", Value: make([]byte, 500_000), TTL: time.Hour}}),
		"Touch":   l2cache.Touch(ctx, b, "filler0", time.Minute),
	} {
		if !errors.Is(err, l2cache.ErrFull) {
			t.Errorf("%s at a full server = %v, want %v", what, err, l2cache.ErrFull)
		}
	}
	if added, err := l2cache.Add(ctx, b, "new", make([]byte, 500_000), time.Hour); added || !errors.Is(err, l2cache.ErrFull) {
		t.Errorf("Add at a full server = %v, %v; want %v", added, err, l2cache.ErrFull)
	}
	want(t, b, "k", "v")
	for i := range n - 1 {
		if e, err := b.GetWithTTL(ctx, fmt.Sprint("filler", i)); err != nil || len(e.Value) != 500_000 {
			t.Errorf("Get of entry %d at a full server = %d bytes, %v", i, len(e.Value), err)
		}
		del(t, b, fmt.Sprint("filler", i))
		wantMiss(t, b, fmt.Sprint("filler", i))
	}
	await(t, "there is room again", func() bool { return b.Set(ctx, "k", make([]byte, 500_000), time.Hour) == nil })
}
