package l2cache

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// parseURL splits a backend's URL. net/url does not do: it refuses several hosts
// with ports, lets "h:6379:6380" pass, takes part of a password with a raw slash
// for the host, and quotes its input in its errors. So the splitting is done
// here, and net/url only decodes percent signs.
//
// Errors name the part that is wrong and never quote it.
func parseURL(raw string) (*Params, error) {
	if raw == "" {
		return nil, errors.New("URL: it is empty")
	}
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return nil, errors.New("URL: white space and control characters must be percent-encoded")
		case c == '#':
			return nil, errors.New("URL: there are no fragments; write # as %23")
		}
	}
	scheme, rest, ok := strings.Cut(raw, ":")
	scheme = strings.ToLower(scheme)
	if !ok || !isScheme(scheme) {
		return nil, errors.New("URL: it must begin with a scheme, as in redis://localhost")
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(query, "@") {
		return nil, errors.New("URL: raw @ in the options; write @ as %40, and ? in a password as %3F")
	}
	p := &Params{Scheme: scheme}

	path := rest
	if authority, ok := strings.CutPrefix(rest, "//"); ok {
		path = ""
		if i := strings.IndexByte(authority, '/'); i >= 0 {
			authority, path = authority[:i], authority[i:]
		}
		if authority != "" && strings.Contains(path, "@") {
			return nil, errors.New("URL: raw @ in the path; write @ as %40, and / in a password as %2F")
		}
		if err := p.parseAuthority(authority); err != nil {
			return nil, err
		}
	} else if strings.Contains(scheme, "+") || rest == "" {
		return nil, errors.New("URL: // must follow the scheme")
	} else if strings.Contains(path, "@") { // redis:user:password@host, say
		return nil, errors.New("URL: raw @ in the path; write @ as %40, and // between the scheme and a host")
	}
	var err error
	if p.Path, err = decode("path", path); err != nil {
		return nil, err
	}
	if err := p.parseOptions(query); err != nil {
		return nil, err
	}
	p.readCommon()
	return p, nil
}

func (p *Params) parseAuthority(authority string) error {
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo := authority[:i]
		hosts = authority[i+1:]
		if strings.Contains(userinfo, "@") {
			return errors.New("URL: raw @ in user or password; write @ as %40")
		}
		user, password, _ := strings.Cut(userinfo, ":")
		var err error
		if p.User, err = decode("user", user); err != nil {
			return err
		}
		if password, err = decode("password", password); err != nil {
			return err
		}
		p.Password = NewSecret(password)
		if hosts == "" {
			return errors.New("URL: there is no host after the @")
		}
	}
	if hosts == "" {
		return nil
	}
	p.Hosts = strings.Split(hosts, ",")
	for i, host := range p.Hosts {
		if err := checkHost(host); err != nil {
			return fmt.Errorf("URL: host %d: %w", i+1, err)
		}
	}
	return nil
}

// checkHost accepts name, name:port, 1.2.3.4:port, [v6] and [v6]:port.
func checkHost(host string) error {
	if host == "" {
		return errors.New("it is empty")
	}
	name, port := host, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return errors.New("the bracket of an IPv6 address is not closed")
		}
		name, port = host[1:end], host[end+1:]
		if strings.Trim(name, "0123456789abcdefABCDEF:.") != "" || name == "" {
			return errors.New("what is in brackets is not an IPv6 address")
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			name, port = host[:i], host[i:]
		}
		for i := range len(name) {
			if c := name[i]; !isAlnum(c) && !strings.ContainsRune("-_.", rune(c)) {
				return errors.New("it has a character that no host name has")
			}
		}
		if name == "" {
			return errors.New("there is no name before the port")
		}
	}
	if port == "" {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(port, ":"), 10, 16)
	if port[0] != ':' || err != nil || n == 0 {
		return errors.New("the port is not a number from 1 to 65535" +
			" (in a password, write / as %2F, ? as %3F and @ as %40; the scheme stands once, before the first host)")
	}
	return nil
}

func (p *Params) parseOptions(query string) error {
	p.options = map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !isOption(name) {
			return errors.New("URL: an option's name has characters other than a-z, 0-9 and _")
		}
		if !ok {
			return fmt.Errorf("URL: option %s has no value", name)
		}
		if _, repeated := p.options[name]; repeated {
			return fmt.Errorf("URL: option %s is given twice", name)
		}
		value, err := decode("option "+name, value)
		if err != nil {
			return err
		}
		p.options[name] = value
	}
	return nil
}

// decode resolves percent signs. A plus stays a plus, everywhere.
func decode(field, s string) (string, error) {
	decoded, err := url.PathUnescape(s)
	if err != nil {
		return "", fmt.Errorf("URL: %s: a %% must be followed by two hexadecimal digits; write %% as %%25", field)
	}
	return decoded, nil
}

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z') && (i == 0 || !isAlnum(c) && !strings.ContainsRune("+-.", rune(c))) {
			return false
		}
	}
	return s != "" && s == strings.ToLower(s)
}

func isOption(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z') && !('0' <= c && c <= '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
