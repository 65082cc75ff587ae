package backends

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

// canary is the secret that must not come out anywhere.
const canary = "c4n4ry5ecret"

// A target is a place to open a backend at, in which none will let the canary in.
type target struct{ scheme, hosts, path string }

// targets are servers that ask for another password, ports where nobody listens, or
// somebody who talks no protocol at all, and hosts that cannot be parsed.
func targets(t testing.TB) []target {
	redis := servertest.Redis(t, "--requirepass", "another").Addr
	// Redis quotes the arguments of a command that it does not know.
	noAuth := servertest.Redis(t, "--rename-command", "AUTH", "", "--rename-command", "HELLO", "").Addr
	nats := servertest.NATS(t, "--user", "user", "--pass", "another").Addr
	memcached := servertest.Memcached(t).Addr
	const refused = "127.0.0.1:1"
	babble := babbler(t)
	dir := filepath.ToSlash(t.TempDir())
	return []target{
		{"redis", redis, "/0"},
		{"redis", noAuth, ""},
		{"redis", refused, ""},
		{"redis", babble, ""},
		{"redis", "h:6379:6380", ""},
		{"redis", "", ""},
		{"redis", redis, "/x"},
		{"rediss", redis, ""},
		{"rediss", babble, ""},
		{"redis+cluster", redis + "," + refused, ""},
		{"redis+sentinel", redis, "/master"},
		{"redis+unix", "localhost", dir + "/none.sock"},
		{"nats", nats, "/bucket"},
		{"nats", refused, "/bucket"},
		{"nats", babble, "/bucket"},
		{"nats", nats, "/no.bucket"},
		{"nats+tls", nats, "/bucket"},
		{"nats+tls", babble, "/bucket"},
		{"memcached", memcached, ""},
		{"memcached", refused, ""},
		{"memcacheds", memcached, ""},
		{"bolt", "", dir + "/cache.db"},
		{"bolt", "localhost", dir + "/cache.db"},
		{"mem", "", ""},
		{"mem", "name", ""},
		{"unknown", "localhost", ""},
		{canary, "localhost", ""}, // the scheme was forgotten, and a password comes first
		{"", "", ""},
	}
}

// babbler is the address of somebody who answers each connection with noise.
func babbler(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n-ERR what?\r\n")
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// The ways to give a secret.
const (
	inURL = iota
	inField
	inFile
	inEnv
	inBoth    // the URL and the field, which differ
	inOption  // of a name that there is not
	inNkey    // the secret in place of the name of its file
	inKeyFile // a file for TLS, or with a seed, that is not what it should be
	ways
)

// FuzzCanary opens backends with a secret in every place where one can be, among odd
// surroundings, and looks for it in all that can be printed.
func FuzzCanary(f *testing.F) {
	all := targets(f)
	file := filepath.Join(f.TempDir(), "file")
	if err := os.WriteFile(file, []byte(canary+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Setenv("L2CACHE_TEST_CANARY", canary)
	for i := range all {
		for way := range ways {
			f.Add(uint8(i), uint8(way), "user", "")
		}
		f.Add(uint8(i), uint8(inURL), "", "lazy=true")
		f.Add(uint8(i), uint8(inField), "user", "lazy=true&pool_size=2")
	}
	for _, user := range []string{"us/er", "us?er", "us#er", "us@er", "%", "%40", "a:b", "a,b", "[", "user\n", "\x00", "é"} {
		f.Add(uint8(0), uint8(inURL), user, "")
		f.Add(uint8(11), uint8(inField), user, "")
	}
	for _, options := range []string{"x", "x=1&x=2", "op_timeout=5", "lazy=maybe", "prefix=%zz", "pool_size=-1", "tls_cert=a", "creds=none", "storage=disk"} {
		f.Add(uint8(0), uint8(inURL), "user", options)
		f.Add(uint8(11), uint8(inURL), "user", options)
		f.Add(uint8(20), uint8(inURL), "user", options)
	}
	f.Fuzz(func(t *testing.T, at, way uint8, user, options string) {
		// After a third slash comes a path, which is not secret.
		if strings.HasPrefix(user, "/") || strings.Contains(user+options, canary) {
			return
		}
		to := all[int(at)%len(all)]
		c := l2cache.Config{Options: map[string]string{}}
		before := ""
		switch way % ways {
		case inURL:
			before = user + ":" + canary + "@"
		case inField:
			c.Username, c.Password = user, l2cache.NewSecret(canary)
		case inFile:
			c.Username, c.PasswordFile = user, file
		case inEnv:
			c.Username, c.PasswordEnv = user, "L2CACHE_TEST_CANARY"
		case inBoth:
			before, c.Password = "other:another@", l2cache.NewSecret(canary)
		case inOption:
			c.Options["token"], c.Options["password"] = canary, canary
		case inNkey:
			c.Options["nkey"], c.Options["creds"] = canary, canary
		case inKeyFile:
			c.TLS = l2cache.TLSConfig{CA: file, Cert: file, Key: file}
			c.Options["creds"] = file
		}
		c.URL = to.scheme + "://" + before + to.hosts + to.path + "?dial_timeout=200ms&op_timeout=50ms&" + options

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hidden(t, "the Config", c, &c, struct{ Cache l2cache.Config }{c})
		failed(t, "Validate", c.Validate())
		b, err := c.Open(ctx)
		failed(t, "Config.Open", err)
		use(t, ctx, b)
		if way%ways == inURL {
			b, err := l2cache.Open(ctx, c.URL)
			failed(t, "Open", err)
			use(t, ctx, b)
		}
	})
}

// use has b fail in every way that it has, and closes it.
func use(t *testing.T, ctx context.Context, b l2cache.L2CacheBackend) {
	if b == nil {
		return
	}
	for range 2 { // open, then closed
		_, err := b.Get(ctx, "key")
		failed(t, "Get", err)
		_, err = b.GetWithTTL(ctx, "key")
		failed(t, "GetWithTTL", err)
		failed(t, "Set", b.Set(ctx, "key", nil, time.Minute))
		failed(t, "Delete", b.Delete(ctx, "key"))
		failed(t, "Ping", b.Ping(ctx))
		_, err = l2cache.GetMany(ctx, b, []string{"key"})
		failed(t, "GetMany", err)
		failed(t, "SetMany", l2cache.SetMany(ctx, b, []l2cache.Item{{Key: "key", TTL: time.Minute}}))
		failed(t, "DeleteMany", l2cache.DeleteMany(ctx, b, []string{"key"}))
		failed(t, "Touch", l2cache.Touch(ctx, b, "key", time.Minute))
		_, err = l2cache.Add(ctx, b, "key", nil, time.Minute)
		failed(t, "Add", err)
		failed(t, "DeletePattern", l2cache.DeletePattern(ctx, b, "key*"))
		for _, err := range l2cache.Scan(ctx, b, "key") {
			failed(t, "Scan", err)
		}
		watching, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		for _, err := range l2cache.Watch(watching, b, "key") {
			failed(t, "Watch", err)
		}
		cancel()
		failed(t, "Close", b.Close())
	}
	hidden(t, "the backend", b)
	hidden(t, "the profile", l2cache.ProfileOf(b))
}

// failed looks for the canary in err, and in all that it wraps.
func failed(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	hidden(t, "the error of "+what, err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		failed(t, what, e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			failed(t, what, err)
		}
	}
	// What hides context errors has no Unwrap.
	var op *net.OpError
	if errors.As(err, &op) && op != err {
		failed(t, what, op)
	}
}

// hidden looks for the canary in all the ways to print values.
func hidden(t *testing.T, what string, values ...any) {
	t.Helper()
	for _, v := range values {
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("is", "v", v)
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("is", "v", v)
		texts := []string{
			fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%q", v), fmt.Sprintf("%s", v), fmt.Sprintf("%x", v),
			logged.String(), encoded(json.Marshal, v), encoded(yaml.Marshal, v),
		}
		for _, text := range texts {
			for _, form := range []string{canary, fmt.Sprintf("%x", canary), base64.StdEncoding.EncodeToString([]byte(canary))} {
				if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
					t.Errorf("%s shows the secret: %s", what, text)
				}
			}
		}
	}
}

// encoded is what an encoder makes of v; yaml panics at what it cannot encode.
func encoded(encode func(any) ([]byte, error), v any) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprint(p)
		}
	}()
	b, err := encode(v)
	return fmt.Sprint(string(b), err)
}

// TestCanaryOfBroken prints what comes from backends that the canary has opened, once
// their servers are gone.
func TestCanaryOfBroken(t *testing.T) {
	redis := servertest.Redis(t, "--requirepass", canary)
	nats := servertest.NATS(t, "--user", "user", "--pass", canary)
	token := servertest.NATS(t, "--auth", canary)
	for _, tt := range []struct {
		name, url string
		server    *servertest.Server
	}{
		{"redis password", "redis://:" + canary + "@" + redis.Addr, redis},
		{"nats password", "nats://user:" + canary + "@" + nats.Addr + "/bucket", nats},
		{"nats token", "nats://:" + canary + "@" + token.Addr + "/bucket", token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := l2cache.Open(t.Context(), tt.url+"?op_timeout=4s&prefix=app:")
			if err != nil {
				t.Fatalf("Open with the right password: %v", err)
			}
			observed := l2cache.Observe(b, func(_ context.Context, op l2cache.Op) { hidden(t, "the Op", op) })
			if err := observed.Set(t.Context(), "key", []byte("v"), time.Minute); err != nil {
				t.Errorf("Set = %v", err)
			}
			if err := tt.server.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := observed.Ping(t.Context()); !errors.Is(err, l2cache.ErrUnavailable) {
				t.Errorf("Ping of a server that is gone = %v, want ErrUnavailable", err)
			}
			use(t, t.Context(), observed)
			hidden(t, "the backend", b)
		})
	}
}
