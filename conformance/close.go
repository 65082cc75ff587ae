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
			for round := range 5 {
				h := p.open()
				h.set("k", "v", time.Hour)
				ended := make(chan struct{})
				time.AfterFunc(time.Duration(round)*3*time.Millisecond, func() {
					defer close(ended)
					defer p.catch()
					h.close()
				})
				p.parallelNoExit(16, func(w int) {
					op := p.operations()[w%len(p.operations())]
					for {
						o := h.try(p.ctx, op, "k")
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
		alone: true,
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
// before their own timeout could have ended them; Close may wait for what that
// bounds. A try in which the process's timers are late shows nothing of a call that
// ended late.
func closeStalledCase(p *probe) {
	own := p.e.o.OpTimeout
	wrong := 0 // tries in which a call or Close was late, and the timers were not
	for try := 1; ; try++ {
		h := p.open()
		p.stall()
		var mu sync.Mutex
		var longest time.Duration // of a call; guarded by mu
		closing := time.Now().Add(own / 10)
		before, after := control(p.ctx, closing), control(p.ctx, closing.Add(own*6/10))
		done := make(chan time.Duration, 1)
		go func() {
			defer p.catch()
			time.Sleep(time.Until(closing))
			begin := time.Now()
			if err := h.b.Close(); err != nil {
				p.record(Fail, fmt.Sprintf("Close of a backend whose server is stalled = %v | want nil", err))
			}
			done <- time.Since(begin)
		}()
		h.closed = true
		p.parallelNoExit(len(operations), func(i int) {
			o := h.try(p.ctx, operations[i], "k")
			if o.err == nil || !errors.Is(o.err, l2cache.ErrUnavailable) {
				p.wantError(operations[i], o, l2cache.ErrClosed)
			}
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, o.done.Sub(o.call))
		})
		took := <-done
		p.resume()
		p.stopIfFailed()
		if longest < own*8/10 && took < 3*own {
			return
		}
		if late := max(before.lateness(), after.lateness()); late < own/4 {
			wrong++
		}
		switch {
		case wrong == maxAttempts:
			p.failf("a call took %v, and Close, %v after it had begun, %v; the last of %d attempts | want the call to end when Close is called, and Close within %v", longest, own/10, took, try, 3*own)
		case try == 3*maxAttempts:
			p.again("the timers of this process are late")
		}
	}
}
