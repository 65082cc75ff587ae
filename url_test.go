package l2cache

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		url                  string
		user, password, path string
		hosts                []string
	}{
		{url: "redis://localhost", hosts: []string{"localhost"}},
		{url: "REDIS://localhost:6379/0", hosts: []string{"localhost:6379"}, path: "/0"},
		{url: "redis://user:p%40ss%2Fw%3Ard%3F%23%25@h1/2", user: "user", password: "p@ss/w:rd?#%", hosts: []string{"h1"}, path: "/2"},
		{url: "redis://:secret@h", password: "secret", hosts: []string{"h"}},
		{url: "redis://us%3Aer@h", user: "us:er", hosts: []string{"h"}},
		{url: "redis://u:a:b@h", user: "u", password: "a:b", hosts: []string{"h"}},
		{url: "redis+cluster://h1,h2:6380,h-3.example.org", hosts: []string{"h1", "h2:6380", "h-3.example.org"}},
		{url: "redis+sentinel://s1,s2/master-name/3", hosts: []string{"s1", "s2"}, path: "/master-name/3"},
		{url: "redis+unix:///run/redis%20x.sock?db=1", path: "/run/redis x.sock"},
		{url: "memcached://[::1]:11211,[fe80::1],10.0.0.1:1", hosts: []string{"[::1]:11211", "[fe80::1]", "10.0.0.1:1"}},
		{url: "bolt:///var/lib/a@b.db", path: "/var/lib/a@b.db"},
		{url: "bolt:relative/file.db", path: "relative/file.db"},
		{url: "bolt://rel/x.db", hosts: []string{"rel"}, path: "/x.db"}, // for the adapter to refuse
		{url: "nats://u:p@h1:4222,h2/bucket", user: "u", password: "p", hosts: []string{"h1:4222", "h2"}, path: "/bucket"},
		{url: "mem://"},
		{url: "mem://a_name", hosts: []string{"a_name"}},
		{url: "mem://?prefix=a+b%20c", path: ""},
	} {
		p, err := parseURL(tt.url)
		if err != nil {
			t.Errorf("parseURL(%q) = %v", tt.url, err)
			continue
		}
		if p.User != tt.user || p.Password.Reveal() != tt.password || p.Path != tt.path || !reflect.DeepEqual(p.Hosts, tt.hosts) {
			t.Errorf("parseURL(%q) = user %q, password %q, hosts %q, path %q; want %q, %q, %q, %q",
				tt.url, p.User, p.Password.Reveal(), p.Hosts, p.Path, tt.user, tt.password, tt.hosts, tt.path)
		}
	}
	if p, _ := parseURL("mem://?prefix=a+b%20c"); p.prefix != "a+b c" {
		t.Errorf("prefix = %q, want %q: a plus is a plus", p.prefix, "a+b c")
	}
}

// canary stands for a password in URLs that are wrong; no error may show it.
const canary = "hunter2"

func TestParseURLErrors(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"", "it is empty"},
		{"localhost", "begin with a scheme"},
		{canary + "@localhost:6379", "begin with a scheme"},
		{"redis:localhost", ""}, // an opaque path; the adapter refuses it
		{"redis://user:" + canary + "#@h", "%23"},
		{"redis://user:" + canary + "@x@h", "%40"},
		{"redis://user:" + canary + "/x@h", "%2F"},
		{"redis://user:12/" + canary + "@h", "%2F"},
		{"redis://user:" + canary + "?x@h", "%40"},
		{"redis://user:12?" + canary + "@h", "%40"},
		{"redis://user:" + canary + "%zz@h", "password"},
		{"redis://us er:" + canary + "@h", "percent-encoded"},
		{"redis://user:" + canary + "@", "no host"},
		{"redis://h:6379:6380", "port"},
		{"redis://h:0", "port"},
		{"redis://h:65536", "port"},
		{"redis://h:", "port"},
		{"redis://h1,,h2", "host 2: it is empty"},
		{"redis://:6379", "no name before the port"},
		{"redis://h_1$x", "character"},
		{"redis://[::1", "bracket"},
		{"redis://[x]", "IPv6"},
		{"redis://[::1]x", "port"},
		{"nats://h1,nats://h2/b", "the scheme stands once"},
		{"redis://h?db", "option db has no value"},
		{"redis://h?db=1&db=2", "option db is given twice"},
		{"redis://h?" + strings.ToUpper(canary) + "=1", "option's name"},
		{"redis://h?db=%1", "option db"},
		{"redis+unix:x", "//"},
		{"redis:", "//"},
	} {
		p, err := parseURL(tt.url)
		switch {
		case tt.want == "" && err == nil:
		case err == nil:
			t.Errorf("parseURL(%q) = %+v, want an error with %q", tt.url, p, tt.want)
		case !strings.Contains(err.Error(), tt.want) || strings.Contains(strings.ToLower(err.Error()), canary):
			t.Errorf("parseURL(%q) = %q, want %q in it and no secret", tt.url, err, tt.want)
		}
	}
}

// FuzzParseURL: no error shows what stands between scheme and path, or an option's value, no
// Params prints its password, and what is accepted has checked hosts.
func FuzzParseURL(f *testing.F) {
	for _, rest := range []string{"@h:6379/0", "/x@h", "?x@h", "#", "%@h", "@h?op_timeout=5", "@[::1]:1,h2/b?x=y&x=z", ",nats://h2"} {
		f.Add("redis://user:", rest)
		f.Add("bolt:", rest)
	}
	f.Add("a:0?", "0")            // the name of an option
	f.Add("a://u:p?", "&b@h")     // part of a password that looks like one
	f.Add("a://u:p?x=1&", "=1@h") // the same
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(strings.ToLower(before+after), canary) {
			return
		}
		_, options, _ := strings.Cut(before+canary+after, "?")
		for pair := range strings.SplitSeq(options, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if strings.Contains(name, canary) && isOption(name) && !strings.Contains(options, "@") {
				return // errors name options
			}
		}
		p, err := parseURL(before + canary + after)
		if err != nil {
			if strings.Contains(strings.ToLower(err.Error()), canary) {
				t.Fatalf("the error shows the secret: %q", err)
			}
			return
		}
		for _, host := range p.Hosts {
			if checkHost(host) != nil {
				t.Fatalf("host %q was accepted", host)
			}
		}
		if p.Password.Reveal() != "" && strings.Contains(fmt.Sprintf("%+v", p.Password), canary) {
			t.Fatalf("the password prints")
		}
	})
}

func TestOptions(t *testing.T) {
	p, err := parseURL("redis://h?op_timeout=250ms&pool_size=7&lazy=true&mode=b&tls_server_name=x")
	if err != nil {
		t.Fatal(err)
	}
	if p.OpTimeout != 250*time.Millisecond || p.DialTimeout != DefaultDialTimeout || !p.Lazy {
		t.Errorf("op_timeout %v, dial_timeout %v, lazy %v; want 250ms, the default, true", p.OpTimeout, p.DialTimeout, p.Lazy)
	}
	if n, s := p.Int("pool_size", 10, 1), p.OneOf("mode", "a", "b"); n != 7 || s != "b" {
		t.Errorf("pool_size %d, mode %q; want 7, b", n, s)
	}
	err = p.Err()
	if err == nil || !strings.Contains(err.Error(), "unknown option tls_server_name (known: dial_timeout, lazy, mode, op_timeout, pool_size, prefix)") {
		t.Errorf("Err with an option that was not read = %v", err)
	}
	if c := p.TLS(); c.ServerName != "x" || p.Err() != nil {
		t.Errorf("ServerName %q, Err %v; want x, nil", c.ServerName, p.Err())
	}
}

// TestOptionFaults: all faults are reported together, by name, without the value.
func TestOptionFaults(t *testing.T) {
	p, err := parseURL("redis://h?op_timeout=1&dial_timeout=-1s&lazy=yes&prefix=" + strings.Repeat("p", MaxKeyLen) +
		"&pool_size=" + canary + "&mode=" + canary + "&size=0&name=&tls_ca=/nonexistent&tls_cert=/x")
	if err != nil {
		t.Fatal(err)
	}
	p.Int("pool_size", 1, 1)
	p.OneOf("mode", "a", "b")
	p.Int("size", 1, 1)
	p.Duration("name", time.Second)
	p.TLS()
	err = p.Err()
	if err == nil {
		t.Fatal("Err = nil")
	}
	for _, name := range []string{"op_timeout", "dial_timeout", "lazy", "prefix", "pool_size", "mode", "size", "name", "tls_ca", "tls_cert"} {
		if !strings.Contains(err.Error(), name+": ") {
			t.Errorf("Err says nothing of %s:\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("Err shows a value:\n%v", err)
	}
}

func TestAddrs(t *testing.T) {
	p, _ := parseURL("redis://h1,h2:1,[::1],[::2]:2")
	want := []string{"h1:6379", "h2:1", "[::1]:6379", "[::2]:2"}
	if got := p.Addrs("6379"); !reflect.DeepEqual(got, want) {
		t.Errorf("Addrs = %q, want %q", got, want)
	}
	p, _ = parseURL("redis:///x")
	if p.Addrs("6379"); p.Err() == nil || !strings.Contains(p.Err().Error(), "host") {
		t.Errorf("Err without a host = %v, want it named", p.Err())
	}
}

func TestTLSFileThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := parseURL("redis://h?tls_ca=" + file)
	if p.TLS(); p.Err() == nil || !strings.Contains(p.Err().Error(), "no certificate") {
		t.Errorf("Err = %v, want that there is no certificate", p.Err())
	}
}
