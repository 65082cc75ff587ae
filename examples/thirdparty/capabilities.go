package sqlitecache

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/l2cache/l2cache"
)

const supports = l2cache.CanTouch | l2cache.CanAdd | l2cache.CanScan

// Touch changes the deadline of a live row.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	ttl, err := c.checkWrite(ctx, "touch", key, nil, ttl)
	if err != nil {
		return err
	}
	return c.write(ctx, "touch", key, func(ctx context.Context, tx *sql.Tx, now time.Time) error {
		if _, err := find(ctx, tx.QueryRowContext, key, now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE entries SET deadline = ?, ttl = ? WHERE key = ?`,
			l2cache.Deadline(now, ttl), int64(ttl), []byte(key))
		return err
	})
}

// Add stores a row unless there is a live one.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	ttl, err := c.checkWrite(ctx, "add", key, value, ttl)
	if err != nil {
		return false, err
	}
	free := false
	err = c.write(ctx, "add", key, func(ctx context.Context, tx *sql.Tx, now time.Time) error {
		_, err := find(ctx, tx.QueryRowContext, key, now)
		if free = errors.Is(err, l2cache.ErrNotFound); free {
			err = put(ctx, tx, key, value, ttl, now)
		}
		return err
	})
	return free && err == nil, err
}

// Scan reads a page of rows, and yields them when it holds nothing any more.
func (c *Cache) Scan(ctx context.Context, prefix string) iter.Seq2[l2cache.Info, error] {
	return func(yield func(l2cache.Info, error) bool) {
		for from, more := prefix, true; more; {
			var page []l2cache.Info
			err := c.do(ctx, "scan", "", func(ctx context.Context) (err error) {
				page, from, more, err = c.page(ctx, prefix, from)
				return err
			})
			if err != nil {
				yield(l2cache.Info{}, err)
				return
			}
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// page returns the live entries among the next rows that begin with prefix, and the key
// to go on from if there may be more.
func (c *Cache) page(ctx context.Context, prefix, from string) (page []l2cache.Info, next string, more bool, err error) {
	now := time.Now()
	rows, err := c.db.QueryContext(ctx, `SELECT key, length(value), deadline, ttl FROM entries WHERE key >= ? ORDER BY key LIMIT 1000`, []byte(from))
	if err != nil {
		return nil, "", false, err
	}
	defer rows.Close()
	for rows.Next() {
		var info l2cache.Info
		var deadline, ttl int64
		if err := rows.Scan(&info.Key, &info.Size, &deadline, &ttl); err != nil {
			return nil, "", false, err
		}
		if !strings.HasPrefix(info.Key, prefix) {
			return page, "", false, nil
		}
		if info.TTL, err = remaining(now, deadline, ttl); err == nil {
			page = append(page, info)
		}
		next, more = info.Key+"\x00", true // the first key that can follow
	}
	return page, next, more, rows.Err()
}
