package conformance_test

import (
	"context"
	"fmt"
	"log"

	"github.com/l2cache/l2cache"
	_ "github.com/l2cache/l2cache/adapters/mem"
	"github.com/l2cache/l2cache/conformance"
)

// Without a *testing.T, and one group of cases only.
func ExampleCheck() {
	open := func(ctx context.Context, namespace string) (l2cache.L2CacheBackend, error) {
		return l2cache.Open(ctx, "mem://"+namespace)
	}
	report, err := conformance.Check(context.Background(), open, &conformance.Options{Only: []string{"delete"}})
	if err != nil {
		log.Fatal(err)
	}
	result, _ := report.Result("delete/missing")
	fmt.Println(report.Backend, report.Verdict) // most cases were not run
	fmt.Println(result.Level, result.Status)
	// Output:
	// mem partial
	// MUST pass
}
