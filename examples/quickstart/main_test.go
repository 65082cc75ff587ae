package main

import (
	"regexp"
	"strings"
	"testing"
)

// TestSecondRunFindsTheFirst runs the example twice in a cache directory of its
// own, as the README says to.
func TestSecondRunFindsTheFirst(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	var first, second strings.Builder
	if err := run(t.Context(), &first, ""); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), &second, ""); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\n%s", &first, &second)
	if !strings.Contains(first.String(), "Left by an earlier run:\n  nothing\n") {
		t.Error("the first run found something")
	}
	found := regexp.MustCompile(`Left by an earlier run:\n  session .* 4m5\d\.?\d*s left\n  motto .* never expires\n\nNow:\n  session .* 4m5\d\.?\d*s left\n`)
	if !found.MatchString(second.String()) {
		t.Error("the second run did not find the session with less than 5m left, and the motto")
	}
	for _, out := range []string{first.String(), second.String()} {
		if !regexp.MustCompile(` 1\.\d{3} s\n(.* 0\.\d{3} s\n)+.*expired\n`).MatchString(out) {
			t.Error("the countdown does not end")
		}
	}
}

func TestOtherBackend(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, "mem://"); err != nil || !strings.Contains(out.String(), "A cache on mem at the URL given") {
		t.Errorf("run on mem:// = %v\n%s", err, &out)
	}
	err := run(t.Context(), &out, "redis://user:hunter2@127.0.0.1:1")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("run on a server that is not there = %v, want an error without the password", err)
	}
}
