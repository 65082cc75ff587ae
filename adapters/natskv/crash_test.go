package natskv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache/internal/servertest"
)

// What was replaced or deleted stays so when the server is killed, also after what
// replaced it is gone. See entryHeader.
func TestNothingComesBack(t *testing.T) {
	const keys = 30
	srv := servertest.NATS(t)
	b := open(t, srv, "crash")
	for round := range 3 {
		for i := range keys {
			replaced, deleted := fmt.Sprintf("replaced:%d.%d", round, i), fmt.Sprintf("deleted:%d.%d", round, i)
			set(t, b, replaced, "old", time.Hour)
			set(t, b, deleted, "old", time.Hour)
			set(t, b, replaced, "new", 10*time.Millisecond)
			del(t, b, deleted)
		}
		s := stream(t, srv, "crash")
		await(t, "the server to reclaim all", func() bool { return state(t, s).Msgs == uint64(round) })
		set(t, b, fmt.Sprint("kept", round), "v", time.Hour)
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the handle to work again", func() bool { return b.Ping(context.Background()) == nil })
		for past := range round + 1 {
			want(t, b, fmt.Sprint("kept", past), "v")
			for i := range keys {
				wantMiss(t, b, fmt.Sprintf("replaced:%d.%d", past, i))
				wantMiss(t, b, fmt.Sprintf("deleted:%d.%d", past, i))
			}
		}
	}
}
