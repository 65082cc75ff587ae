package natskv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/envelope"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// server is for the tests that leave it alone.
var server = servertest.Shared(servertest.StartNATS)

// opTimeout is so long that it ends no call, even on a machine that is very busy:
// what has to end at once must not owe it to a timeout.
const opTimeout = 20 * time.Second

// open opens a backend for the time of the test.
func open(t testing.TB, srv *servertest.Server, bucket string, options ...string) l2cache.L2CacheBackend {
	t.Helper()
	options = append(options, "op_timeout="+opTimeout.String(), "dial_timeout="+opTimeout.String())
	b, err := l2cache.Open(context.Background(), "nats://"+srv.Addr+"/"+bucket+"?"+strings.Join(options, "&"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func set(t testing.TB, b l2cache.L2CacheBackend, key, value string, ttl time.Duration) {
	t.Helper()
	if err := b.Set(context.Background(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func del(t testing.TB, b l2cache.L2CacheBackend, key string) {
	t.Helper()
	if err := b.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, b l2cache.L2CacheBackend, key, value string) {
	t.Helper()
	got, err := b.Get(context.Background(), key)
	if string(got) != value || err != nil {
		t.Errorf("Get(%q) = %q, %v; want %q", key, got, err, value)
	}
}

func wantMiss(t testing.TB, b l2cache.L2CacheBackend, key string) {
	t.Helper()
	if got, err := b.Get(context.Background(), key); got != nil || err != l2cache.ErrNotFound {
		t.Errorf("Get(%q) = %q, %v; want %v", key, got, err, l2cache.ErrNotFound)
	}
}

// stream returns the stream behind a bucket, over a connection of the test's own.
func stream(t testing.TB, srv *servertest.Server, bucket string) jetstream.Stream {
	t.Helper()
	s, err := jetStream(t, connect(t, srv)).Stream(context.Background(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(t testing.TB, s jetstream.Stream) jetstream.StreamState {
	t.Helper()
	info, err := s.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return info.State
}

// await polls until done says so.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// What is on the wire is API: other programs and later versions read it.
func TestStoredMessage(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "stored")
	s := stream(t, srv, "stored")
	for _, test := range []struct {
		ttl    time.Duration
		header string
		stored time.Duration
	}{
		{time.Millisecond, "2", time.Millisecond},
		{time.Nanosecond, "2", time.Millisecond},
		{1500 * time.Millisecond, "3", 1500 * time.Millisecond},
		{31 * 24 * time.Hour, "2678401", 31 * 24 * time.Hour},
		{l2cache.MaxTTL, "3153600001", l2cache.MaxTTL},
		{l2cache.NoExpiry - 1, "3153600001", l2cache.MaxTTL},
		{l2cache.NoExpiry, "", l2cache.NoExpiry},
	} {
		before := time.Now()
		set(t, b, "user:42:profile", "value", test.ttl)
		after := time.Now()
		m, err := s.GetLastMsgForSubject(context.Background(), "$KV.stored.user=3A.42=3A.profile")
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Header.Get("Nats-TTL"); got != test.header {
			t.Errorf("Set with TTL %v: the header Nats-TTL is %q, want %q", test.ttl, got, test.header)
		}
		h, value, err := envelope.Decode(m.Data)
		if string(value) != "value" || h.TTL != test.stored || err != nil {
			t.Errorf("Set with TTL %v stores %+v, %q, %v; want TTL %v, \"value\"", test.ttl, h, value, err, test.stored)
		}
		if least, most := l2cache.Deadline(before, test.stored), l2cache.Deadline(after, test.stored); h.Deadline < least || h.Deadline > most {
			t.Errorf("Set with TTL %v stores the deadline %d, want %d to %d", test.ttl, h.Deadline, least, most)
		}
	}
}

func TestExpiredAreReclaimed(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "reclaimed")
	s := stream(t, srv, "reclaimed")
	for i := range 50 {
		set(t, b, fmt.Sprint("short", i), "v", time.Duration(i+1)*time.Millisecond)
	}
	set(t, b, "hour", "v", time.Hour)
	set(t, b, "forever", "v", l2cache.NoExpiry)
	if got := state(t, s).Msgs; got < 2 {
		t.Errorf("the stream has %d messages, want 2 at least", got)
	}
	await(t, "the stream has but two messages", func() bool { return state(t, s).Msgs == 2 })
	want(t, b, "hour", "v")
	want(t, b, "forever", "v")
}

func TestDeleteLeavesNothing(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "deleted")
	s := stream(t, srv, "deleted")
	del(t, b, "absent")
	set(t, b, "k", "v", time.Second)
	del(t, b, "k")
	del(t, b, "k")
	await(t, "the stream is empty", func() bool { return state(t, s).Msgs == 0 })
	wantMiss(t, b, "k")
}

// The marker that Delete leaves removes itself, not what has replaced it.
func TestSetAfterDeleteStays(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "stays")
	s := stream(t, srv, "stays")
	set(t, b, "hour", "old", time.Millisecond)
	del(t, b, "hour")
	set(t, b, "hour", "v", time.Hour)
	del(t, b, "forever")
	set(t, b, "forever", "v", l2cache.NoExpiry)
	set(t, b, "longer", "v", time.Millisecond) // its message has a TTL of its own
	set(t, b, "longer", "v", time.Hour)
	del(t, b, "younger marker")
	await(t, "a younger marker is gone", func() bool { return state(t, s).Msgs == 3 })
	want(t, b, "hour", "v")
	want(t, b, "forever", "v")
	want(t, b, "longer", "v")
}

func TestWatchersSeeKeysAndDeletes(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "watched")
	kv, err := jetStream(t, connect(t, srv)).KeyValue(context.Background(), "watched")
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.Watch(context.Background(), "user=3A.>", jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	wantEvent := func(op jetstream.KeyValueOp) {
		t.Helper()
		select {
		case e := <-w.Updates():
			if e.Key() != "user=3A.42" || e.Operation() != op {
				t.Errorf("the watcher sees %v of %q, want %v of user=3A.42", e.Operation(), e.Key(), op)
			}
		case <-time.After(time.Minute):
			t.Fatalf("the watcher sees nothing, want %v", op)
		}
	}
	set(t, b, "other", "v", time.Hour)
	set(t, b, "user:42", "v", time.Hour)
	wantEvent(jetstream.KeyValuePut)
	del(t, b, "user:42")
	wantEvent(jetstream.KeyValuePurge)
}

// The server removes what is older than max_age; the deadline has to be earlier.
func TestMaxAge(t *testing.T) {
	srv := server(t)
	const maxTTL = 2 * time.Second
	b := open(t, srv, "aged", "max_age=3s")
	if got := l2cache.ProfileOf(b).MaxTTL; got != maxTTL {
		t.Errorf("Profile().MaxTTL with max_age=3s is %v, want %v", got, maxTTL)
	}
	var wg sync.WaitGroup
	for i, ttl := range []time.Duration{time.Second, maxTTL, maxTTL + 1, 3 * time.Second, time.Hour, l2cache.NoExpiry} {
		wg.Go(func() {
			key, stored := fmt.Sprint("k", i), min(ttl, maxTTL)
			before := time.Now()
			if err := b.Set(context.Background(), key, []byte("v"), ttl); err != nil {
				t.Error(err)
				return
			}
			after := time.Now()
			for {
				asked := time.Now()
				e, err := b.GetWithTTL(context.Background(), key)
				got := time.Now()
				switch {
				case err == l2cache.ErrNotFound:
					if lived := got.Sub(before); lived < stored {
						t.Errorf("an entry set with TTL %v is gone after %v, want it for %v", ttl, lived, stored)
					}
					return
				case err != nil:
					t.Errorf("GetWithTTL = %v", err)
					return
				case e.TTL > stored-asked.Sub(after).Truncate(time.Millisecond)+time.Millisecond:
					t.Errorf("%v after Set with TTL %v: TTL %v, want %v in all", asked.Sub(after), ttl, e.TTL, stored)
					return
				case asked.Sub(after) > stored+time.Millisecond:
					t.Errorf("%v after Set with TTL %v: a hit, want it for %v", asked.Sub(after), ttl, stored)
					return
				}
			}
		})
	}
	wg.Wait()

	// A second handle takes the bucket as it is.
	if got := l2cache.ProfileOf(open(t, srv, "aged", "max_age=24h")).MaxTTL; got != maxTTL {
		t.Errorf("Profile().MaxTTL of another handle is %v, want %v", got, maxTTL)
	}
	// One that has not asked may not promise more than the bucket keeps.
	for maxAge, ok := range map[string]bool{"": false, "max_age=4s": false, "max_age=3s": true, "max_age=2s": true} {
		err := open(t, srv, "aged", "lazy=true", maxAge).Ping(context.Background())
		if (err == nil) != ok || !ok && !strings.Contains(err.Error(), "max_age") {
			t.Errorf("Ping with lazy=true, %s = %v, want success %v, or an error that names max_age", maxAge, err, ok)
		}
	}
}

func TestBucketsOfOthers(t *testing.T) {
	srv := servertest.NATS(t)
	js := jetStream(t, connect(t, srv))
	nc := connect(t, srv, nats.ReconnectBufSize(-1))
	ctx := context.Background()
	tests := []struct {
		bucket  string
		config  jetstream.KeyValueConfig
		byURL   string // in the error; empty: it is taken
		byNew   string
		maxTTL  time.Duration
		durable bool
	}{
		{"stock", jetstream.KeyValueConfig{}, "", "allow_msg_ttl", l2cache.NoExpiry, true},
		{"markers", jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute}, "", "", l2cache.NoExpiry, true},
		{"inmemory", jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute, Storage: jetstream.MemoryStorage}, "", "", l2cache.NoExpiry, false},
		{"day", jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute, History: 5, TTL: 24 * time.Hour}, "", "max_age", 24*time.Hour - time.Second, true},
		{"history", jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute, History: 2}, "", "", l2cache.NoExpiry, true},
		{"small", jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute, MaxValueSize: 1000}, "max_msg_size", "max_msg_size", 0, false},
		{"mirror", jetstream.KeyValueConfig{Mirror: &jetstream.StreamSource{Name: "stock"}}, "mirror", "mirror", 0, false},
	}
	for _, test := range tests {
		test.config.Bucket = test.bucket
		if _, err := js.CreateKeyValue(ctx, test.config); err != nil {
			t.Fatalf("CreateKeyValue(%+v) = %v", test.config, err)
		}
		c, err := natskv.New(nc, test.bucket, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		checkOpen(t, "New: Set in "+test.bucket, c.Set(ctx, "k", []byte("v"), time.Hour), test.byNew)
		checkOpen(t, "New: Ping of "+test.bucket, c.Ping(ctx), test.byNew)

		b, err := l2cache.Open(ctx, "nats://"+srv.Addr+"/"+test.bucket)
		checkOpen(t, "Open of "+test.bucket, err, test.byURL)
		if err != nil {
			continue
		}
		defer b.Close()
		set(t, b, "k", "v", time.Hour)
		want(t, b, "k", "v")
		del(t, b, "k")
		wantMiss(t, b, "k")
		if p := l2cache.ProfileOf(b); p.MaxTTL != test.maxTTL || p.Durable != test.durable {
			t.Errorf("the profile of %s is %+v, want MaxTTL %v, Durable %v", test.bucket, p, test.maxTTL, test.durable)
		}
	}
	if c := stream(t, srv, "mirror").CachedInfo().Config; c.AllowMsgTTL {
		t.Error("a bucket that was refused has been changed")
	}
}

func checkOpen(t *testing.T, what string, err error, setting string) {
	t.Helper()
	switch {
	case setting == "" && err != nil:
		t.Errorf("%s = %v, want nil", what, err)
	case setting != "" && (err == nil || !strings.Contains(err.Error(), setting)):
		t.Errorf("%s = %v, want an error that names %s", what, err, setting)
	case setting != "" && (errors.Is(err, l2cache.ErrNotFound) || !errors.Is(err, l2cache.ErrUnavailable)):
		t.Errorf("%s = %v, want %v", what, err, l2cache.ErrUnavailable)
	}
}

// Where AllowDirect is off, and so on every bucket with replicas, the leader answers.
func TestLeaderReads(t *testing.T) {
	srv := servertest.NATS(t)
	b := open(t, srv, "led")
	js := jetStream(t, connect(t, srv))
	config := stream(t, srv, "led").CachedInfo().Config
	config.AllowDirect = false
	if _, err := js.UpdateStream(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	if err := b.Ping(context.Background()); err != nil { // learns of it
		t.Fatal(err)
	}
	wantMiss(t, b, "a:b")
	for _, value := range []string{"", "v", strings.Repeat("\x00\xff", 300_000)} {
		set(t, b, "a:b", value, time.Minute)
		want(t, b, "a:b", value)
	}
	e, err := b.GetWithTTL(context.Background(), "a:b")
	if err != nil || e.TTL > time.Minute || e.TTL < 30*time.Second {
		t.Errorf("GetWithTTL = %v, %v; want almost a minute", e.TTL, err)
	}
	del(t, b, "a:b")
	wantMiss(t, b, "a:b")
	if _, err := js.Publish(context.Background(), "$KV.led.foreign", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(context.Background(), "foreign"); got != nil || !errors.Is(err, l2cache.ErrCorrupt) {
		t.Errorf("Get of a foreign empty message = %q, %v; want %v", got, err, l2cache.ErrCorrupt)
	}
}

func TestManyOpenOneNewBucket(t *testing.T) {
	srv := server(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			// Every other one wants other settings, and takes what it gets.
			url := fmt.Sprintf("nats://%s/raced?max_age=%dh&op_timeout=20s&dial_timeout=20s", srv.Addr, 1+i%2)
			b, err := l2cache.Open(context.Background(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			key := fmt.Sprint("k", i)
			if err := b.Set(context.Background(), key, []byte(key), time.Minute); err != nil {
				t.Error(err)
			}
			if got, err := b.Get(context.Background(), key); string(got) != key || err != nil {
				t.Errorf("Get(%q) = %q, %v; want %q", key, got, err, key)
			}
		})
	}
	wg.Wait()
}

// Subjects mean something to the server; keys do not.
func TestKeysAreNotSubjects(t *testing.T) {
	srv := server(t)
	victim := open(t, srv, "victim")
	set(t, victim, "k", "safe", time.Hour)
	b := open(t, srv, "keys")
	set(t, b, "neighbour", "safe", time.Hour)
	set(t, b, "a:neighbour", "safe", time.Hour)
	keys := []string{
		"*", ">", "a:*", "a:>", "*:neighbour", " ", "a b", "\x00", "\r\nPING\r\n", "\t", ".", "..", ".k", "k.", "k..k",
		"$KV.victim.k", "../victim/k", "..victim.k", "$JS.API.STREAM.PURGE.KV_victim", "$SYS.>", "_INBOX.x",
		strings.Repeat(">", l2cache.MaxKeyLen), strings.Repeat(":", l2cache.MaxKeyLen), strings.Repeat(":", 500), strings.Repeat("*.", 512),
	}
	for _, key := range keys {
		set(t, b, key, key, time.Hour)
	}
	for _, key := range keys {
		want(t, b, key, key)
	}
	for _, key := range keys {
		del(t, b, key)
		wantMiss(t, b, key)
	}
	want(t, b, "neighbour", "safe")
	want(t, b, "a:neighbour", "safe")
	want(t, victim, "k", "safe")
}

// A full bucket refuses writes, even the marker that Delete would leave.
func TestFull(t *testing.T) {
	srv := servertest.NATS(t)
	_, err := jetStream(t, connect(t, srv)).CreateKeyValue(context.Background(),
		jetstream.KeyValueConfig{Bucket: "full", MaxBytes: 1 << 20, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, srv, "full")
	set(t, b, "k", "v", time.Hour)
	set(t, b, "k2", "v", time.Hour)
	// Down to the last byte, so that not even an empty message fits.
	n := 0
	for size := 512 << 10; size > 0; {
		err := b.Set(context.Background(), fmt.Sprint("filler", n), make([]byte, size), time.Hour)
		switch {
		case errors.Is(err, l2cache.ErrFull):
			size /= 2
		case err != nil:
			t.Fatalf("Set of %d bytes = %v, want nil or %v", size, err, l2cache.ErrFull)
		default:
			n++
		}
	}
	if err := b.Set(context.Background(), "k", bytes.Repeat([]byte("x"), 10_000), time.Hour); !errors.Is(err, l2cache.ErrFull) {
		t.Errorf("Set in a full bucket = %v, want %v", err, l2cache.ErrFull)
	}
	want(t, b, "k", "v")
	del(t, b, "absent, and longer than anything that would still fit in")
	if err := l2cache.Touch(context.Background(), b, "k2", time.Minute); !errors.Is(err, l2cache.ErrFull) {
		t.Errorf("Touch in a full bucket = %v, want %v", err, l2cache.ErrFull)
	}
	if added, err := l2cache.Add(context.Background(), b, "absent", nil, time.Minute); added || !errors.Is(err, l2cache.ErrFull) {
		t.Errorf("Add in a full bucket = %v, %v, want %v", added, err, l2cache.ErrFull)
	}
	many := []string{"absent, and longer than anything that would still fit in", "k3", "filler0", "filler1"}
	if err := l2cache.DeleteMany(context.Background(), b, many); err != nil {
		t.Errorf("DeleteMany in a full bucket = %v, want nil", err)
	}
	for i := range n {
		if i > 1 {
			del(t, b, fmt.Sprint("filler", i))
		}
		wantMiss(t, b, fmt.Sprint("filler", i))
	}
	want(t, b, "k2", "v")
	set(t, b, "k", strings.Repeat("x", 10_000), time.Hour)
}

// Value and TTL come from one write, also while others replace both.
func TestNoTornPairs(t *testing.T) {
	srv := server(t)
	b := open(t, srv, "torn", "storage=memory")
	pairs := []struct {
		value      string
		least, ttl time.Duration
	}{
		{"A", 0, 10 * time.Second},
		{"B", 11 * time.Second, 1000 * time.Second},
		{"C", l2cache.NoExpiry, l2cache.NoExpiry},
	}
	set(t, b, "k", "A", 10*time.Second)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	var writes, reads atomic.Int64
	for w := range 3 {
		writers.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := pairs[i%len(pairs)]
				if err := b.Set(context.Background(), "k", []byte(p.value), p.ttl); err != nil {
					t.Error(err)
					return
				}
				writes.Add(1)
			}
		})
	}
	for range 8 {
		readers.Go(func() {
			for reads.Add(1) <= 100_000 {
				e, err := b.GetWithTTL(context.Background(), "k")
				if err != nil {
					t.Error(err)
					return
				}
				p := pairs[e.Value[0]-'A']
				if e.TTL < p.least || e.TTL > p.ttl {
					t.Errorf("GetWithTTL = %q, %v; want %v to %v", e.Value, e.TTL, p.least, p.ttl)
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	t.Logf("100,000 reads beside %d writes", writes.Load())
}

// A bucket that somebody has removed is created again, after an error that says so.
func TestBucketVanishes(t *testing.T) {
	srv := server(t)
	// In memory: nats-server 2.15 finds the files of a stream that was just removed, and
	// brings its messages back.
	b := open(t, srv, "vanishing", "storage=memory")
	set(t, b, "k", "v", time.Hour)
	js := jetStream(t, connect(t, srv))
	for name, op := range operations {
		if err := js.DeleteStream(context.Background(), "KV_vanishing"); err != nil {
			t.Fatal(err)
		}
		err := op(context.Background(), b)
		if name == "Ping" { // it looks for the bucket, and creates it
			if err != nil {
				t.Errorf("Ping after the bucket was removed = %v, want nil", err)
			}
		} else if gone := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNotFound); !gone || !errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("%s in a bucket that was removed = %v, want %v", name, err, l2cache.ErrUnavailable)
		}
		wantMiss(t, b, "k")
		set(t, b, "k", "w", time.Hour)
		want(t, b, "k", "w")
	}
}
