package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// FuzzRow: bytes that are not a row are ErrCorrupt, and what is accepted is exactly what
// the cache would write. With sum the row is given a checksum that is right, which the
// fuzzer would not find.
func FuzzRow(f *testing.F) {
	for _, ttl := range []time.Duration{time.Millisecond, time.Hour, l2cache.NoExpiry} {
		for _, value := range []string{"", "value"} {
			h := envelope.NewHeader(time.Unix(1, 0), ttl)
			f.Add("key", newRecord("key", h, []byte(value), chunkLen).row, false)
			f.Add("key", append(h.Append([]byte{inChunks}), "\x00\x00\x00\x05\x01\x02\x03\x04crc."...), true)
		}
	}
	f.Add("", []byte{}, false)
	f.Fuzz(func(t *testing.T, key string, row []byte, sum bool) {
		k := newRowKey(key)
		if sum && len(row) >= crcLen {
			end := len(row) - crcLen
			row = binary.BigEndian.AppendUint32(bytes.Clone(row[:end]), checksum(k, row[:end]))
		}
		before := bytes.Clone(row)
		h, kind, body, err := decodeRow(k, row)
		_, copiedKind, copied, copyErr := copyRow(k, row)
		if !bytes.Equal(row, before) {
			t.Fatalf("decoding changed the row %x to %x", before, row)
		}
		if (err == nil) != (copyErr == nil) || kind != copiedKind || !bytes.Equal(body, copied) {
			t.Fatalf("decodeRow(%x) = %d, %x, %v, copyRow = %d, %x, %v", row, kind, body, err, copiedKind, copied, copyErr)
		}
		deadline, rows, ok := peek(row)
		if err != nil {
			if !errors.Is(err, l2cache.ErrCorrupt) {
				t.Fatalf("decodeRow(%x) = %v, want ErrCorrupt", row, err)
			}
			return
		}
		if !ok || deadline != ends(h) || rows < 1 {
			t.Fatalf("peek(%x) = %d, %d, %v; want the deadline %d", row, deadline, rows, ok, ends(h))
		}
		again := append(h.Append([]byte{kind}), body...)
		again = binary.BigEndian.AppendUint32(again, checksum(k, again))
		if !bytes.Equal(again, row) || !bytes.Equal(withHeader(k, row, h), row) {
			t.Fatalf("decodeRow accepts %x, of which it makes %x", row, again)
		}
	})
}
