package l2cache_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guideFile is how docs/writing-an-adapter.md says which file its code is in: one
// that it has all of, in parts, or one that it quotes.
var guideFile = regexp.MustCompile("^(In|From) `([^`]+)`:$")

// TestAdapterGuide compares the code in docs/writing-an-adapter.md with the files that it
// is from, which are built and tested: the text can be followed to the letter.
func TestAdapterGuide(t *testing.T) {
	text, err := os.ReadFile("docs/writing-an-adapter.md")
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string][]string{} // the parts of files of examples/thirdparty
	quotes := 0
	how, file := "", ""
	var block []string
	inBlock := false
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "```go":
			if file == "" {
				t.Errorf("line %d: code of no file", n+1)
			}
			inBlock, block = true, nil
		case inBlock && line == "```":
			code := strings.Join(block, "\n") + "\n"
			if how == "In" {
				whole[file] = append(whole[file], code)
			} else {
				quotes++
				if !strings.Contains(read(t, file), code) {
					t.Errorf("line %d: %s has no such code:\n%s", n+1, file, code)
				}
			}
			inBlock, how, file = false, "", ""
		case inBlock:
			block = append(block, line)
		default:
			if m := guideFile.FindStringSubmatch(line); m != nil {
				how, file = m[1], m[2]
			}
		}
	}
	for file, parts := range whole {
		if got, want := strings.Join(parts, "\n"), read(t, "examples/thirdparty/"+file); got != want {
			t.Errorf("the parts of %s do not make up the file in examples/thirdparty; it differs from line %d on", file, differs(got, want))
		}
	}
	if len(whole) != 3 || quotes != 3 {
		t.Errorf("found %d whole files and %d quotes, want 3 and 3", len(whole), quotes)
	}
}

func read(t *testing.T, file string) string {
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// differs is the number of the first line that a and b do not share.
func differs(a, b string) int {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for n := range as {
		if n == len(bs) || as[n] != bs[n] {
			return n + 1
		}
	}
	return len(as) + 1
}
