package natskv

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// A message is the last one that was published under a key.
type message struct {
	sequence uint64   // in the stream; 0: there is none
	kept     lifetime // by the server
	derived  bool     // what is in it depends on the message before: see derivedHeader
	data     []byte
}

// entry returns the entry in the message, or ErrNotFound if it has expired.
func (m message) entry() (l2cache.Entry, error) {
	h, value, err := envelope.Decode(m.data)
	if err != nil {
		return l2cache.Entry{}, err
	}
	left, live := h.Remaining(time.Now(), resolution)
	if !live {
		return l2cache.Entry{}, l2cache.ErrNotFound
	}
	return l2cache.Entry{Value: value, TTL: left}, nil
}

// read returns the message under key. If there is none, or the marker of a deletion,
// the error is ErrNotFound; of a marker there is all but data.
func (c *Cache) read(ctx context.Context, limit time.Time, b *bucket, key string) (message, error) {
	if b.direct {
		m, err := b.do(ctx, limit, c.readRequest(b, key))
		if err != nil {
			return message{}, err
		}
		return readReply(b, m)
	}
	var stored message
	err := b.patiently(ctx, limit, func() error {
		m, err := b.doAgain(ctx, limit, c.readRequest(b, key))
		if err == nil {
			stored, err = readReply(b, m)
		}
		return err
	})
	return stored, err
}

func (c *Cache) readRequest(b *bucket, key string) request {
	if !b.direct {
		// What is in a subject needs no escapes in JSON.
		return request{subject: apiMessageGet + c.stream.Name, data: []byte(`{"last_by_subj":"` + c.subjectOf(key) + `"}`)}
	}
	var buf [256]byte
	subject := append(buf[:0], apiDirectGet...)
	subject = append(subject, c.stream.Name...)
	subject = append(subject, '.')
	subject = append(subject, c.subject...)
	return request{subject: string(appendKey(subject, key))}
}

// readReply returns what read does, from the reply to a readRequest.
func readReply(b *bucket, m *nats.Msg) (message, error) {
	if !b.direct {
		return leaderReply(m)
	}
	// A foreign message may have a Status of its own; the server's has no sequence.
	sequences := m.Header.Values(jetstream.SequenceHeader)
	if len(sequences) == 0 {
		if err := statusError(m); err != nil {
			return message{}, err
		}
		// The server adds its headers to those of the message, which the driver could
		// not read.
		return message{sequence: unknown, kept: forever}, fmt.Errorf("%w: headers", l2cache.ErrCorrupt)
	}
	// A foreign message may have one from where it was read; the server's is last.
	n, err := strconv.ParseUint(sequences[len(sequences)-1], 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("sequence: %w", err)
	}
	return notMarker(n, m.Header, m.Data)
}

func leaderReply(m *nats.Msg) (message, error) {
	if err := statusError(m); err != nil {
		return message{}, err
	}
	var answer struct {
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return message{}, fmt.Errorf("answer of the server: %w", err)
	case answer.Error == nil:
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return message{}, l2cache.ErrNotFound
	default:
		return message{}, answer.Error
	}
	var header nats.Header
	if len(answer.Message.Header) > 0 {
		var err error
		if header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return message{sequence: answer.Message.Sequence, kept: forever}, fmt.Errorf("%w: headers: %w", l2cache.ErrCorrupt, err)
		}
	}
	return notMarker(answer.Message.Sequence, header, answer.Message.Data)
}

// notMarker returns the message, and ErrNotFound if it is the marker of a deletion.
func notMarker(sequence uint64, header nats.Header, data []byte) (message, error) {
	expiry := header.Get(jetstream.MarkerReasonHeader) != "" // the server's marker
	m := message{sequence, lifetimeIn(header), expiry || header.Get(derivedHeader) != "", data}
	if expiry || header.Get("KV-Operation") != "" {
		m.data = nil
		return m, l2cache.ErrNotFound
	}
	return m, nil
}

// replySize is what the reply to a readRequest may need in bytes.
func (b *bucket) replySize(int) int {
	size := b.maxValue + reserve
	if !b.direct {
		size += size / 3 // base64
	}
	return size
}
