package redis

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

// Replies with values and PTTLs are decoded here, as go-redis's RawWriteToCmd
// streams them: a value goes from the connection's buffer into a slice of its own.
// go-redis's reader of arrays makes an any of each element, and it stops at some of
// the errors that can be one and leaves the rest on the connection.

// A reply is one of the Redis serialization protocol, version 2 or 3, or the head
// of an array.
type reply struct {
	kind byte   // its first byte; '_' for version 2's nil, too
	text []byte // the rest of its first line; the content of a bulk string
}

// serverError makes an error reply what go-redis makes of one, a RedisError, so that
// redis.IsPermissionError and its like know it. The type has no public name.
func serverError(text []byte) error { return sameType(redis.Nil, string(text)) }

func sameType[T ~string](_ T, s string) T { return T(s) }

var errReply = errors.New("redis: unexpected reply")

func (r reply) err() error {
	switch r.kind {
	case '-':
		return serverError(r.text)
	case '_':
		return redis.Nil
	}
	return nil
}

// pairs decodes what a server answers to reads: ahead statuses, then an array with
// value and PTTL of each read, or an error.
type pairs struct {
	reads []*read
	ahead int // 1 + 2*len(reads) in a transaction: to MULTI, and of what is queued; 0 for a script

	refused error // there was an error instead of the array

	n     int   // of replies so far; the array's head is one, and so is each element
	value reply // the last one, if its PTTL is to come

	line    []byte   // what has come of a reply's first line
	bulk    []byte   // the bulk string that is coming, with its CR LF
	missing int      // how many bytes of bulk are still to come
	short   [64]byte // for line
}

func newPairs(reads []*read, ahead int) *pairs {
	p := &pairs{reads: reads, ahead: ahead}
	p.line = p.short[:0]
	return p
}

// Write takes the next bytes of the replies, wherever they are cut. After an error
// go-redis closes the connection.
func (p *pairs) Write(b []byte) (int, error) {
	size := len(b)
	for len(b) > 0 {
		var err error
		if p.missing > 0 {
			n := copy(p.bulk[len(p.bulk)-p.missing:], b)
			b = b[n:]
			err = p.received(n)
		} else {
			part, rest, whole := bytes.Cut(b, []byte{'\n'})
			b = rest
			p.line = append(p.line, part...)
			if whole {
				err = p.first(bytes.TrimSuffix(p.line, []byte{'\r'}))
				p.line = p.line[:0]
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return size, nil
}

// ReadFrom is Write for a bulk string, without a buffer in between.
func (p *pairs) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.ReadFull(r, p.bulk[len(p.bulk)-p.missing:])
	if err == nil {
		err = p.received(n)
	}
	if l, ok := r.(*io.LimitedReader); err != nil || ok && l.N == 0 {
		return int64(n), err
	}
	rest, err := io.Copy(struct{ io.Writer }{p}, r)
	return int64(n) + rest, err
}

// received counts n bytes of the bulk string.
func (p *pairs) received(n int) error {
	if p.missing -= n; n == 0 || p.missing > 0 {
		return nil
	}
	size := len(p.bulk) - len("\r\n")
	r := reply{'$', p.bulk[:size:size]}
	p.bulk = nil
	return p.take(r)
}

// first takes the first line of a reply.
func (p *pairs) first(line []byte) error {
	if len(line) == 0 {
		return errReply
	}
	if line[0] != '$' {
		return p.take(reply{line[0], line[1:]})
	}
	n, err := strconv.Atoi(string(line[1:]))
	switch {
	case n == -1:
		return p.take(reply{kind: '_'})
	case err != nil || n < 0:
		return errReply
	}
	p.missing = n + len("\r\n")
	p.bulk = make([]byte, p.missing)
	return nil
}

// take takes a reply, whose text is the callee's only if it is a bulk string.
func (p *pairs) take(r reply) error {
	i := p.n - p.ahead // 0 is the array's head
	p.n++
	switch {
	case i < 0:
		// After MULTI's come two to each read.
		if j := p.n - 2; j >= 0 && r.kind == '-' {
			p.reads[j/2].err = serverError(r.text)
		}
	case i == 0 && r.kind == '-':
		p.refused = serverError(r.text)
	case i == 0:
		if r.kind != '*' || string(r.text) != strconv.Itoa(2*len(p.reads)) {
			return errReply
		}
	case i > 2*len(p.reads):
		return errReply
	case i%2 == 1:
		p.value = reply{r.kind, r.text}
		if r.kind != '$' {
			p.value.text = bytes.Clone(r.text) // of the line
		}
	default:
		read := p.reads[i/2-1]
		read.entry, read.err = pair(p.value, r)
	}
	return nil
}

// pair makes an Entry of the replies to GET and PTTL.
func pair(value, pttl reply) (l2cache.Entry, error) {
	if err := value.err(); err != nil {
		return l2cache.Entry{}, err
	}
	if err := pttl.err(); err != nil {
		return l2cache.Entry{}, err
	}
	ms, err := strconv.ParseInt(string(pttl.text), 10, 64)
	switch {
	case value.kind != '$' || pttl.kind != ':' || err != nil:
		return l2cache.Entry{}, errReply
	case ms == -2: // gone between the two, which no server does
		return l2cache.Entry{}, redis.Nil
	case ms == -1:
		return l2cache.Entry{Value: value.text, TTL: l2cache.NoExpiry}, nil
	}
	// Another program's TTL may be longer than a Duration can be.
	ttl := time.Duration(min(max(ms, 0), l2cache.MaxTTL.Milliseconds())) * time.Millisecond
	return l2cache.Entry{Value: value.text, TTL: l2cache.RoundRemaining(ttl, resolution)}, nil
}
