package redis

import (
	"context"
	"io"
	"time"

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

	// firstMean is taken for the size of a value before one has been read.
	firstMean = maxReply / 16
)

// read is a key that shares a round trip with others.
type read struct {
	key   string
	entry l2cache.Entry
	size  int   // of the value, which is not in entry if it was STRLEN
	err   error // the server's or go-redis's
}

func (c *Cache) read(ctx context.Context, g *batch.Group[read], key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, name, "get", key, c.isClosed()); err != nil {
		return l2cache.Entry{}, err
	}
	r := &read{key: key}
	err := c.do(ctx, g, r)
	if err == nil {
		err = r.err
	}
	if err != nil {
		return l2cache.Entry{}, c.newError(ctx, "get", key, err)
	}
	return r.entry, nil
}

// do has r run by g. If the error is not nil then r is no longer the caller's.
func (c *Cache) do(ctx context.Context, g *batch.Group[read], r *read) error {
	if c.inline(ctx) {
		return g.Do(ctx, r)
	}
	opCtx, cancel := c.beside(ctx)
	defer cancel()
	if err := g.Do(opCtx, r); err != nil {
		return batch.ErrTimeout // unless ctx ended or c was closed, which newError says
	}
	return nil
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

// group makes a Group that does batches of reads by run.
func (c *Cache) group(run func(context.Context, time.Time, []*read)) *batch.Group[read] {
	g := &batch.Group[read]{InFlight: inFlight, Max: c.batchSize, Timeout: c.opTimeout}
	g.Run = func(reads []*read) {
		run(context.Background(), time.Now().Add(c.opTimeout), reads)
	}
	if c.prompt {
		g.Alone = func(ctx context.Context, r *read) {
			run(ctx, time.Now().Add(c.opTimeout), []*read{r})
		}
	}
	return g
}

// runGets does reads as GETs in a pipeline.
func (c *Cache) runGets(ctx context.Context, deadline time.Time, reads []*read) {
	cmds := c.execRead(ctx, deadline, func() []redis.Cmder {
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

// runPairs does reads as GETs and PTTLs in a transaction.
func (c *Cache) runPairs(ctx context.Context, deadline time.Time, reads []*read) {
	c.runPairsOf(ctx, deadline, "get", reads)
	c.measure(reads)
}

// runPairsOf does reads by a command, get or strlen, in a transaction: MULTI, GET,
// PTTL, GET, PTTL, …, EXEC. It does not use go-redis's TxPipeline, which leaves the
// other replies on the connection when MULTI is refused.
func (c *Cache) runPairsOf(ctx context.Context, deadline time.Time, command string, reads []*read) {
	var replies *pairs
	cmds := c.execRead(ctx, deadline, func() []redis.Cmder {
		replies = newPairs(reads, 1+2*len(reads))
		cmds := make([]redis.Cmder, 0, 2*len(reads)+2)
		cmds = append(cmds, raw(replies, "multi"))
		for _, r := range reads {
			var key any = r.key
			cmds = append(cmds, raw(replies, command, key), raw(replies, "pttl", key))
		}
		return append(cmds, raw(replies, "exec"))
	})
	if err := cmds[len(cmds)-1].Err(); err != nil {
		failedReads(reads, err)
	} else if replies.refused != nil {
		c.rescue(ctx, deadline, command, reads)
	}
}

func failedReads(reads []*read, err error) {
	for _, r := range reads {
		r.err = err
	}
}

func raw(replies io.Writer, args ...any) redis.Cmder {
	return redis.NewRawWriteToCmd(context.Background(), replies, args...)
}

// rescue deals with a transaction that the server has refused. It does if it refuses
// any of the commands, be it for one of the keys or, when it is out of memory, for
// all. The reads that it does not refuse for the key's own sake are done by script.
func (c *Cache) rescue(ctx context.Context, deadline time.Time, command string, reads []*read) {
	var again []*read
	for _, r := range reads {
		if r.err == nil || redis.IsOOMError(r.err) {
			again = append(again, r)
		}
	}
	again = c.runScripts(ctx, deadline, again, "evalsha", pairScript.Hash(), command)
	c.runScripts(ctx, deadline, again, "eval", pairSource, command)
}

// pairSource reads value or length, and PTTL, of a key. An error is returned, not
// raised, for Redis before 7 rewrites what is raised.
const pairSource = `local v = redis.pcall(ARGV[1], KEYS[1])
if type(v) == 'table' then return v end
return {v, redis.call('pttl', KEYS[1])}`

var pairScript = redis.NewScript(pairSource)

// runScripts does each of reads by the script, and returns those for which the
// server does not have it.
func (c *Cache) runScripts(ctx context.Context, deadline time.Time, reads []*read, eval, script, command string) (missing []*read) {
	if len(reads) == 0 {
		return nil
	}
	replies := make([]*pairs, len(reads))
	cmds := c.execRead(ctx, deadline, func() []redis.Cmder {
		cmds := make([]redis.Cmder, len(reads))
		for i, r := range reads {
			replies[i] = newPairs(reads[i:i+1], 0)
			cmds[i] = raw(replies[i], eval, script, 1, r.key, command)
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
