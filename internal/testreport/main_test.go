package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"mutants","Value":"3 killed of 3"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
		skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: no server\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
		fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
`
		died = `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: boom\n"}
`
		ok = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
		notOK = `{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
		noTests = `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}
{"Action":"skip","Package":"q"}
`
		broken = `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
`
	)
	for _, test := range []struct {
		name  string
		input string
		ok    bool
		want  string
	}{
		{"pass", pass + ok + noTests, true, "ok  \tp\t0.1s\n?   \tq\t[no test files]\nmutants: 3 killed of 3\n1 passed, 0 failed, 0 skipped\n"},
		{"skip", pass + skip + ok, false, "ok  \tp\t0.1s\nSKIPPED in p\n    b_test.go:3: no server\nmutants: 3 killed of 3\n1 passed, 0 failed, 1 skipped\n"},
		{"fail", fail + notOK, false, "    c_test.go:3: got 1, want 2\nFAIL\tp\t0.1s\nFAIL: p\n0 passed, 1 failed, 0 skipped\n"},
		{"died", died + notOK, false, "panic: boom\nFAIL\tp\t0.1s\nFAIL: p\nno test ran\n0 passed, 0 failed, 0 skipped\n"},
		{"does not build", broken + notOK, false, "p.go:1: undefined: x\nFAIL\tp\t0.1s\nFAIL: p\nno test ran\n0 passed, 0 failed, 0 skipped\n"},
		{"no test", noTests, false, "?   \tq\t[no test files]\nno test ran\n0 passed, 0 failed, 0 skipped\n"},
		{"not JSON", "go: no such module\n", false, "go: no such module\nno test ran\n0 passed, 0 failed, 0 skipped\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got strings.Builder
			ok, err := report(strings.NewReader(test.input), &got)
			if ok != test.ok || err != nil {
				t.Errorf("report = %v, %v; want %v", ok, err, test.ok)
			}
			if got.String() != test.want {
				t.Errorf("report printed\n%s\nwant\n%s", got.String(), test.want)
			}
		})
	}
}
