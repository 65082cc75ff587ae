package main

import (
	"bytes"
	"os"
	"regexp"
	"testing"

	"github.com/l2cache/l2cache/internal/servertest"
)

// The test's own program is the second process, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "-reader" {
		main()
		return
	}
	servertest.Main(m)
}

func TestExample(t *testing.T) {
	backend := "redis://" + servertest.Redis(t).Addr
	var out bytes.Buffer
	err := run(t.Context(), &out, backend, os.Args[0], "-reader", "-url")
	t.Logf("\n%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?s)nothing\nwriter  Set 250 .*250 from l1, 59\.\d+s left\n.*writer  Set 280 .*280 from l1, 2\.\d+s left\n.*nothing\n.*300 from l1.*Delete\n.*nothing\n.* changes heard of\n`)
	if !want.MatchString(out.String()) {
		t.Errorf("the output does not match %v", want)
	}
}
