package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/natskv"
	"github.com/l2cache/l2cache/internal/servertest"
)

// awkward has what means something in a URL, in a server's command line or in the
// protocol's JSON.
const awkward = `p@s:s/w?o#r%d &=+[é"\,$`

// TestCredentials shows each kind of them to a server that demands it, and to one
// that does not take it.
func TestCredentials(t *testing.T) {
	userinfo := url.UserPassword(awkward, awkward).String() + "@"
	token := url.UserPassword("", awkward).String() + "@"
	tests := []struct {
		name     string
		server   []string
		userinfo string
		option   string
	}{
		{"password", []string{"--user", awkward, "--pass", awkward}, userinfo, ""},
		{"token", []string{"--auth", awkward}, token, ""},
		{"creds", []string{"-c", testdata(t, "jwt.conf")}, "", "creds=" + testdata(t, "user.creds")},
		{"nkey", []string{"-c", testdata(t, "nkey.conf")}, "", "nkey=" + testdata(t, "user.nk")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := servertest.NATS(t, test.server...)
			b, err := l2cache.Open(context.Background(), "nats://"+test.userinfo+srv.Addr+"/b?"+test.option)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
				if s := fmt.Sprintf(verb, b); s != "nats" {
					t.Errorf("%s shows %q, want the name only", verb, s)
				}
			}
			set(t, b, "k", "v", time.Hour)
			want(t, b, "k", "v")
			if err := srv.Restart(); err != nil {
				t.Fatal(err)
			}
			await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
			want(t, b, "k", "v")

			for _, other := range tests {
				if other.name == test.name {
					continue
				}
				b, err := l2cache.Open(context.Background(), "nats://"+other.userinfo+srv.Addr+"/b?"+other.option)
				refused := errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrNkeysNotSupported)
				if !refused || !errors.Is(err, l2cache.ErrUnavailable) {
					t.Errorf("Open with %s = %v, %v; want %v", other.name, b, err, nats.ErrAuthorization)
				}
			}
			b, err = l2cache.Open(context.Background(), "nats://"+srv.Addr+"/b")
			if !errors.Is(err, nats.ErrAuthorization) || !errors.Is(err, l2cache.ErrUnavailable) {
				t.Errorf("Open without credentials = %v, %v; want %v", b, err, nats.ErrAuthorization)
			}
		})
	}
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name)) // the server runs in a folder of its own
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What a creds file has when a connection is made is what the server gets.
func TestCredsAreReplaced(t *testing.T) {
	srv := servertest.NATS(t, "-c", testdata(t, "jwt.conf"))
	file := filepath.Join(t.TempDir(), "user.creds")
	write := func(name string) {
		t.Helper()
		contents, err := os.ReadFile(testdata(t, name))
		if err == nil {
			err = os.WriteFile(file, contents, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("nojetstream.creds")
	b, err := l2cache.Open(context.Background(), "nats://"+srv.Addr+"/b?lazy=true&creds="+file)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var api *jetstream.APIError
	if err := b.Ping(context.Background()); !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabledForAccount {
		t.Errorf("Ping in an account without JetStream = %v, want an error that says so", err)
	}
	write("user.creds")
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
	set(t, b, "k", "v", time.Hour)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	_, err = b.Get(context.Background(), "k")
	if !errors.Is(err, l2cache.ErrUnavailable) || strings.Contains(err.Error(), file) {
		t.Errorf("Get without a creds file = %v, want %v, and not the name of the file", err, l2cache.ErrUnavailable)
	}
	write("user.creds")
	await(t, "the server answers", func() bool { return b.Ping(context.Background()) == nil })
	want(t, b, "k", "v")
}

func TestCredentialsAreRefused(t *testing.T) {
	creds, seed := testdata(t, "user.creds"), testdata(t, "user.nk")
	empty := filepath.Join(t.TempDir(), canary)
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ url, names string }{
		{"nats://" + canary + "@h/b", "nats://:token@host"},
		{"nats://u:" + canary + "@h/b?creds=" + creds, "exclude"},
		{"nats://:" + canary + "@h/b?nkey=" + seed, "exclude"},
		{"nats://h/b?creds=" + creds + "&nkey=" + seed, "exclude"},
		{"nats://h/b?creds=/no/such/" + canary, "creds"},
		{"nats://h/b?nkey=/no/such/" + canary, "nkey"},
		{"nats://h/b?creds=" + empty, "creds"},
		{"nats://h/b?nkey=" + empty, "nkey"},
		{"nats://h/b?create=no", "create"},
	} {
		b, err := l2cache.Open(context.Background(), test.url+"&lazy=true")
		if !strings.Contains(test.url, "?") {
			b, err = l2cache.Open(context.Background(), test.url+"?lazy=true")
		}
		if err == nil || !strings.Contains(err.Error(), test.names) || strings.Contains(fmt.Sprintf("%v %+v", err, err), canary) {
			t.Errorf("Open(%q) = %v, %v; want an error that names %s, and no secret", test.url, b, err, test.names)
		}
	}
}

// A client's certificate is all that a server needs that maps it to a user.
func TestClientCertificate(t *testing.T) {
	cert, key := servertest.Certificate(t)
	srv := servertest.NATS(t, "--tlsverify", "--tlscert", cert, "--tlskey", key, "--tlscacert", cert)
	b, err := l2cache.Open(context.Background(), "nats+tls://"+srv.Addr+"/b?tls_ca="+cert+"&tls_cert="+cert+"&tls_key="+key)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	set(t, b, "k", "v", time.Hour)
	want(t, b, "k", "v")

	b, err = l2cache.Open(context.Background(), "nats+tls://"+srv.Addr+"/b?tls_ca="+cert)
	// It is the server's alert, for which crypto/tls has no type, or what a write gets
	// that comes after it.
	if !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), "tls") {
		t.Errorf("Open without a certificate = %v, %v; want %v because of TLS", b, err, l2cache.ErrUnavailable)
	}
}

// configured starts a server with that configuration.
func configured(t *testing.T, config string) *servertest.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return servertest.NATS(t, "-c", file)
}

// What the server refuses for want of a permission is told at once, and is no timeout.
func TestPermissions(t *testing.T) {
	const allowed = `"$KV.b.>", "$JS.API.STREAM.INFO.KV_b", "$JS.API.DIRECT.GET.KV_b.>", "$JS.API.STREAM.PURGE.KV_b",
		"$JS.API.CONSUMER.CREATE.KV_b", "$JS.API.CONSUMER.DELETE.KV_b.>", "$JS.API.CONSUMER.MSG.NEXT.KV_b.>"`
	srv := configured(t, `authorization {users: [
		{user: admin, password: x}
		{user: all, password: x, permissions: {subscribe: "_INBOX.>", publish: [`+allowed+`]}}
		{user: reader, password: x, permissions: {subscribe: "_INBOX.>", publish: ["$JS.API.STREAM.INFO.KV_b", "$JS.API.DIRECT.GET.KV_b.>"]}}
		{user: writer, password: x, permissions: {subscribe: "_INBOX.>", publish: ["$JS.API.STREAM.INFO.KV_b", "$KV.b.>"]}}
		{user: nobody, password: x, permissions: {subscribe: "_INBOX.>", publish: "nothing"}}
		{user: deaf, password: x, permissions: {subscribe: "nothing", publish: [`+allowed+`]}}
	]}`)
	ctx := context.Background()
	as := func(user string) string {
		return "nats://" + user + ":x@" + srv.Addr + "/b?op_timeout=20s&dial_timeout=20s"
	}
	denied := func(t *testing.T, what string, err error) {
		t.Helper()
		if !errors.Is(err, nats.ErrPermissionViolation) || !errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("%s = %v, want %v, %v", what, err, l2cache.ErrUnavailable, nats.ErrPermissionViolation)
		}
	}

	within(t, "opening a bucket that one may not create", 0, time.Second, func() {
		_, err := l2cache.Open(ctx, as("all"))
		denied(t, "Open", err)
	})
	admin, err := l2cache.Open(ctx, as("admin"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	set(t, admin, "k", "v", time.Hour)

	for _, user := range []string{"nobody", "deaf"} {
		within(t, "Open as "+user, 0, time.Second, func() {
			_, err := l2cache.Open(ctx, as(user))
			denied(t, "Open as "+user, err)
		})
	}

	// Who writes has to read, too.
	mayNot := map[string]map[string]bool{
		"all":    {},
		"reader": {"Set": true, "Delete": true, "SetMany": true, "DeleteMany": true, "Touch": true, "Add": true, "DeletePattern": true, "Watch": true},
		"writer": everythingBut("Ping"),
		"nobody": everythingBut(),
		"deaf":   everythingBut(),
	}
	for user, mayNot := range mayNot {
		nc, err := nats.Connect("nats://"+user+":x@"+srv.Addr, nats.ReconnectBufSize(-1),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		byURL, err := l2cache.Open(ctx, as(user)+"&lazy=true")
		if err != nil {
			t.Fatal(err)
		}
		defer byURL.Close()
		byNew, err := natskv.New(nc, "b", &natskv.Options{OpTimeout: time.Second}) // some of a batch wait for it
		if err != nil {
			t.Fatal(err)
		}
		defer byNew.Close()
		for how, b := range map[string]l2cache.L2CacheBackend{"URL": byURL, "New": byNew} {
			for name, op := range operations {
				set(t, admin, "k", "v", time.Hour)
				what := fmt.Sprintf("%s as %s, by %s", name, user, how)
				within(t, what, 0, 2*time.Second, func() {
					if err := op(ctx, b); mayNot[name] {
						denied(t, what, err)
					} else if err != nil {
						t.Errorf("%s = %v, want nil", what, err)
					}
				})
			}
		}
	}
}

// everythingBut has the names of all other operations.
func everythingBut(names ...string) map[string]bool {
	all := map[string]bool{}
	for name := range operations {
		all[name] = !slices.Contains(names, name)
	}
	return all
}

// Of calls that are refused together each learns why, over a connection of the
// backend's own; over the caller's at least by the time that they time out.
func TestManyAreRefused(t *testing.T) {
	srv := configured(t, `authorization {users: [
		{user: reader, password: x, permissions: {subscribe: "_INBOX.>", publish: ["$JS.API.STREAM.INFO.KV_b", "$JS.API.DIRECT.GET.KV_b.>"]}}, {user: admin, password: x}
	]}`)
	ctx := context.Background()
	admin, err := l2cache.Open(ctx, "nats://admin:x@"+srv.Addr+"/b")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	b, err := l2cache.Open(ctx, "nats://reader:x@"+srv.Addr+"/b?op_timeout=20s")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	nc, err := nats.Connect("nats://reader:x@"+srv.Addr, nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	overNew, err := natskv.New(nc, "b", &natskv.Options{OpTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer overNew.Close()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint("k", i))
	}
	for how, b := range map[string]l2cache.L2CacheBackend{"URL": b, "New": overNew} {
		within(t, "DeleteMany", 0, 5*time.Second, func() {
			err := l2cache.DeleteMany(ctx, b, keys)
			var failed l2cache.KeyErrors
			if !errors.As(err, &failed) || len(failed) != len(keys) {
				t.Fatalf("%s: DeleteMany without the permission = %v, want an error for each key", how, err)
			}
			for key, err := range failed {
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("%s: DeleteMany: %s = %v, want %v", how, key, err, nats.ErrPermissionViolation)
				}
			}
		})
	}
}

// Errors of opening say what to do.
func TestOpenSaysWhatToDo(t *testing.T) {
	ctx := context.Background()
	none := configured(t, `accounts {A {users: [{user: a, password: a}]}}`)
	srv := servertest.NATS(t)
	for _, test := range []struct {
		url  string
		says string
		is   error
	}{
		{"nats://a:a@" + none.Addr + "/b", "JetStream", nil},
		{"nats://" + srv.Addr + "/nobody?create=false", "create=false", jetstream.ErrStreamNotFound},
	} {
		b, err := l2cache.Open(ctx, test.url)
		if !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("Open(%q) = %v, %v; want %v that says %s", test.url, b, err, l2cache.ErrUnavailable, test.says)
		}
	}

	c, err := natskv.New(connect(t, srv, nats.ReconnectBufSize(-1)), "nobody", &natskv.Options{NoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Set(ctx, "k", nil, time.Hour); !errors.Is(err, jetstream.ErrStreamNotFound) || !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Set with NoCreate where there is no bucket = %v, want %v", err, jetstream.ErrStreamNotFound)
	}

	// What create=false finds it leaves as it is.
	js := jetStream(t, connect(t, srv))
	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "stock"}); err != nil {
		t.Fatal(err)
	}
	if b, err := l2cache.Open(ctx, "nats://"+srv.Addr+"/stock?create=false"); err == nil || !strings.Contains(err.Error(), "allow_msg_ttl") {
		t.Errorf("Open of a bucket without message TTLs, create=false = %v, %v; want an error that names allow_msg_ttl", b, err)
	}
	open(t, srv, "stock")
	open(t, srv, "stock", "create=false")
}

// A server without JetStream says nothing, as nobody there listens.
func TestNoJetStream(t *testing.T) {
	srv := servertest.NATS(t, "--jetstream=false")
	b, err := l2cache.Open(context.Background(), "nats://"+srv.Addr+"/b")
	if !errors.Is(err, l2cache.ErrUnavailable) || !errors.Is(err, nats.ErrNoResponders) || !strings.Contains(err.Error(), "-js") {
		t.Errorf("Open at a server without JetStream = %v, %v; want %v that names -js", b, err, l2cache.ErrUnavailable)
	}
}
