package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/l2cache/l2cache"
)

func init() { l2cache.Register("bolt", open) }

func open(ctx context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
	o := &Options{
		NoSync:        !p.Bool("sync", true),
		SweepInterval: p.Duration("sweep_interval", time.Minute),
		OpTimeout:     p.OpTimeout,
	}
	wait := p.Duration("open_timeout", p.DialTimeout-p.DialTimeout/10)
	if wait >= p.DialTimeout {
		p.Fault("open_timeout", "it is not shorter than dial_timeout, %v", p.DialTimeout)
	}
	switch {
	case p.User != "" || p.Password.Reveal() != "":
		p.Fault("user", "a file has no user and no password")
	case len(p.Hosts) > 0:
		p.Fault("URL", "write bolt:///absolute/file.db or bolt:relative/file.db; after two slashes comes a host")
	case p.Path == "" || strings.HasSuffix(p.Path, "/"):
		p.Fault("path", "it names no file, as in bolt:///absolute/file.db or bolt:relative/file.db")
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	c, err := openPath(ctx, filePath(p.Path, runtime.GOOS == "windows"), wait, o)
	if err != nil {
		return nil, l2cache.NewError(ctx, "bolt", "open", "", kind(err), err)
	}
	return c, nil
}

// filePath is the name of the file that the path of a URL stands for. On Windows
// bolt:///C:/file.db is C:/file.db.
func filePath(path string, windows bool) string {
	if windows && len(path) > 2 && path[0] == '/' && path[2] == ':' {
		return path[1:]
	}
	return path
}

// errLocked: somebody has the file open.
var errLocked = errors.New("locked")

// pollInterval is the time between two attempts on a lock.
const pollInterval = 10 * time.Millisecond

// openPath opens the database at path, and waits for that until ctx ends or wait
// has passed.
func openPath(ctx context.Context, path string, wait time.Duration, o *Options) (*Cache, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	start := time.Now()
	for {
		c, err := tryOpen(path, o)
		if err != errLocked {
			if err == nil {
				c.start()
			}
			return c, err
		}
		if time.Since(start) >= wait {
			return nil, fmt.Errorf("%w: %s is open in another process, or by another handle of this one; waited %v",
				l2cache.ErrUnavailable, path, wait)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

// create opens a file, and says whether it was not there before.
func create(path string) (f *os.File, isNew bool, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		return f, false, err
	}
	return f, err == nil, err
}

// tryOpen opens the database at path unless it is locked, which is errLocked. A
// file that it refuses has no lock file beside it that was not there before.
func tryOpen(path string, o *Options) (_ *Cache, err error) {
	lock, err := tryLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.drop()
		}
	}()
	db, file, err := openDB(path, o.NoSync)
	if err != nil {
		return nil, err
	}
	c, err := newCache(db, o)
	if err != nil {
		db.Close()
		return nil, err
	}
	closeDB := func() error {
		if c.broken.Load() != nil {
			return abandon(file) // db.Close would wait for locks that are lost
		}
		return db.Close()
	}
	err = c.checkFile(file)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		closeDB() // the error that led here is the one to report
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.release = func() error { return errors.Join(closeDB(), lock.Close()) }
	return c, nil
}

// openDB opens the file as a database. An error that is neither the file system's
// nor errLocked means that the file is not a database or damaged, and is
// ErrCorrupt.
func openDB(path string, noSync bool) (db *bbolt.DB, file *os.File, err error) {
	faults := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(faults)
		if p := recover(); p != nil {
			abandon(file)
			db, file, err = nil, nil, fmt.Errorf("%w: %s: %v", l2cache.ErrCorrupt, path, p)
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      1, // one attempt
		NoSync:       noSync,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true, // counting costs a read about 50 ns
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	})
	var pathErr *fs.PathError
	var errno syscall.Errno
	switch {
	case err == nil:
		return db, file, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, errLocked
	case errors.As(err, &pathErr): // it has the path
		return nil, nil, err
	case errors.As(err, &errno):
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return nil, nil, fmt.Errorf("%w: %s: %v", l2cache.ErrCorrupt, path, err)
}

// checkFile returns an error if the file is shorter than its pages, or somebody
// else's: it has buckets, but not the cache's.
func (c *Cache) checkFile(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return c.view(func(tx *bbolt.Tx) error {
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: the file was truncated to %d bytes, of %d that are in use",
				l2cache.ErrCorrupt, info.Size(), tx.Size())
		}
		if name, _ := tx.Cursor().First(); name != nil && tx.Bucket(c.bucket) == nil {
			return fmt.Errorf("%w: the database is another program's: it has a bucket %q and none of this package",
				l2cache.ErrCorrupt, name)
		}
		return checkBucket(tx, c.bucket)
	})
}
