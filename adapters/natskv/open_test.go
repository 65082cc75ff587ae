package natskv_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestOpenRefuses(t *testing.T) {
	tests := []struct{ url, names string }{
		{"nats:///bucket", "host"},
		{"nats://h", "URL: it names no bucket"},
		{"nats://h/", "URL: it names no bucket"},
		{"nats://h/a/b", "bucket"},
		{"nats://h/a.b", "bucket"},
		{"nats://h/b?max_age=0s", "max_age"},
		{"nats://h/b?max_age=24", "max_age"},
		{"nats://h/b?replicas=0", "replicas"},
		{"nats://h/b?storage=disk", "storage"},
		{"nats://h/b?pool_size=3", "pool_size"},
		{"nats://h/b?tls_ca=/ca.pem", "tls_ca"}, // for nats+tls only
		{"nats+tls://h/b?tls_ca=/no/such/file.pem", "tls_ca"},
	}
	for _, test := range tests {
		b, err := l2cache.Open(context.Background(), test.url)
		if err == nil || !strings.Contains(err.Error(), test.names) {
			t.Errorf("Open(%q) = %v, %v; want an error that names %s", test.url, b, err, test.names)
		}
	}
}

func TestOpenOfADeadAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := listener.Addr().String()
	defer listener.Close() // it accepts in the kernel, and says nothing
	refused := deadAddr(t)

	promptly(t, "Open of an address that refuses", 0, 100*time.Millisecond, func() {
		b, err := l2cache.Open(context.Background(), "nats://"+refused+"/b")
		if !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("Open of an address that refuses = %v, %v; want %v, connection refused", b, err, l2cache.ErrUnavailable)
		}
	})
	promptly(t, "Open of a silent address", 100*time.Millisecond, 50*time.Millisecond, func() {
		b, err := l2cache.Open(context.Background(), "nats://"+silent+"/b?dial_timeout=100ms")
		if !errors.Is(err, l2cache.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open of a silent address = %v, %v; want %v", b, err, l2cache.ErrUnavailable)
		}
	})
	promptly(t, "Open of a silent address", 50*time.Millisecond, 50*time.Millisecond, func() {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		if b, err := l2cache.Open(ctx, "nats://"+silent+"/b"); !errors.Is(err, context.Canceled) {
			t.Errorf("Open that is cancelled = %v, %v; want %v", b, err, context.Canceled)
		}
	})

	for _, addr := range []string{refused, silent} {
		promptly(t, "lazy Open, one operation each and Close", time.Duration(len(operations))*50*time.Millisecond, 100*time.Millisecond, func() {
			b, err := l2cache.Open(context.Background(), "nats://"+addr+"/b?lazy=true&op_timeout=50ms")
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for name, op := range operations {
				if err := op(context.Background(), b); !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("%s of a dead address = %v, want %v", name, err, l2cache.ErrUnavailable)
				}
			}
		})
	}
	b, err := l2cache.Open(context.Background(), "nats://"+silent+"/b?lazy=true")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { _, err := b.Get(context.Background(), "k"); got <- err }()
	within(t, "Close while the first operation dials", 0, 50*time.Millisecond, func() {
		b.Close()
		if err := <-got; !errors.Is(err, l2cache.ErrClosed) {
			t.Errorf("Get when the backend is closed = %v, want %v", err, l2cache.ErrClosed)
		}
	})
}

// deadAddr is an address on which nobody listens.
func deadAddr(t *testing.T) string {
	t.Helper()
	srv := servertest.NATS(t)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	return srv.Addr
}

func TestLazy(t *testing.T) {
	srv := servertest.NATS(t)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	b := open(t, srv, "b", "lazy=true")
	if p := l2cache.ProfileOf(b); p.Durable || p.MaxValueLen != 0 || p.MaxTTL != l2cache.NoExpiry {
		t.Errorf("the profile of a lazy backend is %+v, want nothing that only the server knows", p)
	}
	if _, err := b.Get(context.Background(), "k"); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Get without a server = %v, want %v", err, l2cache.ErrUnavailable)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	set(t, b, "k", "v", time.Hour) // at once: there was no connection that would have to come back
	want(t, b, "k", "v")
}

func TestSecondHost(t *testing.T) {
	srv := server(t)
	b, err := l2cache.Open(context.Background(), "nats://"+deadAddr(t)+","+srv.Addr+"/second")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	set(t, b, "k", "v", time.Hour)
	want(t, b, "k", "v")
}

// canary is a password that nothing may show.
const canary = "c4n4ry-c4n4ry"

func TestPasswordIsNotShown(t *testing.T) {
	srv := servertest.NATS(t, "--user", "cache", "--pass", canary)
	b, err := l2cache.Open(context.Background(), "nats://cache:"+canary+"@"+srv.Addr+"/b?prefix=app:")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	set(t, b, "k", "v", time.Hour)
	want(t, b, "k", "v")

	texts := []string{fmt.Sprintf("%v %+v %#v %s", b, b, b, b)}
	inner := b.(interface{ Unwrap() l2cache.L2CacheBackend }).Unwrap()
	texts = append(texts, fmt.Sprintf("%v %+v %#v %s", inner, inner, inner, inner))

	for _, url := range []string{
		"nats://cache:" + canary + "-wrong@" + srv.Addr + "/b",
		"nats://" + canary + ":x@" + srv.Addr + "/b",
		"nats://cache:" + canary + "@" + srv.Addr + "/no.bucket",
		"nats://cache:" + canary + "@" + srv.Addr + "/" + canary + ".b",
		"nats://cache:" + canary + "@" + deadAddr(t) + "/b",
		"nats+tls://cache:" + canary + "@" + srv.Addr + "/b",
		"nats://cache:" + canary + "@" + srv.Addr + "/b?storage=" + canary,
	} {
		b, err := l2cache.Open(context.Background(), url)
		if err == nil {
			b.Close()
			t.Errorf("Open(%q) = nil, want an error", url)
			continue
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", e, e, e))
		}
	}
	if err := srv.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err = b.Get(context.Background(), "k")
	texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
	for _, text := range texts {
		if strings.Contains(text, canary) {
			t.Errorf("the password is in %q", text)
		}
	}
}

func TestWrongPassword(t *testing.T) {
	srv := servertest.NATS(t, "--user", "cache", "--pass", canary)
	b, err := l2cache.Open(context.Background(), "nats://cache:wrong@"+srv.Addr+"/b")
	if !errors.Is(err, nats.ErrAuthorization) || !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open with a wrong password = %v, %v; want %v", b, err, nats.ErrAuthorization)
	}
}

func TestTLS(t *testing.T) {
	cert, key := servertest.Certificate(t)
	srv := servertest.NATS(t, "--tls", "--tlscert", cert, "--tlskey", key)
	b, err := l2cache.Open(context.Background(), "nats+tls://"+srv.Addr+"/b?tls_ca="+cert)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	set(t, b, "k", strings.Repeat("v", 1_000_000), time.Hour)
	want(t, b, "k", strings.Repeat("v", 1_000_000))
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
	want(t, b, "k", strings.Repeat("v", 1_000_000))

	for _, url := range []string{"nats+tls://" + srv.Addr + "/b", "nats+tls://" + srv.Addr + "/b?tls_server_name=other&tls_ca=" + cert} {
		b, err := l2cache.Open(context.Background(), url)
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		if !errors.As(err, &unknown) && !errors.As(err, &name) {
			t.Errorf("Open(%q) = %v, %v; want an error of the certificate", url, b, err)
		}
	}
	plain := servertest.NATS(t)
	if b, err := l2cache.Open(context.Background(), "nats+tls://"+plain.Addr+"/b"); !errors.Is(err, nats.ErrSecureConnWanted) {
		t.Errorf("Open of nats+tls at a server without TLS = %v, %v; want %v", b, err, nats.ErrSecureConnWanted)
	}
}
