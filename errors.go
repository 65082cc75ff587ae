package l2cache

import (
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of failure. Test for them with [errors.Is]; what else is known is in
// the [*Error] around them. The kind of an operation that a backend does not
// have is [errors.ErrUnsupported], that of a pattern that is none
// [path.ErrBadPattern].
var (
	// ErrNotFound: there is no entry under the key, or it has expired. Backends
	// return it bare.
	ErrNotFound = errors.New("l2cache: not found")

	// ErrInvalidKey: the key is empty or longer than the profile's MaxKeyLen.
	ErrInvalidKey = errors.New("l2cache: invalid key")

	// ErrInvalidTTL: the TTL is zero or negative.
	ErrInvalidTTL = errors.New("l2cache: invalid TTL")

	// ErrTooLarge: the server would not take a value of this size.
	ErrTooLarge = errors.New("l2cache: value too large")

	// ErrFull: the server is out of memory or disk. Reads still work.
	ErrFull = errors.New("l2cache: store full")

	// ErrUnavailable: the backend could not answer, or not within its own
	// timeout. A write that gets it is in doubt.
	ErrUnavailable = errors.New("l2cache: unavailable")

	// ErrCorrupt: what is stored under the key is not an entry of this package,
	// or was damaged. It is never served, and never deleted by a read.
	ErrCorrupt = errors.New("l2cache: corrupt entry")

	// ErrClosed: the backend has been closed.
	ErrClosed = errors.New("l2cache: closed")
)

// An Error says which operation failed, on which backend and key, and why.
type Error struct {
	Op      string // "get", "set", "open", …
	Backend string // the backend's Name; of an Open the scheme, or l2cache if none was found
	Key     string // the caller's key; empty if the operation has none

	// Kind is one of the errors above, or context.Canceled or
	// context.DeadlineExceeded when the caller's ctx ended.
	Kind error
	// Err is the cause, if there is more to say: a driver's own error, or the
	// cause that the caller's ctx was cancelled with.
	Err error
}

// maxQuotedKey is how many bytes of a key an error's text shows.
const maxQuotedKey = 64

// Error returns one line of text with the key quoted, and cut if it is long.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Backend != "" {
		b.WriteString(e.Backend)
		b.WriteString(": ")
	}
	b.WriteString(e.Op)
	switch {
	case len(e.Key) > maxQuotedKey:
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(e.Key[:maxQuotedKey]))
		b.WriteString("…")
	case e.Key != "":
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(e.Key))
	}
	// A cause that already is of the kind says more than the kind.
	if e.Kind != nil && (e.Err == nil || !errors.Is(e.Err, e.Kind)) {
		b.WriteString(": ")
		b.WriteString(text(e.Kind))
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(text(e.Err))
	}
	return b.String()
}

var oneLine = strings.NewReplacer("\r\n", "; ", "\n", "; ", "\r", "; ")

func text(err error) string {
	return oneLine.Replace(strings.TrimPrefix(err.Error(), "l2cache: "))
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	switch {
	case e.Kind == nil && e.Err == nil:
		return nil
	case e.Kind == nil:
		return []error{e.Err}
	case e.Err == nil:
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// NewError returns the error of an operation that failed with kind because of
// err, in the way that the contract asks for:
//
//   - If ctx, the caller's, has ended, or its deadline has passed by the clock,
//     then that is the error, whatever else happened.
//   - Otherwise the result matches neither context.Canceled nor
//     context.DeadlineExceeded, even though err, a driver's timeout say, may.
//     errors.As still finds all that err wraps.
//   - A kind of ErrNotFound is returned bare.
//
// A nil kind is taken from err if err matches one of this package's; otherwise
// it is ErrUnavailable. Key is empty for an operation that has none.
func NewError(ctx context.Context, backend, op, key string, kind, err error) error {
	if ended := contextErr(ctx); ended != nil {
		e := &Error{Op: op, Backend: backend, Key: key, Kind: ended}
		if cause := context.Cause(ctx); cause != nil && cause != ended {
			e.Err = callersCause{cause}
		}
		return e
	}
	if kind == nil {
		kind = kindOf(err)
	}
	if kind == ErrNotFound {
		return ErrNotFound
	}
	e := &Error{Op: op, Backend: backend, Key: key, Kind: kind, Err: err}
	if err == e.Kind {
		e.Err = nil
	} else if isContextErr(err) {
		e.Err = notTheCallers{err}
	}
	return e
}

// Preflight is what every operation on a key begins with: it returns ctx's error
// if ctx has ended, else ErrClosed if closed, else ErrInvalidKey as [CheckKey]
// finds it, each in an [*Error], else nil.
func Preflight(ctx context.Context, backend, op, key string, closed bool) error {
	if err := preflight(ctx, backend, op, key, closed); err != nil {
		return err
	}
	if err := CheckKey(key, MaxKeyLen); err != nil {
		return &Error{Op: op, Backend: backend, Key: key, Kind: ErrInvalidKey, Err: err}
	}
	return nil
}

// PreflightNoKey is [Preflight] for an operation that has no key.
func PreflightNoKey(ctx context.Context, backend, op string, closed bool) error {
	return preflight(ctx, backend, op, "", closed)
}

func preflight(ctx context.Context, backend, op, key string, closed bool) error {
	if contextErr(ctx) != nil {
		return NewError(ctx, backend, op, key, nil, nil)
	}
	if closed {
		return &Error{Op: op, Backend: backend, Key: key, Kind: ErrClosed}
	}
	return nil
}

// contextErr is ctx.Err, and DeadlineExceeded as soon as the deadline has passed
// by the clock: the timer behind ctx.Err can be late.
func contextErr(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func isContextErr(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

var kinds = []error{
	ErrNotFound, ErrInvalidKey, ErrInvalidTTL, ErrTooLarge, ErrFull,
	ErrCorrupt, ErrClosed, ErrUnavailable, errors.ErrUnsupported, path.ErrBadPattern,
}

func kindOf(err error) error {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrUnavailable
}

// notTheCallers hides from errors.Is that err is a context error: it comes from
// an adapter's own timeout, or from the net package, whose dial timeout matches
// DeadlineExceeded. It has no Unwrap, or errors.Is would find it.
type notTheCallers struct{ err error }

func (e notTheCallers) Error() string { return e.err.Error() }

func (e notTheCallers) Is(target error) bool {
	return target != context.Canceled && target != context.DeadlineExceeded && errors.Is(e.err, target)
}

func (e notTheCallers) As(target any) bool { return errors.As(e.err, target) }

// callersCause is what the caller's ctx was cancelled with. It may be an error of
// this package, the one that made an errgroup give up say, and must not make the
// calls that were cancelled for it look like misses.
type callersCause struct{ err error }

func (e callersCause) Error() string { return e.err.Error() }

func (e callersCause) Is(target error) bool {
	return !slices.Contains(kinds, target) && target != context.Canceled && target != context.DeadlineExceeded &&
		errors.Is(e.err, target)
}

func (e callersCause) As(target any) bool { return errors.As(e.err, target) }
