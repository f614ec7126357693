package runtime

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	yaml "go.yaml.in/yaml/v4"

	"github.com/vsrun/vsrun/plumbing"
)

// maxDocument bounds what is read of a file, in bytes.
const maxDocument = 4 << 20

// Documents are what people write: virtual servers, one a document, and lists of
// ports (ports:).
type Documents struct {
	Ports   []plumbing.Bond
	Servers []VirtualServer
}

// ReadDocuments reads YAML or JSON. Everything that is wrong is reported at once,
// each with name, line and column.
func ReadDocuments(r io.Reader, name string) (Documents, error) {
	var docs Documents
	errs, err := docs.read(r, name)
	switch {
	case err != nil:
		return Documents{}, err
	case len(errs) > 0:
		return Documents{}, &DocumentError{errs}
	case len(docs.Servers)+len(docs.Ports) == 0:
		return Documents{}, &DocumentError{[]error{fmt.Errorf("%s: there is no virtual server in it", name)}}
	}
	return docs, nil
}

func (docs *Documents) read(r io.Reader, name string) (errs []error, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if len(text) > maxDocument {
		return nil, fmt.Errorf("cannot read %s: it is larger than %d MiB", name, maxDocument>>20)
	}
	loader, err := yaml.NewLoader(strings.NewReader(string(text)))
	if err != nil {
		return nil, err
	}
	for {
		var node yaml.Node
		err := loader.Load(&node)
		if err == io.EOF {
			return errs, nil
		}
		if err != nil { // what follows a syntax error means nothing
			return append(errs, located(name, err)...), nil
		}
		if !empty(node) {
			errs = append(errs, docs.add(name, &node)...)
		}
	}
}

// add reads one document.
func (docs *Documents) add(name string, node *yaml.Node) []error {
	if child(node.Content[0], "ports") != nil {
		var list struct {
			Ports []plumbing.Bond `yaml:"ports"`
		}
		errs := decode(name, node, &list, func(bool) []Problem { return validatePorts(list.Ports) })
		docs.Ports = append(docs.Ports, list.Ports...)
		return errs
	}
	var vs VirtualServer
	errs := decode(name, node, &vs, func(partly bool) []Problem {
		if partly && same(vs, VirtualServer{}) { // nothing could be read
			return nil
		}
		return vs.Validate()
	})
	docs.Servers = append(docs.Servers, vs)
	return errs
}

func validatePorts(ports []plumbing.Bond) []Problem {
	var list []Problem
	names, owners := map[string]bool{}, map[string]string{}
	add := func(path, format string, args ...any) {
		list = append(list, Problem{Path: path, Err: fmt.Errorf(format, args...)})
	}
	for k, b := range ports {
		if names[b.Name] {
			add(fmt.Sprintf("ports[%d].name", k), "port %s is there twice", b.Name)
		}
		names[b.Name] = true
		for j, m := range b.Members {
			if owner, ok := owners[m]; ok && owner != b.Name {
				add(fmt.Sprintf("ports[%d].members[%d]", k, j), "%s is a member of port %s, too", m, owner)
			}
			owners[m] = b.Name
		}
		for _, p := range b.Validate() {
			p.Path = fmt.Sprintf("ports[%d].%s", k, p.Path)
			list = append(list, p)
		}
	}
	return list
}

// A DocumentError is everything wrong with a document, in order.
type DocumentError struct{ list []error }

func (e *DocumentError) Error() string   { return errors.Join(e.list...).Error() }
func (e *DocumentError) Unwrap() []error { return e.list }

// Hint is where documents are explained.
func (e *DocumentError) Hint() string { return "an example of all fields: vsrun create --help" }

func empty(n yaml.Node) bool {
	return n.IsZero() || n.Kind == yaml.DocumentNode && (len(n.Content) == 0 || n.Content[0].Tag == "!!null")
}

// decode reads a document into a value, and reports what is wrong with either.
// validate is told when some of it could not be read.
func decode(name string, node *yaml.Node, into any, validate func(partly bool) []Problem) []error {
	unread := located(name, node.Load(into, yaml.WithKnownFields()))
	errs := slices.Clone(unread)
	for _, p := range validate(len(unread) > 0) {
		if at := find(node, p.Path); !spoiled(node, p.Path, unread) {
			errs = append(errs, &atLine{name, at.Line, at.Column, p.Err})
		}
	}
	slices.SortStableFunc(errs, func(a, b error) int { return line(a) - line(b) })
	return errs
}

// An atLine is what is wrong at a place of a document.
type atLine struct {
	name         string
	line, column int
	err          error
}

func (e *atLine) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.name, e.line, e.column, e.err) }
func (e *atLine) Unwrap() error { return e.err }

func line(err error) int {
	if e, ok := err.(*atLine); ok {
		return e.line
	}
	return 0
}

// spoiled reports whether a problem may only follow from a wrong type: what
// could not be read is missing in the value that was checked.
func spoiled(node *yaml.Node, path string, errs []error) bool {
	first, last := span(find(node, dependsOn(path)))
	return slices.ContainsFunc(errs, func(err error) bool {
		return line(err) >= first && line(err) <= last && !strings.Contains(err.Error(), unknownField)
	})
}

// dependsOn is the part of a document that a problem was judged by: a value's
// whole list, a gateway's interface, all for a route.
func dependsOn(path string) string {
	switch {
	case strings.HasPrefix(path, "routes"):
		return ""
	case strings.Contains(path, ".gateways"):
		return path[:strings.Index(path, ".gateways")]
	}
	return position.ReplaceAllString(path, "")
}

// position is a place in a list, at a path's end.
var position = regexp.MustCompile(`\[\d+\]$`)

func span(node *yaml.Node) (first, last int) {
	first, last = node.Line, node.Line
	for _, c := range node.Content {
		_, end := span(c)
		last = max(last, end)
	}
	return first, last
}

// located rewrites the library's errors as file:line:column: what.
func located(name string, err error) []error {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &many):
		var errs []error
		for _, e := range many.Errors {
			errs = append(errs, located(name, e)...)
		}
		return errs
	case errors.As(err, &one) && one.Mark.Line > 0:
		return []error{&atLine{name, one.Mark.Line, max(one.Mark.Column, 1), errors.New(plainWords(one.Message))}}
	}
	return []error{fmt.Errorf("%s: %s", name, plainWords(err.Error()))}
}

const unknownField = "unknown field"

// wordings put the library's errors, which speak of Go types, into the words of
// those who have documents. They are compiled for the first error only.
var wordings = sync.OnceValue(func() []wording {
	return []wording{
		{regexp.MustCompile(`^field (\S+) not found in type .*`), unknownField + " $1"},
		{regexp.MustCompile("^cannot construct !!\\w+ `(.*)` into u?int\\w*"), "$1 is not a whole number"},
		{regexp.MustCompile("^cannot construct !!\\w+ `(.*)` into bool"), "$1 is neither true nor false"},
		{regexp.MustCompile("^cannot construct !!(seq|map) into string"), "one word is expected here, not a list or fields"},
		{regexp.MustCompile(`^cannot construct !!seq into runtime\.VirtualServer`), "a virtual server's fields are expected here, not a list"},
		{regexp.MustCompile("^cannot construct !!(str|int|bool|null|float)( `.*`)? into runtime\\.VirtualServer"), "a virtual server's fields are expected here"},
		{regexp.MustCompile("^cannot construct !!\\w+( `.*`)? into plumbing\\.Bond"), "a port's fields are expected here"},
		{regexp.MustCompile("^cannot construct !!\\w+( `.*`)? into \\[\\].*"), "a list is expected here"},
		{regexp.MustCompile("^cannot construct !!\\w+( `.*`)? into service\\.reloadFields"), "a signal, or the field signal or command, is expected here"},
		{regexp.MustCompile(`^netip\.ParsePrefix\("(.*?)"\): no '/'`), "$1 is not an address with prefix length, such as 192.0.2.8/24"},
		{regexp.MustCompile(`^netip\.ParsePrefix\("(.*?)"\): .*`), "$1 is not an address with prefix length, such as 192.0.2.8/24"},
		{regexp.MustCompile(`^ParseAddr\("(.*?)"\): .*`), "$1 is not an IP address"},
	}
})

type wording struct {
	pattern *regexp.Regexp
	words   string
}

func plainWords(s string) string {
	for _, w := range wordings() {
		if w.pattern.MatchString(s) {
			return w.pattern.ReplaceAllString(s, w.words)
		}
	}
	return s
}

// find is the node that a problem's path names, or the nearest above it.
func find(node *yaml.Node, path string) *yaml.Node {
	if node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	for _, step := range steps.FindAllString(path, -1) {
		next := child(node, step)
		if next == nil {
			break
		}
		node = next
	}
	return node
}

var steps = regexp.MustCompile(`[A-Za-z]+|\d+`)

func child(node *yaml.Node, step string) *yaml.Node {
	switch node.Kind {
	case yaml.MappingNode:
		for k := 0; k+1 < len(node.Content); k += 2 {
			if node.Content[k].Value == step {
				return node.Content[k+1]
			}
		}
	case yaml.SequenceNode:
		var k int
		if _, err := fmt.Sscan(step, &k); err == nil && k < len(node.Content) {
			return node.Content[k]
		}
	}
	return nil
}
