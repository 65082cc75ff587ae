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
			cmds[i] = once{redis.NewStringCmd(context.Background(), "get", r.key)}
		}
		return cmds
	})
	for i, r := range reads {
		r.entry.Value, r.err = cmds[i].(once).Cmder.(*redis.StringCmd).Bytes()
	}
	c.measure(reads)
}

// runPairs does reads as GETs and PTTLs in a transaction: MULTI, GET, PTTL, GET,
// PTTL, …, EXEC. It does not use go-redis's TxPipeline, which leaves the other
// replies on the connection when MULTI is refused.
func (c *Cache) runPairs(reads []*read) {
	var replies *pairs
	cmds := c.exec(func() []redis.Cmder {
		replies = newPairs(reads, 1+2*len(reads))
		cmds := make([]redis.Cmder, 0, 2*len(reads)+2)
		cmds = append(cmds, raw(replies, "multi"))
		for _, r := range reads {
			var key any = r.key
			cmds = append(cmds, raw(replies, "get", key), raw(replies, "pttl", key))
		}
		return append(cmds, raw(replies, "exec"))
	})
	if err := cmds[len(cmds)-1].Err(); err != nil {
		for _, r := range reads {
			r.err = err
		}
		return
	}
	if replies.refused != nil {
		c.rescue(reads)
	}
	c.measure(reads)
}

func raw(replies *pairs, args ...any) redis.Cmder {
	return redis.NewRawWriteToCmd(context.Background(), replies, args...)
}

// rescue deals with a transaction that the server has refused. It does if it refuses
// any of the commands, be it for one of the keys or, when it is out of memory, for
// all. The reads that it does not refuse for the key's own sake are done by script.
func (c *Cache) rescue(reads []*read) {
	var again []*read
	for _, r := range reads {
		if r.err == nil || redis.IsOOMError(r.err) {
			again = append(again, r)
		}
	}
	again = c.runScripts(again, "evalsha", pairScript.Hash())
	c.runScripts(again, "eval", pairSource)
}

// pairSource reads value and PTTL of a key. An error is returned, not raised, for
// Redis before 7 rewrites what is raised.
const pairSource = `local v = redis.pcall('get', KEYS[1])
if type(v) == 'table' then return v end
return {v, redis.call('pttl', KEYS[1])}`

var pairScript = redis.NewScript(pairSource)

// runScripts does each of reads by the script, and returns those for which the
// server does not have it.
func (c *Cache) runScripts(reads []*read, command, script string) (missing []*read) {
	if len(reads) == 0 {
		return nil
	}
	replies := make([]*pairs, len(reads))
	cmds := c.exec(func() []redis.Cmder {
		cmds := make([]redis.Cmder, len(reads))
		for i, r := range reads {
			replies[i] = newPairs(reads[i:i+1], 0)
			cmds[i] = raw(replies[i], command, script, 1, r.key)
		}
		return cmds
	})
	for i, r := range reads {
		switch err := cmds[i].Err(); {
		case err != nil:
			r.err = err
		case redis.HasErrorPrefix(replies[i].refused, "NOSCRIPT "):
			missing = append(missing, r)
		case replies[i].refused != nil:
			r.err = replies[i].refused
		}
	}
	return missing
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
	pipe.BatchProcess(ctx, cmds...)
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
