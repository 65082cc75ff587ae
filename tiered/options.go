package tiered

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Options are the settings of a Cache. The zero value of each field is its default.
type Options[V any] struct {
	// Codec turns values into the bytes that L2 keeps. Default: [Bytes] if V is
	// []byte, else [JSON].
	Codec Codec[V]

	// MaxEntries bounds L1 by the number of its entries. Default: 10,000, unless
	// MaxBytes is set.
	MaxEntries int
	// MaxBytes bounds L1 by the size of its keys and encoded values, plus 128 bytes for
	// each entry, instead. What the decoded values take can be more.
	MaxBytes int

	// MaxL1TTL is the longest time for which L1 serves an entry without asking L2
	// again, and so how long a change by another process can go unseen where L2's
	// Watch does not tell of it. Default: 1 minute. l2cache.NoExpiry is no limit.
	MaxL1TTL time.Duration
	// Jitter shortens the time for which L1 keeps an entry by a random part of up to
	// this fraction of it, from 0 to 1, so that processes do not ask L2 at the same
	// time. Default: 0.
	Jitter float64
	// PromoteEvery promotes one L2 hit in so many, chosen at random; those of a Refresh
	// all. Default: 1, all.
	PromoteEvery int
	// NoWatch leaves L2's Watch alone, where it has one. Watch tells of this Cache's own
	// writes, too, and does not say whose they are, nor whether there was another's since:
	// the first read after a Set asks L2, and a load that is under way when the news of an
	// own Delete comes is not stored. Where one process alone writes, or MaxL1TTL is bound
	// enough, NoWatch saves that.
	NoWatch bool

	// RefreshAhead is the fraction of an entry's TTL, from 0 to 1, after which a
	// GetOrLoad that L1 answers starts a load in the background. The TTL is the one that
	// the entry was stored with, if this Cache did that, else what it had left when it was
	// first promoted. So that this is known when MaxL1TTL has it read again, L1 keeps the
	// entry in mind for another MaxL1TTL; of one that is read more rarely, what is left then
	// counts. Default: 0, never.
	RefreshAhead float64
	// NegativeTTL is for how long L1 remembers that a loader found nothing, if the loader
	// does not say. Default: 0, not at all.
	NegativeTTL time.Duration

	// OnFailure says what becomes of a read when L2 cannot answer. Default: Load.
	OnFailure Failure
	// StaleFor is for how long L1 keeps an entry after it may no longer be served as
	// fresh, for the loader and for ServeStale. One that Watch tells of, and be it for this
	// Cache's own write, is not kept: L1 has it again when it has been read from L2.
	// Default: 0.
	StaleFor time.Duration

	// L2Timeout bounds each call of L2. Default: 0, what the adapter has itself
	// (op_timeout, 1 s). A call that a caller's own deadline ends says nothing about L2:
	// a breaker that is to notice a stalled server needs a timeout below that.
	L2Timeout time.Duration
	// BreakerFailures is how many failures of L2 in a row open the circuit breaker: then
	// L2 is not asked for BreakerOpenFor, and one call tries whether it is back. Only an
	// L2 that is unavailable fails. Default: 5. Negative: there is no breaker.
	BreakerFailures int
	// BreakerOpenFor: see BreakerFailures. Default: 1 s.
	BreakerOpenFor time.Duration
	// MaxPendingDeletes is how many keys are remembered whose delete has failed, to be
	// deleted when L2 is back. Close forgets them. Default: 1,024. Negative: none.
	MaxPendingDeletes int

	// Observer is told of everything that happens, in the goroutine where it does, and
	// from several at a time: it has to be quick, and must not panic, which in the Cache's
	// own goroutines ends the process. Of the Cache it may call Stats and nothing else. The ctx is the caller's, that of the load, or the Cache's own.
	Observer func(context.Context, Event)
}

// A Failure is what a read does when L2 cannot answer.
type Failure int

const (
	// Load: GetOrLoad loads. Get returns the error.
	Load Failure = iota
	// ServeStale: the stale entry is served, if L1 has one (Options.StaleFor), also
	// where a load fails. If there is none, it is as with Load.
	ServeStale
	// Fail: the error is returned, and nothing is loaded; but for ErrCorrupt, which is about
	// the entry, and not about L2.
	Fail
)

var failureNames = [...]string{"load", "serve stale", "fail"}

// String returns "load", "serve stale" or "fail".
func (f Failure) String() string { return nameOf(failureNames[:], int(f)) }

const (
	defaultMaxEntries     = 10_000
	defaultMaxL1TTL       = time.Minute
	defaultFailures       = 5
	defaultOpenFor        = time.Second
	defaultPendingDeletes = 1024
)

// validate returns the options with all defaults filled in, or everything that is
// wrong with them.
func (o *Options[V]) validate() (Options[V], error) {
	var v Options[V]
	if o != nil {
		v = *o
	}
	var errs []error
	bad := func(field, want string, got any) {
		errs = append(errs, fmt.Errorf("tiered: Options.%s is %v: want %s", field, got, want))
	}
	notNegative := func(field string, d time.Duration) {
		if d < 0 {
			bad(field, "0 or more", d)
		}
	}
	fraction := func(field string, f float64) {
		if !(f >= 0 && f <= 1) { // NaN, too
			bad(field, "0 to 1", f)
		}
	}
	if v.MaxEntries < 0 {
		bad("MaxEntries", "0 or more", v.MaxEntries)
	}
	if v.MaxBytes < 0 {
		bad("MaxBytes", "0 or more", v.MaxBytes)
	}
	if v.MaxEntries > 0 && v.MaxBytes > 0 {
		errs = append(errs, errors.New("tiered: both Options.MaxEntries and Options.MaxBytes are set"))
	}
	if v.PromoteEvery < 0 {
		bad("PromoteEvery", "0 or more", v.PromoteEvery)
	}
	if v.OnFailure < Load || v.OnFailure > Fail {
		bad("OnFailure", "Load, ServeStale or Fail", int(v.OnFailure))
	}
	if v.OnFailure == ServeStale && v.StaleFor == 0 {
		errs = append(errs, errors.New("tiered: Options.OnFailure is ServeStale, and Options.StaleFor is not set"))
	}
	if v.BreakerFailures > math.MaxInt32 {
		bad("BreakerFailures", "less", v.BreakerFailures)
	}
	notNegative("MaxL1TTL", v.MaxL1TTL)
	notNegative("NegativeTTL", v.NegativeTTL)
	notNegative("StaleFor", v.StaleFor)
	notNegative("L2Timeout", v.L2Timeout)
	notNegative("BreakerOpenFor", v.BreakerOpenFor)
	fraction("Jitter", v.Jitter)
	fraction("RefreshAhead", v.RefreshAhead)

	if v.Codec == nil {
		v.Codec = defaultCodec[V]()
	}
	if v.MaxEntries == 0 && v.MaxBytes == 0 {
		v.MaxEntries = defaultMaxEntries
	}
	if v.MaxL1TTL == 0 {
		v.MaxL1TTL = defaultMaxL1TTL
	}
	if v.PromoteEvery == 0 {
		v.PromoteEvery = 1
	}
	if v.BreakerFailures == 0 {
		v.BreakerFailures = defaultFailures
	}
	if v.BreakerOpenFor == 0 {
		v.BreakerOpenFor = defaultOpenFor
	}
	if v.MaxPendingDeletes == 0 {
		v.MaxPendingDeletes = defaultPendingDeletes
	}
	return v, errors.Join(errs...)
}

// An Option varies one call.
type Option struct {
	mode  mode
	l1TTL time.Duration
}

// A mode is a set of what a call does otherwise. Loads of one key with different
// modes are not coalesced.
type mode uint8

const (
	skipL1 mode = 1 << iota
	skipL2
	refresh
	ahead // of a flight: nobody waits for it
)

// SkipL1 leaves L1 out: a read neither asks nor fills it; a write goes to L2 and drops
// the copy that L1 has.
func SkipL1() Option { return Option{mode: skipL1} }

// SkipL2 leaves L2 out: a read asks only L1 (and the loader), a write is seen by this
// Cache alone.
func SkipL2() Option { return Option{mode: skipL2} }

// Refresh has a read ask the next level although an earlier one has the entry: Get and
// GetMany read L2, GetOrLoad and GetOrLoadMany load. What comes replaces the entry; if the
// loader finds nothing, the entry is deleted in L2, too; if it wants its value not to be
// stored, the entry stays.
//
// A load that another call with Refresh has begun is joined, and may have seen its source
// as it was before this call. After a change of the source, Delete the key first.
func Refresh() Option { return Option{mode: refresh} }

// L1TTL bounds the time for which L1 keeps what the call brings, if it is less than
// Options.MaxL1TTL. Zero and less is 1 ns. A call that joins another's load gets what that
// one keeps.
func L1TTL(d time.Duration) Option { return Option{l1TTL: max(d, 1)} }

// A call is the sum of a call's Options.
type call struct {
	mode  mode
	l1TTL time.Duration
}

func (c *Cache[V]) with(opts []Option) call {
	sum := call{l1TTL: c.options.MaxL1TTL}
	for _, o := range opts {
		sum.mode |= o.mode
		if o.l1TTL > 0 {
			sum.l1TTL = min(sum.l1TTL, o.l1TTL)
		}
	}
	return sum
}

func (c call) has(m mode) bool { return c.mode&m != 0 }
