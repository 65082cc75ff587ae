package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l2cache/l2cache/internal/servertest"
)

func TestEmbedded(t *testing.T) {
	t.Chdir(t.TempDir()) // and back, whatever run does
	var out strings.Builder
	if err := run(&out, "", nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	if !strings.HasSuffix(out.String(), "The same results on mem, bolt.\n") {
		t.Error("the results differ")
	}
}

// TestAll runs it on every backend, from a file as a user would write it.
func TestAll(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "backends.yaml")
	text := fmt.Sprintf(`
bolt:      {url: "bolt://%s"}
mem:       {url: "mem://swap"}
memcached: {url: "memcached://%s", prefix: "swap:", op_timeout: 5s}
nats:      {url: "nats://%s/swap", op_timeout: 5s}
redis:     {url: "redis://%s", prefix: "swap:", op_timeout: 5s}
`, filepath.ToSlash(filepath.Join(dir, "cache.db")), servertest.Memcached(t).Addr, servertest.NATS(t).Addr, servertest.Redis(t).Addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(&out, config, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	if !strings.HasSuffix(out.String(), "The same results on bolt, mem, memcached, nats, redis.\n") {
		t.Error("the results differ")
	}
}

func TestBadConfiguration(t *testing.T) {
	for text, want := range map[string]string{
		"mem: {url: 'mem://', colour: red}":                    "colour",
		"mem: {url: 'mem://', op_timeout: 5}":                  "duration with a unit",
		"mem: {url: 'mem://?hue=1'}":                           "unknown option hue",
		"redis: {url: 'redis://user:hunter2@x@h'}":             "raw @",
		"redis: {url: 'redis://h', password_env: NOT_SET_ANY}": "password_env",
	} {
		config := filepath.Join(t.TempDir(), "backends.yaml")
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := run(&strings.Builder{}, config, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("run with %s = %v, want an error with %q and no secret", text, err, want)
		}
	}
	if err := run(&strings.Builder{}, "", []string{"nosuch"}); err == nil || !strings.Contains(err.Error(), "known: bolt, mem") {
		t.Errorf("run of a backend that is not in the file = %v, want those that are", err)
	}
}
