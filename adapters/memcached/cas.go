package memcached

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/l2cache/l2cache"
)

var (
	_ l2cache.Toucher = (*Cache)(nil)
	_ l2cache.Adder   = (*Cache)(nil)
)

// Touch sends a gets, and a cas of the value with the new deadline.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) error {
	if err := l2cache.Preflight(ctx, name, "touch", key, c.closed()); err != nil {
		return err
	}
	if c.noCAS {
		return c.fail(ctx, "touch", key, errNoCAS)
	}
	ttl, err := l2cache.CheckTTL(ttl, resolution)
	if err != nil {
		return c.fail(ctx, "touch", key, err)
	}
	itemKey := itemKey(key)
	err = c.store.write(ctx, itemKey, func(client *memcache.Client) error {
		return c.untilNoConflict(ctx, func() error { return touch(client, itemKey, key, ttl) })
	})
	if err != nil {
		return c.fail(ctx, "touch", key, err)
	}
	return nil
}

func touch(client *memcache.Client, itemKey, key string, ttl time.Duration) error {
	item, err := client.Get(itemKey)
	if err != nil {
		return err
	}
	now := time.Now()
	e, err := entry(item, key, now)
	if err != nil {
		return err
	}
	out := encode(key, e.Value, now, ttl)
	defer out.free()
	return swap(client, out, item.CasID)
}

// Add sends an add. When the server has an item, a gets tells whether that has ended,
// and if so a cas replaces it.
func (c *Cache) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := l2cache.Preflight(ctx, name, "add", key, c.closed()); err != nil {
		return false, err
	}
	if c.noCAS {
		return false, c.fail(ctx, "add", key, errNoCAS)
	}
	ttl, err := c.check(value, ttl)
	if err != nil {
		return false, c.fail(ctx, "add", key, err)
	}
	out := encode(key, value, time.Now(), ttl)
	err = c.store.write(ctx, out.Key, func(client *memcache.Client) error {
		defer out.free() // here: an add that was left to itself still reads it
		return c.untilNoConflict(ctx, func() error { return add(client, out, key) })
	})
	if errors.Is(err, errTaken) {
		return false, nil
	}
	if err != nil {
		return false, c.fail(ctx, "add", key, err)
	}
	return true, nil
}

// add returns errTaken if there is an entry under key.
func add(client *memcache.Client, out *outgoing, key string) error {
	if err := client.Add(&out.Item); !errors.Is(err, memcache.ErrNotStored) {
		return err
	}
	item, err := client.Get(out.Key)
	if err == nil {
		_, err = entry(item, key, time.Now())
		switch {
		case err == nil:
			return errTaken
		case err == l2cache.ErrNotFound:
			err = swap(client, out, item.CasID)
		}
	}
	if errors.Is(err, memcache.ErrCacheMiss) {
		return memcache.ErrCASConflict // the item has gone since the add
	}
	return err
}

var errTaken = errors.New("there is an entry under the key")

// swap puts out in the place of the item that has the CAS id, or returns
// ErrCASConflict, or ErrCacheMiss. It is sent once.
func swap(client *memcache.Client, out *outgoing, id uint64) error {
	if id == 0 {
		return errNoCAS
	}
	out.CasID = id
	return client.CompareAndSwap(&out.Item)
}

// untilNoConflict runs f, and again after an ErrCASConflict, that is when somebody
// else changed the item after f had read it, for as long as op_timeout.
func (c *Cache) untilNoConflict(ctx context.Context, f func() error) error {
	for deadline := time.Now().Add(c.opTimeout); ; {
		err := f()
		// ctx and Close end the wait for f, which with a caller's client is not all.
		if !errors.Is(err, memcache.ErrCASConflict) || ctx.Err() != nil || c.closed() || time.Now().After(deadline) {
			return err
		}
	}
}

// errNoCAS is what Touch and Add return when items have no CAS id.
var errNoCAS = fmt.Errorf("%w: the server was started with -C, which disables CAS", errors.ErrUnsupported)

// noCAS reports whether a server says that it was started with -C. One that does not
// say so, or does not answer, is taken at its word later, by swap.
func (ss *servers) noCAS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, ss.list[0].opTimeout) // one for all
	defer cancel()
	return slices.ContainsFunc(ss.list, func(s *server) bool { return s.noCAS(ctx) })
}

// noCAS asks for the settings, for which gomemcache has no method.
func (s *server) noCAS(ctx context.Context) bool {
	conn, err := s.dial(ctx, s.addr.Network(), s.addr.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, "stats settings\r\n"); err != nil {
		return false
	}
	for lines := bufio.NewScanner(conn); lines.Scan() && strings.HasPrefix(lines.Text(), "STAT "); {
		if lines.Text() == "STAT cas_enabled no" {
			return true
		}
	}
	return false
}
