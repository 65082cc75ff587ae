package l2cache_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/l2cache/l2cache"
)

// configured is what the scheme "configured" was opened with.
var configured *l2cache.Params

func init() {
	l2cache.Register("configured", func(_ context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
		p.Int("pool_size", 10, 1)
		p.String("token", "")
		p.TLS()
		if err := p.Err(); err != nil {
			return nil, err
		}
		configured = p
		return &stub{ping: func(context.Context) error { return nil }}, nil
	})
}

func init() {
	l2cache.Register("needs-password", func(_ context.Context, p *l2cache.Params) (l2cache.L2CacheBackend, error) {
		if p.Password.Reveal() == "" {
			p.Fault("password", "it is missing")
		}
		if err := p.Err(); err != nil {
			return nil, err
		}
		return &stub{ping: func(context.Context) error { return nil }}, nil
	})
}

func TestConfigJSON(t *testing.T) {
	t.Setenv("TEST_CACHE_PASSWORD", "hunter2")
	var c l2cache.Config
	err := json.Unmarshal([]byte(`{"url": "configured://h1,h2/db", "username": "user", "password_env": "TEST_CACHE_PASSWORD",
		"prefix": "app:", "op_timeout": "250ms", "dial_timeout": "2s", "options": {"pool_size": "7"}}`), &c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate = %v", err)
	}
	if _, err := c.Open(t.Context()); err != nil {
		t.Fatalf("Open = %v", err)
	}
	p := configured
	if p.User != "user" || p.Password.Reveal() != "hunter2" || p.OpTimeout != 250*time.Millisecond || p.DialTimeout != 2*time.Second ||
		p.Int("pool_size", 0, 1) != 7 || len(p.Hosts) != 2 || p.Path != "/db" {
		t.Errorf("opened with %+v, password %q", p, p.Password.Reveal())
	}
	const want = "configured://user:***@h1,h2/db?dial_timeout=2s&op_timeout=250ms&pool_size=7&prefix=app%3A"
	if got := c.Redacted(); got != want {
		t.Errorf("Redacted = %s\nwant       %s", got, want)
	}
	for _, text := range []string{`{"op_timeout": 5}`, `{"op_timeout": "5"}`, `{"op_timeout": "-1s"}`, `{"op_timeout": "0s"}`} {
		err := json.Unmarshal([]byte(text), &c)
		if err == nil || !strings.Contains(err.Error(), "Config.op_timeout") || !strings.Contains(err.Error(), "with a unit, as in 250ms") {
			t.Errorf("Unmarshal(%s) = %v, want an error that names the field, and says what a duration looks like", text, err)
		}
	}
	encoded, err := json.Marshal(l2cache.Config{URL: "mem://", Password: l2cache.NewSecret("hunter2"), OpTimeout: l2cache.Duration(time.Second)})
	if string(encoded) != `{"url":"mem://","password":"***","op_timeout":"1s"}` || err != nil {
		t.Errorf("Marshal = %s, %v", encoded, err)
	}
}

func TestConfigYAML(t *testing.T) {
	var in struct{ Cache l2cache.Config }
	decode := func(text string) error {
		decoder := yaml.NewDecoder(strings.NewReader(text))
		decoder.KnownFields(true)
		return decoder.Decode(&in)
	}
	err := decode("cache: {url: 'configured://h', password: hunter2, op_timeout: 250ms, tls: {ca: f}, options: {pool_size: 7}}")
	c := in.Cache
	if err != nil || c.URL != "configured://h" || c.Password.Reveal() != "hunter2" || c.OpTimeout != l2cache.Duration(250*time.Millisecond) ||
		c.TLS.CA != "f" || c.Options["pool_size"] != "7" {
		t.Errorf("Decode = %v, %v", c, err)
	}
	for text, want := range map[string]string{
		"cache: {op_timeout: 5}":                     "op_timeout: it is not a positive duration with a unit, as in 250ms",
		"cache: {url: x, dial_timeout: 5 s}":         "dial_timeout: it is not a positive duration",
		"cache: {op_timeout: 1s, dial_timeout: -1s}": "dial_timeout: it is not a positive duration",
		"cache: {url: x, colour: red}":               "field colour not found in type l2cache.Config",
		"cache: {url: [x]}":                          "line 1",
	} {
		if err := decode(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want an error with %q", text, err, want)
		}
	}
}

// FuzzConfig: whatever a decoder makes a Config of, Validate and the ways to print it do
// not panic, show no password, and an encoded Config says the same when it is decoded.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		`{"url": "mem://name?lazy=true", "prefix": "app:", "op_timeout": "250ms", "options": {"x": "y"}}`,
		`{"url": "mem://", "username": "user", "tls": {"server_name": "x"}}`,
		"url: mem://user:secret@h1,h2:3/path?token=x\nop_timeout: 1m30s\noptions:\n  password: x",
		"url: '%'\ndial_timeout: -1s", "url: a:b@c", "{}", "[]", "password: '***'", "options: {Á: 1}", "prefix: &a [*a]",
	} {
		f.Add(text)
	}
	const canary = "c4n4ry5ecret"
	f.Fuzz(func(t *testing.T, text string) {
		var fromYAML, fromJSON l2cache.Config
		_ = yaml.Unmarshal([]byte(text), &fromYAML)
		_ = json.Unmarshal([]byte(text), &fromJSON)
		for _, c := range []l2cache.Config{fromYAML, fromJSON} {
			if strings.Contains(text, "_") && (c.PasswordFile != "" || strings.Contains(text, "tls")) {
				continue // it would read files
			}
			c.Password = l2cache.NewSecret(canary)
			redacted := c.Redacted()
			encoded, err := json.Marshal(c)
			if err != nil {
				t.Fatalf("Marshal(%v) = %v", c, err)
			}
			if shown := fmt.Sprintf("%v %s %v", redacted, encoded, c.Validate()); strings.Contains(shown, canary) {
				t.Fatalf("the password shows: %s", shown)
			}
			c.Password = l2cache.Secret{}
			redacted = c.Redacted()
			if encoded, err = json.Marshal(c); err != nil {
				t.Fatalf("Marshal(%v) = %v", c, err)
			}
			var again l2cache.Config
			if err := json.Unmarshal(encoded, &again); err != nil {
				t.Fatalf("Unmarshal(%s) = %v", encoded, err)
			}
			if got := again.Redacted(); !strings.HasPrefix(redacted, "(") && got != redacted {
				t.Fatalf("%s, encoded and decoded, is %s", redacted, got)
			}
		}
	})
}

func TestConfigReportsEverything(t *testing.T) {
	c := l2cache.Config{
		URL:          "configured://user:hunter2@h?op_timeout=1s&prefix=a&pool_size=x&hue=3",
		Username:     "other",
		PasswordFile: "/nonexistent",
		Prefix:       "b",
		OpTimeout:    l2cache.Duration(2 * time.Second),
		TLS:          l2cache.TLSConfig{Cert: "/nonexistent"},
		Options:      map[string]string{"Pool": "1", "pool_size": "y"},
	}
	for name, err := range map[string]error{"Validate": c.Validate(), "Open": openErr(c)} {
		if err == nil {
			t.Fatalf("%s = nil", name)
		}
		for _, want := range []string{
			"username: ", "password_file: ", "option prefix: ", "option op_timeout: ", "option pool_size: ", "options: a name",
			"unknown option hue", "tls_cert: ", "pool_size: it is not",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s says nothing of %q: %v", name, want, err)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s shows the password: %v", name, err)
		}
	}
	// The same said twice is no fault, nor is the same duration in another form.
	same := l2cache.Config{
		URL: "configured://user:hunter2@h?op_timeout=1000ms&prefix=a", Username: "user",
		Password: l2cache.NewSecret("hunter2"), Prefix: "a", OpTimeout: l2cache.Duration(time.Second),
	}
	if err := same.Validate(); err != nil {
		t.Errorf("Validate of the same said twice = %v", err)
	}
}

func openErr(c l2cache.Config) error {
	_, err := c.Open(context.Background())
	return err
}

func TestConfigPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("p@ss/w:rd \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openErr(l2cache.Config{URL: "configured://h", PasswordFile: file}); err != nil || configured.Password.Reveal() != "p@ss/w:rd " {
		t.Errorf("Open = %v, password %q; want the file's, without the line end", err, configured.Password.Reveal())
	}
	for _, c := range []l2cache.Config{
		{URL: "configured://h", PasswordFile: file, PasswordEnv: "HOME"},
		{URL: "configured://h", PasswordEnv: "L2CACHE_TEST_NOT_SET"},
		{URL: "configured://:a@h", Password: l2cache.NewSecret("b")},
	} {
		if err := openErr(c); err == nil || !strings.Contains(err.Error(), "password") {
			t.Errorf("Open(%v) = %v, want an error of the password", c, err)
		}
	}
}

// A decoder may know no inline fields, and refuse fields that a struct does not have.
func TestConfigFromAnotherYAMLDecoder(t *testing.T) {
	for _, test := range []struct {
		op, dial any
		want     string
	}{
		{250, "1s", "op_timeout: line 3: it is not"},
		{"250", "1s", "op_timeout: line 3: it is not"},
		{"1s", 250, "dial_timeout: line 3: it is not"},
		{nil, 250, "dial_timeout: line 3: it is not"},
	} {
		fields := map[string]any{"url": "mem://"}
		if test.op != nil {
			fields["op_timeout"] = test.op
		}
		if test.dial != nil {
			fields["dial_timeout"] = test.dial
		}
		var c l2cache.Config
		err := c.UnmarshalYAML(func(into any) error {
			if m, ok := into.(*map[string]any); ok {
				*m = fields
				return nil
			}
			var d l2cache.Duration
			return fmt.Errorf("line 3: %w", d.UnmarshalText([]byte("250")))
		})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("op_timeout %v, dial_timeout %v: %v, want an error with %q", test.op, test.dial, err, test.want)
		}
	}
}

// What is wrong with the password is said once, also where an adapter misses one.
func TestPasswordFile(t *testing.T) {
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for text, want := range map[string]string{"hunter2\n": "", "hunter2\r\n": "", "": "the file is empty", "hunter2\nother\n": "more than one line"} {
		c := l2cache.Config{URL: "configured://user@h", PasswordFile: write(text)}
		err := openErr(c)
		if want == "" && (err != nil || configured.Password.Reveal() != "hunter2") {
			t.Errorf("a file with %q: %v, password %q", text, err, configured.Password.Reveal())
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("a file with %q: %v, want %q", text, err, want)
		}
	}
	c := l2cache.Config{URL: "needs-password://user@h", PasswordFile: filepath.Join(t.TempDir(), "none")}
	err := openErr(c)
	if err == nil || !strings.Contains(err.Error(), "password_file: no such file") || strings.Contains(err.Error(), "it is missing") {
		t.Errorf("a file that is not there: %v, want just that", err)
	}
}

func TestLoadEnv(t *testing.T) {
	for name, value := range map[string]string{
		"URL": "configured://h", "USERNAME": "user", "PASSWORD": "hunter2", "PREFIX": "app:", "OP_TIMEOUT": "3s", "TLS_SERVER_NAME": "x", "OPTION_POOL_SIZE": "9",
	} {
		t.Setenv("LOADTEST_"+name, value)
	}
	c := l2cache.Config{URL: "mem://", Options: map[string]string{"lazy": "true"}}
	if err := c.LoadEnv("LOADTEST"); err != nil {
		t.Fatal(err)
	}
	if err := openErr(c); err != nil {
		t.Fatal(err)
	}
	if p := configured; p.User != "user" || p.Password.Reveal() != "hunter2" || p.OpTimeout != 3*time.Second || p.Int("pool_size", 0, 1) != 9 || !p.Lazy {
		t.Errorf("opened with %+v", p)
	}
	t.Setenv("LOADTEST_DIAL_TIMEOUT", "hunter2")
	t.Setenv("LOADTEST_COLOUR", "hunter2")
	t.Setenv("LOADTEST_POOL_SIZE", "hunter2")
	err := c.LoadEnv("LOADTEST")
	if err == nil || !strings.Contains(err.Error(), "LOADTEST_DIAL_TIMEOUT: ") || !strings.Contains(err.Error(), "unknown variable LOADTEST_COLOUR") ||
		!strings.Contains(err.Error(), "LOADTEST_POOL_SIZE (known after LOADTEST_: DIAL_TIMEOUT, OP_TIMEOUT, PASSWORD, ") || !strings.Contains(err.Error(), "OPTION_POOL_SIZE") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("LoadEnv = %v, want both variables named and no value", err)
	}
}

// TestConfigNeverPrintsSecrets puts a canary wherever a secret may be.
func TestConfigNeverPrintsSecrets(t *testing.T) {
	const canary = "hunter2"
	t.Setenv("TEST_CANARY", canary)
	for _, c := range []l2cache.Config{
		{URL: "configured://user:" + canary + "@h"},
		{URL: "configured://user:" + canary + "/x@h"},
		{URL: "configured://user:x" + canary + "@h@y"},
		{URL: canary + "://h"},
		{URL: "configured:user:" + canary + "@h"},
		{URL: "configured://h", Options: map[string]string{"nkey": canary}},
		{URL: "configured://h?token=" + canary},
		{URL: "configured://h", Options: map[string]string{"token": canary}},
		{URL: "configured://h", Password: l2cache.NewSecret(canary)},
		{URL: "configured://h", PasswordEnv: "TEST_CANARY"},
		{URL: "configured://:" + canary + "@h", Password: l2cache.NewSecret(canary + "2")},
	} {
		_, openErr := c.Open(t.Context())
		encoded, err := json.Marshal(struct{ Cache l2cache.Config }{c})
		if err != nil {
			t.Error(err)
		}
		var logged strings.Builder
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("configured", "cache", c, "in", struct{ Cache l2cache.Config }{c})
		for _, text := range []string{
			logged.String(),
			fmt.Sprintf("%v %+v %#v %s %q %x", c, c, c, c, c, c), fmt.Sprintf("%v %+v", &c, &c),
			c.Redacted(), string(encoded), fmt.Sprintf("%v %+v %#v", c.Validate(), openErr, openErr),
		} {
			if strings.Contains(text, canary) {
				t.Errorf("prints as %s", text)
			}
		}
	}
}

// TestErrorsDoNotNameFiles: what was put into the wrong field may be a secret.
func TestErrorsDoNotNameFiles(t *testing.T) {
	const canary = "hunter2"
	for _, c := range []l2cache.Config{
		{URL: "configured://h", PasswordFile: canary},
		{URL: "configured://h", PasswordEnv: canary},
		{URL: "configured://h", TLS: l2cache.TLSConfig{CA: canary}},
		{URL: "configured://h", TLS: l2cache.TLSConfig{Cert: canary, Key: canary}},
	} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("Validate = %v, want an error that does not show what the field has", err)
		}
	}
}

func TestParamsNeverPrintSecrets(t *testing.T) {
	const canary = "hunter2"
	if _, err := l2cache.Open(t.Context(), "configured://user:"+canary+"@h/path?token="+canary); err != nil {
		t.Fatal(err)
	}
	p := configured
	encoded, err := json.Marshal(p)
	if err != nil {
		t.Error(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %q", p, p, p, *p, struct{ P *l2cache.Params }{p}) + string(encoded)
	if strings.Contains(text, canary) || !strings.Contains(text, "configured://user:***@h/path?token=***") {
		t.Errorf("prints as %s", text)
	}
}
