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
		ReadOnly:      p.Bool("read_only", false),
		SweepInterval: p.Duration("sweep_interval", time.Minute),
		OpTimeout:     p.OpTimeout,
	}
	f := &file{
		path:     filePath(p.Path, runtime.GOOS == "windows"),
		wait:     p.Duration("open_timeout", p.DialTimeout-p.DialTimeout/10),
		verify:   p.OneOf("verify", "open", "never") == "open",
		maxBytes: p.Int("max_bytes", 0, minMaxBytes),
		setAside: p.OneOf("on_damage", "fail", "set-aside") == "set-aside",
	}
	if f.wait >= p.DialTimeout {
		p.Fault("open_timeout", "it is not shorter than dial_timeout, %v", p.DialTimeout)
	}
	if o.ReadOnly && (f.setAside || o.NoSync) {
		p.Fault("read_only", "it does not go with on_damage=set-aside or sync=false")
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
	c, err := f.open(ctx, o)
	if err != nil {
		return nil, l2cache.NewError(ctx, "bolt", "open", "", kind(err), err)
	}
	return c, nil
}

// A file is what a URL says of one.
type file struct {
	path     string
	wait     time.Duration // for whoever has it open
	verify   bool
	maxBytes int  // of the file; 0: no limit
	setAside bool // a damaged one
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

// open opens the database, and waits for that until ctx ends or f.wait has passed.
func (f *file) open(ctx context.Context, o *Options) (*Cache, error) {
	if !o.ReadOnly {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	for {
		c, err := f.tryOpen(ctx, o)
		if err != errLocked {
			if err == nil {
				c.start()
			}
			return c, err
		}
		if time.Since(start) >= f.wait {
			return nil, fmt.Errorf("%w: %s is open in another process, or by another handle of this one; waited %v",
				l2cache.ErrUnavailable, f.path, f.wait)
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

// tryOpen opens the database unless it is locked, which is errLocked. A file that it
// refuses has no lock file beside it that was not there before.
func (f *file) tryOpen(ctx context.Context, o *Options) (_ *Cache, err error) {
	if o.ReadOnly { // bbolt's own lock keeps writers out
		return f.openLocked(ctx, o)
	}
	lock, err := tryLock(f.path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.drop()
		}
	}()
	c, err := f.openLocked(ctx, o)
	if f.setAside && isDamage(err) {
		var name string
		if name, err = setAside(f.path); err != nil {
			return nil, err
		}
		c, err = f.openLocked(ctx, o)
		if err == nil {
			c.setAside = name
		}
	}
	if err != nil {
		return nil, err
	}
	release := c.release
	c.release = func() error { return errors.Join(release(), lock.Close()) }
	return c, nil
}

// openLocked opens the database while nobody else has it open through this package.
func (f *file) openLocked(ctx context.Context, o *Options) (*Cache, error) {
	if f.verify {
		if err := verify(ctx, f.path, defaultBucket); err != nil {
			return nil, err
		}
	}
	db, file, err := openDB(f.path, o, f.maxBytes)
	if err != nil {
		return nil, err
	}
	c, err := newCache(db, o)
	if err != nil {
		db.Close()
		return nil, err
	}
	c.release = func() error {
		if c.broken.Load() != nil {
			return abandon(file) // db.Close would wait for locks that are lost
		}
		return db.Close()
	}
	err = c.checkFile(file)
	switch {
	case err != nil || o.ReadOnly:
	case f.maxBytes > 0:
		err = c.setBound(f.maxBytes)
	default:
		err = c.setRoom(file)
	}
	if err == nil && !o.ReadOnly {
		err = syncDir(filepath.Dir(f.path))
	}
	if err != nil {
		c.release() // the error that led here is the one to report
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return c, nil
}

// A foreignError is an ErrCorrupt of a file that is whole, but not this package's or
// a later version's. Such a file is not set aside.
type foreignError struct{ error }

func (e foreignError) Unwrap() error { return e.error }

func isDamage(err error) bool {
	var foreign foreignError
	return errors.Is(err, l2cache.ErrCorrupt) && !errors.As(err, &foreign)
}

// setAside renames the file at path, and returns its new name.
func setAside(path string) (string, error) {
	base := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	name := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name, os.Rename(path, name)
}

// openDB opens the file as a database. An error that is neither the file system's
// nor errLocked means that the file is not a database or damaged, and is
// ErrCorrupt.
func openDB(path string, o *Options, maxBytes int) (db *bbolt.DB, file *os.File, err error) {
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
		NoSync:       o.NoSync,
		ReadOnly:     o.ReadOnly,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: maxBytes == 0, // counting costs a read about 50 ns
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
	case errors.Is(err, berrors.ErrVersionMismatch):
		return nil, nil, foreignError{fmt.Errorf("%w: %s: %v", l2cache.ErrCorrupt, path, err)}
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
			return damaged("the file was truncated to %d bytes, of %d that are in use", info.Size(), tx.Size())
		}
		if name, _ := tx.Cursor().First(); name != nil && tx.Bucket(c.bucket) == nil {
			return foreignError{damaged("the database is another program's: it has a bucket %q and none of this package", name)}
		}
		return checkBucket(tx, c.bucket)
	})
}
