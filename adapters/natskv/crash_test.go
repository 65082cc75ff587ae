package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

// replaceAll sets entries for an hour, in several files of the server's store, and
// replaces them by ones that end soon, or deletes them. It returns their keys when the
// server has removed what was not set for longer.
func replaceAll(t *testing.T, b l2cache.L2CacheBackend, s jetstream.Stream, round int) (keys []string) {
	t.Helper()
	for i := range 50 {
		keys = append(keys, fmt.Sprintf("k:%d.%d", round, i))
	}
	for range 600 {
		if key := keys[rand.IntN(len(keys))]; rand.IntN(3) == 0 {
			del(t, b, key)
		} else {
			set(t, b, key, strings.Repeat("v", rand.IntN(100_000)), time.Hour)
		}
	}
	for i, key := range keys {
		switch i % 3 {
		case 0:
			del(t, b, key)
		case 1:
			set(t, b, key, "new", time.Millisecond)
		case 2:
			if err := l2cache.DeleteMany(context.Background(), b, []string{key}); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(t, b, "last", "v", time.Millisecond)
	await(t, "the server to remove what has expired", func() bool {
		_, err := s.GetLastMsgForSubject(context.Background(), "$KV.crash.last")
		return errors.Is(err, jetstream.ErrMsgNotFound)
	})
	return keys
}

// wantMisses expects none of keys to be found.
func wantMisses(t *testing.T, b l2cache.L2CacheBackend, keys []string, when string) {
	t.Helper()
	found := 0
	for _, key := range keys {
		switch _, err := b.Get(context.Background(), key); {
		case err == nil:
			found++
		case err != l2cache.ErrNotFound:
			t.Fatalf("Get(%q) %s = %v", key, when, err)
		}
	}
	if found > 0 {
		t.Errorf("%s %d of %d entries that were replaced or deleted are found, want none", when, found, len(keys))
	}
}

// What was replaced or deleted stays so when the server is killed, also when what has
// replaced it has ended. See overwrite.go.
func TestNothingComesBack(t *testing.T) {
	t.Parallel()
	srv := servertest.NATS(t)
	b := open(t, srv, "crash")
	var keys []string
	for round := range 3 {
		set(t, b, fmt.Sprint("kept", round), "v", time.Hour) // the server keeps the files after this one
		keys = append(keys, replaceAll(t, b, stream(t, srv, "crash"), round)...)
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the handle works again", func() bool { return b.Ping(context.Background()) == nil })
		for past := range round + 1 {
			want(t, b, fmt.Sprint("kept", past), "v")
		}
		wantMisses(t, b, keys, fmt.Sprintf("after crash %d", round+1))
	}
}

// The same of each replica.
func TestNothingComesBackInCluster(t *testing.T) {
	t.Parallel()
	servers := cluster(t)
	var b l2cache.L2CacheBackend
	await(t, "the cluster has a leader", func() bool {
		var err error
		b, err = l2cache.Open(context.Background(), "nats://"+servers["n0"].Addr+","+servers["n1"].Addr+","+servers["n2"].Addr+"/crash?replicas=3&op_timeout=10s")
		return err == nil
	})
	defer b.Close()
	set(t, b, "kept", "v", time.Hour)
	keys := replaceAll(t, b, stream(t, servers["n0"], "crash"), 0)
	for name, srv := range servers {
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		nc := connect(t, srv)
		await(t, name+" leads the stream", func() bool {
			if askLeader(nc, "KV_crash") == name {
				return true
			}
			nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_crash", []byte(`{"placement":{"preferred":"`+name+`"}}`), 100*time.Millisecond)
			return false
		})
		want(t, b, "kept", "v")
		wantMisses(t, b, keys, "after a crash of "+name)
	}
}

// What replaces a message, the server keeps as long as that.
func TestReplacementIsKept(t *testing.T) {
	srv := servertest.NATS(t) // of its own: what is kept for ever is there when the test runs again
	b := open(t, srv, "lifetime")
	s := stream(t, srv, "lifetime")
	ctx := context.Background()
	kv, err := jetStream(t, connect(t, srv)).KeyValue(ctx, "lifetime")
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	add := func(ttl time.Duration) error {
		added, err := l2cache.Add(ctx, b, "k", []byte("v"), ttl)
		if err == nil && !added {
			err = errors.New("Add = false, want true")
		}
		return err
	}
	const short = time.Millisecond
	for _, step := range []struct {
		what string
		do   func() error
		want string // Nats-TTL
	}{
		{"Delete of nothing", func() error { return b.Delete(ctx, "k") }, "1"},
		{"Set for a minute", func() error { return b.Set(ctx, "k", []byte("v"), time.Minute) }, "61"},
		{"Touch, longer", func() error { return l2cache.Touch(ctx, b, "k", time.Hour) }, "3601"},
		{"Touch, shorter", func() error { return l2cache.Touch(ctx, b, "k", time.Minute) }, "3601"},
		{"Set, shorter", func() error { return b.Set(ctx, "k", []byte("v"), short) }, "3601"},
		{"SetMany, shorter", func() error {
			return l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "k", Value: []byte("v"), TTL: time.Minute}})
		}, "3601"},
		{"Delete", func() error { return b.Delete(ctx, "k") }, "3601"},
		{"Add, shorter", func() error { return add(time.Minute) }, "3601"},
		{"DeleteMany", func() error { return l2cache.DeleteMany(ctx, b, []string{"k"}) }, "3601"},
		{"Add, longer", func() error { return add(2 * time.Hour) }, "7201"},
		{"DeletePattern", func() error { return l2cache.DeletePattern(ctx, b, "k*") }, "7201"},
		{"Put of another program", func() error { _, err := kv.Put(ctx, "k", []byte("theirs")); return err }, ""},
		{"Delete of that", func() error { return b.Delete(ctx, "k") }, ""},
		{"Purge of another program", func() error { return kv.Purge(ctx, "k", jetstream.PurgeTTL(90*time.Second)) }, "1m30s"},
		{"Set after that", func() error { return b.Set(ctx, "k", []byte("v"), short) }, "90"},
		{"Set for ever", func() error { return b.Set(ctx, "k", []byte("v"), l2cache.NoExpiry) }, ""},
		{"Set after that", func() error { return b.Set(ctx, "k", []byte("v"), short) }, ""},
		{"Delete of that", func() error { return b.Delete(ctx, "k") }, ""},
	} {
		check(step.what, step.do())
		m, err := s.GetLastMsgForSubject(ctx, "$KV.lifetime.k")
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Header.Get("Nats-TTL"); got != step.want {
			t.Errorf("%s: the header Nats-TTL is %q, want %q", step.what, got, step.want)
		}
	}
}

// Of all that is stored under a key, none is kept less long than what was before it,
// whoever writes at a time.
func TestReplacementIsKeptInRaces(t *testing.T) {
	srv := server(t)
	js := jetStream(t, connect(t, srv))
	ctx := context.Background()
	first := open(t, srv, "lifetimes")
	config := stream(t, srv, "lifetimes").CachedInfo().Config
	config.RePublish = &jetstream.RePublish{Source: ">", Destination: "stored.>"}
	if _, err := js.UpdateStream(ctx, config); err != nil {
		t.Fatal(err)
	}
	stored, err := connect(t, srv).SubscribeSync("stored.>")
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, srv, "lifetimes")
	const key, writers, writes = "k", 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			b := []l2cache.L2CacheBackend{first, second}[w%2]
			for range writes {
				var err error
				switch ttl := rand.N(time.Hour); rand.IntN(5) {
				case 0:
					err = b.Delete(ctx, key)
				case 1:
					err = l2cache.DeleteMany(ctx, b, []string{key})
				case 2:
					err = l2cache.SetMany(ctx, b, []l2cache.Item{{Key: key, TTL: ttl}})
				case 3:
					if err = l2cache.Touch(ctx, b, key, ttl); err == l2cache.ErrNotFound {
						err = nil
					}
				case 4:
					err = b.Set(ctx, key, nil, ttl)
				}
				if err != nil {
					t.Errorf("a write among many: %v", err)
				}
			}
		})
	}
	wg.Wait()
	set(t, first, "end", "v", time.Hour)
	longest, messages := int64(0), 0
	for {
		m, err := stored.NextMsg(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(m.Subject, ".end") {
			break
		}
		messages++
		kept := natskv.LifetimeIn(m.Header)
		if kept < longest {
			t.Fatalf("message %d, of %v, is kept for %d seconds, and one before it for %d", messages, m.Header, kept, longest)
		}
		longest = kept
	}
	if messages < writes {
		t.Errorf("%d messages for %d writes, want %d at least", messages, writers*writes, writes)
	}
}
