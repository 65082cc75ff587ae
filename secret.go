package l2cache

import (
	"errors"
	"fmt"
)

// A Secret is a password. It prints as "***", with every verb and wherever it is
// held: the text is behind a pointer, so that not even a %+v of a struct that
// has a Secret in an unexported field shows it.
type Secret struct{ text *string }

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, which is empty for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format writes "***", or nothing for the empty Secret, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) {
	if s.text != nil {
		fmt.Fprint(f, "***")
	}
}

// UnmarshalText takes text as the secret. It refuses "***", which was one once.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == "***" {
		return errors.New("the secret was redacted: it is ***")
	}
	*s = NewSecret(string(text))
	return nil
}

// MarshalText returns what Format writes.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Append(nil, s), nil }
