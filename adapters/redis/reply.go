package redis

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
)

// The replies with pairs are decoded here, out of go-redis's RawCmd. Its own reader
// of arrays stops at some of the errors that can stand in one and leaves the rest
// on the connection, and it makes a string of each value and an any of each number.

// A serverError is an error reply inside another reply, in the server's words.
type serverError string

var _ redis.Error = serverError("")

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

// decodePairs takes the entries of reads, or their errors, from a reply that is an
// array with value and PTTL of each, or an error.
func decodePairs(raw []byte, reads []*read) {
	first, rest, err := cut(raw)
	if err == nil {
		err = first.err()
	}
	if err == nil && (first.kind != '*' || string(first.text) != strconv.Itoa(2*len(reads))) {
		err = fmt.Errorf("redis: unexpected reply %.100q", raw)
	}
	if err != nil {
		fail(reads, err)
		return
	}
	for i, r := range reads {
		var value, pttl reply
		if value, rest, err = cut(rest); err == nil {
			pttl, rest, err = cut(rest)
		}
		if err != nil {
			fail(reads[i:], err)
			return
		}
		r.entry, r.err = pair(value, pttl)
		if len(reads) > 1 && r.err == nil {
			// raw is shared; a value alone in it may keep it.
			r.entry.Value = append([]byte{}, r.entry.Value...)
		}
	}
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
		return l2cache.Entry{}, fmt.Errorf("redis: unexpected replies %c to GET and %c to PTTL", value.kind, pttl.kind)
	case ms == -2: // expired between the two
		return l2cache.Entry{}, redis.Nil
	case ms == -1:
		return l2cache.Entry{Value: value.text, TTL: l2cache.NoExpiry}, nil
	}
	// Another writer's TTL may be longer than a Duration can be.
	ttl := time.Duration(min(max(ms, 0), l2cache.MaxTTL.Milliseconds())) * time.Millisecond
	return l2cache.Entry{Value: value.text, TTL: l2cache.RoundRemaining(ttl, resolution)}, nil
}

// A reply is one reply of the Redis serialization protocol, version 2 or 3, or the
// head of an array.
type reply struct {
	kind byte   // its first byte; '_' for version 2's nil, too
	text []byte // the rest of its first line; the content of a bulk string
}

func isError(raw []byte) bool { return len(raw) > 0 && raw[0] == '-' }

func (r reply) err() error {
	switch r.kind {
	case '-':
		return serverError(r.text)
	case '_':
		return redis.Nil
	}
	return nil
}

var crlf = []byte("\r\n")

// cut takes the first reply off raw. Its text is a part of raw, without room to
// grow into the rest.
func cut(raw []byte) (r reply, rest []byte, err error) {
	line, rest, ok := bytes.Cut(raw, crlf)
	if !ok || len(line) == 0 {
		return reply{}, nil, fmt.Errorf("redis: malformed reply %.100q", raw)
	}
	r = reply{kind: line[0], text: line[1:]}
	if r.kind != '$' {
		return r, rest, nil
	}
	n, err := strconv.Atoi(string(r.text))
	switch {
	case n == -1:
		return reply{kind: '_'}, rest, nil
	case err != nil || n < 0 || len(rest) < n+len(crlf):
		return reply{}, nil, fmt.Errorf("redis: malformed reply %.100q", raw)
	}
	r.text = rest[:n:n]
	return r, rest[n+len(crlf):], nil
}
