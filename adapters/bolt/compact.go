package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
)

// compactBytes is about how much a commit of Compact writes.
const compactBytes = 16 << 20

// Compact replaces the file at path by one that has the entries which have not ended,
// with their deadlines, and no free pages. Nobody may have the file open: that is
// ErrUnavailable, at once. All of it is verified, and an ErrCorrupt leaves it as it is.
// A database with other buckets is errors.ErrUnsupported.
//
// The new file is written beside the old one, as path.compact, and renamed when it is
// on the disk. An error, the end of ctx and a crash before that leave the old file; the
// next Compact replaces what is left of the new one.
func Compact(ctx context.Context, path string) error {
	err := compact(ctx, path)
	if err == errLocked {
		err = fmt.Errorf("%w: %s is open", l2cache.ErrUnavailable, path)
	}
	if err != nil {
		return l2cache.NewError(ctx, "bolt", "compact", "", kind(err), err)
	}
	return nil
}

func compact(ctx context.Context, path string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	lock, err := tryLock(path + ".lock")
	if err != nil {
		return err
	}
	defer lock.drop()
	from := file{path: path, verify: true}
	src, err := from.openLocked(ctx, &Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer src.release()
	if err := src.view(src.alone); err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	name := path + ".compact"
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer os.Remove(name) // there is none if all went well
	to := file{path: name}
	dst, err := to.openLocked(ctx, &Options{NoSync: true})
	if err != nil {
		return err
	}
	err = copyLive(ctx, dst, src)
	if err == nil {
		err = dst.db.Sync()
	}
	if err := errors.Join(err, dst.release(), os.Chmod(name, info.Mode())); err != nil {
		return err
	}
	if err := src.release(); err != nil { // where an open file cannot be replaced
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// alone returns an error if the database has other buckets than the cache's.
func (c *Cache) alone(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if !bytes.Equal(name, c.bucket) {
			return fmt.Errorf("%w: the database has a bucket %q, too, which would be lost", errors.ErrUnsupported, name)
		}
		return nil
	})
}

// copyLive puts the entries of src that have not ended into dst, which is empty.
func copyLive(ctx context.Context, dst, src *Cache) error {
	for from := (rowKey{rowPrefix}); from != nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := src.view(func(in *bbolt.Tx) error {
			bucket := in.Bucket(src.bucket)
			if bucket == nil {
				from = nil
				return nil
			}
			return dst.update(func(out *bbolt.Bucket) (err error) {
				from, err = copyPage(out, bucket, from)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copyPage copies the entries from from on, compactBytes of them, and returns where to
// go on.
func copyPage(out, in *bbolt.Bucket, from rowKey) (next rowKey, err error) {
	out.FillPercent = 0.9 // keys come in order; the default leaves pages half empty
	entries, chunks := in.Cursor(), in.Cursor()
	now, size := time.Now(), 0
	for k, row := entries.Seek(from); bytes.HasPrefix(k, rowKey{rowPrefix}); k, row = entries.Next() {
		if size >= compactBytes {
			return bytes.Clone(k), nil
		}
		key := rowKey(k)
		h, kind, _, err := decodeRow(key, row)
		if err != nil {
			return nil, err
		}
		if _, live := h.Remaining(now, resolution); !live {
			continue
		}
		if err := out.Put(key, row); err != nil {
			return nil, err
		}
		size += len(key) + len(row)
		if kind != inChunks {
			continue
		}
		prefix := key.chunks()
		for k, chunk := chunks.Seek(prefix); bytes.HasPrefix(k, prefix); k, chunk = chunks.Next() {
			if err := out.Put(k, chunk); err != nil {
				return nil, err
			}
			size += len(k) + len(chunk)
		}
	}
	return nil, nil
}
