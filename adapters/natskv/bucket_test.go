package natskv

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
)

// served is the answer of a server of that API level to the creation of a bucket.
func served(t *testing.T, level string) *jetstream.StreamConfig {
	t.Helper()
	c, err := newCache("b", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := c.stream
	if level != "" {
		config.Metadata = map[string]string{"_nats.level": level}
	}
	return &config
}

func TestBucketIsRefused(t *testing.T) {
	const payload = 1 << 20
	tests := []struct {
		setting string // in the error
		change  func(c *jetstream.StreamConfig)
	}{
		{"", func(*jetstream.StreamConfig) {}},
		{"", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1_000_256 }},
		{"", func(c *jetstream.StreamConfig) { c.Metadata["_nats.level"] = "17" }},
		{"2.11", func(c *jetstream.StreamConfig) { c.Metadata = nil }},
		{"2.11", func(c *jetstream.StreamConfig) { c.Metadata["_nats.level"] = "0" }},
		{"allow_msg_ttl", func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false }},
		{"", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 2 }},
		{"", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = -1 }},
		{"mirror", func(c *jetstream.StreamConfig) { c.Mirror = &jetstream.StreamSource{Name: "KV_origin"} }},
		{"sources", func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "KV_origin"}} }},
		{"subjects", func(c *jetstream.StreamConfig) { c.Subjects = []string{"$KV.b.*"} }},
		{"subjects", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "more") }},
		{"subject_transform", func(c *jetstream.StreamConfig) { c.SubjectTransform = new(jetstream.SubjectTransformConfig) }},
		{"retention", func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }},
		{"discard", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }},
		{"discard_new_per_subject", func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject = true }},
		{"deny_purge", func(c *jetstream.StreamConfig) { c.DenyPurge = true }},
		{"allow_rollup_hdrs", func(c *jetstream.StreamConfig) { c.AllowRollup = false }},
		{"no_ack", func(c *jetstream.StreamConfig) { c.NoAck = true }},
		{"sealed", func(c *jetstream.StreamConfig) { c.Sealed = true }},
		{"max_msg_size", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1_000_255 }},
		{"max_age", func(c *jetstream.StreamConfig) { c.MaxAge = 24 * time.Hour }},
	}
	for _, test := range tests {
		config := served(t, "1")
		test.change(config)
		b, err := newBucket(nil, config, payload, l2cache.NoExpiry)
		switch {
		case test.setting == "" && err != nil:
			t.Errorf("newBucket(%+v) = %v, want nil", config, err)
		case test.setting != "" && (err == nil || !strings.Contains(err.Error(), test.setting)):
			t.Errorf("newBucket(%+v) = %v, %v; want an error that names %s", config, b, err, test.setting)
		}
	}
	if _, err := newBucket(nil, served(t, "1"), 1_000_255, l2cache.NoExpiry); err == nil || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("newBucket with a max_payload of 1,000,255 = %v, want an error that names max_payload", err)
	}
}

func TestBucketLimits(t *testing.T) {
	config := served(t, "1")
	config.MaxMsgSize = 2 << 20
	b, err := newBucket(nil, config, 1<<20, l2cache.NoExpiry)
	if err != nil || b.maxValue != 1<<20-256 {
		t.Errorf("newBucket with max_payload 1 MiB, max_msg_size 2 MiB = %+v, %v; want values of 1 MiB less 256", b, err)
	}
	config.MaxMsgSize = 1_000_256
	if b, err = newBucket(nil, config, 1<<20, l2cache.NoExpiry); err != nil || b.maxValue != 1_000_000 {
		t.Errorf("newBucket with max_msg_size 1,000,256 = %+v, %v; want values of 1,000,000", b, err)
	}
}

func TestReadsGoToTheLeader(t *testing.T) {
	tests := []struct {
		direct   bool
		replicas int
		want     bool
	}{
		{true, 1, true},
		{false, 1, false},
		{true, 3, false}, // other replicas would answer too, and lag
		{false, 3, false},
	}
	for _, test := range tests {
		config := served(t, "1")
		config.AllowDirect, config.Replicas = test.direct, test.replicas
		b, err := newBucket(nil, config, 1<<20, l2cache.NoExpiry)
		if err != nil || b.direct != test.want {
			t.Errorf("newBucket with AllowDirect %v, %d replicas = %+v, %v; want direct %v", test.direct, test.replicas, b, err, test.want)
		}
	}
}

func TestBucketTTL(t *testing.T) {
	tests := []struct{ maxAge, want time.Duration }{
		{0, l2cache.NoExpiry},
		{24 * time.Hour, 24*time.Hour - time.Second},
		{2 * time.Second, time.Second},
		{1500 * time.Millisecond, 750 * time.Millisecond},
		{100 * time.Millisecond, 50 * time.Millisecond}, // the least that a server takes
		{time.Hour + 999*time.Microsecond, time.Hour - time.Second},
	}
	for _, test := range tests {
		if got := bucketTTL(test.maxAge); got != test.want {
			t.Errorf("bucketTTL(%v) = %v, want %v", test.maxAge, got, test.want)
		}
		config := served(t, "1")
		config.MaxAge = test.maxAge
		if _, err := newBucket(nil, config, 1<<20, test.want); err != nil {
			t.Errorf("newBucket with max_age %v for TTLs of up to %v = %v, want nil", test.maxAge, test.want, err)
		}
		if test.maxAge == 0 {
			continue
		}
		if _, err := newBucket(nil, config, 1<<20, test.want+1); err == nil {
			t.Errorf("newBucket with max_age %v for TTLs of up to %v = nil, want an error", test.maxAge, test.want+1)
		}
	}
}

func TestLifetime(t *testing.T) {
	tests := []struct {
		ttl  time.Duration
		want lifetime
	}{
		{time.Millisecond, 2},
		{time.Second, 2},
		{time.Second + time.Millisecond, 3},
		{1500 * time.Millisecond, 3},
		{time.Hour, 3601},
		{31 * 24 * time.Hour, 2678401},
		{l2cache.MaxTTL, 3153600001},
		{l2cache.NoExpiry, forever},
	}
	unlimited := &bucket{config: served(t, "1")}
	for _, test := range tests {
		if got := unlimited.lifetimeOf(test.ttl); got != test.want {
			t.Errorf("lifetimeOf(%v) = %v, want %v", test.ttl, got, test.want)
		}
		if got := lifetimeIn(entry.over(message{}, test.want)); got != test.want {
			t.Errorf("a message that is to be kept for %v has a header that says %v", test.want, got)
		}
	}
	day := &bucket{config: served(t, "1")}
	day.config.MaxAge = 24 * time.Hour
	for ttl, want := range map[time.Duration]lifetime{24 * time.Hour: forever, 24*time.Hour - time.Second: forever, 24*time.Hour - 1001*time.Millisecond: 86_400} {
		if got := day.lifetimeOf(ttl); got != want {
			t.Errorf("with a MaxAge of 24h, lifetimeOf(%v) = %v, want %v", ttl, got, want)
		}
	}
	for text, want := range map[string]lifetime{"": forever, "never": forever, "7": 7, "7s": 7, "1h0m1s": 3601, "1500ms": 1} {
		if got := lifetimeIn(nats.Header{"Nats-TTL": {text}}); got != want {
			t.Errorf("lifetimeIn(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestReconnectDelay(t *testing.T) {
	for attempts := 1; attempts < 100_000; attempts *= 3 {
		if got := reconnectDelay(attempts); got < 40*time.Millisecond || got > 250*time.Millisecond {
			t.Errorf("reconnectDelay(%d) = %v, want 40ms to 250ms", attempts, got)
		}
	}
}
