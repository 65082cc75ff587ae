package l2cache_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/l2cache/l2cache"
	"github.com/l2cache/l2cache/adapters/mem"
)

func TestPrefixOfPrefix(t *testing.T) {
	ctx := t.Context()
	store := mem.New(mem.NewStore())
	b := l2cache.WithPrefix(l2cache.WithPrefix(store, "a:"), "b:")
	if err := b.Set(ctx, "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, err := store.Get(ctx, "a:b:k"); string(v) != "v" {
		t.Errorf("Get(a:b:k) = %q, %v; want v", v, err)
	}
	if n := l2cache.ProfileOf(b).MaxKeyLen; n != l2cache.MaxKeyLen-4 {
		t.Errorf("MaxKeyLen = %d, want %d", n, l2cache.MaxKeyLen-4)
	}
	long := strings.Repeat("k", l2cache.MaxKeyLen-3)
	err := b.Delete(ctx, long)
	var e *l2cache.Error
	if !errors.As(err, &e) || e.Key != long || strings.Contains(err.Error(), "a:") || !strings.Contains(err.Error(), "1021 bytes, at most 1020") {
		t.Errorf("Delete of a key that is too long = %v, want an error of that key", err)
	}
}

func TestPrefixThatIsEmptyOrTooLong(t *testing.T) {
	store := mem.New(mem.NewStore())
	if b := l2cache.WithPrefix(store, ""); b != l2cache.L2CacheBackend(store) {
		t.Errorf("WithPrefix of nothing = %v, want the backend itself", b)
	}
	b := l2cache.WithPrefix(store, strings.Repeat("p", 2*l2cache.MaxKeyLen))
	if _, err := b.Get(t.Context(), "k"); !errors.Is(err, l2cache.ErrInvalidKey) {
		t.Errorf("Get behind a prefix that leaves no room = %v, want ErrInvalidKey", err)
	}
	if n := l2cache.ProfileOf(b).MaxKeyLen; n != -1 {
		t.Errorf("MaxKeyLen = %d, want -1", n)
	}
}

func TestProfileDefaults(t *testing.T) {
	got := l2cache.ProfileOf(&stub{})
	want := l2cache.Profile{Resolution: time.Millisecond, MaxTTL: l2cache.NoExpiry, MaxKeyLen: l2cache.MaxKeyLen}
	if got != want {
		t.Errorf("ProfileOf a backend without a profile = %+v, want %+v", got, want)
	}
}
