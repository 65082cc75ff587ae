package main

import (
	"bytes"
	"regexp"
	"testing"
)

func TestExample(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out, "")
	t.Logf("\n%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?s)500 of 500 read.*Warm listed 2000 entries and took 500 .*article:2000 comes from l1 .*article:1751 comes from l1 .*article:1001 comes from l2 `)
	if !want.MatchString(out.String()) {
		t.Errorf("the output does not match %v", want)
	}
}
