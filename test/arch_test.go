// Package test holds what is checked about the project as a whole.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/vsrun/vsrun"

// allowed are the rooms that the product has, and what of ours each may import.
// Nothing points back up.
var allowed = map[string][]string{
	"cmd/vsrun":       {"cmd/vsrun/screen", "runtime/agent", "nsutil/cgroup", "runtime", "runtime/service", "plumbing", "nsutil", "stats", "stats/ipmd"},
	"cmd/daemon":      {},
	"cmd/vsd":         {"cmd/daemon", "runtime/agent", "runtime", "plumbing", "nsutil", "stats"},
	"cmd/ipmd":        {"cmd/daemon", "runtime", "runtime/service", "plumbing", "nsutil", "stats", "stats/ebpf", "stats/ipmd", "stats/push"},
	"cmd/vs-init":     {"runtime/service"},
	"runtime/agent":   {"runtime", "runtime/service", "plumbing", "nsutil/cgroup", "nsutil"},
	"runtime":         {"document", "nsutil/cgroup", "runtime/service", "runtime/units", "runtime/volume", "plumbing", "nsutil", "stats", "stats/ipmd", "stats/ledger"},
	"runtime/service": {"nsutil/cgroup", "nsutil"},
	"runtime/units":   {"nsutil/cgroup", "runtime/service"},
	"runtime/volume":  {"runtime/service"},
	"plumbing":        {"nsutil"},
	"stats":           {"nsutil/cgroup", "nsutil"},
	"stats/ebpf":      {"stats", "nsutil"},
	"stats/ledger":    {"nsutil", "stats"},
	"stats/push":      {"document"},
	"stats/ipmd":      {"document", "stats", "stats/push", "nsutil"},
	"nsutil/cgroup":   {"nsutil"},
	"nsutil":          {},
	"document":        {},
	"examples":        {},

	"cmd/vsrun/screen": {},
}

// reserved are libraries that only some places may import, with what is below
// them. A place is a room, a room with /… for all below it, or a file.
var reserved = map[string][]string{
	"github.com/vishvananda/netlink": {"plumbing/netlink_bond.go"},
	"go.yaml.in/yaml":                {"cmd/…", "document"},
	"github.com/spf13/cobra":         {"cmd/…"},
	"github.com/spf13/pflag":         {"cmd/…"},
	"golang.org/x/term":              {"cmd/vsrun/screen"},
	"github.com/cilium/ebpf":         {"stats/ebpf"},
}

// threads are the calls that act on the calling thread: only nsutil may make
// them, because a thread in the wrong namespace serves any goroutine next.
var threads = map[string][]string{
	"runtime":                  {"LockOSThread", "UnlockOSThread"},
	"golang.org/x/sys/unix":    {"Setns", "Unshare", "SYS_SETNS", "SYS_UNSHARE"},
	"syscall":                  {"Unshare", "SYS_UNSHARE"},
	"github.com/vishvananda/…": {"Set", "Setns", "NewNamed", "DeleteNamed"},
	"github.com/containernetworking/plugins/pkg/ns": {"WithNetNSPath", "GetCurrentNS"},
}

// A package is named for what it provides.
var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "base"}

// A source is one Go file: its room is its directory in the module.
type source struct {
	path, room string
	fset       *token.FileSet
	file       *ast.File
}

func (s source) isTest() bool    { return strings.HasSuffix(s.path, "_test.go") || s.below("test") }
func (s source) isProduct() bool { return !s.isTest() && !s.below("tools") }
func (s source) below(top string) bool {
	return s.room == top || strings.HasPrefix(s.room, top+"/")
}

// in tells whether the source is in one of the places, as reserved names them.
func (s source) in(places []string) bool {
	return slices.ContainsFunc(places, func(place string) bool {
		top, all := strings.CutSuffix(place, "/…")
		return s.path == place || s.room == place || all && s.below(top)
	})
}

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

// rules are what each file has to keep; each lists what breaks it.
var rules = []struct {
	name  string
	check func(source) []string
}{
	{"imports go one way", strayImports},
	{"libraries have their place", strayLibraries},
	{"only nsutil touches threads", strayThreads},
	{"packages are named for what they provide", vagueNames},
}

func TestRules(t *testing.T) {
	all := sources(t)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, s := range all {
				for _, broken := range rule.check(s) {
					t.Errorf("%s: %s", s.path, broken)
				}
			}
		})
	}
}

// Every rule can be broken, and the exceptions are some.
func TestRulesCatch(t *testing.T) {
	for _, c := range []struct{ path, code, want string }{
		{"cmd/vsrun/a.go", `package main; import _ "github.com/vsrun/vsrun/plumbing"`, ""},
		{"plumbing/a.go", `package plumbing; import _ "github.com/vsrun/vsrun/runtime"`, "imports runtime, which plumbing must not"},
		{"plumbing/a_test.go", `package plumbing; import _ "github.com/vsrun/vsrun/test/lab"`, ""},
		{"plumbing/a.go", `package plumbing; import _ "github.com/vsrun/vsrun/test/lab"`, "imports test/lab"},
		{"cmd/vs-init/a.go", `package main; import _ "github.com/vsrun/vsrun/runtime/service"`, ""},
		{"cmd/vs-init/a.go", `package main; import _ "github.com/vsrun/vsrun/runtime"`, "imports runtime"},
		{"newroom/a.go", `package newroom`, "add it to the table"},
		{"plumbing/netlink_bond.go", `package plumbing; import _ "github.com/vishvananda/netlink/nl"`, ""},
		{"plumbing/a.go", `package plumbing; import _ "github.com/vishvananda/netlink/nl"`, "only plumbing/netlink_bond.go may"},
		{"document/a.go", `package document; import _ "go.yaml.in/yaml/v4"`, ""},
		{"runtime/service/a.go", `package service; import _ "go.yaml.in/yaml/v4"`, "only cmd/…, document may"},
		{"runtime/a.go", `package runtime; import _ "github.com/spf13/cobra"`, "only cmd/… may"},
		{"nsutil/a.go", `package nsutil; import "runtime"; func init() { runtime.LockOSThread() }`, ""},
		{"stats/a.go", `package stats; import goruntime "runtime"; func init() { goruntime.LockOSThread() }`, "uses goruntime.LockOSThread"},
		{"stats/a.go", `package stats; import "golang.org/x/sys/unix"; var _ = unix.Setns`, "uses unix.Setns"},
		{"stats/a.go", `package stats; import "golang.org/x/sys/unix"; var _ = unix.Open`, ""},
		{"test/a.go", `package helpers`, "named for nothing in particular"},
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, c.path, c.code, 0)
		if err != nil {
			t.Fatal(err)
		}
		var broken []string
		for _, rule := range rules {
			broken = append(broken, rule.check(source{c.path, filepath.Dir(c.path), fset, file})...)
		}
		got := strings.Join(broken, "; ")
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %s\n\tgot  %q\n\twant %q", c.path, c.code, got, c.want)
		}
	}
}

// The table itself must not allow what the architecture forbids.
func TestAllowedImportsHaveNoCircle(t *testing.T) {
	var visit func(room string, path []string)
	visit = func(room string, path []string) {
		if slices.Contains(path, room) {
			t.Fatalf("a circle: %s", strings.Join(append(path, room), " → "))
		}
		for _, next := range allowed[room] {
			visit(next, append(slices.Clone(path), room))
		}
	}
	for _, room := range slices.Sorted(maps.Keys(allowed)) {
		visit(room, nil)
	}
}

// Each package says in doc.go what it does.
func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		documented[s.room] = documented[s.room] || s.file.Doc != nil
	}
	for _, room := range slices.Sorted(maps.Keys(documented)) {
		if !documented[room] {
			t.Errorf("package %s has no comment that says what it is for", room)
		}
	}
}

func strayImports(s source) (broken []string) {
	if !s.isProduct() {
		return nil
	}
	edges, known := allowed[s.room]
	if !known {
		return []string{"nobody decided what " + s.room + " may import: add it to the table"}
	}
	for _, path := range s.imports() {
		room, ours := strings.CutPrefix(path, module+"/")
		if ours && !slices.Contains(edges, room) {
			broken = append(broken, "imports "+room+", which "+s.room+" must not")
		}
	}
	return broken
}

func strayLibraries(s source) (broken []string) {
	if !s.isProduct() {
		return nil
	}
	for _, path := range s.imports() {
		for library, places := range reserved {
			if (path == library || strings.HasPrefix(path, library+"/")) && !s.in(places) {
				broken = append(broken, "imports "+path+", which only "+strings.Join(places, ", ")+" may")
			}
		}
	}
	return broken
}

func strayThreads(s source) (broken []string) {
	// The filter of system calls has the numbers of those it refuses.
	if !s.isProduct() || s.room == "nsutil" || s.path == "runtime/service/seccomp.go" {
		return nil
	}
	for _, use := range s.uses(threads) {
		broken = append(broken, use+", which only nsutil may")
	}
	return broken
}

func vagueNames(s source) []string {
	if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(forbiddenNames, name) {
		return []string{"package " + name + " is named for nothing in particular"}
	}
	return nil
}

// uses lists where the source mentions one of the names of a package.
func (s source) uses(names map[string][]string) []string {
	locals := map[string][]string{} // by the name that the file gives the package
	for i, path := range s.imports() {
		local := filepath.Base(path)
		if name := s.file.Imports[i].Name; name != nil {
			local = name.Name
		}
		for of, list := range names {
			top, all := strings.CutSuffix(of, "/…")
			if path == of || all && strings.HasPrefix(path, top+"/") {
				locals[local] = append(locals[local], list...)
			}
		}
	}
	var found []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(locals[x.Name], sel.Sel.Name) {
				line := s.fset.Position(sel.Pos()).Line
				found = append(found, fmt.Sprintf("line %d uses %s.%s", line, x.Name, sel.Sel.Name))
			}
		}
		return true
	})
	return found
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	if _, err := os.Stat("../go.mod"); err != nil {
		t.Fatal("this test reads the module's files, and they are not here: ", err)
	}
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		path = strings.TrimPrefix(path, "../")
		all = append(all, source{path, filepath.Dir(path), fset, file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
