package bolt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/bolt"
	"github.com/l2cache/l2cache/conformance"
	"github.com/l2cache/l2cache/envelope"
)

func TestConformance(t *testing.T) {
	t.Run("defaults", func(t *testing.T) { testConformance(t, "") })
	t.Run("bounded", func(t *testing.T) { testConformance(t, "sync=false&verify=never&max_bytes=67108864") })
}

func testConformance(t *testing.T, options string) {
	dir := t.TempDir()
	var mu sync.Mutex
	opened := map[string]*bbolt.DB{} // by namespace: the handle that is or was open; guarded by mu
	file := func(namespace string) string { return filepath.Join(dir, namespace+".db") }

	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		c, err := l2cache.Open(ctx, "bolt:"+file(namespace)+patience+"open_timeout=2s&"+options)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		opened[namespace] = c.(*bolt.Cache).DB()
		return c, nil
	}
	conformance.Run(t, open, &conformance.Options{
		Strict:    true,
		OpTimeout: opTimeout,
		InProcess: true,
		// The handle under test has the file to itself, so look over its shoulder.
		Raw: raw(func(namespace string) (*bbolt.DB, []byte) {
			mu.Lock()
			defer mu.Unlock()
			return opened[namespace], []byte("l2cache")
		}),
	})
}

func TestConformanceOfNew(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	dbs := map[string]*bbolt.DB{} // by namespace; guarded by mu
	db := func(namespace string) *bbolt.DB {
		mu.Lock()
		defer mu.Unlock()
		if dbs[namespace] == nil {
			dbs[namespace] = openDB(t, filepath.Join(dir, namespace+".db"), nil)
		}
		return dbs[namespace]
	}
	open := func(_ context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return bolt.New(db(namespace), &bolt.Options{Bucket: "cache", OpTimeout: opTimeout})
	}
	conformance.Run(t, open, &conformance.Options{
		Strict:    true,
		OpTimeout: opTimeout,
		InProcess: true,
		Raw:       raw(func(namespace string) (*bbolt.DB, []byte) { return db(namespace), []byte("cache") }),
	})
}

// raw reads and damages the rows of the database and bucket that where names.
func raw(where func(namespace string) (*bbolt.DB, []byte)) *conformance.Raw {
	stored := func(_ context.Context, namespace, key string) (found bool, err error) {
		db, bucket := where(namespace)
		err = db.View(func(tx *bbolt.Tx) error {
			k, _ := tx.Bucket(bucket).Cursor().Seek(rowKey(key)) // Get does not see a bucket
			found = bytes.Equal(k, rowKey(key))
			return nil
		})
		return found, err
	}
	damage := func(name string, do func(b *bbolt.Bucket, key string) error) conformance.Damage {
		return conformance.Damage{Name: name, Do: func(_ context.Context, namespace, key string) error {
			db, bucket := where(namespace)
			return db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket(bucket), key) })
		}}
	}
	rewrite := func(name string, change func(row []byte) []byte) conformance.Damage {
		return damage(name, func(b *bbolt.Bucket, key string) error {
			old := bytes.Clone(b.Get(rowKey(key)))
			if old == nil {
				return errors.New("there is no row to damage")
			}
			return b.Put(rowKey(key), change(old))
		})
	}
	return &conformance.Raw{
		Stored: stored,
		Damage: []conformance.Damage{
			rewrite("bit flip in the kind", func(row []byte) []byte { row[0] ^= 2; return row }),
			rewrite("bit flip in the deadline", func(row []byte) []byte { row[8] ^= 1; return row }),
			rewrite("bit flip in the value", func(row []byte) []byte { row[len(row)-5] ^= 0x40; return row }),
			rewrite("bit flip in the checksum", func(row []byte) []byte { row[len(row)-1] ^= 1; return row }),
			rewrite("truncated row", func(row []byte) []byte { return row[:len(row)-1] }),
			rewrite("empty row", func([]byte) []byte { return nil }),
			rewrite("foreign bytes", func([]byte) []byte { return []byte("written by another program altogether") }),
			rewrite("row of another key", func([]byte) []byte {
				return row("another", envelope.NewHeader(time.Now(), time.Hour), "value")
			}),
			damage("bucket under the key", func(b *bbolt.Bucket, key string) error {
				if err := b.Delete(rowKey(key)); err != nil {
					return err
				}
				_, err := b.CreateBucket(rowKey(key))
				return err
			}),
		},
	}
}

func rowKey(key string) []byte { return append([]byte("e"), key...) }

// row is what the package documents as the stored form of a short value.
func row(key string, h envelope.Header, value string) []byte {
	b := append(h.Append([]byte{1}), value...)
	crc := crc32.Checksum(append([]byte(key), b...), crc32.MakeTable(crc32.Castagnoli))
	return binary.BigEndian.AppendUint32(b, crc)
}
