package document

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// MaxSize bounds what is read of a file, in bytes.
const MaxSize = 4 << 20

// A Problem is one thing wrong with a value, and where: Path is the field's, as
// in interfaces[0].gateways[1].
type Problem struct {
	Path string
	Err  error
}

// Errors are everything wrong with a file, in order.
type Errors []error

func (e Errors) Error() string   { return errors.Join(e...).Error() }
func (e Errors) Unwrap() []error { return e }

// A Dialect is what the documents of one kind differ in from others. Its zero
// value is useful.
type Dialect struct {
	// Expected is what is said where another thing than a Go type's fields is:
	// "runtime.VirtualServer": "a virtual server's fields are expected here".
	Expected map[string]string

	// DependsOn is the path of what a Problem was judged by, if that is more than
	// the value, or its list. A Problem is told only if all of it could be read.
	DependsOn func(path string) (more string, ok bool)
}

// A Document is one of those in a file.
type Document struct {
	dialect Dialect
	name    string
	node    *yaml.Node
}

// Read calls each for every document that is not empty, and returns what those
// calls, and the file, have of errors; err is that the file could not be read.
func (d Dialect) Read(r io.Reader, name string, each func(Document) []error) (errs Errors, err error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if len(text) > MaxSize {
		return nil, fmt.Errorf("cannot read %s: it is larger than %d MiB", name, MaxSize>>20)
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
			return append(errs, d.located(name, err)...), nil
		}
		if !empty(node) {
			errs = append(errs, each(Document{d, name, &node})...)
		}
	}
}

func empty(n yaml.Node) bool {
	return n.IsZero() || n.Kind == yaml.DocumentNode && (len(n.Content) == 0 || n.Content[0].Tag == "!!null")
}

// Has tells whether the document has a field.
func (doc Document) Has(field string) bool { return child(doc.node.Content[0], field) != nil }

// Decode reads the document into a value, and reports what is wrong with
// either. Fields that are not there stay as they are. validate is told when
// some of it could not be read.
func (doc Document) Decode(into any, validate func(partly bool) []Problem) []error {
	if errs := doc.repeated(doc.node, nil); len(errs) > 0 {
		return doc.told(errs)
	}
	unread := doc.dialect.located(doc.name, doc.node.Load(into, yaml.WithKnownFields()))
	if len(unread) > most {
		return doc.told(unread)
	}
	errs := slices.Clone(unread)
	problems := validate(len(unread) > 0)
	for k, p := range problems {
		if len(errs) > most { // finding the place of each takes as long as the document is
			return doc.told(append(errs, make([]error, len(problems)-k)...))
		}
		if at := find(doc.node, p.Path); !doc.spoiled(p.Path, unread) {
			errs = append(errs, &atLine{doc.name, at.Line, at.Column, p.Err})
		}
	}
	slices.SortStableFunc(errs, func(a, b error) int { return line(a) - line(b) })
	return errs
}

// most is how many errors a document is told. Nobody mends more at a time, and one that
// was made to have a hundred thousand takes long.
const most = 100

// mostFields is how many a mapping may have: the library compares each with each.
const mostFields = 10_000

// told says how many errors there are beside the first.
func (doc Document) told(errs []error) []error {
	if len(errs) <= most {
		return errs
	}
	more := fmt.Errorf("%s: and %d more", doc.name, len(errs)-most)
	return append(errs[:most:most], more)
}

// repeated are fields that are there twice. The library would tell each pair of them.
func (doc Document) repeated(n *yaml.Node, errs []error) []error {
	if fields := len(n.Content) / 2; n.Kind == yaml.MappingNode && fields > mostFields {
		return append(errs, &atLine{doc.name, n.Line, n.Column, fmt.Errorf("%d fields are too many", fields)})
	}
	first := map[string]int{}
	for k, c := range n.Content {
		if n.Kind == yaml.MappingNode && k%2 == 0 && c.Kind == yaml.ScalarNode && c.Value != "<<" {
			if line, there := first[c.Value]; there {
				errs = append(errs, &atLine{doc.name, c.Line, c.Column, fmt.Errorf("mapping key %q already defined at line %d", c.Value, line)})
			} else {
				first[c.Value] = c.Line
			}
		}
		errs = doc.repeated(c, errs)
	}
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
func (doc Document) spoiled(path string, errs []error) bool {
	first, last := span(find(doc.node, doc.dialect.dependsOn(path)))
	return slices.ContainsFunc(errs, func(err error) bool {
		return line(err) >= first && line(err) <= last && !strings.Contains(err.Error(), unknownField)
	})
}

func (d Dialect) dependsOn(path string) string {
	if d.DependsOn != nil {
		if more, ok := d.DependsOn(path); ok {
			return more
		}
	}
	if k := strings.LastIndexByte(path, '['); k >= 0 && strings.HasSuffix(path, "]") { // a place in a list
		return path[:k]
	}
	return path
}

func span(node *yaml.Node) (first, last int) {
	first, last = node.Line, node.Line
	for _, c := range node.Content {
		_, end := span(c)
		last = max(last, end)
	}
	return first, last
}

// find is the node that a problem's path names, or the nearest above it.
func find(node *yaml.Node, path string) *yaml.Node {
	if node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	between := func(r rune) bool { return strings.ContainsRune(".[]", r) }
	for step := range strings.FieldsFuncSeq(path, between) {
		next := child(node, step)
		if next == nil {
			break
		}
		node = next
	}
	return node
}

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
