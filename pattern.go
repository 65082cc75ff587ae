package l2cache

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// A PatternDeleter is a backend that can delete by pattern. Its method begins
// with [CheckPattern].
type PatternDeleter interface {
	L2CacheBackend
	DeletePattern(ctx context.Context, pattern string) error
}

// DeletePattern removes every entry whose key matches pattern. Entries that are
// set meanwhile may stay. It goes in pages, so that it never holds up others for
// long: on an error some entries may be gone.
//
// In a pattern, * stands for any run of bytes, ? for one byte, and a backslash
// takes the special meaning from the byte after it; all else is literal. It is
// matched against the whole key. See [QuotePattern]. A pattern with nothing after
// its last backslash is path.ErrBadPattern, and so is one that matches every key of
// a backend that was opened without a prefix.
//
// Where b is not a [PatternDeleter], the error is errors.ErrUnsupported.
func DeletePattern(ctx context.Context, b L2CacheBackend, pattern string) error {
	if b, ok := b.(PatternDeleter); ok {
		return b.DeletePattern(ctx, pattern)
	}
	return unsupported(ctx, b, "deletepattern", pattern)
}

// QuotePattern returns a pattern that matches s and nothing else.
func QuotePattern(s string) string {
	if !strings.ContainsAny(s, `*?\`) {
		return s
	}
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `\`, `\\`).Replace(s)
}

// CheckPattern returns an error that matches path.ErrBadPattern if pattern ends in
// a lone backslash, or matches every key.
func CheckPattern(pattern string) error {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '\\' {
			if i++; i == len(pattern) {
				return fmt.Errorf("%w: nothing follows the last backslash", path.ErrBadPattern)
			}
		}
	}
	// No key is empty, so that one ? beside a * leaves none out.
	if strings.Trim(pattern, "*?") == "" && strings.Contains(pattern, "*") && strings.Count(pattern, "?") <= 1 {
		return errAll
	}
	return nil
}

var errAll = fmt.Errorf("%w: it matches everything; open the backend with a prefix", path.ErrBadPattern)

// MatchPattern reports whether the whole of key matches a pattern that CheckPattern
// accepts.
func MatchPattern(pattern, key string) bool {
	// On a mismatch, go back to the latest * and let it take one byte more.
	star, from := -1, 0
	p, k := 0, 0
	for k < len(key) {
		if p < len(pattern) {
			switch c := pattern[p]; {
			case c == '*':
				star, from = p, k
				p++
				continue
			case c == '?':
				p, k = p+1, k+1
				continue
			case c == '\\' && p+1 < len(pattern) && pattern[p+1] == key[k]:
				p, k = p+2, k+1
				continue
			case c != '\\' && c == key[k]:
				p, k = p+1, k+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, k = star+1, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// PatternPrefix returns the literal bytes that every key matching pattern begins
// with.
func PatternPrefix(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '*', '?':
			return b.String()
		case '\\':
			if i++; i == len(pattern) {
				return b.String()
			}
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}
