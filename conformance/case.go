package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/l2cache/l2cache"
)

// A Case is one check. Cases lists them all.
type Case struct {
	// ID reads as a path and never changes.
	ID string
	// Level is how much it matters.
	Level Level
	// Law is the sentence of the contract that the case proves.
	Law string
	// Capability is what the backend has to support for the case to apply.
	Capability l2cache.Capability
	// Needs names what the case cannot do without, in words; empty if nothing.
	Needs string
	// After lists the cases that must pass before this one can say anything.
	After []string
	// Busy says that the case takes all of a processor, Alone that it is run when
	// no other is.
	Busy, Alone bool

	cause string // the usual cause of a failure
	needs need
	timed bool // has to do with time: runs in a bubble if it can
	run   func(*probe)
}

// Group is the first part of the ID.
func (c *Case) Group() string {
	group, _, _ := strings.Cut(c.ID, "/")
	return group
}

// A Level says whether a conformant backend must or should pass a case.
type Level string

const (
	Must   Level = "MUST"
	Should Level = "SHOULD"
)

// A need is what a case needs of profile and options.
type need int

const (
	needPeer    need = 1 << iota // a second handle on the same data
	needLock                     // a store that one handle at a time has open
	needDown                     // Faults.Down and Up
	needStall                    // Faults.Stall and Resume
	needCut                      // Faults.CutMidReply
	needStored                   // Raw.Stored
	needDamage                   // Raw.Damage
	needDurable                  // a store that keeps its data
	needForget                   // a server that forgets its data when it restarts
	needLimit                    // a declared limit on values that a test can reach
)

// maxTestedValue is the largest declared limit on values that is tried out.
const maxTestedValue = 128 << 20

var needTexts = []struct {
	need need
	text string
}{
	{needPeer, "a second handle"},
	{needLock, "an exclusive store"},
	{needDown, "Faults.Down and Up"},
	{needStall, "Faults.Stall and Resume"},
	{needCut, "Faults.CutMidReply"},
	{needStored, "Raw.Stored"},
	{needDamage, "Raw.Damage"},
	{needDurable, "a durable store"},
	{needForget, "a volatile server"},
	{needLimit, "a declared MaxValueLen"},
}

func (n need) String() string {
	var texts []string
	for _, nt := range needTexts {
		if n&nt.need != 0 {
			texts = append(texts, nt.text)
		}
	}
	return strings.Join(texts, ", ")
}

// missing returns why a case with these needs cannot be run: NotApplicable by the
// profile, NotVerified for want of a hook; "" if it can.
func (n need) missing(p l2cache.Profile, o *Options) (Status, string) {
	has := func(bit need) bool { return n&bit != 0 }
	f, r := o.Faults, o.Raw
	switch {
	case has(needPeer) && p.Exclusive:
		return NotApplicable, "the store has one handle at a time"
	case has(needLock) && !p.Exclusive:
		return NotApplicable, "the store may have several handles"
	case has(needDown|needStall|needCut) && p.Embedded:
		return NotApplicable, "the store is in this process"
	case has(needStored|needDamage) && p.Embedded && !p.Durable:
		return NotApplicable, "the store is memory of this process"
	case has(needDurable) && !p.Durable:
		return NotApplicable, "the store is not durable"
	case has(needForget) && p.Durable:
		return NotApplicable, "the store is durable"
	case has(needLimit) && (p.MaxValueLen == 0 || p.MaxValueLen > maxTestedValue):
		return NotApplicable, "no limit on values is declared, or one too large to try"
	case has(needDown) && (f == nil || f.Down == nil || f.Up == nil):
		return NotVerified, "Options.Faults has no Down and Up"
	case has(needStall) && (f == nil || f.Stall == nil || f.Resume == nil):
		return NotVerified, "Options.Faults has no Stall and Resume"
	case has(needCut) && (f == nil || f.CutMidReply == nil):
		return NotVerified, "Options.Faults has no CutMidReply"
	case has(needStored) && (r == nil || r.Stored == nil):
		return NotVerified, "Options.Raw has no Stored"
	case has(needDamage) && (r == nil || len(r.Damage) == 0):
		return NotVerified, "Options.Raw has no Damage"
	}
	return "", ""
}

// groups are the cases, in the order in which they are listed and reported.
var groups = [][]Case{
	basicCases, keyCases, valueCases, ttlSetCases, ttlRemainingCases,
	ttlOverwriteCases, deleteCases, errorCases, contextCases, concurrencyCases, faultCases,
	closeCases, limitCases, isolationCases, durabilityCases,
	batchCases, touchCases, addCases, patternCases, scanCases, watchCases, capabilityCases,
}

// Cases returns every case of the suite, in the order in which they are reported.
func Cases() []Case {
	cases := slices.Concat(groups...)
	for i := range cases {
		c := &cases[i]
		if c.Level == "" {
			c.Level = Must
		}
		c.Needs = c.needs.String()
		c.After = append(foundation(c.ID), c.After...)
	}
	return cases
}

// foundation lists the cases that must pass before others can say anything: without
// them each of those would fail for their reason.
func foundation(id string) []string {
	cases := []string{"basic/roundtrip", "isolation/namespace", "basic/miss"}
	if id == "basic/profile" {
		return nil
	}
	if i := slices.Index(cases, id); i >= 0 {
		return cases[:i]
	}
	return cases
}

// check returns an error if the options speak of a case that there is not.
func (o *Options) check() error {
	cases := Cases()
	for _, want := range o.Only {
		one := Options{Only: []string{want}}
		if !slices.ContainsFunc(cases, func(c Case) bool { return one.chosen(c.ID) }) {
			return fmt.Errorf("conformance: Options.Only: there is no case %q", want)
		}
	}
	for id := range o.KnownFailures {
		if !slices.ContainsFunc(cases, func(c Case) bool { return c.ID == id }) {
			return fmt.Errorf("conformance: Options.KnownFailures: there is no case %q", id)
		}
	}
	return nil
}

// chosen reports whether the options ask for the case.
func (o *Options) chosen(id string) bool {
	if len(o.Only) == 0 {
		return true
	}
	return slices.ContainsFunc(o.Only, func(want string) bool {
		return id == want || strings.HasPrefix(id, strings.TrimSuffix(want, "/")+"/")
	})
}
