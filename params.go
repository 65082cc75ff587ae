package l2cache

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params is a parsed backend URL, as an [OpenFunc] gets it. The methods that read
// options collect what is wrong with them; Err reports it all at once, with
// every option that nobody read.
type Params struct {
	Scheme   string   // in lower case
	User     string   // decoded
	Password Secret   // decoded
	Hosts    []string // each name, name:port or [v6]:port, checked; see Addrs
	Path     string   // decoded; begins with a slash unless the URL has no //

	OpTimeout   time.Duration // bounds every operation; 1 s by default
	DialTimeout time.Duration // bounds the opening; 5 s by default
	Lazy        bool          // open without asking the server

	prefix  string // Open's
	options map[string]string
	read    map[string]bool
	faults  []error
	dry     bool // nothing is to be opened: Err is never nil
}

// The defaults of the timeouts.
const (
	DefaultOpTimeout   = time.Second
	DefaultDialTimeout = 5 * time.Second
)

func (p *Params) readCommon() {
	p.read = map[string]bool{}
	p.prefix = p.String("prefix", "")
	if len(p.prefix) >= MaxKeyLen {
		p.Fault("prefix", "it has %d bytes and leaves no room for a key of %d", len(p.prefix), MaxKeyLen)
	}
	p.OpTimeout = p.Duration("op_timeout", DefaultOpTimeout)
	p.DialTimeout = p.Duration("dial_timeout", DefaultDialTimeout)
	p.Lazy = p.Bool("lazy", false)
}

// Addrs returns the hosts as host:port, with defaultPort where the URL has none.
// That there is no host is a fault.
func (p *Params) Addrs(defaultPort string) []string {
	if len(p.Hosts) == 0 {
		p.Fault("host", "it is missing, as in %s://localhost", p.Scheme)
	}
	addrs := make([]string, len(p.Hosts))
	for i, host := range p.Hosts {
		if _, _, err := net.SplitHostPort(host); err != nil { // checked: only the port can be missing
			host = net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
		}
		addrs[i] = host
	}
	return addrs
}

// String returns the option of that name, or def if it is not given.
func (p *Params) String(name, def string) string {
	p.read[name] = true
	if value, ok := p.options[name]; ok {
		return value
	}
	return def
}

// Duration returns an option that is a positive duration with a unit: "250ms".
func (p *Params) Duration(name string, def time.Duration) time.Duration {
	value := p.String(name, "")
	if value == "" && !p.has(name) {
		return def
	}
	d, ok := parseDuration(value)
	if !ok {
		p.Fault(name, "%w", errDuration)
		return def
	}
	return d
}

// Int returns an option that is a whole number of at least least.
func (p *Params) Int(name string, def, least int) int {
	value := p.String(name, "")
	if value == "" && !p.has(name) {
		return def
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least {
		p.Fault(name, "it is not a whole number of at least %d", least)
		return def
	}
	return n
}

// Bool returns an option that is true or false.
func (p *Params) Bool(name string, def bool) bool {
	switch p.String(name, strconv.FormatBool(def)) {
	case "true":
		return true
	case "false":
		return false
	}
	p.Fault(name, "it is neither true nor false")
	return def
}

// OneOf returns an option that is one of values; the first is the default.
func (p *Params) OneOf(name string, values ...string) string {
	value := p.String(name, values[0])
	if !slices.Contains(values, value) {
		p.Fault(name, "it is not one of %s", strings.Join(values, ", "))
		return values[0]
	}
	return value
}

// TLS returns a client's configuration, TLS 1.2 at least, from the options tls_ca
// (a PEM file of certificates to trust instead of the system's), tls_cert and
// tls_key (PEM files of the client's own) and tls_server_name.
func (p *Params) TLS() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.String("tls_server_name", "")}
	if file := p.String("tls_ca", ""); file != "" {
		pem, err := os.ReadFile(file)
		config.RootCAs = x509.NewCertPool()
		switch {
		case err != nil:
			p.Fault("tls_ca", "%w", fileErr(err))
		case !config.RootCAs.AppendCertsFromPEM(pem):
			p.Fault("tls_ca", "there is no certificate in the file")
		}
	}
	cert, key := p.String("tls_cert", ""), p.String("tls_key", "")
	switch {
	case cert != "" && key != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			p.Fault("tls_cert", "with tls_key: %w", fileErr(err))
		}
		config.Certificates = []tls.Certificate{pair}
	case cert != "" || key != "":
		p.Fault("tls_cert", "tls_cert and tls_key go together")
	}
	return config
}

// fileErr is err without the name of the file, which may be something else that
// was put in its place: the certificate or the password itself.
func fileErr(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Fault records what is wrong with a field of the URL or an option. The text must
// not quote the field: it may be, or have been meant as, a secret.
func (p *Params) Fault(field, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf(field+": "+format, args...))
}

// Err returns everything that is wrong, or nil. An option that was given and that
// no method has read is wrong.
func (p *Params) Err() error {
	faults := slices.Clone(p.faults)
	for _, name := range slices.Sorted(maps.Keys(p.options)) {
		if !p.read[name] {
			known := slices.Sorted(maps.Keys(p.read))
			faults = append(faults, fmt.Errorf("unknown option %s (known: %s)", name, strings.Join(known, ", ")))
		}
	}
	if len(faults) == 0 && p.dry {
		return errValid
	}
	return errors.Join(faults...)
}

// errValid ends an OpenFunc where it would have touched the store.
var errValid = errors.New("valid")

// Format writes the URL that p stands for with *** for the password, whatever the verb.
func (p Params) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.redacted(p.Password != Secret{})) }

func (p *Params) has(name string) bool { _, ok := p.options[name]; return ok }
