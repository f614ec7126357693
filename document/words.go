package document

import (
	"errors"
	"fmt"
	"regexp"
	"sync"

	yaml "go.yaml.in/yaml/v4"
)

// located rewrites the library's errors as file:line:column: what.
func (d Dialect) located(name string, err error) []error {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &many):
		var errs []error
		for _, e := range many.Errors {
			if len(errs) > most { // it is counted, and no more
				errs = append(errs, e)
				continue
			}
			errs = append(errs, d.located(name, e)...)
		}
		return errs
	case errors.As(err, &one) && one.Mark.Line > 0:
		return []error{&atLine{name, one.Mark.Line, max(one.Mark.Column, 1), errors.New(d.plainWords(one.Message))}}
	}
	return []error{fmt.Errorf("%s: %s", name, d.plainWords(err.Error()))}
}

const unknownField = "unknown field"

// wordings put the library's errors, which speak of Go types, into the words of
// those who have documents. They are compiled for the first error only.
var wordings = sync.OnceValue(func() []wording {
	return []wording{
		{regexp.MustCompile(`^field (\S+) not found in type .*`), unknownField + " $1"},
		{regexp.MustCompile("^cannot construct !!\\w+ `(.*)` into u?int\\w*"), "$1 is not a whole number"},
		{regexp.MustCompile("^cannot construct !!\\w+ `(.*)` into bool"), "$1 is neither true nor false"},
		{regexp.MustCompile("^cannot construct !!\\w+ `(.*)` into time\\.Duration"), "$1 is not a time, such as 10s or 1m30s"},
		{regexp.MustCompile("^cannot construct !!(seq|map) into string"), "one word is expected here, not a list or fields"},
		{regexp.MustCompile("^cannot construct !!\\w+( `.*`)? into \\[\\].*"), "a list is expected here"},
		{regexp.MustCompile(`^netip\.ParsePrefix\("(.*?)"\): no '/'`), "$1 is not an address with prefix length, such as 192.0.2.8/24"},
		{regexp.MustCompile(`^netip\.ParsePrefix\("(.*?)"\): .*`), "$1 is not an address with prefix length, such as 192.0.2.8/24"},
		{regexp.MustCompile(`^ParseAddr\("(.*?)"\): .*`), "$1 is not an IP address"},
	}
})

type wording struct {
	pattern *regexp.Regexp
	words   string
}

var fieldsExpected = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("^cannot construct !!(\\w+)(?: `.*`)? into ([\\w.]+)$")
})

func (d Dialect) plainWords(s string) string {
	if m := fieldsExpected().FindStringSubmatch(s); m != nil && d.Expected[m[2]] != "" {
		if m[1] == "seq" {
			return d.Expected[m[2]] + ", not a list"
		}
		return d.Expected[m[2]]
	}
	for _, w := range wordings() {
		if w.pattern.MatchString(s) {
			return w.pattern.ReplaceAllString(s, w.words)
		}
	}
	return s
}
