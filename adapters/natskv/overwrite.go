package natskv

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// The server does not write down all that it removes from a file storage: not what
// max_msgs_per_subject pushes out, which it works out again from the newer message when
// it starts, and of a rollup or a purge not the last message that a block has, if that
// stays because of tombstones in it (nats-server 2.15.2, filestore.go: PurgeEx,
// removeMsgFromBlock, removeMsgBlock). So when a server was killed, messages that were
// replaced or deleted are there again: of 50 in 24 blocks 19 to 22 were, on one server as
// on three. They are the last of their key again once the newer one has expired.
//
// Therefore what replaces a message is kept as long as that: its Nats-TTL is the larger
// one of its own and that of the message before it, which has been read, and it is
// published on the condition that nothing has come between. What is kept for ever anyway
// needs none of that, nor does a stream in memory: with the server all of it is gone.

// A lifetime is how long the server keeps a message, in seconds, the unit of Nats-TTL.
type lifetime int64

const forever lifetime = math.MaxInt64 // or as long as the bucket's MaxAge

// lifetimeOf is that of an entry: the margin more than ttl, rounded up.
func (b *bucket) lifetimeOf(ttl time.Duration) lifetime {
	if ttl >= bucketTTL(b.config.MaxAge) {
		return forever
	}
	return lifetime((ttl + margin + time.Second - 1) / time.Second) // no overflow: ttl <= l2cache.MaxTTL
}

// lifetimeIn is that of a message with these headers. Other programs may write it in
// Go's form, or "never".
func lifetimeIn(header nats.Header) lifetime {
	text := header.Get(jetstream.MsgTTLHeader)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return lifetime(n)
	}
	if d, err := time.ParseDuration(text); err == nil {
		return lifetime(d / time.Second) // the server rounds down, too
	}
	return forever
}

// derivedHeader marks what Touch and Add have published.
const derivedHeader = "L2cache-Derived"

// A class of messages.
type class int

const (
	entry   class = iota
	marker        // of a deletion, as kv.Purge publishes it
	removal       // a marker, unless there is one
)

// over is the header of a message of that class that replaces last.
func (k class) over(last message, own lifetime) nats.Header {
	// The rollup is for buckets whose history is more than 1.
	header := nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}
	if last.sequence != unknown {
		header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(last.sequence, 10)}
	}
	if kept := max(own, last.kept); kept != forever {
		header[jetstream.MsgTTLHeader] = []string{strconv.FormatInt(int64(kept), 10)}
	}
	if k != entry {
		header["KV-Operation"] = []string{"PURGE"}
	}
	return header
}

// markerKept is the lifetime of a marker where there was nothing to delete, so that
// those who watch see it.
const markerKept lifetime = 1

// overwrite publishes what Set and Delete do, whatever was there before: a message of
// that class with data. answered: data is not in use any more.
//
// The server refuses it when something has come between. So that many who write one key
// do not have to wait for each other, the call is over when that has happened twice, and
// what came between does not depend on what it has replaced: then it may as well have
// replaced what this call would have published.
func (c *Cache) overwrite(ctx context.Context, limit time.Time, b *bucket, key string, k class, own lifetime, data []byte) (answered bool, err error) {
	last := message{sequence: unknown}
	if !b.volatile && own != forever {
		if last, err = c.readLast(ctx, limit, b, key); err != nil {
			return true, err
		}
	}
	for refused := 0; err == nil; {
		answered, err = c.publish(ctx, limit, b, key, k.over(last, own), data)
		if k != entry && kind(err) == l2cache.ErrFull {
			err = c.deleteFromFull(ctx, limit, b, key, last)
		}
		if !isOvertaken(err) {
			return answered, err
		}
		refused++
		before := last
		if last, err = c.readLast(ctx, limit, b, key); err == nil && refused > 1 && last.hides(before) {
			break
		}
	}
	return true, err
}

// hides: m may as well have replaced something that came after before. A first refusal
// is no proof that m is newer than the call: what it had read may have been the answer
// of a server that did not know yet that it leads no more.
func (m message) hides(before message) bool { return m.sequence > before.sequence && !m.derived }

// unknown is the sequence of what may be replaced unread.
const unknown = math.MaxUint64

// readLast is read for those who replace the message, be it what it may.
func (c *Cache) readLast(ctx context.Context, limit time.Time, b *bucket, key string) (message, error) {
	m, err := c.read(ctx, limit, b, key)
	return m, replaceable(err)
}

func replaceable(err error) error {
	if err == l2cache.ErrNotFound || errors.Is(err, l2cache.ErrCorrupt) {
		return nil
	}
	return err
}

// deleteFromFull removes last and what was before, then publishes the marker, as there
// may be room for it now.
func (c *Cache) deleteFromFull(ctx context.Context, limit time.Time, b *bucket, key string, last message) error {
	args := struct {
		Subject string `json:"filter"`
		Below   uint64 `json:"seq,omitempty"`
	}{Subject: c.subjectOf(key)}
	if last.sequence != unknown {
		args.Below, last.sequence = last.sequence+1, 0
	}
	var done struct{}
	if err := b.ask(ctx, limit, apiStreamPurge+c.stream.Name, args, &done); err != nil {
		return err
	}
	_, err := c.publish(ctx, limit, b, key, marker.over(last, markerKept), nil)
	if kind(err) == l2cache.ErrFull {
		return nil // the entry is gone, as long as the server lives
	}
	return err
}

// overwriteAll is overwrite for many keys, without waiting for each reply. It hands on
// the error, or nil, of each.
func (c *Cache) overwriteAll(ctx context.Context, b *bucket, k class, items []l2cache.Item, done func(i int, err error)) {
	last := make([]message, len(items))
	left := make([]int, len(items)) // of items
	for i := range left {
		left[i], last[i].sequence = i, unknown
	}
	limit := time.Now().Add(c.opTimeout) // of refusals
	for refused := 0; len(left) > 0; refused++ {
		found := left
		if !b.volatile {
			found = c.readLasts(ctx, b, k, items, last, left, refused > 1, done)
		}
		left = c.publishAll(ctx, b, k, items, last, found, func(i int, err error) {
			limit = time.Now().Add(c.opTimeout)
			done(i, err)
		})
		if time.Now().After(limit) {
			for _, i := range left {
				done(i, errTimeout)
			}
			return
		}
	}
}

// readLasts reads what is under the keys of those items into last, if that matters, and
// returns the ones that are still to be published.
func (c *Cache) readLasts(ctx context.Context, b *bucket, k class, items []l2cache.Item, last []message, those []int, hidden bool, done func(i int, err error)) (found []int) {
	var keys []string
	var read []int
	for _, i := range those {
		if k == entry && b.lifetimeOf(items[i].TTL) == forever {
			found = append(found, i)
			continue
		}
		keys, read = append(keys, items[i].Key), append(read, i)
	}
	c.readAll(ctx, b, keys, func(n int, m message, err error) {
		i := read[n]
		removed := k == removal && err == l2cache.ErrNotFound
		if err = replaceable(err); err != nil || removed || hidden && m.hides(last[i]) {
			done(i, err)
			return
		}
		m.data = nil
		last[i] = m
		found = append(found, i)
	})
	return found
}

// publishAll publishes those items, and returns the ones that were refused as something
// has come between.
func (c *Cache) publishAll(ctx context.Context, b *bucket, k class, items []l2cache.Item, last []message, those []int, done func(i int, err error)) (refused []int) {
	ended := func(i int, err error) {
		if isOvertaken(err) {
			refused = append(refused, i)
			return
		}
		done(i, err)
	}
	var full []int
	b.doAll(ctx, c.opTimeout, batch{
		n:    len(those),
		size: func(n int) int { return len(items[those[n]].Value) + reserve },
		request: func(n int) request {
			i := those[n]
			item := items[i]
			if k != entry {
				return request{c.subjectOf(item.Key), k.over(last[i], markerKept), nil}
			}
			// Memory of its own: it may be sent after this call has returned.
			data := make([]byte, 0, envelope.Overhead+len(item.Value))
			return request{c.subjectOf(item.Key), k.over(last[i], b.lifetimeOf(item.TTL)), appendEntry(data, item.Value, item.TTL)}
		},
		reply: func(n int, m *nats.Msg, err error) {
			i := those[n]
			if err == nil {
				err = c.acknowledged(m)
			}
			if k != entry && kind(err) == l2cache.ErrFull {
				full = append(full, i)
				return
			}
			ended(i, err)
		},
	})
	for _, i := range full {
		ended(i, c.deleteFromFull(ctx, time.Now().Add(c.opTimeout), b, items[i].Key, last[i]))
	}
	return refused
}
