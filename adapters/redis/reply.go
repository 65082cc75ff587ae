package redis

import (
	"bytes"
	"errors"
	"fmt"
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

// wantArray returns an error if r is not the head of an array of n elements.
func (r reply) wantArray(n int) error {
	if r.kind != '*' || string(r.text) != strconv.Itoa(n) {
		return errReply
	}
	return nil
}

// own returns r with a text that stays.
func (r reply) own() reply {
	if r.kind != '$' {
		r.text = bytes.Clone(r.text) // of the line
	}
	return r
}

// A lexer cuts what a server sends into replies, and hands them to take.
type lexer struct {
	take func(reply) error // the text is its own only if the reply is a bulk string

	line    []byte   // what has come of a reply's first line
	bulk    []byte   // the bulk string that is coming, with its CR LF
	missing int      // how many bytes of bulk are still to come
	short   [64]byte // for line
}

func (l *lexer) init(take func(reply) error) {
	l.take = take
	l.line = l.short[:0]
}

// Write takes the next bytes of the replies, wherever they are cut. After an error
// go-redis closes the connection.
func (l *lexer) Write(b []byte) (int, error) {
	size := len(b)
	for len(b) > 0 {
		var err error
		if l.missing > 0 {
			n := copy(l.bulk[len(l.bulk)-l.missing:], b)
			b = b[n:]
			err = l.received(n)
		} else {
			part, rest, whole := bytes.Cut(b, []byte{'\n'})
			b = rest
			l.line = append(l.line, part...)
			if whole {
				err = l.first(bytes.TrimSuffix(l.line, []byte{'\r'}))
				l.line = l.line[:0]
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return size, nil
}

// ReadFrom is Write for a bulk string, without a buffer in between.
func (l *lexer) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.ReadFull(r, l.bulk[len(l.bulk)-l.missing:])
	if err == nil {
		err = l.received(n)
	}
	if limited, ok := r.(*io.LimitedReader); err != nil || ok && limited.N == 0 {
		return int64(n), err
	}
	rest, err := io.Copy(struct{ io.Writer }{l}, r)
	return int64(n) + rest, err
}

// received counts n bytes of the bulk string.
func (l *lexer) received(n int) error {
	if l.missing -= n; n == 0 || l.missing > 0 {
		return nil
	}
	size := len(l.bulk) - len("\r\n")
	r := reply{'$', l.bulk[:size:size]}
	l.bulk = nil
	return l.take(r)
}

// first takes the first line of a reply.
func (l *lexer) first(line []byte) error {
	if len(line) == 0 {
		return errReply
	}
	if line[0] != '$' {
		return l.take(reply{line[0], line[1:]})
	}
	n, err := strconv.Atoi(string(line[1:]))
	switch {
	case n == -1:
		return l.take(reply{kind: '_'})
	case err != nil || n < 0:
		return errReply
	}
	l.missing = n + len("\r\n")
	l.bulk = make([]byte, l.missing)
	return nil
}

// pairs decodes what a server answers to reads: ahead statuses, then an array with
// what was read and the PTTL of each key, or an error.
type pairs struct {
	lexer
	reads []*read
	ahead int // 1 + 2*len(reads) in a transaction: to MULTI, and of what is queued; 0 for a script

	refused error // there was an error instead of the array

	n     int   // of replies so far; the array's head is one, and so is each element
	value reply // the last one, if its PTTL is to come
}

func newPairs(reads []*read, ahead int) *pairs {
	p := &pairs{reads: reads, ahead: ahead}
	p.init(p.take)
	return p
}

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
		return r.wantArray(2 * len(p.reads))
	case i > 2*len(p.reads):
		return errReply
	case i%2 == 1:
		p.value = r.own()
	default:
		p.reads[i/2-1].set(p.value, r)
	}
	return nil
}

// columns decodes what a server answers to a transaction of an MGET and a PTTL for
// each of reads.
type columns struct {
	lexer
	reads []*read
	ahead int // of the array: replies to MULTI, and of what is queued

	refused error // as that of pairs

	n      int     // of replies so far
	values []reply // to MGET
}

func newColumns(reads []*read) *columns {
	c := &columns{reads: reads, ahead: 2 + len(reads), values: make([]reply, 0, len(reads))}
	c.init(c.take)
	return c
}

func (c *columns) take(r reply) error {
	keys := len(c.reads)
	if c.n == 1 && r.kind == '*' { // MGET was not queued, for MULTI was refused
		c.ahead += keys
	}
	i := c.n - c.ahead // 0 is the array's head
	c.n++
	switch {
	case i < 0:
		// What is said to MGET can be about any of the keys.
		if j := i + keys; j >= 0 && r.kind == '-' {
			c.reads[j].err = serverError(r.text)
		}
	case i == 0 && r.kind == '-':
		c.refused = serverError(r.text)
	case i == 0:
		return r.wantArray(1 + keys)
	case i == 1:
		return r.wantArray(keys)
	case i < 2+keys:
		c.values = append(c.values, r.own())
	case i < 2+2*keys:
		c.reads[i-2-keys].set(c.values[i-2-keys], r)
	default:
		return errReply
	}
	return nil
}

// set makes an entry, or what else the replies say, of that to GET, STRLEN or MGET
// and that to PTTL.
func (r *read) set(value, pttl reply) {
	r.entry, r.size, r.err = pair(value, pttl)
}

// errForeign is what GET would be refused for: MGET gives nil for a list, say.
var errForeign = fmt.Errorf("%w: the key holds something other than a string", l2cache.ErrCorrupt)

// pair makes an Entry of the replies to GET and PTTL. If the first is to STRLEN, there
// is a size but no value.
func pair(value, pttl reply) (e l2cache.Entry, size int, err error) {
	if err := value.err(); err != nil && err != redis.Nil {
		return e, 0, err
	}
	if err := pttl.err(); err != nil {
		return e, 0, err
	}
	ms, err := strconv.ParseInt(string(pttl.text), 10, 64)
	switch {
	case err != nil || pttl.kind != ':':
		return e, 0, errReply
	case ms == -2:
		return e, 0, redis.Nil
	case value.kind == '_':
		return e, 0, errForeign
	case value.kind == '$':
		size = len(value.text)
		e.Value = value.text
	case value.kind == ':':
		if size, err = strconv.Atoi(string(value.text)); err != nil {
			return e, 0, errReply
		}
	default:
		return e, 0, errReply
	}
	if ms == -1 {
		e.TTL = l2cache.NoExpiry
		return e, size, nil
	}
	// Another program's TTL may be longer than a Duration can be.
	ttl := time.Duration(min(max(ms, 0), l2cache.MaxTTL.Milliseconds())) * time.Millisecond
	e.TTL = l2cache.RoundRemaining(ttl, resolution)
	return e, size, nil
}
