package natskv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

// scan returns how often each key comes.
func scan(t testing.TB, b l2cache.L2CacheBackend, prefix string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for info, err := range l2cache.Scan(context.Background(), b, prefix) {
		if err != nil {
			t.Fatalf("Scan(%q) = %v", prefix, err)
		}
		seen[info.Key]++
	}
	return seen
}

// The server lists 100,000 subjects at a time, by their number in the list: what is
// removed meanwhile moves those behind it to other numbers.
func TestMoreThanTheServerLists(t *testing.T) {
	srv := servertest.NATS(t)
	b := open(t, srv, "long", "storage=memory")
	s := stream(t, srv, "long")
	ctx := context.Background()
	const going, staying = 5_000, 110_000
	var first []string
	var items []l2cache.Item
	add := func(key string) {
		items = append(items, l2cache.Item{Key: key, Value: []byte("v"), TTL: time.Hour})
		if len(items) == 5_000 {
			if err := l2cache.SetMany(ctx, b, items); err != nil {
				t.Fatal(err)
			}
			items = items[:0]
		}
	}
	for i := range going {
		first = append(first, fmt.Sprintf("k:a%06d", i))
		add(first[i])
	}
	for i := range staying {
		add(fmt.Sprintf("k:b%06d", i))
	}

	seen := map[string]int{}
	for info, err := range l2cache.Scan(ctx, b, "k:") {
		if err != nil {
			t.Fatalf("Scan = %v", err)
		}
		if seen[info.Key]++; len(seen) == 1 {
			if err := l2cache.DeleteMany(ctx, b, first); err != nil {
				t.Fatal(err)
			}
			await(t, "the markers are gone", func() bool { return state(t, s).Msgs == staying })
		}
	}
	missing := 0
	for i := range staying {
		if seen[fmt.Sprintf("k:b%06d", i)] == 0 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("Scan left out %d of %d keys that were there all the time, want none", missing, staying)
	}

	if err := l2cache.DeletePattern(ctx, b, "k:b?????[5]"); err != nil {
		t.Errorf("DeletePattern without a match = %v, want nil", err)
	}
	if err := l2cache.DeletePattern(ctx, b, "k:b*"); err != nil {
		t.Errorf("DeletePattern of %d keys = %v, want nil", staying, err)
	}
	if left := scan(t, b, ""); len(left) > 0 {
		t.Errorf("DeletePattern of %d keys has left %d, want none", staying, len(left))
	}
	await(t, "the stream is empty", func() bool { return state(t, s).Msgs == 0 })
}

// What other programs put into the bucket is not listed. DeletePattern takes it away
// where it stands under a key, as Delete does.
func TestScanForeign(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "foreign", "storage=memory")
	js := jetStream(t, connect(t, srv))
	ctx := context.Background()
	set(t, b, "k:ours", "v", time.Hour)
	for _, subject := range []string{natskv.KeyForm("k:theirs"), "k=3A.x.y", "k=3A.=zz", "==.!"} {
		if _, err := js.Publish(ctx, "$KV.foreign."+subject, []byte("theirs")); err != nil {
			t.Fatal(err)
		}
	}
	if got := scan(t, b, ""); len(got) != 1 || got["k:ours"] != 1 {
		t.Errorf("Scan = %v, want k:ours once", got)
	}
	if err := l2cache.DeletePattern(ctx, b, "k:*"); err != nil {
		t.Errorf("DeletePattern = %v, want nil", err)
	}
	wantMiss(t, b, "k:ours")
	wantMiss(t, b, "k:theirs")
	s := stream(t, srv, "foreign")
	for _, subject := range []string{"k=3A.x.y", "k=3A.=zz", "==.!"} {
		if _, err := s.GetLastMsgForSubject(ctx, "$KV.foreign."+subject); err != nil {
			t.Errorf("after DeletePattern, the message of %s: %v, want it there", subject, err)
		}
	}
}

// What expires while the loop takes its time does not come.
func TestScanExpiresMeanwhile(t *testing.T) {
	b := open(t, server(t), "meanwhile", "storage=memory")
	const n, ttl = 20, 300 * time.Millisecond
	for i := range n {
		set(t, b, fmt.Sprint("k", i), "v", ttl)
	}
	end := time.Now().Add(ttl + time.Millisecond)
	seen := 0
	for info, err := range l2cache.Scan(context.Background(), b, "k") {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; time.Now().After(end) {
			t.Errorf("Scan yields %s after it has expired", info.Key)
		}
		for !time.Now().After(end) {
			time.Sleep(time.Millisecond)
		}
	}
	if seen > 1 {
		t.Errorf("Scan yields %d keys, %d of them expired, want one or none", seen, seen-1)
	}
}
