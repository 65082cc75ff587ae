// Package conformance checks that a backend keeps the contract of package
// l2cache: every rule that its documentation states, on the real store.
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
//			return mybackend.Open(ctx, addr, namespace)
//		}, nil)
//	}
//
// Each case has an ID that reads as a path, ttl/overwrite/shorter say, and is a
// subtest of that name. IDs are never renamed. [Check] does the same without a
// *testing.T and returns a [Report].
//
// # Time
//
// Cases about time make no assumption about how fast the machine is. They stamp
// each call before and after: a miss that came back before call of Set plus ttl
// is early, a hit that was asked for after return of Set plus ttl plus resolution
// is late, and anything else proves nothing, so the case is repeated, and is
// inconclusive after six attempts. With [Options.InProcess] such cases run in
// a testing/synctest bubble, where time is exact and nobody waits for it.
//
// # Results
//
// A case passes, fails, is blocked (a case that it builds on failed),
// inconclusive, not verified (it needs a hook in Options that was not given),
// unsupported (it needs a capability that the backend does not have) or not
// applicable (the profile rules it out). Only a pass is a pass. With
// [Options.Strict], what is inconclusive or not verified fails.
package conformance

import (
	"context"
	"time"

	"github.com/l2cache/l2cache"
)

// Version is the version of the suite. It changes when a case is added, or starts
// to demand more.
const Version = "0.1"

// An OpenFunc opens the backend under test on the data that namespace names: 18
// letters a-z and digits. The same namespace again is a second handle on the same
// data, or after Close a reopening of it; a new one has no entries. The suite closes
// what it opens. ctx bounds the opening only.
type OpenFunc func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error)

// Options adapt a run. The zero value, and a nil *Options, is a run without hooks.
type Options struct {
	// Strict fails the cases that are inconclusive or not verified, and the
	// SHOULD cases.
	Strict bool

	// InProcess says that the backend does nothing outside the process but file
	// I/O, and starts no goroutine before it is opened: Run gives each timed case
	// a testing/synctest bubble. Check ignores it.
	InProcess bool

	// Faults break and mend the server behind the backend; nil leaves the cases
	// that need them not verified.
	Faults *Faults

	// Raw reaches the store behind the backend's back; nil leaves the cases that
	// need it not verified.
	Raw *Raw

	// Require fails the cases of capabilities that the backend does not support but
	// should: a wrapper must not hide one.
	Require l2cache.Capability

	// OpTimeout is the backend's own timeout of an operation; 1 s by default.
	OpTimeout time.Duration

	// CaseTimeout ends a case that hangs, with the stacks of all goroutines;
	// 2 min by default. In a bubble it is some hours of the bubble's time.
	CaseTimeout time.Duration

	// Parallel is how many cases run at a time; 32 by default. Most of them
	// wait for an entry to expire.
	Parallel int

	// Only, if it is not empty, names the cases to run, by ID or by a leading
	// part of the path. What they build on is then not run for their sake.
	Only []string

	// KnownFailures says of cases, by ID, why they are known to fail. They run, and
	// it is a failure if they pass; with one of them the verdict is no better than
	// partial.
	KnownFailures map[string]string

	// Report, if it is not nil, is called once with the results of Run.
	Report func(*Report)
}

// Faults act on the server behind every handle; a [Proxy] in front of it has them
// all. A hook that is nil leaves the
// cases that need it not verified. Each has taken effect when it returns. They
// are called one at a time, while no other case runs.
type Faults struct {
	// Down makes the server refuse connections, and drops those that are open.
	Down func(context.Context) error
	// Up brings it back on the same address, ready, with the data that it keeps
	// as Profile.Durable says.
	Up func(context.Context) error
	// Stall makes the server keep and accept connections, and answer nothing.
	Stall func(context.Context) error
	// Resume ends Stall.
	Resume func(context.Context) error
	// CutMidReply lets n more bytes of the server's pass on each connection that is
	// open, and cuts it in place of the next; new connections are whole. With a
	// negative n, what is still to be cut is left alone.
	CutMidReply func(_ context.Context, n int) error
}

// Raw reaches the store behind the backend's back, through a client of its own.
type Raw struct {
	// Stored reports whether the store still holds anything for key, live or
	// expired, without causing it to be removed if that can be helped.
	Stored func(ctx context.Context, namespace, key string) (bool, error)
	// Damage lists the ways in which what is stored under a key can become
	// something that is not an entry.
	Damage []Damage
}

// A Damage turns the entry under key into something that is not one: a value of a
// foreign type, a foreign program's bytes, a truncated or altered entry.
type Damage struct {
	Name string
	Do   func(ctx context.Context, namespace, key string) error
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.OpTimeout == 0 {
		d.OpTimeout = l2cache.DefaultOpTimeout
	}
	if d.CaseTimeout == 0 {
		d.CaseTimeout = 2 * time.Minute
	}
	if d.Parallel == 0 {
		d.Parallel = 32
	}
	return d
}
