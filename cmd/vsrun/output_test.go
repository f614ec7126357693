package main

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
	"unicode"

	yaml "go.yaml.in/yaml/v4"
)

// Whatever a name is, a terminal sees nothing but printable characters, and a program
// the name.
func TestNamesOnTerminals(t *testing.T) {
	const name = "a\x1b[31m\u009b2J\u0085\u00ad\u202e\U000e0001\x7f\t\n"
	for _, format := range []string{"table", "json", "yaml"} {
		var out bytes.Buffer
		a := &app{out: &out}
		if err := a.print(format, []string{name}, func(w io.Writer, _ bool) { row(w, name) }); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s: %q has %U", format, &out, r)
			}
		}
		got := []string{name}
		var err error
		switch format {
		case "json":
			err = json.Unmarshal(out.Bytes(), &got)
		case "yaml":
			err = yaml.Unmarshal(out.Bytes(), &got)
		}
		if err != nil || got[0] != name {
			t.Errorf("%s: %q became %q, %v", format, name, got, err)
		}
	}
}
