package bolt_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

// A watcher is told what has changed on its bucket, through any handle, and nothing
// else: not what a write has left as it was, nor what the sweeper removes.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, &bolt.Options{SweepInterval: time.Second})
		peer := newCache(t, db, nil)
		other := newCache(t, db, &bolt.Options{Bucket: "other"})

		var got []l2cache.Event
		for event, err := range c.Watch(t.Context(), "") {
			if err != nil {
				t.Fatalf("Watch = %v", err)
			}
			got = append(got, event)
			if event.Key == "last" {
				break
			}
			if !event.Gap {
				continue
			}
			mustSet(t, other, "elsewhere", nil, time.Hour)
			mustSet(t, peer, "set", nil, time.Second)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			wantRows(t, db, "after the sweep", 0)
			mustSetMany(t, c, itemsOf([]string{"many", "more"}, nil))
			if err := c.Delete(t.Context(), "absent"); err != nil {
				t.Errorf("Delete = %v", err)
			}
			if err := c.Touch(t.Context(), "absent", time.Hour); err != l2cache.ErrNotFound {
				t.Errorf("Touch = %v, want ErrNotFound", err)
			}
			if added, err := peer.Add(t.Context(), "added", nil, time.Hour); !added || err != nil {
				t.Errorf("Add = %v, %v; want true", added, err)
			}
			mustSet(t, peer, "last", nil, time.Hour)
		}
		want := []l2cache.Event{{Gap: true}, {Key: "set"}, {Key: "many"}, {Key: "more"}, {Key: "added"}, {Key: "last"}}
		if !slices.Equal(got, want) {
			t.Errorf("events %+v, want %+v", got, want)
		}
	})
}

// A write that failed and left no trace is no change.
func TestWatchOfAFullDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, smallDB(t), nil)
		for event, err := range c.Watch(t.Context(), "") {
			if err != nil || !event.Gap && event.Key != "small" {
				t.Errorf("Watch = %+v, %v; want small", event, err)
			}
			if !event.Gap {
				break
			}
			items := itemsOf([]string{"large", "small"}, nil)
			items[0].Value = pattern(4_000_000)
			wantFailed(t, "SetMany", c.SetMany(t.Context(), items), l2cache.ErrFull, "large")
		}
	})
}

func TestHubsAreForgotten(t *testing.T) {
	before := bolt.Hubs()
	db := openDB(t, tempFile(t), nil)
	a, b := newCache(t, db, nil), newCache(t, db, nil)
	if n := bolt.Hubs() - before; n != 1 {
		t.Errorf("%d hubs for two handles on one bucket, want 1", n)
	}
	a.Close()
	a.Close()
	if n := bolt.Hubs() - before; n != 1 {
		t.Errorf("%d hubs after one of two handles was closed, want 1", n)
	}
	b.Close()
	if n := bolt.Hubs() - before; n != 0 {
		t.Errorf("%d hubs after both handles were closed, want 0", n)
	}
}
