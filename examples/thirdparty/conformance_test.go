package sqlitecache

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/conformance"
)

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	file := func(namespace string) string { return filepath.ToSlash(filepath.Join(dir, namespace+".db")) }
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, "sqlite:"+file(namespace)+"?op_timeout=1m&dial_timeout=1m") // the machine may be busy
	}
	conformance.Run(t, open, &conformance.Options{
		Strict:      true,
		OpTimeout:   time.Minute,
		CaseTimeout: 5 * time.Minute,
		Parallel:    8, // what keeps the processor busy gains nothing by more
		InProcess:   true,
		Require:     l2cache.CanTouch | l2cache.CanAdd | l2cache.CanScan,
		Raw: &conformance.Raw{
			Stored: func(ctx context.Context, namespace, key string) (stored bool, err error) {
				err = raw(file(namespace), func(db *sql.DB) error {
					return db.QueryRowContext(ctx, `SELECT count(*) > 0 FROM entries WHERE key = ?`, []byte(key)).Scan(&stored)
				})
				return stored, err
			},
			Damage: []conformance.Damage{
				damage(file, "a deadline before 1970", `UPDATE entries SET deadline = -1 WHERE key = ?`),
				damage(file, "no deadline, but a TTL", `UPDATE entries SET deadline = 0 WHERE key = ?`),
				damage(file, "a deadline, but no TTL", `UPDATE entries SET ttl = 0 WHERE key = ?`),
				damage(file, "a deadline, and a TTL without end", `UPDATE entries SET ttl = 0x7fffffffffffffff WHERE key = ?`),
			},
		},
	})
}

// damage is a way to damage the row of a key.
func damage(file func(namespace string) string, name, statement string) conformance.Damage {
	return conformance.Damage{Name: name, Do: func(ctx context.Context, namespace, key string) error {
		return raw(file(namespace), func(db *sql.DB) error {
			result, err := db.ExecContext(ctx, statement, []byte(key))
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n == 1 {
				return err
			}
			return errors.New("there is no row to damage")
		})
	}}
}

// raw opens file beside the backend under test.
func raw(file string, f func(*sql.DB) error) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?_busy_timeout=1000")
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}
