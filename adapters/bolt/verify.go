package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"math"
	"os"

	"github.com/l2cache/l2cache"
)

// Bbolt takes its pages for granted: a damaged one makes it panic, fault beyond the
// memory map, or recurse until the stack of the process is full, which nothing can
// recover from; tx.Check does the same in a goroutine of its own. So a file is read
// without it first. The format is that of bbolt's version 2, internal/common: 64-bit
// page numbers, all integers in the byte order of the machine.
const (
	fileMagic   = 0xED0CDAED
	fileVersion = 2

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	bucketElement = 0x01 // flag of a leaf's element

	pageHeaderLen   = 16 // number (8), flags (2), count (2), overflow (4)
	elementLen      = 16
	bucketHeaderLen = 16 // root page (8), sequence (8)
	metaLen         = 56 // the checksum (8) comes after it

	noFreelist = math.MaxUint64
)

// verify reads all of the file at path, and returns an ErrCorrupt if bbolt could not
// trust a page of it, or a reader of the bucket an entry. A file that is absent or
// empty is none of its business.
func verify(ctx context.Context, path, bucket string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 || info.IsDir() {
		return err
	}
	v := verifier{ctx: ctx, file: file, bucket: bucket, chunks: map[string]chunked{}}
	if err := v.verify(info.Size()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

type verifier struct {
	ctx    context.Context
	file   io.ReaderAt
	bucket string

	pageSize uint64
	pages    uint64   // in the file, free ones included
	seen     []uint64 // a bit for each page
	buffers  [][]byte // by depth in the tree
	chunks   map[string]chunked
}

// A chunked is what the chunks of a key come to.
type chunked struct {
	length uint64
	crc    uint32
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", l2cache.ErrCorrupt, fmt.Sprintf(format, args...))
}

func (v *verifier) verify(fileSize int64) error {
	m, err := v.meta()
	if err != nil {
		return err
	}
	if uint64(fileSize) < v.pages*v.pageSize {
		return damaged("the file was truncated to %d bytes, of %d that are in use", fileSize, v.pages*v.pageSize)
	}
	v.seen = make([]uint64, v.pages/64+1)
	v.see(0)
	v.see(1)
	if err := v.tree(m.root, 0, nil, nil, v.topLevel); err != nil {
		return err
	}
	return v.freelist(m.freelist)
}

// A meta is what is needed of a meta page.
type meta struct {
	pageSize        uint32
	root            uint64
	freelist, pages uint64
	txid            uint64
}

// meta returns the newer of the two meta pages. Both have to be whole: bbolt goes by
// the older one if the newer is not, and would so undo a commit that was acknowledged.
func (v *verifier) meta() (meta, error) {
	first, err := v.readMeta(0)
	if err != nil {
		return meta{}, err
	}
	size := uint64(first.pageSize)
	if size < 1024 || size > 1<<24 || size&(size-1) != 0 {
		return meta{}, damaged("a page size of %d", size)
	}
	v.pageSize = size
	m, err := v.readMeta(1)
	if err != nil {
		return meta{}, err
	}
	if first.txid > m.txid {
		m = first
	}
	if m.pages < 4 || m.pages > math.MaxInt64/size {
		return meta{}, damaged("%d pages", m.pages)
	}
	v.pages = m.pages
	return m, nil
}

func (v *verifier) readMeta(id uint64) (meta, error) {
	b := make([]byte, pageHeaderLen+metaLen+8)
	if _, err := v.file.ReadAt(b, int64(id*v.pageSize)); err != nil && err != io.EOF {
		return meta{}, err
	}
	e := binary.NativeEndian
	m := b[pageHeaderLen:]
	switch version := e.Uint32(m[4:]); {
	case e.Uint32(m) != fileMagic:
		return meta{}, damaged("meta page %d: not a bbolt database", id)
	case version != fileVersion:
		return meta{}, foreignError{damaged("meta page %d: file format version %d of bbolt; this program reads version %d", id, version, fileVersion)}
	case e.Uint16(b[8:]) != metaPage || e.Uint64(b) != id:
		return meta{}, damaged("meta page %d: damaged header", id)
	}
	sum := fnv.New64a()
	sum.Write(m[:metaLen])
	if sum.Sum64() != e.Uint64(m[metaLen:]) {
		return meta{}, damaged("meta page %d: checksum", id)
	}
	return meta{
		pageSize: e.Uint32(m[8:]),
		root:     e.Uint64(m[16:]),
		freelist: e.Uint64(m[32:]),
		pages:    e.Uint64(m[40:]),
		txid:     e.Uint64(m[48:]),
	}, nil
}

// see reports whether page id is there, and is seen for the first time.
func (v *verifier) see(id uint64) bool {
	if id >= v.pages || v.seen[id/64]&(1<<(id%64)) != 0 {
		return false
	}
	v.seen[id/64] |= 1 << (id % 64)
	return true
}

// A buffer for pages of this length is kept.
const keptBuffer = 64 << 10

// page reads a page and those that it runs over to. What it returns is good until
// the next call with this depth.
func (v *verifier) page(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= v.pages {
		return nil, damaged("page %d of %d", id, v.pages)
	}
	for len(v.buffers) <= depth {
		v.buffers = append(v.buffers, make([]byte, v.pageSize))
	}
	b := v.buffers[depth]
	at := int64(id * v.pageSize)
	if _, err := v.file.ReadAt(b[:v.pageSize], at); err != nil {
		return nil, err
	}
	overflow := uint64(binary.NativeEndian.Uint32(b[12:]))
	if binary.NativeEndian.Uint64(b) != id || overflow >= v.pages-id {
		return nil, damaged("page %d: damaged header", id)
	}
	for i := id; i <= id+overflow; i++ {
		if !v.see(i) {
			return nil, damaged("page %d is in use twice", i)
		}
	}
	length := (1 + overflow) * v.pageSize
	if overflow == 0 {
		return b[:length], nil
	}
	if uint64(len(b)) < length {
		b = make([]byte, length)
		if length <= keptBuffer {
			v.buffers[depth] = b
		}
	}
	_, err := v.file.ReadAt(b[:length], at)
	return b[:length], err
}

// An element is one of a branch or a leaf.
type element struct {
	key, value []byte // of a leaf
	child      uint64 // of a branch
	bucket     bool
}

// elementAt returns element i of a page whose elements are all there.
func elementAt(page []byte, branch bool, i int) (element, bool) {
	at := uint64(pageHeaderLen + i*elementLen)
	h, e := page[at:at+elementLen], binary.NativeEndian
	if branch {
		start, length := at+uint64(e.Uint32(h)), uint64(e.Uint32(h[4:]))
		if start+length > uint64(len(page)) {
			return element{}, false
		}
		return element{key: page[start : start+length], child: e.Uint64(h[8:])}, true
	}
	flags, start := e.Uint32(h), at+uint64(e.Uint32(h[4:]))
	keyLen, valueLen := uint64(e.Uint32(h[8:])), uint64(e.Uint32(h[12:]))
	if flags&^bucketElement != 0 || start+keyLen+valueLen > uint64(len(page)) {
		return element{}, false
	}
	return element{
		key:    page[start : start+keyLen],
		value:  page[start+keyLen : start+keyLen+valueLen],
		bucket: flags == bucketElement,
	}, true
}

// tree verifies a page and all below it: keys ascend, and are in [low, high), where
// nil is no bound. It shows the elements of leaves to visit.
func (v *verifier) tree(id uint64, depth int, low, high []byte, visit func(depth int, e element) error) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	page, err := v.page(id, depth)
	if err != nil {
		return err
	}
	return v.elements(id, page, depth, low, high, visit)
}

// elements is tree for the bytes of a page.
func (v *verifier) elements(id uint64, page []byte, depth int, low, high []byte, visit func(depth int, e element) error) error {
	if len(page) < pageHeaderLen {
		return damaged("page %d: %d bytes", id, len(page))
	}
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	branch := flags == branchPage
	if !branch && flags != leafPage || branch && count == 0 || pageHeaderLen+count*elementLen > len(page) {
		return damaged("page %d: flags %#x, %d elements", id, flags, count)
	}
	for i := range count {
		e, ok := elementAt(page, branch, i)
		if !ok {
			return damaged("page %d: element %d is out of bounds", id, i)
		}
		if bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Equal(e.key, low) || high != nil && bytes.Compare(e.key, high) >= 0 {
			return damaged("page %d: keys out of order", id)
		}
		low = e.key
		if !branch {
			if err := visit(depth, e); err != nil {
				return err
			}
			continue
		}
		end := high
		if i+1 < count {
			next, ok := elementAt(page, branch, i+1)
			if !ok {
				return damaged("page %d: element %d is out of bounds", id, i+1)
			}
			end = next.key
		}
		if err := v.tree(e.child, depth+1, e.key, end, visit); err != nil {
			return err
		}
	}
	return nil
}

// topLevel verifies a bucket of the database.
func (v *verifier) topLevel(depth int, e element) error {
	if string(e.key) == v.bucket {
		return v.subtree(depth, e, v.row)
	}
	return v.subtree(depth, e, v.foreign)
}

// foreign verifies an element of a bucket of somebody else's.
func (v *verifier) foreign(depth int, e element) error {
	if !e.bucket {
		return nil
	}
	return v.subtree(depth, e, v.foreign)
}

// subtree verifies the bucket that e is.
func (v *verifier) subtree(depth int, e element, visit func(depth int, e element) error) error {
	if !e.bucket || len(e.value) < bucketHeaderLen {
		return damaged("key %.64q: not a bucket", e.key)
	}
	root := binary.NativeEndian.Uint64(e.value)
	if root != 0 {
		return v.tree(root, depth+1, nil, nil, visit)
	}
	inline := e.value[bucketHeaderLen:]
	if len(inline) >= pageHeaderLen && binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return damaged("key %.64q: damaged bucket", e.key)
	}
	return v.elements(0, inline, depth, nil, nil, visit)
}

// row verifies a row of the bucket. All chunks come before the entries.
func (v *verifier) row(_ int, e element) error {
	const numbered = 1 + 2 + 4 // what a chunk's key has besides the user's
	switch {
	case e.bucket:
		return damaged("a bucket under the key %.64q", e.key)
	case bytes.Equal(e.key, versionKey):
		return nil
	case len(e.key) > numbered && e.key[0] == chunkPrefix:
		key := string(e.key[3 : len(e.key)-4])
		c := v.chunks[key]
		c.length += uint64(len(e.value))
		c.crc = crc32.Update(c.crc, castagnoli, e.value)
		v.chunks[key] = c
		return nil
	case len(e.key) > 1 && e.key[0] == rowPrefix:
		return v.entry(e.key, e.value)
	}
	return damaged("a row under the key %.64q", e.key)
}

func (v *verifier) entry(k rowKey, row []byte) error {
	_, kind, body, err := decodeRow(k, row)
	if err != nil {
		return fmt.Errorf("the entry under %.64q: %w", k.user(), err)
	}
	if kind != inChunks {
		return nil
	}
	c := v.chunks[string(k.user())]
	if c.length != uint64(valueLen(kind, body)) || c.crc != binary.BigEndian.Uint32(body[4:]) {
		return damaged("the entry under %.64q: checksum of %d bytes in chunks", k.user(), c.length)
	}
	delete(v.chunks, string(k.user()))
	return nil
}

// freelist verifies that no page is free that is in use, or twice. That one is
// neither does no harm.
func (v *verifier) freelist(id uint64) error {
	if id == noFreelist {
		return nil
	}
	page, err := v.page(id, 0)
	if err != nil {
		return err
	}
	ids := page[pageHeaderLen:]
	count := uint64(binary.NativeEndian.Uint16(page[10:]))
	if count == math.MaxUint16 { // the number is in front of the list then
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(page[8:]) != freelistPage || count > uint64(len(ids)/8) {
		return damaged("page %d: damaged list of free pages", id)
	}
	for i := range count {
		if free := binary.NativeEndian.Uint64(ids[8*i:]); !v.see(free) {
			return damaged("page %d is free, and in use or free twice", free)
		}
	}
	return nil
}
