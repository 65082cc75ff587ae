package conformance

import (
	"errors"
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
