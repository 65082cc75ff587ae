package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
)

func TestConcurrentWritesShareCommits(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"background":  context.Background(),
		"cancellable": t.Context(),
	} {
		db := openDB(t, tempFile(t), nil)
		c := newCache(t, db, nil)
		const goroutines, each = 64, 20
		before := txID(t, db)
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for i := range each {
					if err := c.Set(ctx, fmt.Sprint(g, "/", i), []byte("v"), time.Hour); err != nil {
						t.Errorf("Set = %v", err)
					}
				}
			})
		}
		wg.Wait()
		// Without grouping there would be one for each of 1,280 writes. With it there
		// are about two for each round of 64.
		commits := txID(t, db) - before
		if commits > goroutines*each/8 {
			t.Errorf("%s: %d writes of %d goroutines made %d commits", name, goroutines*each, goroutines, commits)
		}
		t.Logf("%s: %d writes in %d commits", name, goroutines*each, commits)
		for g := range goroutines {
			for i := range each {
				wantValue(t, c, fmt.Sprint(g, "/", i), []byte("v"))
			}
		}
	}
}

func TestDeleteOfNothingDoesNotCommit(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSet(t, c, "k", nil, time.Hour)
	before := txID(t, db)
	if err := c.Delete(t.Context(), "absent"); err != nil {
		t.Errorf("Delete of an absent key = %v", err)
	}
	if after := txID(t, db); after != before {
		t.Errorf("Delete of an absent key has made %d commits, want 0", after-before)
	}
}

// A waited is a context that closes asked when a call begins to wait for it.
type waited struct {
	context.Context
	once  *sync.Once
	asked chan struct{}
}

func newWaited(ctx context.Context) waited {
	return waited{ctx, new(sync.Once), make(chan struct{})}
}

func (w waited) Done() <-chan struct{} {
	w.once.Do(func() { close(w.asked) })
	return w.Context.Done()
}

// A write that was cancelled while it waited, in the queue or for the database, is
// not done.
func TestCancelledWhileWaiting(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	mustSet(t, c, "deleted", []byte("v"), time.Hour)

	tx, err := db.Begin(true) // no commit can begin
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ops := []func(ctx context.Context) error{
		func(ctx context.Context) error { return c.Set(ctx, "a", nil, time.Hour) },
		func(ctx context.Context) error { return c.Set(ctx, "b", nil, time.Hour) },
		func(ctx context.Context) error { return c.Set(ctx, "c", nil, l2cache.NoExpiry) },
		func(ctx context.Context) error { return c.Delete(ctx, "deleted") },
	}
	errs := make(chan error)
	for _, op := range ops {
		w := newWaited(ctx)
		go func() { errs <- op(w) }()
		<-w.asked
	}
	other := make(chan error)
	go func() { other <- c.Set(t.Context(), "other", []byte("v"), time.Hour) }()
	cancel()
	for range ops {
		if err := <-errs; !errors.Is(err, context.Canceled) || errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("a write that was cancelled = %v, want context.Canceled", err)
		}
	}
	tx.Rollback()
	if err := <-other; err != nil {
		t.Errorf("a write beside those that were cancelled = %v", err)
	}
	mustSet(t, c, "last", nil, time.Hour) // after all that was queued
	for _, key := range []string{"a", "b", "c"} {
		wantMiss(t, c, key)
	}
	wantValue(t, c, "deleted", []byte("v"))
	wantValue(t, c, "other", []byte("v"))
}

func TestOpTimeout(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	patient := newCache(t, db, nil)
	mustSet(t, patient, "k", []byte("old"), time.Hour)
	c := newCache(t, db, &bolt.Options{OpTimeout: 50 * time.Millisecond})
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := c.Set(t.Context(), "k", []byte("new"), time.Hour)
		if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Set that waits for a transaction = %v, want ErrUnavailable", err)
		}
		wantValue(t, c, "k", []byte("old")) // reads do not wait
	}
	tx.Rollback()
	// The first of them was under way and lands; the others were withdrawn.
	for end := time.Now().Add(opTimeout); ; {
		got, err := c.Get(t.Context(), "k")
		if err == nil && string(got) == "new" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Get = %q, %v; want what was under way", got, err)
		}
	}
	mustSet(t, patient, "k", []byte("newer"), time.Hour)
	wantValue(t, c, "k", []byte("newer"))
}

func TestCloseFailsWhatIsQueued(t *testing.T) {
	db := openDB(t, tempFile(t), nil)
	c := newCache(t, db, nil)
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	const writes = 16
	errs := make(chan error)
	for i := range writes {
		ctx := newWaited(context.Background())
		go func() { errs <- c.Set(ctx, fmt.Sprint(i), nil, time.Hour) }()
		<-ctx.asked
	}
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	for c.Ping(t.Context()) == nil {
		time.Sleep(time.Millisecond) // until Close has begun
	}
	tx.Rollback()
	for range writes {
		if err := <-errs; !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("a write that waited when Close was called = %v, want ErrClosed", err)
		}
	}
	if err := <-closed; err != nil {
		t.Errorf("Close = %v", err)
	}
}

// smallDB opens a database of 2 MiB at most.
func smallDB(t *testing.T) *bbolt.DB {
	db := openDB(t, tempFile(t), &bbolt.Options{MaxSize: 2 << 20, FreelistType: bbolt.FreelistMapType})
	db.AllocSize = 64 << 10
	return db
}

func TestFull(t *testing.T) {
	c := newCache(t, smallDB(t), nil)
	mustSet(t, c, "first", []byte("old"), time.Hour)
	stored := 0
	var err error
	for ; err == nil; stored++ {
		err = c.Set(t.Context(), fmt.Sprint(stored), pattern(10_000), time.Hour)
	}
	stored--
	if !errors.Is(err, l2cache.ErrFull) || stored < 50 {
		t.Fatalf("Set of 10,000 bytes into a full database = %v after %d, want ErrFull after more than 50", err, stored)
	}
	if err := c.Set(t.Context(), "first", pattern(1_000_000), time.Hour); !errors.Is(err, l2cache.ErrFull) {
		t.Errorf("Set of 1,000,000 bytes = %v, want ErrFull", err)
	}
	wantValue(t, c, "first", []byte("old"))
	wantMiss(t, c, fmt.Sprint(stored))
	for i := range stored {
		wantValue(t, c, fmt.Sprint(i), pattern(10_000))
	}
}

// A write that does not fit fails alone.
func TestFullFailsOnlyWhatDoesNotFit(t *testing.T) {
	db := smallDB(t)
	c := newCache(t, db, nil)
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	const writes = 20
	var wg sync.WaitGroup
	for i := range writes { // they queue, and then share a commit
		ctx := newWaited(t.Context())
		wg.Go(func() {
			value := []byte("v")
			if i%5 == 4 {
				value = pattern(4_000_000)
			}
			err := c.Set(ctx, fmt.Sprint(i), value, time.Hour)
			if full := errors.Is(err, l2cache.ErrFull); full != (i%5 == 4) || !full && err != nil {
				t.Errorf("Set %d of %d bytes = %v", i, len(value), err)
			}
		})
		<-ctx.asked
	}
	tx.Rollback()
	wg.Wait()
	for i := range writes {
		if i%5 == 4 {
			wantMiss(t, c, fmt.Sprint(i))
		} else {
			wantValue(t, c, fmt.Sprint(i), []byte("v"))
		}
	}
}

// The errors of a full disk are those of the file system, wrapped by bbolt.
func TestDiskFullIsErrFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Logf("no /dev/full here (%v): not verified", err)
		return
	}
	defer full.Close()
	_, err = full.Write([]byte("x"))
	if kind := bolt.Kind(fmt.Errorf("commit: %w", err)); kind != l2cache.ErrFull {
		t.Errorf("kind of %v = %v, want ErrFull", err, kind)
	}
}

// With NoSync commits reach the disk in the background.
func TestNoSync(t *testing.T) {
	path := tempFile(t)
	c := open(t, path, "sync=false")
	for i := range 1000 {
		mustSet(t, c, fmt.Sprint(i), []byte("v"), time.Hour)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	again := open(t, path, "sync=true")
	for i := range 1000 {
		wantValue(t, again, fmt.Sprint(i), []byte("v"))
	}
}
