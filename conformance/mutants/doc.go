// Package mutants proves the suite of package conformance: it has stores that
// each break one rule of the contract, which the suite must fail, and stores that
// are odd but keep the contract, which it must pass.
//
// [Gate] runs the proof, over these stores or over others. All of them are edits
// of one simulated store, the reference, which keeps the contract and has no
// oddities.
package mutants

import (
	"time"

	"github.com/l2cache/l2cache/conformance"
)

// A System is a store to be checked: how it is opened, and with which options.
type System struct {
	Open    conformance.OpenFunc
	Options conformance.Options
}

// A Mutant is a store that breaks one rule.
type Mutant struct {
	// Name says what it does.
	Name string
	// Rule is what it breaks.
	Rule string
	// Kills lists the cases that must fail, by ID. The first is the one that is
	// there for this rule.
	Kills []string
	// New makes one, with data of its own.
	New func() System
}

// A Store is one that keeps the contract.
type Store struct {
	// Name says what is odd about it.
	Name string
	// Why it is legal.
	Why string
	// New makes one, with data of its own.
	New func() System
}

// opTimeout is the simulated store's own timeout of an operation: short, because
// cases wait for it.
const opTimeout = 250 * time.Millisecond
