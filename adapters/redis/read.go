package redis

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/batch"
)

const (
	// inFlight is how many batches of reads of a kind run at a time. With one, the
	// server idles while the client decodes; more would only make them smaller.
	inFlight = 2

	// maxBatch and maxReply bound a batch: calls, and about the bytes of its reply.
	maxBatch = 128
	maxReply = 1 << 20
)

// read is a call that shares a round trip with others.
type read struct {
	key   string
	entry l2cache.Entry
	err   error // the server's or go-redis's
}

func (c *Cache) read(ctx context.Context, g *batch.Group[read], key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, name, "get", key, c.isClosed()); err != nil {
		return l2cache.Entry{}, err
	}
	waitCtx := ctx
	if !c.bounded && ctx.Done() == nil { // have the group wait beside the call
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeout(ctx, c.opTimeout)
		defer cancel()
	}
	r := &read{key: key}
	if err := g.Do(waitCtx, r); err != nil {
		return l2cache.Entry{}, c.newError(ctx, "get", key, err)
	}
	if r.err != nil {
		return l2cache.Entry{}, c.newError(ctx, "get", key, r.err)
	}
	return r.entry, nil
}

// batchSize is how many reads the next batch may have.
func (c *Cache) batchSize() int {
	return int(min(max(maxReply/max(c.meanSize.Load(), 1), 1), maxBatch))
}

// measure tells batchSize how large values are. An update that is lost to
// another does no harm.
func (c *Cache) measure(reads []*read) {
	mean := c.meanSize.Load()
	for _, r := range reads {
		mean += (int64(len(r.entry.Value)) - mean) / 8
	}
	c.meanSize.Store(mean)
}

// runGets does reads as GETs in a pipeline.
func (c *Cache) runGets(reads []*read) {
	cmds := c.exec(func() []redis.Cmder {
		cmds := make([]redis.Cmder, len(reads))
		for i, r := range reads {
			cmds[i] = redis.NewStringCmd(context.Background(), "get", r.key)
		}
		return cmds
	})
	for i, r := range reads {
		r.entry.Value, r.err = cmds[i].(*redis.StringCmd).Bytes()
	}
	c.measure(reads)
}

// runPairs does reads as GETs and PTTLs in a transaction. It is not go-redis's
// TxPipeline, which leaves the other replies on the connection if MULTI is refused.
func (c *Cache) runPairs(reads []*read) {
	cmds := c.exec(func() []redis.Cmder {
		ctx := context.Background()
		cmds := make([]redis.Cmder, 0, 2*len(reads)+2)
		cmds = append(cmds, redis.NewStatusCmd(ctx, "multi"))
		for _, r := range reads {
			cmds = append(cmds, redis.NewStatusCmd(ctx, "get", r.key), redis.NewStatusCmd(ctx, "pttl", r.key))
		}
		return append(cmds, redis.NewRawCmd(ctx, "exec"))
	})
	queued := cmds[1 : len(cmds)-1]
	raw, err := cmds[len(cmds)-1].(*redis.RawCmd).Result()
	switch {
	case err != nil:
		fail(reads, err)
	case isError(raw):
		c.rescue(reads, queued)
	default:
		decodePairs(raw, reads)
		c.measure(reads)
	}
}

// rescue deals with a transaction that the server refused to run. It does if it
// refused to queue a command, be it for one of the keys or, when it is out of
// memory, for all. What it did not refuse for the key's own sake is read by script.
func (c *Cache) rescue(reads []*read, queued []redis.Cmder) {
	var again []*read
	for i, r := range reads {
		for _, cmd := range queued[2*i : 2*i+2] {
			if err := cmd.Err(); err != nil && !redis.IsOOMError(err) {
				r.err = err
			}
		}
		if r.err == nil {
			again = append(again, r)
		}
	}
	again = c.runScripts("evalsha", pairScript.Hash(), again)
	c.runScripts("eval", pairSource, again)
}

// pairSource reads value and PTTL of a key. An error is returned, and not raised,
// because Redis before 7 wraps what is raised.
const pairSource = `local v = redis.pcall('get', KEYS[1])
if type(v) == 'table' and v.err then return v end
return {v, redis.call('pttl', KEYS[1])}`

var pairScript = redis.NewScript(pairSource)

// runScripts does reads by the pair script, and returns those for which the server
// says that it does not know it.
func (c *Cache) runScripts(command, script string, reads []*read) (unknown []*read) {
	if len(reads) == 0 {
		return nil
	}
	cmds := c.exec(func() []redis.Cmder {
		cmds := make([]redis.Cmder, len(reads))
		for i, r := range reads {
			cmds[i] = redis.NewRawCmd(context.Background(), command, script, 1, r.key)
		}
		return cmds
	})
	for i, r := range reads {
		raw, err := cmds[i].(*redis.RawCmd).Result()
		if err != nil {
			r.err = err
			continue
		}
		decodePairs(raw, reads[i:i+1])
		if redis.HasErrorPrefix(r.err, "NOSCRIPT ") {
			r.err = nil
			unknown = append(unknown, r)
		}
	}
	return unknown
}

func fail(reads []*read, err error) {
	for _, r := range reads {
		r.err = err
	}
}

// errUnsent marks a command that go-redis has not come to.
var errUnsent = errors.New("not sent")

// exec sends the commands that build returns in one pipeline, and once more if the
// connection was stale. Each of them has its reply or its error then.
func (c *Cache) exec(build func() []redis.Cmder) []redis.Cmder {
	cmds := build()
	if !c.begin() {
		for _, cmd := range cmds {
			cmd.SetErr(l2cache.ErrClosed)
		}
		return cmds
	}
	defer c.calls.Done()
	ctx, cancel := context.WithTimeout(context.Background(), c.opTimeout)
	defer cancel()
	if err := c.execOnce(ctx, cmds); stale(err) {
		cmds = build()
		c.execOnce(ctx, cmds)
	}
	return cmds
}

// execOnce sees to it that a command which was not done has an error. go-redis
// sets none if the server refuses AUTH or SELECT on a new connection, and the
// command would pass for one with an empty reply.
func (c *Cache) execOnce(ctx context.Context, cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		cmd.SetErr(errUnsent)
	}
	pipe := c.client.Pipeline()
	pipe.BatchProcess(ctx, once{cmds[0]})
	pipe.BatchProcess(ctx, cmds[1:]...)
	_, err := pipe.Exec(ctx)
	for _, cmd := range cmds {
		if cmd.Err() == errUnsent {
			cmd.SetErr(err)
		}
	}
	return err
}

// stale reports whether err may come from a pooled connection that the server had
// closed. go-redis looks before it takes one, so this is rare: TLS of a caller's
// client, or a server that closes it just then.
func stale(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
