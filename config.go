package l2cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Config says in fields what a URL for [Open] says, so that it can be a part of a
// program's own configuration: decoders of YAML and JSON fill it as it is. What a
// field says is added to the URL; it is an error if the two say different things.
//
// Printing, logging or encoding a Config shows no secret: fmt and log/slog show what
// [Config.Redacted] returns, and encoders get a redacted URL. The one exception is
// fmt's output of a struct that has a Config in an unexported field: keep the
// password out of the URL there, in Password.
//
// Have the decoder refuse unknown fields (json.Decoder.DisallowUnknownFields, yaml's
// KnownFields): no decoder does by default. Have it as a field of your own struct, and
// do not embed it: its methods would be your struct's, and decode nothing else.
type Config struct {
	// URL is as for Open.
	URL string `yaml:"url" json:"url"`

	Username string `yaml:"username,omitempty" json:"username,omitempty"`
	// At most one of these three gives the password: itself, the name of a file
	// that has it in its only line, or the name of an environment variable.
	Password     Secret `yaml:"password,omitempty" json:"password,omitzero"`
	PasswordFile string `yaml:"password_file,omitempty" json:"password_file,omitempty"`
	PasswordEnv  string `yaml:"password_env,omitempty" json:"password_env,omitempty"`

	Prefix      string    `yaml:"prefix,omitempty" json:"prefix,omitempty"`             // of every key
	OpTimeout   Duration  `yaml:"op_timeout,omitempty" json:"op_timeout,omitempty"`     // 1s by default
	DialTimeout Duration  `yaml:"dial_timeout,omitempty" json:"dial_timeout,omitempty"` // 5s by default
	TLS         TLSConfig `yaml:"tls,omitempty" json:"tls,omitzero"`

	// Options are the URL's other options, those of the adapter too: pool_size, lazy, …
	Options map[string]string `yaml:"options,omitempty" json:"options,omitempty"`
}

// TLSConfig is the part of a Config for schemes with TLS.
type TLSConfig struct {
	CA         string `yaml:"ca,omitempty" json:"ca,omitempty"`                   // PEM file of the certificates to trust
	Cert       string `yaml:"cert,omitempty" json:"cert,omitempty"`               // PEM file of the client's certificate
	Key        string `yaml:"key,omitempty" json:"key,omitempty"`                 // PEM file of its key
	ServerName string `yaml:"server_name,omitempty" json:"server_name,omitempty"` // if not the host
}

// A Duration is a time.Duration whose text has a unit: "250ms", "1m30s".
type Duration time.Duration

// String returns the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns what String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText refuses what is not a positive duration with a unit.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, ok := parseDuration(string(text))
	if !ok {
		return errDuration
	}
	*d = Duration(parsed)
	return nil
}

// UnmarshalJSON does what UnmarshalText does, and has the decoder name the field in its
// error.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if string(text) == "null" {
		return nil
	}
	if json.Unmarshal(text, &s) != nil || d.UnmarshalText([]byte(s)) != nil {
		return &json.UnmarshalTypeError{
			Value: "what is not a positive duration with a unit, as in 250ms,",
			Type:  reflect.TypeFor[Duration](),
		}
	}
	return nil
}

var errDuration = errors.New("it is not a positive duration with a unit, as in 250ms")

func parseDuration(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	return d, err == nil && d > 0
}

// LoadEnv fills c from environment variables that begin with prefix and an
// underscore: with the prefix APP_CACHE, from APP_CACHE_URL, and likewise USERNAME,
// PASSWORD, PASSWORD_FILE, PASSWORD_ENV, PREFIX, OP_TIMEOUT, DIAL_TIMEOUT, TLS_CA,
// TLS_CERT, TLS_KEY, TLS_SERVER_NAME, and OPTION_POOL_SIZE and the like for Options. A
// variable wins over what c has already. One that begins with prefix and is none of
// these is an error, so choose a prefix that nothing else uses.
func (c *Config) LoadEnv(prefix string) error {
	if prefix = strings.TrimSuffix(prefix, "_"); prefix == "" {
		return configErr([]error{errors.New("LoadEnv needs a prefix: without one it would read every variable")})
	}
	texts := map[string]*string{
		"URL": &c.URL, "USERNAME": &c.Username, "PASSWORD_FILE": &c.PasswordFile, "PASSWORD_ENV": &c.PasswordEnv, "PREFIX": &c.Prefix,
		"TLS_CA": &c.TLS.CA, "TLS_CERT": &c.TLS.Cert, "TLS_KEY": &c.TLS.Key, "TLS_SERVER_NAME": &c.TLS.ServerName,
	}
	durations := map[string]*Duration{"OP_TIMEOUT": &c.OpTimeout, "DIAL_TIMEOUT": &c.DialTimeout}
	var faults []error
	for _, name := range []string{"_PASSWORD", "_PASSWORD_FILE", "_PASSWORD_ENV"} {
		if _, given := os.LookupEnv(prefix + name); given { // wins over whichever c has
			c.Password, c.PasswordFile, c.PasswordEnv = Secret{}, "", ""
		}
	}
	for _, variable := range slices.Sorted(slices.Values(os.Environ())) {
		full, value, _ := strings.Cut(variable, "=")
		name, ours := strings.CutPrefix(full, prefix+"_")
		if !ours {
			continue
		}
		option, isOption := strings.CutPrefix(name, "OPTION_")
		switch {
		case texts[name] != nil:
			*texts[name] = value
		case name == "PASSWORD":
			c.Password = NewSecret(value)
		case durations[name] != nil:
			if err := durations[name].UnmarshalText([]byte(value)); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", full, err))
			}
		case isOption && option != "":
			if c.Options = maps.Clone(c.Options); c.Options == nil {
				c.Options = map[string]string{}
			}
			c.Options[strings.ToLower(option)] = value
		default:
			known := slices.Sorted(slices.Values(slices.Concat([]string{"PASSWORD"}, slices.Collect(maps.Keys(texts)), slices.Collect(maps.Keys(durations)))))
			faults = append(faults, fmt.Errorf("unknown variable %s (known after %s_: %s, and OPTION_ with the name of an option, as in OPTION_POOL_SIZE)",
				full, prefix, strings.Join(known, ", ")))
		}
	}
	return configErr(faults)
}

// Open opens the backend as the function Open does.
func (c Config) Open(ctx context.Context) (L2CacheBackend, error) {
	p, err := c.params()
	if err != nil {
		return nil, err
	}
	return open(ctx, p)
}

// Validate returns all that is wrong with c, as far as can be said without asking
// the server: of the URL, of options that the adapter does not know, of files that
// cannot be read. The adapter must be imported.
func (c Config) Validate() error {
	p, err := c.params()
	if err != nil {
		return err
	}
	return validate(p)
}

// Redacted returns the URL that c stands for, with *** for the password. It never
// shows a part of a URL that cannot be parsed.
func (c Config) Redacted() string {
	p, err := parseURL(c.URL)
	if err != nil {
		return "(a URL that cannot be parsed)"
	}
	if _, err := opener(p); err != nil && adapters[p.Scheme] == "" {
		return "(a URL with an unknown scheme)" // which may be a user or a password
	}
	if c.Username != "" {
		p.User = c.Username
	}
	secret := p.Password != Secret{} || c.Password != Secret{} || c.PasswordFile != "" || c.PasswordEnv != ""
	for name, value := range c.fields() {
		p.options[name] = value
	}
	return p.redacted(secret)
}

// Format writes Redacted, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.Redacted()) }

// LogValue returns what Redacted does.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.Redacted()) }

// MarshalJSON encodes c without its secrets.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.withoutSecrets()) }

// MarshalYAML returns what a YAML encoder is to encode: c without its secrets.
func (c Config) MarshalYAML() (any, error) { return c.withoutSecrets(), nil }

// UnmarshalYAML decodes as without it, and names the field of a duration that is none.
func (c *Config) UnmarshalYAML(decode func(any) error) error {
	type Config plain // of this name, as decoders name it in errors
	err := decode((*Config)(c))
	if !errors.Is(err, errDuration) {
		return err
	}
	var fields map[string]any
	if decode(&fields) != nil {
		return err
	}
	field := "dial_timeout"
	if value, given := fields["op_timeout"]; given {
		text, _ := value.(string)
		if _, ok := parseDuration(text); !ok {
			field = "op_timeout"
		}
	}
	return configErr([]error{fmt.Errorf("%s: %w", field, err)})
}

// plain has the fields of Config, and none of its methods.
type plain Config

func (c Config) withoutSecrets() plain {
	c.URL = Config{URL: c.URL}.Redacted()
	c.Options = maps.Clone(c.Options)
	for name := range c.Options {
		if secretName.MatchString(name) {
			c.Options[name] = "***"
		}
	}
	return plain(c)
}

// fields are the options that the fields of c stand for.
func (c Config) fields() map[string]string {
	fields := maps.Clone(c.Options)
	if fields == nil {
		fields = map[string]string{}
	}
	for name, value := range map[string]string{
		"prefix": c.Prefix, "tls_ca": c.TLS.CA, "tls_cert": c.TLS.Cert, "tls_key": c.TLS.Key, "tls_server_name": c.TLS.ServerName,
	} {
		if value != "" {
			fields[name] = value
		}
	}
	for name, d := range map[string]Duration{"op_timeout": c.OpTimeout, "dial_timeout": c.DialTimeout} {
		if d != 0 {
			fields[name] = d.String()
		}
	}
	return fields
}

// params joins URL and fields.
func (c Config) params() (*Params, error) {
	p, err := parseURL(c.URL)
	if err != nil {
		return nil, configErr([]error{err})
	}
	var faults []error
	differs := func(field string) {
		faults = append(faults, fmt.Errorf("%s: the URL and the field, or two fields, say different things", field))
	}
	if c.Username != "" {
		if p.User != "" && p.User != c.Username {
			differs("username")
		}
		p.User = c.Username
	}
	password, err := c.password()
	if err != nil {
		faults = append(faults, err)
		p.Password = NewSecret("unknown") // so that nobody misses one, too; nothing is opened with it
	}
	if password != "" {
		if was := p.Password.Reveal(); was != "" && was != password {
			differs("password")
		}
		p.Password = NewSecret(password)
	}
	for name, value := range c.fields() {
		if was, given := p.options[name]; given && !sameOption(was, value) || c.Options[name] != "" && c.Options[name] != value {
			differs("option " + name)
		}
		if !isOption(name) {
			faults = append(faults, errors.New("options: a name has characters other than a-z, 0-9 and _"))
			continue
		}
		p.options[name] = value
	}
	p.faults = faults
	p.readCommon()
	return p, nil
}

// sameOption reports whether two texts are the same, or the same duration.
func sameOption(a, b string) bool {
	da, okA := parseDuration(a)
	db, okB := parseDuration(b)
	return a == b || okA && okB && da == db
}

// password returns the password that one of three fields gives.
func (c Config) password() (string, error) {
	given := 0
	for _, is := range []bool{c.Password != Secret{}, c.PasswordFile != "", c.PasswordEnv != ""} {
		if is {
			given++
		}
	}
	if given > 1 {
		return "", errors.New("password: more than one of password, password_file and password_env is given")
	}
	switch {
	case c.PasswordFile != "":
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("password_file: %w", fileErr(err))
		}
		password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		switch {
		case password == "":
			return "", errors.New("password_file: the file is empty")
		case strings.ContainsAny(password, "\r\n"):
			return "", errors.New("password_file: the file has more than one line")
		}
		return password, nil
	case c.PasswordEnv != "":
		password := os.Getenv(c.PasswordEnv)
		if password == "" {
			return "", errors.New("password_env: that variable is not set, or empty")
		}
		return password, nil
	}
	return c.Password.Reveal(), nil
}

func configErr(faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	return &Error{Op: "configure", Backend: "l2cache", Err: errors.Join(faults...)}
}

// secretName is the name of an option that may have been meant for a secret.
var secretName = regexp.MustCompile("pass|pwd|token|secret|auth|cred|nkey|seed")

// redacted is the URL that p stands for, built from its parts.
func (p *Params) redacted(secret bool) string {
	var b strings.Builder
	b.WriteString(p.Scheme + ":")
	if len(p.Hosts) > 0 || strings.HasPrefix(p.Path, "/") || p.Path == "" {
		b.WriteString("//")
	}
	if p.User != "" || secret {
		b.WriteString(url.PathEscape(p.User))
		if secret {
			b.WriteString(":***")
		}
		b.WriteByte('@')
	}
	b.WriteString(strings.Join(p.Hosts, ","))
	b.WriteString((&url.URL{Path: p.Path}).EscapedPath())
	for i, name := range slices.Sorted(maps.Keys(p.options)) {
		b.WriteByte("?&"[min(i, 1)])
		value := url.QueryEscape(p.options[name])
		if secretName.MatchString(name) {
			value = "***"
		}
		b.WriteString(name + "=" + value)
	}
	return b.String()
}
