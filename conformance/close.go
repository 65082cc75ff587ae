package conformance

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/l2cache/l2cache"
)

var closeCases = []Case{
	{
		ID:    "close/twice",
		Law:   "Close is idempotent: again it is nil",
		cause: "the driver's error for a second Close, or a channel that is closed twice",
		run: func(p *probe) {
			h := p.open()
			h.set("k", "v", time.Hour)
			for range 3 {
				h.close()
			}
			h = p.open()
			p.parallel(8, func(int) {
				if err := h.b.Close(); err != nil {
					p.failf("one of 8 concurrent Close = %v | want nil", err)
				}
			})
		},
	},
	{
		ID:    "close/after",
		Law:   "after Close every operation is ErrClosed",
		cause: "the driver's own error, a panic, or a pool that opens connections again",
		run: func(p *probe) {
			for _, used := range []bool{true, false} {
				h := p.open()
				if used {
					h.set("k", "v", time.Hour)
				}
				h.close()
				for range 2 {
					for _, op := range p.operations() {
						p.wantError(op, h.try(p.ctx, op, "k"), l2cache.ErrClosed)
					}
				}
			}
		},
	},
	{
		ID:    "close/during",
		Law:   "an operation that is under way when the backend is closed succeeds or is ErrClosed, and ends",
		cause: "the driver's error of a connection that was closed under it, or a wait for a worker that is gone",
		run: func(p *probe) {
			ops := append(p.operations(), batchOperations...)
			const callers = 24
			for round := range 8 {
				h := p.open()
				h.set("k", "v", time.Hour)
				var going sync.WaitGroup // callers that have not come back yet for the first time
				going.Add(callers)
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					defer p.catch()
					if round%2 == 1 {
						going.Wait()
					}
					time.Sleep(time.Duration(round) * 2 * time.Millisecond)
					h.close()
				}()
				p.parallelNoExit(callers, func(w int) {
					back := sync.OnceFunc(going.Done)
					defer back()
					op := ops[w%len(ops)]
					for {
						o := h.try(p.ctx, op, "k")
						back()
						if errors.Is(o.err, l2cache.ErrClosed) {
							p.wantError(op, o, l2cache.ErrClosed)
							return
						}
						if o.err != nil && !errors.Is(o.err, l2cache.ErrNotFound) {
							p.failf("%s while the backend is closed = %v | want nil, a miss or ErrClosed", op.name, o.err)
						}
					}
				})
				<-ended
				p.stopIfFailed()
			}
		},
	},
	{
		ID:    "close/stalled",
		Law:   "Close ends the calls that wait for a server which does not answer, and ends itself",
		cause: "calls that only their own timeout ends",
		needs: needStall,
		Alone: true,
		run:   closeStalledCase,
	},
	{
		ID:    "close/peer-lives",
		Law:   "closing one handle does nothing to another, nor to the data",
		cause: "something shared that the first Close takes away",
		needs: needPeer,
		run: func(p *probe) {
			a, b := p.open(), p.open()
			a.set("k", "v", time.Hour)
			a.close()
			b.wantHit("k", "v")
			b.set("k", "w", time.Hour)
			p.open().wantHit("k", "w")
		},
	},
}

// closeStalledCase closes a handle whose calls wait for the server. They must end
// well before their own timeout could have ended them; Close may wait for what that
// bounds. A call that had not begun when Close was called shows nothing, nor does
// one that ended late while the timers of the process were late.
func closeStalledCase(p *probe) {
	own := p.e.o.OpTimeout
	ops := append(p.operations(), batchOperations...)
	ended, late := 0, 0 // tries
	for try := 1; ended < 2; try++ {
		h := p.open()
		p.stall()
		calls := make([]outcome, len(ops))
		var begun sync.WaitGroup
		begun.Add(len(ops))
		type closing struct {
			span
			timer controlTimer
		}
		done := make(chan closing, 1)
		go func() {
			defer p.catch()
			begun.Wait()
			time.Sleep(own / 10)
			c := closing{span: span{call: time.Now()}, timer: control(p.ctx, time.Now().Add(own/10))}
			err := h.b.Close()
			c.done = time.Now()
			if err != nil {
				p.record(Fail, fmt.Sprintf("Close of a backend whose server is stalled = %v | want nil", err))
			}
			done <- c
		}()
		h.closed = true
		p.parallelNoExit(len(ops), func(i int) {
			begun.Done()
			calls[i] = h.try(p.ctx, ops[i], "k")
			if o := calls[i]; o.err == nil || !errors.Is(o.err, l2cache.ErrUnavailable) {
				p.wantError(ops[i], o, l2cache.ErrClosed)
			}
		})
		c := <-done
		p.resume()
		p.stopIfFailed()
		slowest, waiting := time.Duration(0), true
		for _, o := range calls {
			slowest = max(slowest, o.done.Sub(c.call))
			// It was not over yet, nor about to be.
			waiting = waiting && o.call.Before(c.call.Add(-own/20)) && o.call.After(c.call.Add(-own/2))
		}
		took := c.done.Sub(c.call)
		switch {
		case !waiting:
		case slowest < own*4/10 && took < 3*own:
			ended++
		case c.timer.lateness() < own/4:
			late++
		}
		if late == overdueAttempts {
			p.failf("a call ended %v after the call of Close, which took %v, the last of %d attempts | want the call to end at once, and Close within %v", slowest, took, try, 3*own)
		}
		if try == 20 {
			p.again("in 20 attempts, too few calls were under way when Close was called")
		}
	}
}
