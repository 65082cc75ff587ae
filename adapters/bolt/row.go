package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
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
	minRowLen   = 1 + envelope.Overhead + crcLen
	chunkedBody = 4 + 4

	// chunkLen is the length of the longest value that is kept in its row, and of
	// each chunk but the last of one that is not. bbolt puts a row on contiguous
	// pages: in a file that many deletes have left in pieces, four are found where
	// 256 for a value of 1 MiB are not. Readers take chunks of any length.
	chunkLen = 16_000

	// maxValueLen is what one commit takes, at about 0.1 s per Set.
	maxValueLen = 16 << 20
)

var (
	versionKey = []byte("v")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func appendRowKey(dst []byte, key string) []byte {
	return append(append(dst, rowPrefix), key...)
}

// appendChunksKey appends what the keys of all chunks of key begin with.
func appendChunksKey(dst []byte, key string) []byte {
	dst = append(dst, chunkPrefix)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(key)))
	return append(dst, key...)
}

func chunkKey(key string, i int) []byte {
	k := make([]byte, 0, 1+2+len(key)+4)
	return binary.BigEndian.AppendUint32(appendChunksKey(k, key), uint32(i))
}

// A record is an entry as it is stored.
type record struct {
	key    string
	row    []byte
	chunks []byte // the value, if it is not in the row
}

// newRecord copies value. Its length is at most maxValueLen.
func newRecord(key string, h envelope.Header, value []byte) record {
	r := record{key: key}
	if len(value) <= chunkLen {
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
	r.row = binary.BigEndian.AppendUint32(r.row, checksum(key, r.row))
	return r
}

// rows is how many rows the record has.
func (r record) rows() int { return 1 + (len(r.chunks)+chunkLen-1)/chunkLen }

// put stores the record and removes what is left of the one before. Bbolt reads
// row and chunks until the transaction ends.
func (r record) put(b *bbolt.Bucket) error {
	k := appendRowKey(nil, r.key)
	old := b.Get(k)
	chunks := 0
	for chunk := range slices.Chunk(r.chunks, chunkLen) {
		if err := b.Put(chunkKey(r.key, chunks), chunk); err != nil {
			return err
		}
		chunks++
	}
	if mayHaveChunks(r.key, old) {
		if err := deleteChunks(b, r.key, chunks); err != nil {
			return err
		}
	}
	err := b.Put(k, r.row)
	if errors.Is(err, berrors.ErrIncompatibleValue) { // a bucket, which is not ours
		if err := b.DeleteBucket(k); err != nil {
			return err
		}
		err = b.Put(k, r.row)
	}
	return err
}

// remove deletes key's rows, and reports whether there were any.
func remove(b *bbolt.Bucket, key string) (bool, error) {
	k := appendRowKey(nil, key)
	row := b.Get(k)
	if mayHaveChunks(key, row) {
		if err := deleteChunks(b, key, 0); err != nil {
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
func mayHaveChunks(key string, row []byte) bool {
	if row == nil {
		return false
	}
	_, kind, _, err := decodeRow(key, row)
	return err != nil || kind != inRow
}

// deleteChunks deletes the chunks of key from number from on.
func deleteChunks(b *bbolt.Bucket, key string, from int) error {
	first := chunkKey(key, from)
	prefix := first[:len(first)-4]
	c := b.Cursor()
	// Each time from the start: a cursor is not sure to stand right after Delete.
	for k, _ := c.Seek(first); bytes.HasPrefix(k, prefix); k, _ = c.Seek(first) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// decodeRow checks row, and splits it into header, kind and the body between
// header and checksum, which is a part of row.
func decodeRow(key string, row []byte) (h envelope.Header, kind byte, body []byte, err error) {
	if len(row) < minRowLen {
		return h, 0, nil, fmt.Errorf("%w: a row of %d bytes", l2cache.ErrCorrupt, len(row))
	}
	end := len(row) - crcLen
	if binary.BigEndian.Uint32(row[end:]) != checksum(key, row[:end]) {
		return h, 0, nil, fmt.Errorf("%w: checksum of the row", l2cache.ErrCorrupt)
	}
	kind = row[0]
	if kind != inRow && (kind != inChunks || end != 1+envelope.Overhead+chunkedBody) {
		return h, 0, nil, fmt.Errorf("%w: row of kind %d", l2cache.ErrCorrupt, kind)
	}
	h, body, err = envelope.Decode(row[1:end])
	return h, kind, body, err
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
	if h.Deadline == 0 {
		return math.MaxInt64, rows, true
	}
	return h.Deadline, rows, true
}

// readValue returns a copy of the value of an entry whose row has been decoded.
func readValue(b *bbolt.Bucket, key string, kind byte, body []byte) ([]byte, error) {
	if kind == inRow {
		value := make([]byte, len(body))
		copy(value, body)
		return value, nil
	}
	length := int(binary.BigEndian.Uint32(body))
	crc := binary.BigEndian.Uint32(body[4:])
	if length > maxValueLen {
		return nil, fmt.Errorf("%w: a value of %d bytes", l2cache.ErrCorrupt, length)
	}
	value := make([]byte, 0, length)
	first := chunkKey(key, 0)
	prefix := first[:len(first)-4]
	c := b.Cursor()
	for k, chunk := c.Seek(first); len(value) < length && bytes.HasPrefix(k, prefix); k, chunk = c.Next() {
		if len(value)+len(chunk) > length {
			break
		}
		value = append(value, chunk...)
	}
	if len(value) != length || crc32.Checksum(value, castagnoli) != crc {
		return nil, fmt.Errorf("%w: checksum of a value of %d bytes", l2cache.ErrCorrupt, length)
	}
	return value, nil
}

// checksum covers the key too, so that a row under another key is noticed.
func checksum(key string, row []byte) uint32 {
	var buf [64]byte
	return crc32.Update(crc32.Update(0, castagnoli, append(buf[:0], key...)), castagnoli, row)
}
