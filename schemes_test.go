package l2cache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/l2cache/l2cache"
)

// What the hint of an unknown scheme says is what the adapters register: the strings in
// their init functions.
func TestHintsNameAllSchemes(t *testing.T) {
	files, err := filepath.Glob("adapters/*/open.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("adapters/*/open.go: %d files, %v", len(files), err)
	}
	registered := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Name.Name != "init" {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					scheme, _ := strconv.Unquote(lit.Value)
					registered[scheme] = filepath.Base(filepath.Dir(name))
				}
				return true
			})
		}
	}
	if hints := l2cache.AdaptersByScheme(); !maps.Equal(hints, registered) {
		t.Errorf("hints are for %v; registered are %v", hints, registered)
	}
}
