package l2cache_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// importRules says what each package may import besides the standard library.
// A package of this module begins with a dot, as the go command has it, and
// /... stands for a package and all below it. The longest name that fits a
// package is its rule. A package without one is an error: whoever adds an
// adapter says here what it costs.
//
// As every package here has a rule, direct imports are all that needs checking:
// nobody who imports the root gains a third-party package, and nobody who
// imports one adapter gains the driver of another.
var importRules = map[string][]string{
	".":                    {},
	"./envelope":           {"."},
	"./adapters/mem":       {".", "./envelope", "./internal/batch"},
	"./adapters/bolt":      {".", "./envelope", "./internal/batch", "go.etcd.io/bbolt/..."},
	"./adapters/redis":     {".", "./envelope", "./internal/batch", "github.com/redis/go-redis/v9/..."},
	"./adapters/memcached": {".", "./envelope", "./internal/batch", "github.com/bradfitz/gomemcache/..."},
	"./adapters/natskv":    {".", "./envelope", "./internal/batch", "github.com/nats-io/nats.go/..."},
	"./conformance/...":    {".", "./conformance/...", "github.com/anishathalye/porcupine/...", "testing/..."},
	"./examples/...":       {".", "./adapters/...", "./tiered"},
	"./examples/swap":      {".", "./adapters/...", "go.yaml.in/yaml/v3"},
	"./internal/batch":     {"."},
	"./tiered":             {".", "github.com/maypok86/otter/v2", "github.com/sony/gobreaker/v2"},

	// Only tests and the module's own scripts use these.
	"./internal/servertest": {"testing/..."},
	"./internal/testreport": {},
	"./internal/benchratio": {},
	"./internal/ratio":      {"testing/..."},
	"./internal/soak":       {".", "./adapters/...", "./internal/servertest", "./conformance"},
}

// brokenImports returns those of a package's imports that its rule forbids.
// Of the standard library that is testing, which adds flags to a program, in
// what is not for tests.
func brokenImports(pkg string, imports []string) (broken []string, hasRule bool) {
	rule := ""
	for r := range importRules {
		if covers(r, pkg) && len(r) > len(rule) {
			rule = r
		}
	}
	if rule == "" {
		return nil, false
	}
	for _, imp := range imports {
		first, _, _ := strings.Cut(imp, "/")
		standard := !strings.Contains(first, ".") && !covers("testing/...", imp)
		if !standard && !slices.ContainsFunc(importRules[rule], func(a string) bool { return covers(a, imp) }) {
			broken = append(broken, imp)
		}
	}
	return broken, true
}

// covers reports whether a name of importRules stands for a package.
func covers(name, pkg string) bool {
	below, all := strings.CutSuffix(name, "/...")
	return pkg == below || all && strings.HasPrefix(pkg, below+"/")
}

func TestImports(t *testing.T) {
	packages := importsOfModule(t)
	if len(packages["./envelope"]) == 0 {
		t.Fatalf("found no imports of ./envelope among %d packages", len(packages))
	}
	for pkg, imports := range packages {
		broken, hasRule := brokenImports(pkg, imports)
		if !hasRule {
			t.Errorf("%s has no rule in importRules", pkg)
		}
		for _, imp := range broken {
			t.Errorf("%s imports %s", pkg, imp)
		}
	}
	for rule := range importRules {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(packages)), func(pkg string) bool { return covers(rule, pkg) }) {
			t.Errorf("importRules has a rule for %s, which does not exist", rule)
		}
	}
}

// importsOfModule returns what the packages of this module import outside of
// their tests, in the notation of importRules. It reads the files itself: go
// list sees those of one system only, and go test, which does not know what go
// list reads, would go on printing an old result from its cache.
func importsOfModule(t *testing.T) map[string][]string {
	t.Helper()
	packages := make(map[string][]string)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != ".":
			if name := d.Name(); name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
				return fs.SkipDir // another module
			}
		case strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go"):
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			pkg := localName(path.Join(modulePath, path.Dir(filepath.ToSlash(file))))
			imports := packages[pkg]
			for _, spec := range f.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				imports = append(imports, localName(imp))
			}
			packages[pkg] = imports
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

const modulePath = "github.com/l2cache/l2cache"

// localName writes the packages of this module as ./name.
func localName(pkg string) string {
	if rest, ok := strings.CutPrefix(pkg, modulePath); ok {
		return "." + rest
	}
	return pkg
}

func TestImportRules(t *testing.T) {
	for _, test := range []struct {
		pkg, imp string
		ok       bool
	}{
		{".", "context", true},
		{".", "net/url", true},
		{".", "./envelope", false},
		{".", "./internal/batch", false},
		{".", "golang.org/x/sync/errgroup", false},
		{".", "testing", false},
		{".", "testing/synctest", false},
		{"./envelope", ".", true},
		{"./envelope", "./internal/batch", false},
		{"./adapters/redis", "./envelope", true},
		{"./adapters/redis", "./internal/batch", true},
		{"./adapters/redis", "github.com/redis/go-redis/v9", true},
		{"./adapters/redis", "github.com/redis/go-redis/v9/maintnotifications", true},
		{"./adapters/redis", "github.com/redis/go-redis/v9000", false},
		{"./adapters/redis", "github.com/redis/rueidis", false},
		{"./adapters/redis", "github.com/bradfitz/gomemcache/memcache", false},
		{"./adapters/redis", "./adapters/mem", false},
		{"./adapters/redis", "./internal/servertest", false},
		{"./adapters/redis", "testing", false},
		{"./conformance", "testing/synctest", true},
		{"./conformance", "github.com/anishathalye/porcupine", true},
		{"./conformance", "./adapters/mem", false},
		{"./conformance/mutants", "./conformance", true},
		{"./conformance/mutants", "./internal/servertest", false},
		{"./examples/quickstart", "./adapters/bolt", true},
		{"./tiered", "github.com/maypok86/otter/v2", true},
		{"./tiered", "./adapters/mem", false},
		{"./tiered", "./internal/batch", false},
		{"./tiered", "github.com/prometheus/client_golang/prometheus", false},
		{"./examples/quickstart", "./internal/servertest", false},
	} {
		broken, hasRule := brokenImports(test.pkg, []string{"fmt", test.imp, "time"})
		if !hasRule {
			t.Errorf("%s has no rule", test.pkg)
		}
		if ok := len(broken) == 0; ok != test.ok {
			t.Errorf("%s may import %s: %v, want %v", test.pkg, test.imp, ok, test.ok)
		}
	}
	if _, hasRule := brokenImports("./adapters/new", nil); hasRule {
		t.Error("an adapter that is not in importRules has a rule")
	}
}
