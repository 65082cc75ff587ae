package bolt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// A step of the clock is a row whose writer had another clock.
func TestClockSteps(t *testing.T) {
	const ttl = 10 * time.Minute
	for _, test := range []struct {
		name  string
		step  time.Duration // of the clock, right after the Set
		wants []time.Duration
	}{
		// What is left right after the step, and each 5 min later; 0: a miss.
		{"none", 0, []time.Duration{ttl, ttl / 2, 0}},
		{"5 min forward", ttl / 2, []time.Duration{ttl / 2, 0}},
		{"an hour forward", time.Hour, []time.Duration{0, 0}},
		{"5 min back", -ttl / 2, []time.Duration{ttl, ttl, ttl / 2, 0}},
		{"20 min back", -2 * ttl, []time.Duration{ttl, ttl, ttl, ttl, ttl, ttl / 2, 0}},
	} {
		synctest.Test(t, func(t *testing.T) {
			db := openDB(t, tempFile(t), nil)
			c := newCache(t, db, nil)
			mustSet(t, c, "after", nil, ttl)
			err := db.Update(func(tx *bbolt.Tx) error {
				h := envelope.NewHeader(time.Now().Add(-test.step), ttl)
				return tx.Bucket([]byte("l2cache")).Put(rowKey("k"), row("k", h, "v"))
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range test.wants {
				got, err := c.GetWithTTL(t.Context(), "k")
				if got.TTL != want || (want == 0) != (err == l2cache.ErrNotFound) || want > 0 && err != nil {
					t.Errorf("%s, %d min after: %v left, %v; want %v", test.name, 5*i, got.TTL, err, want)
				}
				if got, _ := c.GetWithTTL(t.Context(), "after"); got.TTL != max(ttl-time.Duration(i)*ttl/2, 0) {
					t.Errorf("%s, %d min after: %v left of what was set after it", test.name, 5*i, got.TTL)
				}
				time.Sleep(ttl / 2)
			}
		})
	}
}
