package l2cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/mem"
)

// stub is a backend whose Ping does as it is told.
type stub struct {
	l2cache.L2CacheBackend
	ping   func(context.Context) error
	closed bool
}

func (s *stub) Ping(ctx context.Context) error { return s.ping(ctx) }
func (s *stub) Close() error                   { s.closed = true; return nil }

// register makes scheme open b.
func register(scheme string, b *stub) {
	l2cache.Register(scheme, func(_ context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
		return b, p.Err()
	})
}

func TestOpenPings(t *testing.T) {
	b := &stub{ping: func(ctx context.Context) error {
		<-ctx.Done()
		return l2cache.NewError(ctx, "stub", "ping", "", nil, nil)
	}}
	register("stub-stalls", b)
	_, err := l2cache.Open(t.Context(), "stub-stalls://h?dial_timeout=20ms")
	if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "dial_timeout") {
		t.Errorf("Open = %v, want ErrUnavailable that names dial_timeout, and no context error", err)
	}
	if !b.closed {
		t.Error("the backend was not closed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l2cache.Open(ctx, "stub-stalls://h"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open within the caller's deadline = %v, want DeadlineExceeded", err)
	}
	if _, err := l2cache.Open(t.Context(), "stub-stalls://h?lazy=true"); err != nil {
		t.Errorf("Open with lazy=true = %v, want nil", err)
	}
}

func TestOpenAppliesPrefix(t *testing.T) {
	ctx := t.Context()
	bare, err := l2cache.Open(ctx, "mem://open.prefix")
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	app, err := l2cache.Open(ctx, "mem://open.prefix?prefix=app:")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	if err := app.Set(ctx, "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, err := bare.Get(ctx, "app:k"); string(v) != "v" {
		t.Errorf("Get(app:k) = %q, %v; want v", v, err)
	}
}

func TestOpenErrors(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx       context.Context
		url, want string
	}{
		{t.Context(), "redis://user:hunter2@h", `import _ "github.com/l2cache/l2cache/adapters/redis"`},
		{t.Context(), "rediss+sentinel://h/m", `import _ "github.com/l2cache/l2cache/adapters/redis"`},
		{t.Context(), "hunter2://h", "unknown scheme (registered: "},
		{t.Context(), "localhost:6379", "must begin with a scheme, as in redis://localhost:6379 (registered: "},
		{t.Context(), "127.0.0.1:6379", "must begin with a scheme"},
		{t.Context(), "hunter2:6379", "must begin with a scheme"},
		{t.Context(), "mem://?op_timeout=5", "mem: open: op_timeout: it is not a positive duration with a unit, as in 250ms"},
		{t.Context(), "mem://a?hunter2=1", "option hunter2"}, // a name of an option is one
		{t.Context(), "mem://a,b", "mem://name"},
		{t.Context(), "mem://h?prefix=%", "option prefix"},
		{cancelled, "mem://", "context canceled"},
	} {
		b, err := l2cache.Open(tt.ctx, tt.url)
		if err == nil || b != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q) = %v, %v; want an error with %q", tt.url, b, err, tt.want)
		}
		var e *l2cache.Error
		if !errors.As(err, &e) || e.Op != "open" {
			t.Errorf("Open(%q) = %#v, want an *Error of open", tt.url, err)
		}
		if strings.Contains(fmt.Sprint(err), "hunter2") && !strings.Contains(tt.url, "?hunter2=") {
			t.Errorf("Open(%q) shows the secret: %v", tt.url, err)
		}
	}
}

func TestRegisterTwicePanics(t *testing.T) {
	register("stub-twice", &stub{})
	defer func() {
		if recover() == nil {
			t.Error("the second Register did not panic")
		}
	}()
	register("stub-twice", &stub{})
}

func TestSecretNeverPrints(t *testing.T) {
	const text = "hunter2"
	s := l2cache.NewSecret(text)
	hidden := struct {
		Public l2cache.Secret
		hidden l2cache.Secret
	}{s, s}
	encoded, _ := json.Marshal(hidden)
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %v %+v %#v %q %x %d", s, s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", hidden, hidden, hidden),
		fmt.Sprintf("%+v", &hidden), fmt.Sprintf("%x", hidden), string(encoded),
	} {
		if strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) {
			t.Errorf("a secret prints as %s", got)
		}
	}
	if s.Reveal() != text || fmt.Sprint(s) != "***" || fmt.Sprint(l2cache.NewSecret("")) != "" {
		t.Errorf("Reveal %q, prints %q, empty prints %q", s.Reveal(), s, l2cache.NewSecret(""))
	}
}
