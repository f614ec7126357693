package runtime

import (
	"fmt"
	"io"
	"strings"

	"github.com/vsrun/vsrun/document"
	"github.com/vsrun/vsrun/plumbing"
)

// Documents are what people write: virtual servers, one a document, and lists of
// ports (ports:).
type Documents struct {
	Ports   []plumbing.Bond
	Servers []VirtualServer
}

var dialect = document.Dialect{
	Expected: map[string]string{
		"runtime.VirtualServer": "a virtual server's fields are expected here",
		"plumbing.Bond":         "a port's fields are expected here",
		"service.reloadFields":  "a signal, or the field signal or command, is expected here",
	},
	DependsOn: dependsOn,
}

// dependsOn is what a problem was judged by: a gateway's interface, all for a
// route.
func dependsOn(path string) (string, bool) {
	if strings.HasPrefix(path, "routes") {
		return "", true
	}
	owner, _, isGateway := strings.Cut(path, ".gateways")
	return owner, isGateway
}

// ReadDocuments reads YAML or JSON. Everything that is wrong is reported at once,
// each with name, line and column.
func ReadDocuments(r io.Reader, name string) (Documents, error) {
	var docs Documents
	errs, err := dialect.Read(r, name, docs.add)
	switch {
	case err != nil:
		return Documents{}, err
	case len(errs) > 0:
		return Documents{}, &DocumentError{errs}
	case len(docs.Servers)+len(docs.Ports) == 0:
		return Documents{}, &DocumentError{document.Errors{fmt.Errorf("%s: there is no virtual server in it", name)}}
	}
	return docs, nil
}

// add reads one document.
func (docs *Documents) add(doc document.Document) []error {
	if doc.Has("ports") {
		var list struct {
			Ports []plumbing.Bond `yaml:"ports"`
		}
		errs := doc.Decode(&list, func(bool) []document.Problem { return located(validatePorts(list.Ports)) })
		docs.Ports = append(docs.Ports, list.Ports...)
		return errs
	}
	var vs VirtualServer
	errs := doc.Decode(&vs, func(partly bool) []document.Problem {
		if partly && same(vs, VirtualServer{}) { // nothing could be read
			return nil
		}
		return located(vs.Validate())
	})
	docs.Servers = append(docs.Servers, vs)
	return errs
}

func located(problems []Problem) []document.Problem {
	var list []document.Problem
	for _, p := range problems {
		list = append(list, document.Problem(p))
	}
	return list
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

// A DocumentError is everything wrong with documents, in order.
type DocumentError struct{ document.Errors }

// Hint is where documents are explained.
func (e *DocumentError) Hint() string { return "an example of all fields: vsrun create --help" }
