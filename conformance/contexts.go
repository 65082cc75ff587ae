package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/l2cache/l2cache"
)

// promptness is how long after the end of its ctx a call may return, beyond the
// lateness of the process's own timers.
const promptness = 50 * time.Millisecond

// overdueAttempts is how often a call has to be late, while the process's timers are
// not, for a case to fail.
const overdueAttempts = 3

var contextCases = []Case{
	{
		ID:    "context/cancelled-before",
		Law:   "with a ctx that was cancelled before the call, every operation fails with context.Canceled and does nothing",
		cause: "a ctx that is not looked at before the work",
		run: func(p *probe) {
			ctx, cancel := context.WithCancel(p.ctx)
			cancel()
			p.endedBefore(ctx, context.Canceled)
		},
	},
	{
		ID:    "context/expired-before",
		Law:   "with a ctx whose deadline has passed before the call, every operation fails with context.DeadlineExceeded and does nothing",
		cause: "a ctx that is not looked at before the work, or a deadline that is reported as unavailability",
		run: func(p *probe) {
			ctx, cancel := context.WithDeadline(p.ctx, time.Now().Add(-time.Second))
			defer cancel()
			p.endedBefore(ctx, context.DeadlineExceeded)
		},
	},
	{
		ID:    "context/error-names-cause",
		Law:   "the error of a cancelled call matches context.Canceled and the cause that the ctx was cancelled with, and is not ErrUnavailable",
		cause: "the driver's error instead of the ctx's",
		Level: Should,
		run: func(p *probe) {
			h := p.open()
			cause := errors.New("the caller's cause")
			ctx, cancel := context.WithCancelCause(p.ctx)
			cancel(cause)
			for _, op := range p.operations() {
				o := h.try(ctx, op, "k")
				p.wantError(op, o, context.Canceled)
				if !errors.Is(o.err, cause) {
					p.failf("%s = %v | want it to match the cause too", op.name, o.err)
				}
			}
		},
	},
	{
		ID:    "context/deadline-in-flight",
		Law:   "against a server that does not answer, every operation returns by the caller's deadline, with context.DeadlineExceeded",
		cause: "a driver that ignores ctx, or whose own timeout error is passed on",
		needs: needStall,
		Alone: true,
		run: func(p *probe) {
			p.promptly(p.operations(), context.DeadlineExceeded, func(end time.Time) (context.Context, context.CancelFunc) {
				return context.WithDeadline(p.ctx, end)
			})
		},
	},
	{
		ID:    "context/cancel-in-flight",
		Law:   "against a server that does not answer, every operation returns as soon as its ctx is cancelled, with context.Canceled",
		cause: "a driver that knows deadlines only",
		needs: needStall,
		Alone: true,
		run: func(p *probe) {
			p.promptly(p.operations(), context.Canceled, func(end time.Time) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(p.ctx)
				time.AfterFunc(time.Until(end), cancel)
				return ctx, cancel
			})
		},
	},
	{
		ID:    "context/own-timeout",
		Law:   "without a deadline of the caller's, the backend's own timeout ends every operation, with ErrUnavailable and no context error",
		cause: "the error of a ctx that the backend derived is passed on, or nothing bounds the call",
		needs: needStall,
		Alone: true,
		run:   ownTimeoutCase,
	},
	{
		ID:    "context/deadline-is-no-ttl",
		Law:   "the deadline of a Set's ctx has nothing to do with the TTL, and is no error before it has passed",
		cause: "a timeout that is passed on as the TTL",
		run: func(p *probe) {
			h := p.open()
			ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
			defer cancel()
			for _, ttl := range []time.Duration{30 * time.Second, time.Hour, l2cache.NoExpiry} {
				set, err := h.trySet(ctx, "k", []byte("v"), ttl)
				if err != nil {
					p.failf("Set = %v | want nil", err)
				}
				p.judgeTTL(h.entry("k"), set, ttl)
			}
			// The first ones are more than some clocks and numbers can hold.
			for _, left := range []time.Duration{math.MaxInt64, 1 << 32 * time.Second, 1 << 32 * time.Millisecond, 1 << 31 * time.Millisecond, 10 * time.Second, time.Second, 100 * time.Millisecond, 10 * time.Millisecond} {
				ctx, cancel := context.WithTimeout(p.ctx, left)
				set, err := h.trySet(ctx, "k", []byte("v"), time.Hour)
				cancel()
				if err == nil {
					p.judgeTTL(h.entry("k"), set, time.Hour)
				} else if deadline, _ := ctx.Deadline(); set.done.Before(deadline) {
					p.failf("Set with a deadline in %v = %v, %v before it | want no error before", left, err, deadline.Sub(set.done))
				}
			}
		},
	},
	{
		ID:    "context/own-reply",
		Law:   "after a call that was cancelled, every call gets its own reply",
		cause: "a connection that goes back to the pool with a reply still to come",
		Busy:  true,
		run:   ownReplyCase,
	},
	{
		ID:    "context/shared-round-trip",
		Law:   "a caller that is cancelled never fails another one whose round trip or commit it shares",
		cause: "a batch that runs under the ctx of the caller that began it",
		Busy:  true,
		run:   sharedRoundTripCase,
	},
	{
		ID:    "context/cancel-after-return",
		Law:   "cancelling a ctx after the call has returned has no effect",
		cause: "work that goes on under the caller's ctx, or a connection that is tied to it",
		run: func(p *probe) {
			h := p.open()
			const keys = 30
			for i := range keys {
				key := fmt.Sprint("k", i)
				ctx, cancel := context.WithCancel(p.ctx)
				if _, err := h.trySet(ctx, key, []byte(key), time.Hour); err != nil {
					p.failf("Set = %v | want nil", err)
				}
				cancel()
				h.wantHit(key, key)
				ctx, cancel = context.WithCancel(p.ctx)
				r := h.tryEntry(ctx, key)
				cancel()
				if !r.hit() || string(r.value) != key {
					p.failf("%v | want %q", r, key)
				}
			}
			time.Sleep(200 * time.Millisecond) // what a cancellation sets in motion may take a moment
			for i := range keys {
				h.wantHit(fmt.Sprint("k", i), fmt.Sprint("k", i))
			}
		},
	},
}

// endedBefore runs every operation under a ctx that has ended, on a key that is
// there and on one that is not, and wants neither to change.
func (p *probe) endedBefore(ctx context.Context, want error) {
	h := p.open()
	set := h.set("there", "old", time.Hour)
	for range 3 {
		for _, op := range p.operations() {
			for _, key := range []string{"there", "absent"} {
				p.wantError(op, h.try(ctx, op, key), want)
			}
		}
	}
	// A write that was let through could still be under way.
	for range 5 {
		h.wantHit("there", "old")
		h.wantMiss("absent")
		time.Sleep(5 * time.Millisecond)
	}
	p.judgeTTL(h.entry("there"), set, time.Hour)
}

// promptly runs every operation against a stalled server under a ctx that ends
// while it waits, and wants it back by then. A machine can be busy: what counts is
// whether it can be done in time, so each has three attempts.
func (p *probe) promptly(ops []operation, want error, ending func(time.Time) (context.Context, context.CancelFunc)) {
	h := p.open()
	h.set("k", "v", time.Hour)
	p.stall()
	own := p.e.o.OpTimeout
	wait := min(100*time.Millisecond, own/3)
	for _, op := range ops {
		overdue := 0 // attempts
		for try := 1; ; try++ {
			end := time.Now().Add(wait)
			timer := control(p.ctx, end)
			ctx, cancel := ending(end)
			o := h.try(ctx, op, "k")
			ended := ctx.Err() != nil
			cancel()
			slow := timer.lateness()
			if o.err == nil {
				p.failf("%s = nil from a stalled server | want %v", op.name, want)
			}
			// The timer that ends the ctx can be later than the backend's own.
			overtaken := errors.Is(o.err, l2cache.ErrUnavailable) && !o.done.Before(end) && (!ended || slow > own/4)
			if !overtaken {
				p.wantError(op, o, want)
			}
			// Nor is anything shown by a call that began when its ctx was about to end.
			if overtaken || slow > own/4 || o.call.After(end.Add(-wait/2)) {
				if try == 3*overdueAttempts {
					p.again("the timers of this process were late in %d attempts at %s", try, op.name)
				}
				continue
			}
			late := o.done.Sub(end) - slow
			if late <= promptness {
				break
			}
			if overdue++; overdue == overdueAttempts {
				p.failf("%s returned %v after its ctx had ended, the last of %d attempts | want it within %v", op.name, late, try, promptness)
			}
		}
	}
	p.resume()
	h.settle()
	// Not "k": the writes that timed out are in doubt, and may land only now.
	h.set("k2", "after", time.Hour)
	h.wantHit("k2", "after")
}

func ownTimeoutCase(p *probe) {
	h := p.open()
	h.set("k", "v", time.Hour)
	p.stall()
	own, ops := p.e.o.OpTimeout, append(p.operations(), batchOperations...)
	deadline, cancel := context.WithTimeout(p.ctx, time.Hour)
	defer cancel()
	contexts := []context.Context{context.Background(), deadline}
	p.parallel(len(contexts)*len(ops), func(i int) {
		ctx, op := contexts[i%2], ops[i/2]
		for try := 1; ; try++ {
			end := time.Now().Add(own)
			timer := control(p.ctx, end)
			o := h.try(ctx, op, "k")
			if o.err == nil {
				p.failf("%s = nil from a stalled server | want ErrUnavailable", op.name)
			}
			p.wantError(op, o, l2cache.ErrUnavailable)
			if o.done.Before(end) || o.done.Sub(end)-timer.lateness() <= own/2+promptness {
				return
			}
			if try == overdueAttempts {
				p.failf("%s returned after %v, the last of %d attempts | want it within the backend's timeout, %v", op.name, o.done.Sub(o.call), try, own)
			}
		}
	})
	p.resume()
	h.settle()
	// Not "k": the writes that timed out are in doubt, and may land only now.
	h.set("k2", "after", time.Hour)
	h.wantHit("k2", "after")
}

// ownReplyCase cancels reads of one key at all stages of their round trip while
// others read keys of their own.
func ownReplyCase(p *probe) {
	h := p.open()
	const keys = 8
	value := func(i int) string { return fmt.Sprintf("value of key %d %s", i, noise(i*300, uint64(i))) }
	for i := range keys {
		h.set(fmt.Sprint("k", i), value(i), time.Hour)
	}
	trip := h.roundTrip("k0")
	begin := time.Now()
	var cut atomic.Int64 // calls that were cut short
	p.parallel(keys, func(w int) {
		for i := 0; time.Since(begin) < 700*time.Millisecond || cut.Load() < 200 && time.Since(begin) < 3*time.Second; i++ {
			ctx, cancel := context.WithTimeout(p.ctx, rand.N(2*trip))
			key := fmt.Sprint("k", (w+i)%keys)
			r := readers[i%2](h, ctx, key)
			if h.p.over(r) {
				h.p.again("%v: the entry has ended before it was read", r)
			}
			if deadline, _ := ctx.Deadline(); r.err != nil && r.done.Before(deadline) {
				p.failf("%v, %v before its deadline | want no error before", r, deadline.Sub(r.done))
			}
			cancel()
			if r.hit() && string(r.value) != value((w+i)%keys) || r.err != nil && !errors.Is(r.err, context.DeadlineExceeded) {
				p.failf("%v under a short deadline | want its own value or DeadlineExceeded", r)
			}
			if r.err != nil {
				cut.Add(1)
			}
			r = h.read(readers[i%2], fmt.Sprint("k", w))
			if h.p.over(r) {
				h.p.again("%v: the entry has ended before it was read", r)
			}
			if !r.hit() || string(r.value) != value(w) {
				p.failf("%v after a cancelled call | want the value of its own key", r)
			}
		}
	})
}

// sharedRoundTripCase has half of the callers give up at any moment. The others
// must not notice.
func sharedRoundTripCase(p *probe) {
	h := p.open()
	h.set("k", "v", time.Hour)
	trip := h.roundTrip("k")
	begin := time.Now()
	var cancelled atomic.Int64 // calls that were cut short
	p.parallel(24, func(w int) {
		mine := fmt.Sprint("k", w)
		for i := 0; time.Since(begin) < 700*time.Millisecond || cancelled.Load() < 200 && time.Since(begin) < 3*time.Second; i++ {
			if w%2 == 0 {
				ctx, cancel := context.WithCancel(p.ctx)
				timer := time.AfterFunc(rand.N(2*trip), cancel)
				var err error
				if i%3 == 0 {
					_, err = h.trySet(ctx, mine, []byte("v"), time.Hour)
				} else {
					err = readers[i%2](h, ctx, "k").err
				}
				ended := ctx.Err() != nil
				timer.Stop()
				cancel()
				if err != nil && !ended {
					p.failf("a call whose ctx had not ended = %v | want nil", err)
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					p.failf("a call that was cancelled = %v | want nil or context.Canceled", err)
				}
				if err != nil {
					cancelled.Add(1)
				}
				continue
			}
			if i%3 == 0 {
				h.set(mine, "mine", time.Hour)
				h.wantHit(mine, "mine")
			}
			if w == 1 {
				h.set("k", "v", time.Hour) // the profile's MaxTTL may be short
			}
			if r := h.read(readers[i%2], "k"); !r.hit() || string(r.value) != "v" {
				p.failf("%v beside callers that were cancelled | want \"v\"", r)
			}
		}
	})
}
