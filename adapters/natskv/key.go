package natskv

import (
	"encoding/base64"
	"errors"
	"strings"
)

// A key becomes the last tokens of a subject, in the alphabet that every KV client
// admits, [-/_=.a-zA-Z0-9]:
//
//   - Letters, digits, '-', '_' and '/' stay; any other byte is '=' and two
//     hexadecimal digits.
//   - After a separator (':', '/' or '.') that is not the last byte comes a '.', so
//     that a prefix which ends in one is a subject filter.
//   - What would be longer than maxEncoded is "==." and base64 instead.
//
// "user:42:profile" is "user=3A.42=3A.profile". No two keys have the same form.

// maxEncoded keeps the line of a request, which has the bucket's name twice and a
// reply subject too, well below 4,096 bytes: at that length (max_control_line) the
// server ends the connection.
const maxEncoded = 2048

const longKey = "==." // cannot begin the other form, where two hexadecimal digits follow '='

const hexDigits = "0123456789ABCDEF"

// appendKey appends the form that key has in a subject.
func appendKey(dst []byte, key string) []byte {
	start := len(dst)
	for i := range len(key) {
		c := key[i]
		if isPlain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '=', hexDigits[c>>4], hexDigits[c&15])
		}
		if isSeparator(c) && i < len(key)-1 {
			dst = append(dst, '.')
		}
	}
	if len(dst)-start > maxEncoded {
		return base64.RawURLEncoding.AppendEncode(append(dst[:start], longKey...), []byte(key))
	}
	return dst
}

var errForeignKey = errors.New("the subject is not the form of any key")

// decodeKey returns the key whose form appendKey gives as encoded.
func decodeKey(encoded string) (string, error) {
	var key []byte
	if long, ok := strings.CutPrefix(encoded, longKey); ok {
		var err error
		if key, err = base64.RawURLEncoding.DecodeString(long); err != nil {
			return "", errForeignKey
		}
	} else {
		for i := 0; i < len(encoded); i++ {
			switch c := encoded[i]; c {
			case '.':
			case '=':
				if i+2 >= len(encoded) {
					return "", errForeignKey
				}
				// Digits that are none give a key whose form differs.
				high := strings.IndexByte(hexDigits, encoded[i+1])
				low := strings.IndexByte(hexDigits, encoded[i+2])
				key = append(key, byte(high<<4|low&15))
				i += 2
			default:
				key = append(key, c)
			}
		}
	}
	if len(key) == 0 || string(appendKey(nil, string(key))) != encoded {
		return "", errForeignKey
	}
	return string(key), nil
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '/'
}

func isSeparator(c byte) bool { return c == ':' || c == '/' || c == '.' }
