package l2cache

import (
	"context"
	"errors"
	"iter"
	"path"
	"time"
)

// An Op is one call of a backend, as [Observe] tells of it.
type Op struct {
	Name    string // "get", "set", "delete", "ping", "getmany", "touch", …
	Backend string // the backend's Name
	Key     string // empty for an operation without one, and for a batch

	Start    time.Time
	Duration time.Duration // of a Scan or Watch: until the loop over it ended

	// Err is what the call returned; nil also where Hits or Misses says the rest.
	Err error
	// Hits and Misses count the keys that a read found and did not find. An Add that
	// found an entry, and so stored nothing, is a hit.
	Hits, Misses int
	// Keys is how many keys the call was about; for Scan and Watch, how many came.
	Keys int
	// Bytes is the size of all values read or written.
	Bytes int
	// TTL is what was left of the entry that GetWithTTL read, or what Set, Add or
	// Touch was given; zero if there is no single one.
	TTL time.Duration
}

// Outcome is "hit", "miss", "ok" or "error", for a label of a metric. A read of
// several keys is a hit if it found one.
func (o Op) Outcome() string {
	switch {
	case o.Err != nil && !errors.Is(o.Err, ErrNotFound):
		return "error"
	case o.Hits > 0:
		return "hit"
	case o.Misses > 0:
		return "miss"
	}
	return "ok"
}

// ErrorKind is what Err is in a word, for a label of a metric: "canceled" or
// "deadline_exceeded" if the caller's ctx ended, else "invalid_key", "invalid_ttl",
// "too_large", "full", "corrupt", "closed", "unsupported", "bad_pattern", or
// "unavailable", which is everything else, too. It is empty unless Outcome is "error". Of
// the different errors of a batch it is the one that this list has first.
func (o Op) ErrorKind() string {
	if o.Outcome() != "error" {
		return ""
	}
	for _, k := range kindNames {
		if errors.Is(o.Err, k.kind) {
			return k.name
		}
	}
	return "unavailable"
}

var kindNames = []struct {
	kind error
	name string
}{
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "deadline_exceeded"},
	{ErrInvalidKey, "invalid_key"},
	{ErrInvalidTTL, "invalid_ttl"},
	{ErrTooLarge, "too_large"},
	{ErrFull, "full"},
	{ErrCorrupt, "corrupt"},
	{ErrClosed, "closed"},
	{errors.ErrUnsupported, "unsupported"},
	{path.ErrBadPattern, "bad_pattern"},
}

// Observe returns a backend that calls f after each call of b, in the goroutine of
// the caller and with its ctx; it returns b itself if f is nil. (A batch that is refused
// for its arguments does not get as far as b.) It has the capabilities of b. Closing it
// closes b.
func Observe(b L2CacheBackend, f func(context.Context, Op)) L2CacheBackend {
	if f == nil {
		return b
	}
	return &observed{b, f}
}

type observed struct {
	b L2CacheBackend
	f func(context.Context, Op)
}

var (
	_ Profiler       = (*observed)(nil)
	_ MultiGetter    = (*observed)(nil)
	_ MultiSetter    = (*observed)(nil)
	_ MultiDeleter   = (*observed)(nil)
	_ Toucher        = (*observed)(nil)
	_ Adder          = (*observed)(nil)
	_ PatternDeleter = (*observed)(nil)
	_ Scanner        = (*observed)(nil)
	_ Watcher        = (*observed)(nil)
)

// begin starts an Op on n keys.
func (o *observed) begin(name, key string, n int) Op {
	return Op{Name: name, Backend: o.b.Name(), Key: key, Keys: n, Start: time.Now()}
}

func (o *observed) end(ctx context.Context, op Op, err error) {
	op.Duration, op.Err = time.Since(op.Start), err
	o.f(ctx, op)
}

// read fills in what a read of one key gave.
func (op *Op) read(value []byte, err error) {
	switch {
	case err == nil:
		op.Hits, op.Bytes = 1, len(value)
	case errors.Is(err, ErrNotFound):
		op.Misses = 1
	}
}

func (o *observed) Get(ctx context.Context, key string) ([]byte, error) {
	op := o.begin("get", key, 1)
	value, err := o.b.Get(ctx, key)
	op.read(value, err)
	o.end(ctx, op, err)
	return value, err
}

func (o *observed) GetWithTTL(ctx context.Context, key string) (Entry, error) {
	op := o.begin("get", key, 1)
	entry, err := o.b.GetWithTTL(ctx, key)
	op.read(entry.Value, err)
	op.TTL = entry.TTL
	o.end(ctx, op, err)
	return entry, err
}

func (o *observed) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	op := o.begin("set", key, 1)
	op.Bytes, op.TTL = len(value), ttl
	err := o.b.Set(ctx, key, value, ttl)
	o.end(ctx, op, err)
	return err
}

func (o *observed) Delete(ctx context.Context, key string) error {
	op := o.begin("delete", key, 1)
	err := o.b.Delete(ctx, key)
	o.end(ctx, op, err)
	return err
}

func (o *observed) Ping(ctx context.Context) error {
	op := o.begin("ping", "", 0)
	err := o.b.Ping(ctx)
	o.end(ctx, op, err)
	return err
}

func (o *observed) String() string         { return printed(o.b) }
func (o *observed) Name() string           { return o.b.Name() }
func (o *observed) Close() error           { return o.b.Close() }
func (o *observed) Profile() Profile       { return ProfileOf(o.b) }
func (o *observed) Unwrap() L2CacheBackend { return o.b }

func (o *observed) GetMany(ctx context.Context, keys []string) (map[string]Entry, error) {
	op := o.begin("getmany", "", len(keys))
	entries, err := GetMany(ctx, o.b, keys)
	op.Hits = len(entries)
	var failed KeyErrors
	if err == nil || errors.As(err, &failed) {
		op.Misses = len(keys) - len(entries) - len(failed)
	}
	for _, entry := range entries {
		op.Bytes += len(entry.Value)
	}
	o.end(ctx, op, err)
	return entries, err
}

func (o *observed) SetMany(ctx context.Context, items []Item) error {
	op := o.begin("setmany", "", len(items))
	for _, item := range items {
		op.Bytes += len(item.Value)
	}
	err := SetMany(ctx, o.b, items)
	o.end(ctx, op, err)
	return err
}

func (o *observed) DeleteMany(ctx context.Context, keys []string) error {
	op := o.begin("deletemany", "", len(keys))
	err := DeleteMany(ctx, o.b, keys)
	o.end(ctx, op, err)
	return err
}

func (o *observed) Touch(ctx context.Context, key string, ttl time.Duration) error {
	op := o.begin("touch", key, 1)
	op.TTL = ttl
	err := Touch(ctx, o.b, key, ttl)
	op.read(nil, err)
	o.end(ctx, op, err)
	return err
}

func (o *observed) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	op := o.begin("add", key, 1)
	op.Bytes, op.TTL = len(value), ttl
	added, err := Add(ctx, o.b, key, value, ttl)
	if err == nil && !added {
		op.Hits, op.Bytes = 1, 0
	}
	o.end(ctx, op, err)
	return added, err
}

func (o *observed) DeletePattern(ctx context.Context, pattern string) error {
	op := o.begin("deletepattern", pattern, 0)
	err := DeletePattern(ctx, o.b, pattern)
	o.end(ctx, op, err)
	return err
}

func (o *observed) Scan(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return observe(ctx, o, "scan", prefix, Scan(ctx, o.b, prefix))
}

func (o *observed) Watch(ctx context.Context, prefix string) iter.Seq2[Event, error] {
	return observe(ctx, o, "watch", prefix, Watch(ctx, o.b, prefix))
}

// observe passes on a sequence, and tells of it when it has ended.
func observe[T any](ctx context.Context, o *observed, name, prefix string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		op := o.begin(name, prefix, 0)
		var last error
		defer func() {
			if name == "watch" && isContextErr(last) && contextErr(ctx) != nil {
				last = nil // which is how one ends a Watch
			}
			o.end(ctx, op, last)
		}()
		for item, err := range seq {
			if last = err; err == nil {
				op.Keys++
			}
			if !yield(item, err) {
				return
			}
		}
	}
}
