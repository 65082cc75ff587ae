package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/envelope"
)

// The stored form. An entry is one row under 'e' and its key:
//
//	offset  size  field
//	     0     1  kind: 1 or 2
//	     1    20  envelope header
//	    21        kind 1: the value
//	              kind 2: length (4) and CRC-32C (4) of the value
//	    -4     4  CRC-32C of the key and of all bytes of the row before
//
// A value of kind 2 is in chunks, which are rows under 'c', length of the key
// (2), the key, and number of the chunk (4): all chunks of a key lie together,
// and no other key's among them. Integers are big-endian. A row of its own, 'v',
// holds the version of all this, one byte. Because the first byte says what a row
// is, no key of a user leads to another kind.
//
// These bytes are API: every later version reads them.
const (
	formatVersion = 1

	rowPrefix   = 'e'
	chunkPrefix = 'c'

	inRow    = 1
	inChunks = 2

	crcLen      = 4
	headLen     = 1 + envelope.Overhead
	minRowLen   = headLen + crcLen
	chunkedBody = 4 + 4

	// chunkLen is the length of the longest value that is kept in its row, and of
	// each chunk but the last of one that is not. Bbolt puts a row on contiguous
	// pages: in a file that many deletes have left in pieces, a few are found where
	// the 256 for a value of 1 MiB are not. Readers take chunks of any length.
	chunkLen = 16_000

	// maxValueLen is what one commit takes, at about 0.1 s per Set.
	maxValueLen = 16 << 20
)

var (
	versionKey = []byte("v")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A rowKey is the key of an entry's row: rowPrefix and the user's key.
type rowKey []byte

func newRowKey(key string) rowKey {
	return appendRowKey(make([]byte, 0, 1+len(key)), key)
}

func appendRowKey(dst []byte, key string) rowKey {
	return append(append(dst, rowPrefix), key...)
}

func (k rowKey) user() []byte { return k[1:] }

// chunk returns the key of the chunk of number i.
func (k rowKey) chunk(i int) []byte {
	c := make([]byte, 0, 1+2+len(k.user())+4)
	c = append(c, chunkPrefix)
	c = binary.BigEndian.AppendUint16(c, uint16(len(k.user())))
	c = append(c, k.user()...)
	return binary.BigEndian.AppendUint32(c, uint32(i))
}

// chunks returns what the keys of all chunks begin with, and nothing else does.
func (k rowKey) chunks() []byte {
	c := k.chunk(0)
	return c[:len(c)-4]
}

// A record is an entry as it is stored.
type record struct {
	key    rowKey
	row    []byte
	chunks []byte // the value, if it is not in the row

	rowLen int
}

// newRecord copies value. Its length is at most maxValueLen. The longest that is kept
// in the row, and each chunk but the last, has rowLen bytes.
func newRecord(key string, h envelope.Header, value []byte, rowLen int) record {
	r := record{key: newRowKey(key), rowLen: rowLen}
	if len(value) <= rowLen {
		r.row = make([]byte, 0, minRowLen+len(value))
		r.row = h.Append(append(r.row, inRow))
		r.row = append(r.row, value...)
	} else {
		r.row = make([]byte, 0, minRowLen+chunkedBody)
		r.row = h.Append(append(r.row, inChunks))
		r.row = binary.BigEndian.AppendUint32(r.row, uint32(len(value)))
		r.row = binary.BigEndian.AppendUint32(r.row, crc32.Checksum(value, castagnoli))
		r.chunks = bytes.Clone(value)
	}
	r.row = binary.BigEndian.AppendUint32(r.row, checksum(r.key, r.row))
	return r
}

// rows is how many rows the record has.
func (r record) rows() int { return 1 + (len(r.chunks)+r.rowLen-1)/r.rowLen }

// put stores the record and removes what is left of the one before. Bbolt reads
// row and chunks until the transaction ends.
func (r record) put(b *bbolt.Bucket) error {
	old := b.Get(r.key)
	chunks := 0
	for chunk := range slices.Chunk(r.chunks, r.rowLen) {
		if err := b.Put(r.key.chunk(chunks), chunk); err != nil {
			return err
		}
		chunks++
	}
	if mayHaveChunks(r.key, old) {
		if err := deleteChunks(b, r.key, chunks); err != nil {
			return err
		}
	}
	err := b.Put(r.key, r.row)
	if errors.Is(err, berrors.ErrIncompatibleValue) { // a bucket, which is not ours
		if err := b.DeleteBucket(r.key); err != nil {
			return err
		}
		err = b.Put(r.key, r.row)
	}
	return err
}

// remove deletes an entry's rows, and reports whether there were any.
func remove(b *bbolt.Bucket, k rowKey) (bool, error) {
	row := b.Get(k)
	if mayHaveChunks(k, row) {
		if err := deleteChunks(b, k, 0); err != nil {
			return false, err
		}
	}
	err := b.Delete(k)
	if errors.Is(err, berrors.ErrIncompatibleValue) {
		return true, b.DeleteBucket(k)
	}
	return row != nil, err
}

// mayHaveChunks is false if row is nil, or certainly holds its value itself. A
// damaged row may have had chunks.
func mayHaveChunks(k rowKey, row []byte) bool {
	if row == nil {
		return false
	}
	_, kind, _, err := decodeRow(k, row)
	return err != nil || kind != inRow
}

// deleteChunks deletes an entry's chunks from number from on.
func deleteChunks(b *bbolt.Bucket, key rowKey, from int) error {
	first, prefix := key.chunk(from), key.chunks()
	c := b.Cursor()
	// Each time from the start: a cursor is not sure to stand right after Delete.
	for k, _ := c.Seek(first); bytes.HasPrefix(k, prefix); k, _ = c.Seek(first) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// withHeader returns a row that decodeRow accepts with another header in it.
func withHeader(k rowKey, row []byte, h envelope.Header) []byte {
	changed := make([]byte, 0, len(row))
	changed = h.Append(append(changed, row[0]))
	changed = append(changed, row[len(changed):len(row)-crcLen]...)
	return binary.BigEndian.AppendUint32(changed, checksum(k, changed))
}

// decodeRow checks row, and splits it into header, kind and the body between
// header and checksum, which is a part of row.
func decodeRow(k rowKey, row []byte) (h envelope.Header, kind byte, body []byte, err error) {
	if len(row) < minRowLen {
		return h, 0, nil, fmt.Errorf("%w: a row of %d bytes", l2cache.ErrCorrupt, len(row))
	}
	return decodeParts(k, row, row[headLen:len(row)-crcLen])
}

// copyRow is decodeRow with a copy of the body. The checksum is that of the copy,
// which is in the processor's cache: of 10,000 B that lie elsewhere in memory, to
// copy and then check takes 2.2 µs, to check and then copy 3.0 µs.
func copyRow(k rowKey, row []byte) (h envelope.Header, kind byte, body []byte, err error) {
	if len(row) < minRowLen {
		return decodeRow(k, row)
	}
	return decodeParts(k, row, bytes.Clone(row[headLen:len(row)-crcLen]))
}

// decodeParts checks and decodes a row with this body, the row's own or a copy.
func decodeParts(k rowKey, row, body []byte) (envelope.Header, byte, []byte, error) {
	crc := crc32.Update(checksum(k, row[:headLen]), castagnoli, body)
	if binary.BigEndian.Uint32(row[len(row)-crcLen:]) != crc {
		return envelope.Header{}, 0, nil, fmt.Errorf("%w: checksum of the row", l2cache.ErrCorrupt)
	}
	kind := row[0]
	if kind != inRow && (kind != inChunks || len(body) != chunkedBody) {
		return envelope.Header{}, 0, nil, fmt.Errorf("%w: row of kind %d", l2cache.ErrCorrupt, kind)
	}
	h, _, err := envelope.Decode(row[1:headLen])
	if err != nil {
		return envelope.Header{}, 0, nil, err
	}
	return h, kind, body, nil
}

// peek returns when a row ends and how many rows its entry has, unchecked, and
// without reading more than the beginning of the row.
func peek(row []byte) (deadline int64, rows int, ok bool) {
	if len(row) < minRowLen {
		return 0, 0, false
	}
	h, rest, err := envelope.Decode(row[1:])
	if err != nil {
		return 0, 0, false
	}
	rows = 1
	if row[0] == inChunks && len(rest) == chunkedBody+crcLen {
		rows += int(binary.BigEndian.Uint32(rest)/chunkLen) + 1
	}
	return ends(h), rows, true
}

// ends returns the deadline of an entry, never if it has none.
func ends(h envelope.Header) int64 {
	if h.Deadline == 0 {
		return never
	}
	return h.Deadline
}

// valueLen returns the length of the value of an entry whose row has been decoded.
func valueLen(kind byte, body []byte) int {
	if kind == inRow {
		return len(body)
	}
	return int(binary.BigEndian.Uint32(body))
}

// readChunks returns a copy of the value of an entry in chunks whose row has been
// decoded. It moves the cursor.
func readChunks(c *bbolt.Cursor, key rowKey, body []byte) ([]byte, error) {
	length, want := valueLen(inChunks, body), binary.BigEndian.Uint32(body[4:])
	if length > maxValueLen {
		return nil, fmt.Errorf("%w: a value of %d bytes", l2cache.ErrCorrupt, length)
	}
	value, crc := make([]byte, 0, length), uint32(0)
	first, prefix := key.chunk(0), key.chunks()
	for k, chunk := c.Seek(first); len(value) < length && bytes.HasPrefix(k, prefix); k, chunk = c.Next() {
		if len(value)+len(chunk) > length {
			break
		}
		value = append(value, chunk...)
		crc = crc32.Update(crc, castagnoli, value[len(value)-len(chunk):])
	}
	if len(value) != length || crc != want {
		return nil, fmt.Errorf("%w: checksum of a value of %d bytes", l2cache.ErrCorrupt, length)
	}
	return value, nil
}

// checksum covers the user's key too, so that a row under another key is noticed.
func checksum(k rowKey, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(k.user(), castagnoli), castagnoli, row)
}
