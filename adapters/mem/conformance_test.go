package mem_test

import (
	"context"
	"testing"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/conformance"
)

func TestConformance(t *testing.T) {
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, "mem://"+namespace)
	}
	t.Run("bubble", func(t *testing.T) {
		conformance.Run(t, open, &conformance.Options{Strict: true, InProcess: true})
	})
	t.Run("real-time", func(t *testing.T) {
		conformance.Run(t, open, &conformance.Options{Strict: true})
	})
	t.Run("prefixed", func(t *testing.T) {
		conformance.Run(t, func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
			return l2cache.Open(ctx, "mem://"+namespace+"?prefix=an.app:")
		}, &conformance.Options{Strict: true, InProcess: true})
	})
}
