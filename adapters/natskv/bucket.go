package natskv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

// A bucket is a stream that has been checked, and the connection to it. It is
// forgotten when the connection breaks, for the stream may be another one then.
type bucket struct {
	*requester
	config   *jetstream.StreamConfig
	direct   bool // reads need not go to the leader
	volatile bool // a server that dies forgets all
	maxValue int  // bytes
}

// reserve is what a message may need in bytes besides the value: the envelope and
// the headers.
const reserve = 256

// minValue is the value that every backend has to take, see l2cache.Profile.
const minValue = 1_000_000

// newBucket returns the bucket with those settings, or an error that names the one
// because of which it cannot keep the contract. The server takes messages of
// maxPayload bytes, and the profile promises TTLs of up to maxTTL.
func newBucket(r *requester, c *jetstream.StreamConfig, maxPayload int64, maxTTL time.Duration) (*bucket, error) {
	limit := maxPayload
	if c.MaxMsgSize >= 0 {
		limit = min(limit, int64(c.MaxMsgSize))
	}
	switch {
	case level(c) < 1:
		return nil, errOldServer
	case c.Mirror != nil:
		return nil, errors.New("mirror is set: a mirror lags behind its origin")
	case len(c.Sources) > 0:
		return nil, errors.New("sources are set: others write to the bucket")
	case !slices.Equal(c.Subjects, []string{subjectsOf(c.Name)}):
		return nil, fmt.Errorf("subjects are %q, want %q", c.Subjects, subjectsOf(c.Name))
	case c.SubjectTransform != nil:
		return nil, errors.New("subject_transform is set: keys would become others")
	case c.Retention != jetstream.LimitsPolicy:
		return nil, fmt.Errorf("retention is %v, want %v: consumers would remove entries", c.Retention, jetstream.LimitsPolicy)
	case c.Discard != jetstream.DiscardNew:
		return nil, fmt.Errorf("discard is %v, want %v: one large value could push out all others", c.Discard, jetstream.DiscardNew)
	case c.DiscardNewPerSubject:
		return nil, errors.New("discard_new_per_subject is on: entries could not be replaced")
	case c.DenyPurge:
		return nil, errors.New("deny_purge is on: entries could not be deleted")
	case !c.AllowRollup:
		return nil, errors.New("allow_rollup_hdrs is off: entries could not be deleted")
	case c.NoAck:
		return nil, errors.New("no_ack is on: writes would not be answered")
	case c.Sealed:
		return nil, errors.New("sealed is on: nothing can be written")
	case limit < minValue+reserve:
		return nil, fmt.Errorf("messages of %d bytes at most are allowed (max_payload, max_msg_size), want %d or more", limit, minValue+reserve)
	case bucketTTL(c.MaxAge) < maxTTL:
		return nil, fmt.Errorf("max_age is %v, which is less than the backend was opened for: set max_age, or Options.MaxAge, to the bucket's", c.MaxAge)
	// The last, as it can be mended.
	case !c.AllowMsgTTL:
		return nil, errNoMessageTTL
	}
	return &bucket{
		requester: r,
		config:    c,
		// With AllowDirect every replica answers, also one that has not yet seen
		// the newest writes; a lone one has seen all.
		direct:   c.AllowDirect && c.Replicas == 1,
		volatile: c.Storage == jetstream.MemoryStorage,
		maxValue: int(limit) - reserve,
	}, nil
}

// takes returns ErrTooLarge if the server would not take the value.
func (b *bucket) takes(value []byte) error {
	if len(value) > b.maxValue {
		return fmt.Errorf("%w: %d bytes, the server takes %d", l2cache.ErrTooLarge, len(value), b.maxValue)
	}
	return nil
}

// margin is by how much the server keeps an entry longer than its deadline says.
// The server, and in a cluster each replica by its own clock, removes a message when
// its time is up on that clock; with a margin, clocks that differ by less, or are
// set forward by less, remove nothing early.
const margin = time.Second

// bucketTTL is the longest TTL that a bucket with that MaxAge keeps.
func bucketTTL(maxAge time.Duration) time.Duration {
	if maxAge <= 0 {
		return l2cache.NoExpiry
	}
	return (maxAge - min(margin, maxAge/2)).Truncate(resolution)
}

// The subjects of the JetStream API.
const (
	apiInfo         = "$JS.API.INFO"
	apiStreamInfo   = "$JS.API.STREAM.INFO."
	apiStreamCreate = "$JS.API.STREAM.CREATE."
	apiStreamUpdate = "$JS.API.STREAM.UPDATE."
	apiStreamPurge  = "$JS.API.STREAM.PURGE."
	apiDirectGet    = "$JS.API.DIRECT.GET."
	apiMessageGet   = "$JS.API.STREAM.MSG.GET."

	apiConsumerCreate = "$JS.API.CONSUMER.CREATE."
	apiConsumerDelete = "$JS.API.CONSUMER.DELETE."
	apiConsumerNext   = "$JS.API.CONSUMER.MSG.NEXT."
)

// ask sends a request with args as JSON to the JetStream API, and puts what the
// server answers into result.
func (r *requester) ask(ctx context.Context, limit time.Time, subject string, args, result any) error {
	return askBy(r.do, ctx, limit, subject, args, result)
}

// askAgain is ask for a request that changes nothing, or nothing more when it comes
// again: it waits for a leader.
func (r *requester) askAgain(ctx context.Context, limit time.Time, subject string, args, result any) error {
	return r.patiently(ctx, limit, func() error { return askBy(r.doAgain, ctx, limit, subject, args, result) })
}

func askBy(do func(context.Context, time.Time, request) (*nats.Msg, error), ctx context.Context, limit time.Time, subject string, args, result any) error {
	var data []byte
	if args != nil {
		var err error
		if data, err = json.Marshal(args); err != nil {
			return err
		}
	}
	m, err := do(ctx, limit, request{subject: subject, data: data})
	if err != nil {
		return err
	}
	return parse(m, result)
}

// parse puts an answer of the JetStream API into result, or returns the server's error.
func parse(m *nats.Msg, result any) error {
	if err := statusError(m); err != nil {
		return err
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(m.Data, result)
}

// statusError is the error that m says in its status, if it has one.
func statusError(m *nats.Msg) error {
	switch status := m.Header.Get("Status"); status {
	case "":
		return nil
	case "404":
		return l2cache.ErrNotFound
	case "503":
		return nats.ErrNoResponders
	default:
		return fmt.Errorf("the server answers %s %s", status, m.Header.Get("Description"))
	}
}

// openStream returns the settings of the stream, which it may create if it is missing.
func (r *requester) openStream(ctx context.Context, limit time.Time, want jetstream.StreamConfig, create bool) (*jetstream.StreamConfig, error) {
	var info jetstream.StreamInfo
	err := r.askAgain(ctx, limit, apiStreamInfo+want.Name, nil, &info)
	switch {
	case err == nil:
		return &info.Config, nil
	case errors.Is(err, errTimeout): // a stream without a leader is silent
		return nil, fmt.Errorf("stream %s: %w", want.Name, err)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("no JetStream: nats-server needs -js, or jetstream in its configuration: %w", err)
	case !isCode(err, jetstream.JSErrCodeStreamNotFound):
		return nil, err
	case !create:
		return nil, fmt.Errorf("there is no stream %s, and create=false (Options.NoCreate): %w", want.Name, err)
	}
	return r.createStream(ctx, limit, want)
}

func (r *requester) createStream(ctx context.Context, limit time.Time, want jetstream.StreamConfig) (*jetstream.StreamConfig, error) {
	// An older server would create a stream, and ignore what it does not know.
	var account jetstream.AccountInfo
	if err := r.ask(ctx, limit, apiInfo, nil, &account); err != nil {
		return nil, err
	}
	if account.API.Level < 1 {
		return nil, errOldServer
	}
	var info jetstream.StreamInfo
	err := r.ask(ctx, limit, apiStreamCreate+want.Name, want, &info)
	if isCode(err, jetstream.JSErrCodeStreamNameInUse) {
		// Somebody else was quicker, and wants other settings.
		err = r.ask(ctx, limit, apiStreamInfo+want.Name, nil, &info)
	}
	if err != nil {
		return nil, err
	}
	return &info.Config, nil
}

// mend turns on AllowMsgTTL in config, and returns the new settings.
func (r *requester) mend(ctx context.Context, limit time.Time, config jetstream.StreamConfig) (*jetstream.StreamConfig, error) {
	config.AllowMsgTTL = true
	var info jetstream.StreamInfo
	if err := r.ask(ctx, limit, apiStreamUpdate+config.Name, config, &info); err != nil {
		return nil, fmt.Errorf("allow_msg_ttl is off, and cannot be turned on: %w", err)
	}
	return &info.Config, nil
}

var errNoMessageTTL = errors.New("allow_msg_ttl is off: entries would not be reclaimed")

var errOldServer = errors.New("the server is older than nats-server 2.11, the first with message TTLs")

// level is the API level of the server that answered with c. One before 2.11 has
// none, and ignores the settings that it does not know.
func level(c *jetstream.StreamConfig) int {
	n, _ := strconv.Atoi(c.Metadata["_nats.level"])
	return n
}

// A KV bucket is the stream KV_<bucket> with the subjects $KV.<bucket>.<key>.
func streamOf(bucket string) string   { return "KV_" + bucket }
func subjectsOf(stream string) string { return "$KV." + strings.TrimPrefix(stream, "KV_") + ".>" }
