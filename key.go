package l2cache

import "fmt"

// CheckKey returns an error that matches ErrInvalidKey unless key has 1 to
// maxLen bytes. Every byte is allowed.
func CheckKey(key string, maxLen int) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if maxLen < 1 {
		return fmt.Errorf("%w: the prefix leaves no room for one", ErrInvalidKey)
	}
	if len(key) > maxLen {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalidKey, len(key), maxLen)
	}
	return nil
}
