package natskv

import (
	"errors"
	"io/fs"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/l2cache/l2cache"
)

// credentials makes o show the server what p has, which is of one kind at most. The
// secrets are in functions: a %v of o, and so of a connection, does not show them.
func credentials(p *l2cache.Params, o *nats.Options) {
	creds, seed := p.String("creds", ""), p.String("nkey", "")
	password := p.Password
	hasPassword := password.Reveal() != ""
	kinds := 0
	for _, has := range []bool{p.User != "" || hasPassword, creds != "", seed != ""} {
		if has {
			kinds++
		}
	}
	if kinds > 1 {
		p.Fault("user", "user, password or token, creds and nkey exclude each other")
		return
	}
	switch {
	case p.User != "" && !hasPassword:
		p.Fault("password", "it is missing; a token is written %s://:token@host", p.Scheme)
	case p.User != "":
		user := p.User
		o.UserInfo = func() (string, string) { return user, password.Reveal() }
	case hasPassword:
		o.TokenHandler = password.Reveal
	case creds != "":
		// The file is read for each connection: it may be replaced before it expires.
		o.UserJWT = func() (string, error) {
			o, err := readCreds(creds)
			if err != nil {
				return "", err
			}
			return o.UserJWT()
		}
		o.SignatureCB = signer(creds)
		_, err := o.UserJWT()
		if err == nil {
			_, err = o.SignatureCB(nil)
		}
		if err != nil {
			p.Fault("creds", "%w", err)
		}
	case seed != "":
		option, err := nats.NkeyOptionFromSeed(seed)
		if err == nil {
			err = option(o)
		}
		if err != nil {
			p.Fault("nkey", "%w", unnamed(err))
		}
		o.SignatureCB = signer(seed)
	}
}

// signer signs with the seed in a file, of a key alone or with a user's JWT.
func signer(file string) nats.SignatureHandler {
	return func(nonce []byte) ([]byte, error) {
		o, err := readCreds(file)
		if err != nil {
			return nil, err
		}
		return o.SignatureCB(nonce)
	}
}

// readCreds returns options with what is in a creds file. nats.UserCredentials would
// expand environment variables in its name.
func readCreds(file string) (o nats.Options, err error) {
	contents, err := os.ReadFile(file)
	if err != nil {
		return o, unnamed(err)
	}
	return o, nats.UserCredentialBytes(contents)(&o)
}

// unnamed is err without the name of a file, in place of which somebody may have
// given what should be in the file.
func unnamed(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
