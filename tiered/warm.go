package tiered

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/l2cache/l2cache"
)

// WarmOptions bound a Warm. The zero value of each field is its default.
type WarmOptions struct {
	// Prefix of the keys. Default: all keys.
	Prefix string
	// MinTTL is what an entry has to have left. Default: any.
	MinTTL time.Duration
	// MaxEntries and MaxBytes bound what is read; bytes are counted as in
	// Options.MaxBytes. Default: what L1 is bounded by.
	MaxEntries int
	MaxBytes   int
	// Rate is how many entries are read in a second. Default: as many as L2 gives.
	Rate int
	// Progress is called after each batch of reads.
	Progress func(WarmProgress)
}

// WarmProgress is how far a Warm has come.
type WarmProgress struct {
	Scanned int // entries that L2 has listed
	Chosen  int // those of them to be read; final once the first batch is read
	Read    int // keys that L2 was asked for
	Stored  int // entries that are in L1
	Gone    int // had expired meanwhile, or had less than MinTTL left
	Failed  int // could not be read, or not be decoded
	Bytes   int // of the encoded values that are in L1
}

const warmBatch = 100 // keys in one GetMany

// Warm fills L1 with the entries of L2 that have the longest to live, those without
// expiry first: it lists them all (l2cache.Scan), keeps the best in mind, then reads
// those. It ends early with ctx, or Close, and returns how far it came, and why not further.
// Entries that cannot be read do not end it. The error is errors.ErrUnsupported if L2
// cannot be scanned.
func (c *Cache[V]) Warm(ctx context.Context, o *WarmOptions) (WarmProgress, error) {
	w, err := c.warmOptions(o)
	if err != nil {
		return WarmProgress{}, err
	}
	var p WarmProgress
	if err := l2cache.PreflightNoKey(ctx, name, "warm", c.closed.Load()); err != nil {
		return p, err
	}
	chosen := candidates{maxEntries: w.MaxEntries, maxBytes: w.MaxBytes}
	open, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.ctx, stop)()
	for info, err := range l2cache.Scan(open, c.l2, w.Prefix) {
		if c.closed.Load() {
			return p, l2cache.NewError(ctx, name, "warm", "", l2cache.ErrClosed, nil)
		}
		if err != nil {
			return p, err
		}
		p.Scanned++
		if info.TTL >= w.MinTTL {
			chosen.consider(candidate{info.Key, c.clock.now().after(info.TTL), weight(info.Key, info.Size)})
		}
	}
	keys := chosen.longestFirst()
	p.Chosen = len(keys)
	batch := warmBatch
	if w.Rate > 0 {
		batch = min(batch, max(w.Rate/10, 1))
	}
	started := time.Now()
	for n := range slices.Chunk(keys, batch) {
		if w.Rate > 0 {
			due := started.Add(time.Duration(float64(p.Read) / float64(w.Rate) * float64(time.Second)))
			if err := c.sleep(ctx, time.Until(due)); err != nil {
				return p, err
			}
		}
		if err := c.warmBatch(ctx, n, w, &p); err != nil {
			return p, err
		}
		if w.Progress != nil {
			w.Progress(p)
		}
	}
	return p, nil
}

func (c *Cache[V]) warmOptions(o *WarmOptions) (WarmOptions, error) {
	var w WarmOptions
	if o != nil {
		w = *o
	}
	if w.MinTTL < 0 || w.MaxEntries < 0 || w.MaxBytes < 0 || w.Rate < 0 {
		return w, errors.New("tiered: WarmOptions has a negative field")
	}
	w.MaxBytes = cmp.Or(w.MaxBytes, c.options.MaxBytes)
	w.MaxEntries = cmp.Or(w.MaxEntries, c.options.MaxEntries, c.options.MaxBytes/entryOverhead+1)
	return w, nil
}

// sleep waits for d. The error is that ctx has ended, or that the cache was closed.
func (c *Cache[V]) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return l2cache.NewError(ctx, name, "warm", "", l2cache.ErrClosed, nil)
}

// warmBatch reads keys and puts into L1 what has MinTTL left.
func (c *Cache[V]) warmBatch(ctx context.Context, batch []string, w WarmOptions, p *WarmProgress) error {
	var keys []string
	var gens []uint64
	for _, key := range batch {
		if err := c.settle(ctx, "warm", key); err != nil {
			if ctx.Err() != nil || c.closed.Load() {
				return err
			}
			p.Read++
			p.Failed++
			continue
		}
		keys, gens = append(keys, key), append(gens, c.generations.of(key).Load())
	}
	if len(keys) == 0 {
		return nil
	}
	epoch, at := c.epoch.Load(), c.clock.now()
	var entries map[string]l2cache.Entry
	err := c.ask(ctx, "warm", "", func(ctx context.Context) (err error) {
		entries, err = l2cache.GetMany(ctx, c.l2, keys)
		return err
	})
	var failed l2cache.KeyErrors
	if err != nil && !errors.As(err, &failed) || ctx.Err() != nil || c.closed.Load() {
		return l2cache.NewError(ctx, c.l2.Name(), "warm", "", nil, cmp.Or(err, l2cache.ErrClosed))
	}
	for i, key := range keys {
		p.Read++
		entry, ok := entries[key]
		if _, bad := failed[key]; bad {
			p.Failed++
			continue
		}
		it := c.newItem(*new(V), len(entry.Value), at, entry.TTL, c.options.MaxL1TTL)
		if !ok || entry.TTL < w.MinTTL || c.clock.now() >= it.fresh {
			p.Gone++
			continue
		}
		if it.value, err = c.options.Codec.Decode(entry.Value); err != nil {
			p.Failed++
			continue
		}
		it.epoch = epoch
		outcome := OutcomeOvertaken
		if c.promote(key, it, gens[i]) {
			outcome = OutcomeStored
			p.Stored++
			p.Bytes += it.size
		}
		c.tell(ctx, Event{Kind: EventPromotion, Outcome: outcome, Key: key, TTL: entry.TTL, Consumed: unknown})
	}
	return nil
}

type candidate struct {
	key    string
	ends   instant
	weight int
}

// candidates are the entries with the longest to live, within bounds; zero is no bound.
// As a heap it has the one that ends first at the front.
type candidates struct {
	maxEntries, maxBytes int

	heap  []candidate
	known map[string]struct{} // the keys in heap: a Scan may list one twice
	bytes int                 // that heap weighs
}

func (c *candidates) Len() int           { return len(c.heap) }
func (c *candidates) Less(i, j int) bool { return c.heap[i].ends < c.heap[j].ends }
func (c *candidates) Swap(i, j int)      { c.heap[i], c.heap[j] = c.heap[j], c.heap[i] }
func (c *candidates) Push(x any)         { c.heap = append(c.heap, x.(candidate)) }

func (c *candidates) Pop() any {
	last := c.heap[len(c.heap)-1]
	c.heap = c.heap[:len(c.heap)-1]
	return last
}

func (c *candidates) consider(e candidate) {
	if _, again := c.known[e.key]; again || c.maxBytes > 0 && e.weight > c.maxBytes {
		return
	}
	if c.known == nil {
		c.known = map[string]struct{}{}
	}
	c.known[e.key] = struct{}{}
	c.bytes += e.weight
	heap.Push(c, e)
	for c.maxEntries > 0 && len(c.heap) > c.maxEntries || c.maxBytes > 0 && c.bytes > c.maxBytes {
		out := heap.Pop(c).(candidate)
		delete(c.known, out.key)
		c.bytes -= out.weight
	}
}

func (c *candidates) longestFirst() []string {
	slices.SortFunc(c.heap, func(a, b candidate) int { return cmp.Compare(b.ends, a.ends) })
	keys := make([]string, len(c.heap))
	for i, e := range c.heap {
		keys[i] = e.key
	}
	return keys
}
