package conformance

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/l2cache/l2cache"
)

// doubt is the output of a write of which nobody knows whether it was done. It may
// take effect at any time after its call, or never, which is the same as after all
// that was seen.
const doubt = "in doubt"

// doubtful is register with operations that are in doubt. Such a write can also
// leave a miss.
var doubtful = (&porcupine.NondeterministicModel{
	Partition: register.Partition,
	Init:      func() []any { return []any{register.Init()} },
	Step: func(state, input, output any) []any {
		op := input.(registerOp)
		switch {
		case output != doubt:
			if ok, next := register.Step(state, input, output); ok {
				return []any{next}
			}
			return nil
		case op.kind == "set", op.kind == "add" && state == "":
			return []any{op.value, ""}
		}
		return []any{state, ""}
	},
	Hash: func(state any) uint64 { return maphash.String(hashSeed, state.(string)) },
}).ToModel()

var hashSeed = maphash.MakeSeed()

// A history is what callers did to a few keys, and what they saw.
type history struct {
	begin time.Time

	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

func (y *history) add(w int, in registerOp, out string, s span) {
	op := porcupine.Operation{ClientId: w, Input: in, Output: out, Call: int64(s.call.Sub(y.begin)), Return: int64(s.done.Sub(y.begin))}
	if out == doubt {
		op.Return = math.MaxInt64
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.ops = append(y.ops, op)
}

func (y *history) len() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.ops)
}

// maxDoubts is how many calls in doubt a pair of keys has: each of them doubles what
// there is to search. Those that are under way when there are so many come on top.
const maxDoubts = 6

// A keyring has the keys of a round, two at a time.
type keyring struct {
	round int

	mu      sync.Mutex
	pair    int  // guarded by mu; the newest
	doubts  int  // guarded by mu; in calls on the newest pair
	trouble bool // guarded by mu; the last call was in doubt
}

// pick returns one of the newest keys, and whether it may be written.
func (k *keyring) pick() (key string, writable bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.key(k.pair, rand.IntN(2)), k.doubts < maxDoubts || !k.trouble
}

func (k *keyring) key(pair, i int) string { return fmt.Sprint("k", k.round, ".", pair, ".", i) }

// note notes how a call has ended.
func (k *keyring) note(doubtful bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trouble = doubtful
	if doubtful {
		k.doubts++
	}
}

// renew makes another pair if the newest has its doubts.
func (k *keyring) renew() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.doubts < maxDoubts {
		return false
	}
	k.pair, k.doubts = k.pair+1, 0
	return true
}

// all returns all keys there were. Nobody picks any more.
func (k *keyring) all() (keys []string) {
	for pair := range k.pair + 1 {
		keys = append(keys, k.key(pair, 0), k.key(pair, 1))
	}
	return keys
}

// linearizableUnderFaultsCase has 8 callers work on 2 keys at a time through two
// handles while the server is cut off, stalled and killed, and looks for an order of
// all that explains what each saw. Each round has keys of its own.
func linearizableUnderFaultsCase(p *probe) {
	a, b := p.open(), p.open()
	rounds := []struct {
		wait   time.Duration // the callers' deadline; 0 is none
		faults func(busy func(calls int))
	}{
		{0, p.cutSome},
		{0, p.killOnce},
		{50 * time.Millisecond, p.stallTwice},
	}
	decided := 0
	for i := range 3 * len(rounds) {
		round := rounds[i%len(rounds)]
		switch p.roundUnderFaults(i, a, b, round.wait, round.faults) {
		case porcupine.Ok:
			decided++
		case porcupine.Illegal:
			p.failf("no order of what 8 callers did explains what they saw | want one, in which a call in doubt has an effect at most once")
		}
	}
	if decided == 0 {
		p.again("no order of the operations was found in time, nor that there is none")
	}
}

// The faults of a round. busy waits until the callers have made that many calls
// more.

func (p *probe) cutSome(busy func(calls int)) {
	for _, n := range []int{0, 0, 1, 0, 5, 0, 40, 0, 0, 2, 0, 0} {
		busy(150)
		p.cut(n)
	}
}

func (p *probe) killOnce(busy func(calls int)) {
	busy(300)
	p.down()
	time.Sleep(100 * time.Millisecond)
	p.up()
}

func (p *probe) stallTwice(busy func(calls int)) {
	for range 2 {
		busy(300)
		p.stall()
		time.Sleep(120 * time.Millisecond)
		p.resume()
	}
}

func (p *probe) roundUnderFaults(round int, a, b *handle, wait time.Duration, faults func(busy func(calls int))) porcupine.CheckResult {
	const callers = 8
	handles := []*handle{a, b}
	keys := &keyring{round: round}
	sentinel := fmt.Sprint("sentinel", round)
	a.set(sentinel, "v", time.Hour)
	y := &history{begin: time.Now()}
	fault := span{call: y.begin}

	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.parallelNoExit(callers, func(w int) {
			for i := 0; ctx.Err() == nil; i++ {
				key, writable := keys.pick()
				in := registerOp{key: key, value: fmt.Sprintf("%d.%d", w, i)}
				pause := rand.N(2 * time.Millisecond)
				ok := p.registerCall(y, w, handles[w%2], in, writable, wait)
				keys.note(!ok)
				if !ok {
					pause = 30 * time.Millisecond
				}
				time.Sleep(pause)
			}
		})
	}()
	some := func(calls int) {
		end := time.Now().Add(500 * time.Millisecond)
		for n := y.len() + calls; y.len() < n && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	busy := func(calls int) {
		if some(calls); keys.renew() {
			some(calls)
		}
	}
	faults(busy)
	a.settle()
	b.settle()
	fault.done = time.Now()
	time.Sleep(100 * time.Millisecond) // what was sent again may come late
	busy(100)
	stop()
	<-done
	p.stopIfFailed()
	// Cuts that are still to come are taken back only now.
	p.uncut(a)
	b.settle()

	lost := false
	if !p.e.profile.Durable {
		lost = !a.read((*handle).tryGet, sentinel).hit()
	}
	for _, key := range keys.all() {
		if lost {
			y.add(callers, registerOp{kind: "lost", key: key}, "", fault)
		}
		for w, h := range handles {
			r := h.read(readers[w], key)
			y.add(callers+1, registerOp{kind: "get", key: key}, string(r.value), r.span)
		}
	}
	return porcupine.CheckOperationsTimeout(doubtful, y.ops, 5*time.Second)
}

// registerCall does something to in.key, or reads it, and notes what came of that. It
// reports whether it succeeded.
func (p *probe) registerCall(y *history, w int, h *handle, in registerOp, writable bool, wait time.Duration) bool {
	ctx := p.ctx
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	supports := p.e.profile.Supports
	out, s := "", span{call: time.Now()}
	var err error
	switch turn := rand.IntN(13); {
	case writable && turn < 3:
		in.kind = "set"
		err = h.b.Set(ctx, in.key, []byte(in.value), time.Hour)
	case writable && turn == 3:
		in.kind = "delete"
		err = h.b.Delete(ctx, in.key)
	case writable && turn == 4 && supports.Has(l2cache.CanAdd):
		in.kind = "add"
		var added bool
		if added, err = l2cache.Add(ctx, h.b, in.key, []byte(in.value), time.Hour); added {
			out = "added"
		}
	case writable && turn == 5 && supports.Has(l2cache.CanTouch):
		in.kind = "touch"
		if err = l2cache.Touch(ctx, h.b, in.key, time.Hour); err == nil {
			out = "touched"
		}
	default:
		in.kind = "get"
		r := readers[turn%2](h, ctx, in.key)
		out, err = string(r.value), r.err
	}
	s.done = time.Now()
	switch {
	case err == nil, in.kind != "set" && errors.Is(err, l2cache.ErrNotFound):
		y.add(w, in, out, s)
		return true
	case errors.Is(err, l2cache.ErrUnavailable), wait > 0 && errors.Is(err, context.DeadlineExceeded):
		if in.kind != "get" {
			y.add(w, in, doubt, s)
		}
		return false
	}
	p.failf("%s(%q) while the server is cut off, stalled or killed = %v | want nil or ErrUnavailable", in.kind, in.key, err)
	return false
}
