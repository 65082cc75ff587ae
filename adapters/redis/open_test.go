package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/internal/servertest"
)

func TestOpenFaults(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"redis://", "host"},
		{"redis:///0", "host"},
		{"redis://a,b", "more than one"},
		{"redis://a/x", "path"},
		{"redis://a/0/1", "path"},
		{"redis://a/-1", "path"},
		{"redis://a?pool_size=0", "pool_size"},
		{"redis://a?pool_size=300000000", "pool_size: it is more than 10000 connections"},
		{"redis+cluster://", "host"},
		{"redis+cluster://a/1", "path"},
		{"redis+cluster://a?sentinel_auth=true", "unknown option sentinel_auth"},
		{"redis+sentinel://a", "path"},
		{"redis+sentinel:///m", "host"},
		{"redis+sentinel://a/m/x", "path"},
		{"redis+sentinel://a/m?sentinel_auth=1", "sentinel_auth"},
		{"redis+sentinel://a/m?tls_ca=x", "tls_ca: it needs TLS: rediss+sentinel://"},
		{"redis+sentinel://a/m?db=1", "db: the database is written after the name"},
		{"redis+cluster://a?db=1", "db: a cluster has no databases"},
		{"redis+cluster://a?tls_key=", "tls_key: it needs TLS: rediss+cluster://"},
		{"rediss+cluster://a?tls_ca=/nowhere", "tls_ca"},
		{"redis://a?durable=yes", "durable"},
		{"redis://a?db=1", "db: the database is the path, as in redis://localhost/2"},
		{"redis://a?client_name=a%20b", "client_name"},
		{"redis://a?tls_ca=x", "tls_ca: it needs TLS: rediss://"},
		{"redis://a?tls_server_name=x", "tls_server_name: it needs TLS: rediss://"},
		{"redis+unix:///run/redis.sock?tls_cert=x", "tls_cert: there is no TLS on a socket"},
		{"redis://user@a", "password"},
		{"redis+unix://", "path"},
		{"redis+unix://elsewhere/run/redis.sock", "host"},
		{"redis+unix:///run/redis.sock?db=x", "db"},
	} {
		b, err := l2cache.Open(t.Context(), test.url)
		if err == nil || b != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Open(%q) = %v, %v; want an error about %s", test.url, b, err, test.want)
		}
	}
}

func TestDatabase(t *testing.T) {
	addr := server(t).Addr
	b := openURL(t, "redis://"+addr+"/3?client_name=l2cache-test&prefix=db:")
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, redis.Options{Addr: addr, DB: 3})
	if v, err := client.Get(t.Context(), "db:k").Result(); v != "v" || err != nil {
		t.Errorf("GET in database 3 = %q, %v; want v", v, err)
	}
	if list, err := client.ClientList(t.Context()).Result(); !strings.Contains(list, "name=l2cache-test ") {
		t.Errorf("CLIENT LIST = %s, %v; want the name", list, err)
	}
	// A database that is not there: an error, for a batch as well.
	b = openURL(t, "redis://"+addr+"/999?lazy=true")
	for name, op := range operations("k") {
		if err := op(t.Context(), b); !errors.Is(err, l2cache.ErrUnavailable) {
			t.Errorf("%s in database 999 = %v, want ErrUnavailable", name, err)
		}
	}
	c := b.(*Cache)
	reads := newReads([]string{"k", "l"})
	c.runGets(t.Context(), time.Now().Add(time.Second), c.servers.(alone).node, reads)
	for _, r := range reads {
		if r.err == nil {
			t.Errorf("GET of %q in database 999 = %q, want an error", r.key, r.entry.Value)
		}
	}
}

func TestProfile(t *testing.T) {
	for _, test := range []struct {
		policy, memory, option string
		evicts, durable        bool
	}{
		{"noeviction", "100mb", "", false, false},
		{"allkeys-lru", "0", "?durable=true", false, true},
		{"allkeys-lru", "100mb", "", true, false},
		{"noeviction", "100mb", "?lazy=true", true, false},
	} {
		srv := servertest.Redis(t, "--maxmemory-policy", test.policy, "--maxmemory", test.memory)
		p := l2cache.ProfileOf(openURL(t, "redis://"+srv.Addr+test.option))
		if p.Evicts != test.evicts || p.Durable != test.durable || p.Clock != l2cache.ServerClock || p.MaxValueLen != 512<<20 {
			t.Errorf("%s, maxmemory %s, %q: profile %+v; want Evicts %v, Durable %v, the server's clock, 512 MiB",
				test.policy, test.memory, test.option, p, test.evicts, test.durable)
		}
	}
	client := newClient(t, redis.Options{})
	if p := newCache(t, client, nil).Profile(); !p.Evicts || p.Durable {
		t.Errorf("profile of New with defaults = %+v, want Evicts and not Durable", p)
	}
	if p := newCache(t, client, &Options{NoEviction: true, Durable: true}).Profile(); p.Evicts || !p.Durable {
		t.Errorf("profile of New = %+v, want Durable and not Evicts", p)
	}
}

// canary is a password that must not show.
const canary = "c4n4ry/?@:"

func secretURL(addr, user, password string) string {
	escape := strings.NewReplacer("/", "%2F", "?", "%3F", "@", "%40", ":", "%3A")
	return "redis://" + user + ":" + escape.Replace(password) + "@" + addr
}

func TestPassword(t *testing.T) {
	srv := servertest.Redis(t, "--requirepass", canary)
	shows := func(what string, v any) { t.Helper(); wantNoSecret(t, what, v) }
	b := openURL(t, secretURL(srv.Addr, "", canary)+"?prefix=x:")
	shows("the backend", b)
	shows("the backend", b.(interface{ Unwrap() l2cache.L2CacheBackend }).Unwrap())
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set = %v", err)
	}
	shows("a backend of New", newCache(t, newClient(t, redis.Options{Addr: srv.Addr, Password: canary}), nil))

	for name, url := range map[string]string{
		"wrong": secretURL(srv.Addr, "", canary+"x"),
		"user":  secretURL(srv.Addr, "nobody", canary),
		"none":  "redis://" + srv.Addr,
	} {
		_, err := l2cache.Open(t.Context(), url)
		if !errors.Is(err, l2cache.ErrUnavailable) || !redis.IsAuthError(err) {
			t.Errorf("Open with password %s = %v, want WRONGPASS or NOAUTH", name, err)
		}
		shows("the error of Open", err)
		lazy := openURL(t, url+"?lazy=true")
		shows("a backend with password "+name, lazy)
		for op, do := range operations("k") {
			err := do(t.Context(), lazy)
			if !errors.Is(err, l2cache.ErrUnavailable) || !redis.IsAuthError(err) {
				t.Errorf("%s with password %s = %v, want WRONGPASS or NOAUTH", op, name, err)
			}
			shows("the error of "+op, err)
		}
		reads := newReads([]string{"k", "l"})
		for _, run := range []func(context.Context, time.Time, *node, []*read){lazy.(*Cache).runGets, lazy.(*Cache).runPairs} {
			run(t.Context(), time.Now().Add(time.Second), lazy.(*Cache).servers.(alone).node, reads)
			if reads[0].err == nil || reads[1].err == nil {
				t.Errorf("a batch with password %s read %v, %v; want errors", name, reads[0].entry, reads[1].entry)
			}
		}
	}
}

func TestPermissions(t *testing.T) {
	srv := servertest.Redis(t)
	admin := newClient(t, redis.Options{Addr: srv.Addr})
	as := func(user string, rules ...string) *Cache {
		t.Helper()
		args := []any{"acl", "setuser", user, "on", ">secret"}
		for _, rule := range rules {
			args = append(args, rule)
		}
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		return openURL(t, "redis://"+user+":secret@"+srv.Addr).(*Cache)
	}
	if err := admin.Set(t.Context(), "ok:a", "v", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}

	// The keys of others fail by themselves, in one batch with one's own.
	c := as("keys", "~ok:*", "+@all")
	for name, run := range map[string]func(context.Context, time.Time, *node, []*read){"GETs": c.runGets, "pairs": c.runPairs} {
		reads := newReads([]string{"ok:a", "no:a", "ok:b"})
		run(t.Context(), time.Now().Add(time.Second), c.servers.(alone).node, reads)
		if r := reads[0]; string(r.entry.Value) != "v" || r.err != nil {
			t.Errorf("%s: key that is permitted = %q, %v; want v", name, r.entry.Value, r.err)
		}
		if r := reads[1]; !redis.IsPermissionError(r.err) || r.entry.Value != nil {
			t.Errorf("%s: key that is not = %q, %v; want NOPERM", name, r.entry.Value, r.err)
		}
		if r := reads[2]; kind(r.err) != l2cache.ErrNotFound {
			t.Errorf("%s: key that is permitted and missing = %v, want a miss", name, r.err)
		}
	}
	if err := c.Set(t.Context(), "no:a", nil, time.Minute); !errors.Is(err, l2cache.ErrUnavailable) || !redis.IsPermissionError(err) {
		t.Errorf("Set of a key that is not permitted = %v, want NOPERM", err)
	}

	got, err := c.GetMany(t.Context(), []string{"ok:a", "no:a", "ok:b"})
	if len(got) != 1 || string(got["ok:a"].Value) != "v" {
		t.Errorf("GetMany with a key that is not permitted = %v, want ok:a", got)
	}
	onlyNoA(t, "GetMany", err)
	onlyNoA(t, "SetMany", c.SetMany(t.Context(), []l2cache.Item{{Key: "no:a", TTL: time.Minute}, {Key: "ok:b", TTL: time.Minute}}))
	onlyNoA(t, "DeleteMany", c.DeleteMany(t.Context(), []string{"ok:b", "no:a"}))
	if n := admin.Exists(t.Context(), "ok:b").Val(); n != 0 {
		t.Error("DeleteMany with a key that is not permitted left another")
	}

	// Without MULTI pairs are read by script; without EVAL too, not at all.
	c = as("nomulti", "~*", "+@all", "-multi")
	if e, err := c.GetWithTTL(t.Context(), "ok:a"); string(e.Value) != "v" || e.TTL > time.Minute || e.TTL < 50*time.Second || err != nil {
		t.Errorf("GetWithTTL without MULTI = %q, %v, %v; want v, 1m", e.Value, e.TTL, err)
	}
	if got, err := c.GetMany(t.Context(), []string{"ok:a", "ok:b"}); len(got) != 1 || string(got["ok:a"].Value) != "v" || err != nil {
		t.Errorf("GetMany without MULTI = %v, %v; want ok:a", got, err)
	}
	c = as("noexec", "~*", "+@all", "-exec")
	if e, err := c.GetWithTTL(t.Context(), "ok:a"); string(e.Value) != "v" || err != nil {
		t.Errorf("GetWithTTL without EXEC = %q, %v; want v", e.Value, err)
	}
	if v, err := c.Get(t.Context(), "ok:a"); string(v) != "v" || err != nil { // on the same connection
		t.Errorf("Get after it = %q, %v; want v", v, err)
	}
	c = as("noscript", "~*", "+@all", "-multi", "-@scripting")
	if e, err := c.GetWithTTL(t.Context(), "ok:a"); !errors.Is(err, l2cache.ErrUnavailable) || e.Value != nil {
		t.Errorf("GetWithTTL without MULTI and EVAL = %q, %v; want ErrUnavailable", e.Value, err)
	}

	// What the package documentation lists is enough.
	c = as("least", "~*", "-@all", "+get", "+set", "+del", "+pttl", "+multi", "+exec", "+eval", "+evalsha", "+ping", "+info",
		"+mget", "+unlink", "+pexpire", "+exists", "+persist", "+scan", "+strlen", "+hello", "+client|tracking")
	for name, op := range operations("ok:c") {
		if err := op(t.Context(), c); err != nil && !errors.Is(err, l2cache.ErrNotFound) {
			t.Errorf("%s with the least permissions = %v", name, err)
		}
	}
	if c = as("noinfo", "~*", "+@all", "-info"); !c.Profile().Evicts {
		t.Error("a server that does not permit INFO may evict, and the profile denies it")
	}
}

// onlyNoA wants err to be NOPERM for no:a and for no other key.
func onlyNoA(t *testing.T, what string, err error) {
	t.Helper()
	var failed l2cache.KeyErrors
	if !errors.As(err, &failed) || len(failed) != 1 || !redis.IsPermissionError(failed["no:a"]) || !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("%s = %v, want NOPERM for no:a alone", what, err)
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := certificates(t, dir)
	// servertest asks for readiness without TLS.
	port := freePort(t)
	srv := servertest.Redis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
	url := "rediss://localhost:" + port
	b := openURL(t, url+"?tls_ca="+ca)
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set = %v", err)
	}
	if e, err := b.GetWithTTL(t.Context(), "k"); string(e.Value) != "v" || err != nil {
		t.Errorf("GetWithTTL = %q, %v; want v", e.Value, err)
	}
	// A write finds the connection stale before it is sent.
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set after a restart = %v", err)
	}
	srv.Pause()
	prompt(t, "Get of a stalled server", 100*time.Millisecond, 50*time.Millisecond, func(due time.Time) error {
		ctx, cancel := context.WithDeadline(t.Context(), due)
		defer cancel()
		_, err := b.Get(ctx, "k")
		return err
	}, context.DeadlineExceeded)
	srv.Resume()

	for name, bad := range map[string]string{
		"an unknown authority": url,
		"another name":         url + "?tls_server_name=example.com&tls_ca=" + ca,
	} {
		if _, err := l2cache.Open(t.Context(), bad); !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("Open of a server with %s = %v, want an error about its certificate", name, err)
		}
	}
}

// certificates makes an authority and a certificate for localhost and its IP, in PEM files.
func certificates(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	return certificatesFor(t, dir, []net.IP{net.IPv4(127, 0, 0, 1)})
}

// certificatesFor is certificates for localhost and other IPs.
func certificatesFor(t *testing.T, dir string, ips []net.IP) (ca, cert, key string) {
	t.Helper()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := template(1, "authority")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	ca = file("ca.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)))

	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := template(2, "localhost")
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, ips
	cert = file("cert.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, authority, &serverKey.PublicKey, caKey)))
	key = file("key.pem", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(serverKey)))
	return ca, cert, key
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestUnixSocket(t *testing.T) {
	// Not in t.TempDir, whose path may be longer than a socket's may be.
	dir, err := os.MkdirTemp("", "l2cache")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "redis.sock")
	servertest.Redis(t, "--unixsocket", socket)
	b := openURL(t, "redis+unix://"+socket+"?db=2")
	if err := b.Set(t.Context(), "k", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set = %v", err)
	}
	if e, err := b.GetWithTTL(t.Context(), "k"); string(e.Value) != "v" || err != nil {
		t.Errorf("GetWithTTL = %q, %v; want v", e.Value, err)
	}
	if _, err := l2cache.Open(t.Context(), "redis+unix://"+socket+"-not"); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Open without a socket = %v, want ErrUnavailable", err)
	}
}

// TestWrongScheme opens servers of another kind than the URL says.
func TestWrongScheme(t *testing.T) {
	ca, cert, key := certificates(t, t.TempDir())
	port := freePort(t)
	plain := servertest.Redis(t, "--cluster-enabled", "no", "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key,
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no").Addr
	secure := "localhost:" + port
	memcached := servertest.Memcached(t).Addr
	website := httptest.NewServer(http.NotFoundHandler())
	defer website.Close()
	web, secret := website.Listener.Addr().String(), "c4n4ry"
	for _, test := range []struct{ url, want string }{
		{"rediss://" + plain + "?dial_timeout=1s", "it is redis://"},
		{"rediss+cluster://" + plain + "?dial_timeout=1s", "it is redis://"},
		{"redis://" + secure, "it is rediss://"},
		{"redis+cluster://" + secure, "it is rediss://"},
		{"redis+cluster://" + plain, "it is redis://"},
		{"redis+sentinel://" + plain + "/m", "are sentinels"},
		{"redis+sentinel://" + secure + "/m", "it is rediss://"},
		{"redis://" + memcached, "something else may be on this port"},
		{"redis://" + web, "something else may be on this port"},
		{"redis://:" + secret + "@" + web, "something else may be on this port"},
		{"redis+cluster://" + memcached, "something else may be on this port"},
		{"redis+sentinel://:" + secret + "@" + web + "/m?sentinel_auth=true", "something else may be on this port"},
	} {
		b, err := l2cache.Open(t.Context(), test.url)
		if !errors.Is(err, l2cache.ErrUnavailable) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Open(%q) = %v, %v; want ErrUnavailable with %q", test.url, b, err, test.want)
		}
		wantNoSecret(t, "the error of Open", err)
	}
	// A part of a cluster takes connections and refuses keys.
	b := openURL(t, "redis://"+servertest.Redis(t, "--cluster-enabled", "yes").Addr)
	if _, err := b.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrUnavailable) {
		t.Errorf("Get of a cluster without slots = %v, want ErrUnavailable", err)
	}
}
