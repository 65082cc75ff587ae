package natskv

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

const (
	// pullFor is how long the server answers one request for changes.
	pullFor = 2 * time.Second
	// pullAtMost is more changes than there are in that time: a request that brought
	// as many would end without a word.
	pullAtMost = 10_000_000
	// maxPause is how long nobody may ask for changes. The marker of a deletion, and
	// an entry after its end, stay in the stream for a second (see deleteHeader and
	// margin): who asks later might not see that they were there.
	maxPause = 500 * time.Millisecond
	// unusedFor is after what time the server removes a consumer that nobody asks.
	unusedFor = 10 * time.Second
)

// Watch makes a consumer of its own, which tells of each message that the stream gets,
// and another one, with a Gap, when that has not worked for a while.
func (c *Cache) Watch(ctx context.Context, prefix string) iter.Seq2[l2cache.Event, error] {
	return func(yield func(l2cache.Event, error) bool) {
		if err := l2cache.PreflightNoKey(ctx, name, "watch", c.closed.Load()); err != nil {
			yield(l2cache.Event{}, err)
			return
		}
		var events l2cache.Hub
		source, err := c.consume(ctx, prefix, &events)
		if err != nil {
			yield(l2cache.Event{}, err)
			return
		}
		following, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { c.follow(following, prefix, &events, source) })
		defer wg.Wait()
		defer stop()
		// What came before the Hub knows of the loop is covered by its first Gap.
		events.Watch(ctx, name, prefix, c.closing)(yield)
	}
}

// follow hands changes on to events until ctx ends or the backend is closed.
func (c *Cache) follow(ctx context.Context, prefix string, events *l2cache.Hub, source *consumer) {
	for {
		source.pull(ctx, c.opTimeout, events)
		source.remove()
		for attempts := 1; ; attempts++ {
			select {
			case <-ctx.Done():
				return
			case <-c.closing:
				return
			case <-time.After(reconnectDelay(attempts)):
			}
			var err error
			if source, err = c.consume(ctx, prefix, events); err == nil {
				break
			}
		}
		events.Gap()
	}
}

// A consumer is one of the stream's, as the server keeps it for a Watch. It has no
// storage, and delivers subjects and headers only.
type consumer struct {
	*bucket
	name      string
	delivered atomic.Int64
}

// consume makes a consumer, which begins with the next message.
func (c *Cache) consume(ctx context.Context, prefix string, events *l2cache.Hub) (*consumer, error) {
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return nil, c.fail(ctx, "watch", prefix, err)
	}
	config := jetstream.ConsumerConfig{
		Name:              strconv.FormatUint(rand.Uint64(), 36), // asked for again, it is the same one
		DeliverPolicy:     jetstream.DeliverNewPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		HeadersOnly:       true,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: unusedFor,
	}
	for _, filter := range filters(prefix) {
		config.FilterSubjects = append(config.FilterSubjects, c.subject+filter)
	}
	args := struct {
		Stream string                   `json:"stream_name"`
		Config jetstream.ConsumerConfig `json:"config"`
	}{c.stream.Name, config}
	var info struct {
		Name string `json:"name"`
	}
	if err := b.askAgain(ctx, limit, apiConsumerCreate+c.stream.Name, args, &info); err != nil {
		return nil, c.fail(ctx, "watch", prefix, err)
	}
	source := &consumer{bucket: b, name: info.Name}
	b.listen(info.Name, func(m *nats.Msg) {
		source.delivered.Add(1)
		// A subject that is no key's was published by another program.
		if key, err := decodeKey(strings.TrimPrefix(m.Subject, c.subject)); err == nil {
			events.Changed(key)
		}
	})
	return source, nil
}

// pull asks the consumer for changes until ctx ends, or something is wrong with it.
func (s *consumer) pull(ctx context.Context, opTimeout time.Duration, events *l2cache.Hub) error {
	ask := request{
		subject: apiConsumerNext + s.config.Name + "." + s.name,
		data:    fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, pullAtMost, pullFor),
	}
	for {
		asked := time.Now()
		s.delivered.Store(0)
		m, err := s.do(ctx, asked.Add(pullFor+opTimeout), ask)
		if err != nil {
			return err
		}
		// The one reply is the end of the request: its time is over, if all is well.
		if status := m.Header.Get("Status"); status != "408" {
			return fmt.Errorf("the server answers %s %s", status, m.Header.Get("Description"))
		}
		left, err := strconv.ParseInt(m.Header.Get("Nats-Pending-Messages"), 10, 64)
		if err != nil || pullAtMost-left != s.delivered.Load() || time.Since(asked) > pullFor+maxPause {
			events.Gap()
		}
	}
}

// remove makes the server remove the consumer, and does not wait for it: a consumer
// that is still there is removed after unusedFor.
func (s *consumer) remove() {
	s.listen(s.name, nil)
	s.enqueue(&call{
		request: request{subject: apiConsumerDelete + s.config.Name + "." + s.name},
		done:    make(chan reply, 1),
	})
}
