package redis

import (
	"context"
	"io"
	"slices"
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
	call
	entry l2cache.Entry
	size  int // of the value, which is not in entry if it was STRLEN
}

func (c *Cache) read(ctx context.Context, group func(*node) *batch.Group[read], key string) (l2cache.Entry, error) {
	if err := l2cache.Preflight(ctx, name, "get", key, c.isClosed()); err != nil {
		return l2cache.Entry{}, err
	}
	e, err := c.readFrom(ctx, group, key)
	return e, c.newError(ctx, "get", key, err)
}

// readFrom reads key from the server that has it.
func (c *Cache) readFrom(ctx context.Context, group func(*node) *batch.Group[read], key string) (l2cache.Entry, error) {
	deadline := time.Now().Add(c.opTimeout)
	n, err := c.servers.of(ctx, deadline, key)
	if err != nil {
		return l2cache.Entry{}, err
	}
	r := &read{call: call{key: key}}
	for hop := 0; ; hop++ {
		begun := time.Now()
		if err = c.do(ctx, deadline, group(n), r); err == nil {
			err = r.err
		}
		if err == nil {
			return r.entry, nil
		}
		if hop == maxHops {
			break
		}
		to, asking := c.servers.instead(ctx, begun, deadline, n, key, err)
		if to == nil {
			break
		}
		n, r = to, &read{call: call{key: key, asking: asking}}
	}
	return l2cache.Entry{}, err
}

// do has r run by g. If the error is not nil then r is no longer the caller's.
func (c *Cache) do(ctx context.Context, deadline time.Time, g *batch.Group[read], r *read) error {
	if time.Until(deadline) < c.opTimeout-resolution { // which g takes for itself
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
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
func (c *Cache) runGets(ctx context.Context, deadline time.Time, n *node, reads []*read) {
	gets := make([]*redis.StringCmd, len(reads))
	c.execRead(ctx, deadline, n, func() []redis.Cmder {
		cmds := make([]redis.Cmder, 0, len(reads))
		for i, r := range reads {
			if r.asking {
				cmds = append(cmds, newAsking())
			}
			gets[i] = redis.NewStringCmd(context.Background(), "get", r.key)
			cmds = append(cmds, once{gets[i]})
		}
		return cmds
	})
	for i, r := range reads {
		r.entry.Value, r.err = gets[i].Bytes()
	}
	c.measure(reads)
}

// runPairs does reads as GETs and PTTLs in a transaction.
func (c *Cache) runPairs(ctx context.Context, deadline time.Time, n *node, reads []*read) {
	c.runPairsOf(ctx, deadline, n, "get", reads)
	c.measure(reads)
}

// runPairsOf does reads by a command, get or strlen, in a transaction: MULTI, GET,
// PTTL, GET, PTTL, …, EXEC. In a cluster, which refuses one over several slots, each
// read has a transaction of its own. It does not use go-redis's TxPipeline, which
// leaves the other replies on the connection when MULTI is refused. The error is that
// the server has not answered.
func (c *Cache) runPairsOf(ctx context.Context, deadline time.Time, n *node, command string, reads []*read) error {
	size := len(reads)
	if c.cluster {
		size = 1
	}
	blocks := slices.Collect(slices.Chunk(reads, size))
	replies := make([]*pairs, len(blocks))
	execs := make([]redis.Cmder, len(blocks))
	cmds := c.execRead(ctx, deadline, n, func() []redis.Cmder {
		cmds := make([]redis.Cmder, 0, 2*len(reads)+3*len(blocks))
		for i, block := range blocks {
			replies[i] = newPairs(block, 1+2*len(block))
			execs[i] = raw(replies[i], "exec")
			if block[0].asking {
				cmds = append(cmds, newAsking())
			}
			cmds = append(cmds, raw(replies[i], "multi"))
			for _, r := range block {
				var key any = r.key
				cmds = append(cmds, raw(replies[i], command, key), raw(replies[i], "pttl", key))
			}
			cmds = append(cmds, execs[i])
		}
		return cmds
	})
	var refused []*read
	for i, block := range blocks {
		if err := execs[i].Err(); err != nil {
			failedReads(block, err)
		} else if replies[i].refused != nil {
			refused = append(refused, refusedReads(block, replies[i].refused)...)
		}
	}
	if err := cmds[len(cmds)-1].Err(); err != nil {
		return err
	}
	return c.rescue(ctx, deadline, n, command, refused)
}

func failedReads(reads []*read, err error) {
	for _, r := range reads {
		r.err = err
	}
}

func raw(replies io.Writer, args ...any) redis.Cmder {
	return redis.NewRawWriteToCmd(context.Background(), replies, args...)
}

// refusedReads returns those of the reads of a transaction which the server has not
// refused for the key's own sake. It refuses the transaction if it refuses any of the
// commands, be it for one of the keys or, when it is out of memory, for all.
func refusedReads(reads []*read, refused error) (again []*read) {
	_, _, redirected := redirection(refused) // the slot was moved after the commands were queued
	for _, r := range reads {
		switch {
		case r.err == nil && redirected:
			r.err = refused
		case r.err == nil || redis.IsOOMError(r.err):
			again = append(again, r)
		}
	}
	return again
}

// rescue does reads by script.
func (c *Cache) rescue(ctx context.Context, deadline time.Time, n *node, command string, reads []*read) error {
	missing, err := c.runScripts(ctx, deadline, n, reads, "evalsha", pairScript.Hash(), command)
	if err != nil {
		return err
	}
	_, err = c.runScripts(ctx, deadline, n, missing, "eval", pairSource, command)
	return err
}

// pairSource reads value or length, and PTTL, of a key. An error is returned, not
// raised, for Redis before 7 rewrites what is raised.
const pairSource = `local v = redis.pcall(ARGV[1], KEYS[1])
if type(v) == 'table' then return v end
return {v, redis.call('pttl', KEYS[1])}`

var pairScript = redis.NewScript(pairSource)

// runScripts does each of reads by the script, and returns those for which the
// server does not have it. The error is that the server has not answered.
func (c *Cache) runScripts(ctx context.Context, deadline time.Time, n *node, reads []*read, eval, script, command string) (missing []*read, err error) {
	if len(reads) == 0 {
		return nil, nil
	}
	replies := make([]*pairs, len(reads))
	evals := make([]redis.Cmder, len(reads))
	c.execRead(ctx, deadline, n, func() []redis.Cmder {
		cmds := make([]redis.Cmder, 0, len(reads))
		for i, r := range reads {
			replies[i] = newPairs(reads[i:i+1], 0)
			evals[i] = raw(replies[i], eval, script, 1, r.key, command)
			if r.asking {
				cmds = append(cmds, newAsking())
			}
			cmds = append(cmds, evals[i])
		}
		return cmds
	})
	for i, r := range reads {
		switch failed := evals[i].Err(); {
		case failed != nil:
			r.err, err = failed, failed
		case redis.HasErrorPrefix(replies[i].refused, "NOSCRIPT "):
			missing = append(missing, r)
		case replies[i].refused != nil:
			r.err = replies[i].refused
		}
	}
	return missing, err
}
