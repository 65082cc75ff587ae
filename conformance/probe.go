package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

// A probe is one attempt at a case: what it has opened, done and found out.
type probe struct {
	e       *engine
	c       *Case
	attempt int    // 0, 1, …
	bubble  bool   // runs in a bubble
	ns      string // the attempt's namespace
	start   time.Time

	ctx    context.Context // ends when the case does; has no deadline
	cancel context.CancelFunc

	mu       sync.Mutex
	status   Status   // "" as long as all is well; guarded by mu
	evidence string   // guarded by mu
	log      []string // the latest operations; guarded by mu
	handles  []*handle
	ends     map[string]time.Time // until when an entry must be there, by key: guarded by mu
	mend     func()               // undoes a fault that the case has caused; nil if there is none; guarded by mu
}

// maxLog is how many operations the evidence of a failure shows.
const maxLog = 10

// failf ends the goroutine that calls it, and fails the case. The text is what was
// got and, after a bar, what was wanted.
func (p *probe) failf(format string, args ...any) {
	p.record(Fail, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// again ends the goroutine that calls it because the attempt showed nothing.
func (p *probe) again(format string, args ...any) {
	p.record(Inconclusive, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// record keeps the first finding; a failure outranks inconclusive.
func (p *probe) record(s Status, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status == Fail || p.status == s {
		return
	}
	p.status = s
	p.evidence = strings.Join(p.log, " ") + " | " + text
	if p.c.cause != "" && s == Fail {
		p.evidence += " | usual cause: " + p.c.cause
	}
}

func (p *probe) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status != ""
}

// catch makes a panic of the backend a failure.
func (p *probe) catch() {
	if v := recover(); v != nil {
		p.record(Fail, fmt.Sprintf("panic: %v\n%s", v, debug.Stack()))
	}
}

// parallel runs f(0) to f(n-1) in goroutines of their own and waits for them. If
// one of them ended the case, it ends here too.
func (p *probe) parallel(n int, f func(i int)) {
	p.parallelNoExit(n, f)
	p.stopIfFailed()
}

// parallelNoExit is parallel that returns in any case.
func (p *probe) parallelNoExit(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			defer p.catch()
			f(i)
		})
	}
	wg.Wait()
}

func (p *probe) stopIfFailed() {
	if p.failed() {
		runtime.Goexit()
	}
}

// note adds to the log of operations.
func (p *probe) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.log) > maxLog {
		p.log = append(p.log[:1], p.log[2:]...)
		p.log[0] = "…"
	}
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// note is p's, for a call of this handle: #2.Get("k") is one of the second that was opened.
func (h *handle) note(format string, args ...any) {
	if h.number > 1 {
		format = fmt.Sprintf("#%d.", h.number) + format
	}
	h.p.note(format, args...)
}

// at is an instant as the evidence shows it: the time since the attempt began.
func (p *probe) at(t time.Time) time.Duration { return t.Sub(p.start).Round(10 * time.Microsecond) }

func (p *probe) resolution() time.Duration { return p.e.profile.Resolution }

// stored is the TTL that an entry set with ttl has at first: rounded up to the
// resolution, and capped.
func (p *probe) stored(ttl time.Duration) time.Duration {
	ttl, err := l2cache.CheckTTL(ttl, p.resolution())
	if err != nil {
		panic(err) // a mistake of the case
	}
	return min(ttl, p.e.profile.MaxTTL)
}

// A handle is an open backend under test, whose calls are stamped and logged.
type handle struct {
	b      l2cache.L2CacheBackend
	p      *probe
	number int // of those that the attempt has opened, from 1
	closed bool
}

// open opens a handle on the attempt's namespace.
func (p *probe) open() *handle { return p.openIn(p.ns) }

func (p *probe) openIn(namespace string) *handle {
	ctx, cancel := context.WithCancel(p.ctx)
	b, err := p.e.open(ctx, namespace)
	cancel() // it bounds the opening only
	if err != nil {
		p.failf("open: %v | want a backend", err)
	}
	return p.wrap(b)
}

func (p *probe) wrap(b l2cache.L2CacheBackend) *handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &handle{b: b, p: p, number: len(p.handles) + 1}
	p.handles = append(p.handles, h)
	return h
}

// restore has a hook called at the end of the case, however it ends.
func (p *probe) restore(name string, hook func(context.Context) error) {
	p.setMend(func() {
		if err := hook(context.Background()); err != nil {
			p.record(Fail, fmt.Sprintf("Faults.%s = %v | want nil", name, err))
		}
	})
}

// restored says that the case itself has undone its fault.
func (p *probe) restored() { p.setMend(nil) }

func (p *probe) setMend(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mend = f
}

// undo undoes the fault that the case has caused and left, once.
func (p *probe) undo() {
	p.mu.Lock()
	mend := p.mend
	p.mend = nil
	p.mu.Unlock()
	if mend != nil {
		mend()
	}
}

// closeAll closes what a case left open.
func (p *probe) closeAll() {
	p.mu.Lock()
	handles := p.handles
	p.mu.Unlock()
	for _, h := range handles {
		if !h.closed {
			func() {
				defer p.catch()
				if err := h.b.Close(); err != nil {
					p.record(Fail, fmt.Sprintf("Close = %v | want nil", err))
				}
			}()
		}
	}
}

// close closes the handle, which must succeed.
func (h *handle) close() {
	h.closed = true
	err := h.b.Close()
	h.note("Close@%v", h.p.at(time.Now()))
	if err != nil {
		h.p.failf("Close = %v | want nil", err)
	}
}

// A span is when a call began and when it had returned.
type span struct{ call, done time.Time }

func (h *handle) trySet(ctx context.Context, key string, value []byte, ttl time.Duration) (span, error) {
	s := span{call: time.Now()}
	err := h.b.Set(ctx, key, value, ttl)
	s.done = time.Now()
	h.note("Set(%s,%s)@%v%s", brief(key), ttlText(ttl), h.p.at(s.call), failure(err))
	if err == nil {
		h.p.lives(key, s, ttl)
	}
	return s, err
}

// set stores value, which must succeed.
func (h *handle) set(key, value string, ttl time.Duration) span {
	s, err := h.trySet(h.p.ctx, key, []byte(value), ttl)
	if err != nil {
		h.p.failf("Set(%s, %d bytes, %s) = %v | want nil", brief(key), len(value), ttlText(ttl), err)
	}
	return s
}

func (h *handle) tryDelete(ctx context.Context, key string) error {
	call := time.Now()
	err := h.b.Delete(ctx, key)
	h.note("Delete(%s)@%v%s", brief(key), h.p.at(call), failure(err))
	return err
}

// delete removes key, which must succeed.
func (h *handle) delete(key string) {
	if err := h.tryDelete(h.p.ctx, key); err != nil {
		h.p.failf("Delete(%s) = %v | want nil", brief(key), err)
	}
}

// A read is the outcome of a Get or GetWithTTL.
type read struct {
	span
	op    string
	key   string
	value []byte
	ttl   time.Duration // of GetWithTTL only
	err   error
}

func (r read) String() string {
	switch {
	case r.err != nil:
		return fmt.Sprintf("%s(%s) = %v", r.op, brief(r.key), r.err)
	case r.op == "Get":
		return fmt.Sprintf("Get(%s) = %s", brief(r.key), brief(string(r.value)))
	}
	return fmt.Sprintf("GetWithTTL(%s) = %s, %s", brief(r.key), brief(string(r.value)), ttlText(r.ttl))
}

func (r read) hit() bool { return r.err == nil }

// A reader is one of the two ways of reading.
type reader func(h *handle, ctx context.Context, key string) read

// readers are both ways of reading: most rules hold for either.
var readers = []reader{(*handle).tryGet, (*handle).tryEntry}

func (h *handle) tryGet(ctx context.Context, key string) read {
	r := read{op: "Get", key: key, span: span{call: time.Now()}}
	r.value, r.err = h.b.Get(ctx, key)
	r.done = time.Now()
	h.noteRead(r)
	return r
}

func (h *handle) tryEntry(ctx context.Context, key string) read {
	r := read{op: "GetWithTTL", key: key, span: span{call: time.Now()}}
	e, err := h.b.GetWithTTL(ctx, key)
	r.done = time.Now()
	r.value, r.ttl, r.err = e.Value, e.TTL, err
	h.noteRead(r)
	return r
}

func (h *handle) noteRead(r read) {
	outcome := "hit"
	switch {
	case errors.Is(r.err, l2cache.ErrNotFound):
		outcome = "miss"
	case r.err != nil:
		outcome = "error"
	case r.op == "GetWithTTL":
		outcome = ttlText(r.ttl)
	}
	h.note("%s(%s)@%v:%s", r.op, brief(r.key), h.p.at(r.call), outcome)
}

// read reads key, which must give a hit or a miss, each in its proper form.
func (h *handle) read(how reader, key string) read {
	r := how(h, h.p.ctx, key)
	h.p.wellFormed(r)
	return r
}

func (p *probe) wellFormed(r read) {
	switch {
	case r.err == nil:
		if r.op == "GetWithTTL" && r.ttl <= 0 {
			p.failf("%v | want a TTL above zero", r)
		}
	case !errors.Is(r.err, l2cache.ErrNotFound):
		p.failf("%v | want a hit or ErrNotFound", r)
	case errors.Is(r.err, l2cache.ErrUnavailable) || errors.Is(r.err, l2cache.ErrCorrupt) || errors.Is(r.err, l2cache.ErrClosed) || isContextErr(r.err):
		p.failf("%v, which matches another error too | want a miss that is nothing else", r)
	case r.value != nil || r.ttl != 0:
		p.failf("%s(%s) = %d bytes, TTL %v with ErrNotFound | want nil and zero", r.op, brief(r.key), len(r.value), r.ttl)
	}
}

// lives keeps in mind until when an entry has to be there that is set for long, so
// that the case need not look at the time.
func (p *probe) lives(key string, set span, ttl time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ttl < time.Minute {
		delete(p.ends, key)
		return
	}
	if p.ends == nil {
		p.ends = map[string]time.Time{}
	}
	p.ends[key] = set.call.Add(min(ttl, p.e.profile.MaxTTL))
}

// over reports whether a miss is right because the time of an entry that was set
// for long may be over: the profile's MaxTTL is short, or the machine slow.
func (p *probe) over(r read) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	end, ok := p.ends[r.key]
	return ok && !r.hit() && !r.done.Before(end)
}

// wantHit reads key in both ways, and wants value.
func (h *handle) wantHit(key, value string) {
	for _, how := range readers {
		r := h.read(how, key)
		if h.p.over(r) {
			h.p.again("%v: the entry has ended before it was read", r)
		}
		if !r.hit() || string(r.value) != value {
			h.p.failf("%v | want %s%s", r, brief(value), firstDifference(r, value))
		}
	}
}

// wantMiss reads key in both ways, and wants a miss.
func (h *handle) wantMiss(key string) {
	for _, how := range readers {
		if r := h.read(how, key); r.hit() {
			h.p.failf("%v | want a miss", r)
		}
	}
}

// entry reads key with its TTL, and wants a hit.
func (h *handle) entry(key string) read {
	r := h.read((*handle).tryEntry, key)
	if h.p.over(r) {
		h.p.again("%v: the entry has ended before it was read", r)
	}
	if !r.hit() {
		h.p.failf("%v | want a hit", r)
	}
	return r
}

// missed fails the case because entries are missing that were set for an hour since
// begin, unless the profile's MaxTTL is so short that they may have ended.
func (p *probe) missed(begin time.Time, format string, args ...any) {
	if time.Since(begin) >= p.e.profile.MaxTTL {
		p.again("entries with the longest TTL, %v, have ended before they were read", p.e.profile.MaxTTL)
	}
	p.failf(format, args...)
}

// roundTrip is about how long a read takes, and not less than the clock and the
// timers of a process can tell apart.
func (h *handle) roundTrip(key string) time.Duration {
	best := time.Second
	for range 3 {
		r := h.tryGet(h.p.ctx, key)
		best = min(best, r.done.Sub(r.call))
	}
	return max(best, 150*time.Microsecond)
}

// spared reports whether a miss of one entry of many may be put up with: the
// backend evicts when it is short of space, or the entry has ended.
func (h *handle) spared(r read) bool { return !r.hit() && (h.p.e.profile.Evicts || h.p.over(r)) }

// brief shows a key or value, cut if it is long.
func brief(s string) string {
	if len(s) <= 24 {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%s…(%d bytes)", strconv.Quote(s[:12]), len(s))
}

// firstDifference says where a long value departs from what is wanted.
func firstDifference(r read, want string) string {
	if !r.hit() || len(want) <= 24 && len(r.value) <= 24 {
		return ""
	}
	n := 0
	for n < len(want) && n < len(r.value) && want[n] == r.value[n] {
		n++
	}
	return fmt.Sprintf(", differs from byte %d", n)
}

func ttlText(ttl time.Duration) string {
	if ttl == l2cache.NoExpiry {
		return "NoExpiry"
	}
	return ttl.String()
}

func failure(err error) string {
	if err == nil {
		return ""
	}
	return ":error"
}

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed uint64) string {
	b := make([]byte, 0, n+8)
	x := seed*0x9E3779B97F4A7C15 + 1
	for len(b) < n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return string(b[:n])
}
