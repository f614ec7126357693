package runtime

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/document"
)

// Where people err most: the place is told to the column, in documents of every
// form, and of all that is wrong.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"JSON", "{\n  \"id\": 8,\n\t\"name\": [1],\n  \"bad\": {}\n}", "f:3:10: one word is expected here, not a list or fields\nf:4:3: unknown field bad"},
		{"flow", "{id: 8, bad: 1, interfaces: [{name: eth0, port: eth1, mtu: x}]}", "f:1:9: unknown field bad\nf:1:60: x is not a whole number"},
		{"letters of several bytes", "{id: 8, ßß: 1, x: 2}", "f:1:9: unknown field ßß\nf:1:16: unknown field x"},
		{"after a comment and empty lines", "# one\n\n\nid: 8\n\nbad: 1\n", "f:6:1: unknown field bad"},
		{"windows line ends", "id: 8\r\nbad: 1\r\n", "f:2:1: unknown field bad"},
		{"byte order mark", "\ufeffid: 8\nbad: 1\n", "f:2:1: unknown field bad"},
		{"case matters", "id: 8\nName: a\n", "f:2:1: unknown field Name"},
		{"in every document", "id: x\n---\nid: 9\n---\n---\nid: y\n", "f:1:5: x is not a whole number\nf:6:5: y is not a whole number"},
		{"up to what is no YAML", "id: x\n---\n[\n---\nid: y\n", "f:1:5: x is not a whole number\nf:4:1: did not find expected node content"},
		{"a block of text", "id: 8\nname: |\n  a\n  b\n", "f:2:7: name \"a\\nb\\n\" is not a host name: letters, digits and hyphens, at most 63"},
		{"in a list of a list", "id: 8\ninterfaces:\n- name: eth0\n  port: eth1\n  addresses:\n  - 192.0.2.8/24\n  - 192.0.2.0/24\n",
			"f:7:5: address 192.0.2.0/24 is the network's own address, not a host's"},
		{"by another name", "id: 8\nservices:\n- &a {name: a, command: [\"\"]}\n- *a\n",
			"f:3:26: command[0] is empty\nf:4:3: command[0] is empty\nf:4:3: name \"a\" is there twice"},
		{"a wrong name", "id: *nothing\n", "f:1:5: unknown anchor 'nothing' referenced"},
		{"a tab", "id: 8\n\tname: x\n", "f:2:1: found a tab character that violates indentation"},
		{"indentation", "id: 8\n name: x\n", "f:2:6: mapping values are not allowed in this context"},
		{"an open quote", "id: 8\nname: \"x\n", "f:3:1: found unexpected end of stream"},
		{"an open brace", "{\"id\":8", "f:2:1: did not find expected ',' or '}'"},
		{"a fraction", "id: 8.5\n", "f:1:5: 8.5 is not a whole number"},
		{"a number in quotes", "id: \"8\"\n", "f:1:5: 8 is not a whole number"},
		{"a date", "id: 2001-01-01\n", "f:1:5: 2001-01-01 is not a whole number"},
		{"MAC", "id: 8\ninterfaces: [{name: eth0, port: eth1, mac: \"01:00:5e:00:00:01\"}]\n", "f:2:44: MAC 01:00:5e:00:00:01 is a multicast address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := readServers(strings.NewReader(tt.text), "f")
			if err == nil {
				t.Fatalf("read as %+v", list)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Errorf("the errors (-want +got):\n%s", d)
			}
			var all *DocumentError
			if !errors.As(err, &all) || len(all.Unwrap()) != strings.Count(tt.want, "\n")+1 {
				t.Errorf("of %d errors: %#v", strings.Count(tt.want, "\n")+1, err)
			}
		})
	}
}

// The forms that a document may have.
func TestForms(t *testing.T) {
	for _, text := range []string{
		"id: 8\nname: finance",
		"---\nid: 8\nname: finance\n...\n",
		`{"id": 8, "name": "finance"}`,
		"{\n\t\"id\": 8,\n\t\"name\": \"finance\"\n}\n", // as tools indent JSON
		"id: 8\r\nname: finance\r\n",
		"\ufeffid: 8\nname: finance\n",
		"\xff\xfei\x00d\x00:\x00 \x008\x00\n\x00n\x00a\x00m\x00e\x00:\x00 \x00f\x00i\x00n\x00a\x00n\x00c\x00e\x00",
		"name: finance # who\nid: 8 # which\n",
		"id: 0x8\nname: \"finance\"\n",
		"id: 8\n<<: {name: finance}\n",
		"id: 8\nname: >-\n  finance\ninterfaces: []\nroutes:\nservices: ~\ndns: {}\n",
	} {
		list, err := readServers(strings.NewReader(text), "f")
		if err != nil || len(list) != 1 || !same(list[0], VirtualServer{ID: 8, Name: "finance"}) {
			t.Errorf("%q: got %+v, %v", text, list, err)
		}
	}
	for n := range 3 {
		list, err := readServers(strings.NewReader(strings.Repeat("--- {id: 8}\n---\n", n+1)), "f")
		if err != nil || len(list) != n+1 {
			t.Errorf("%d documents were read as %d: %v", n+1, len(list), err)
		}
	}
}

// What is made to take for ever, or all of memory, is refused soon.
func TestBombs(t *testing.T) {
	laughs := "id: 8\nservices:\n- name: a\n  command: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += fmt.Sprintf("- name: %c\n  command: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10), ", "))
	}
	var manyKeys strings.Builder
	for k := range 100_000 {
		fmt.Fprintf(&manyKeys, "a%d: 1, ", k)
	}
	for name, text := range map[string]string{
		"a billion laughs":        laughs,
		"one list a million fold": "id: 8\nservices:\n- {name: a, command: &a [" + strings.Repeat("x, ", 2000) + "x]}\n" + strings.Repeat("- {name: b, command: *a}\n", 500),
		"a list in itself":        "id: 8\ninterfaces: &a [*a, *a]\n",
		"a document in itself":    "&a {id: 8, interfaces: *a, routes: *a, dns: *a}\n",
		"deep lists":              strings.Repeat("[", 1<<20),
		"deep fields":             strings.Repeat("{a: ", 1<<18),
		"deep indentation":        strings.Repeat("- ", 1<<18),
		"a key given often":       "id: 8\n" + strings.Repeat("name: a\n", 10_000),
		"a hundred thousand keys": "id: 8\nx: {" + manyKeys.String() + "}\n",
		"wrong routes":            "id: 8\nroutes:\n" + strings.Repeat("- {to: x}\n", 100_000),
		"impossible routes":       "id: 8\nroutes:\n" + strings.Repeat("- {to: 198.51.100.0/24, via: 192.0.2.1, dev: eth0}\n", 10_000),
		"a chain of services":     "id: 8\nservices:\n" + strings.Repeat("- {name: a, command: [x], after: [b]}\n", 20_000),
		"a long word":             "id: 8\nname: " + strings.Repeat("a", document.MaxSize-100),
		"a long number":           "id: " + strings.Repeat("9", document.MaxSize-100),
		"a long key":              strings.Repeat("a", 1<<20) + ": 1\n",
		"zeros":                   strings.Repeat("\x00", document.MaxSize),
	} {
		t.Run(name, func(t *testing.T) {
			start := spent(t)
			list, err := readServers(strings.NewReader(text), "f")
			if err == nil {
				t.Errorf("read as %d virtual servers", len(list))
			}
			if took := spent(t) - start; took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// spent is the time of processors that the tests have had.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func TestUnreadable(t *testing.T) {
	_, err := readServers(iotest.ErrReader(io.ErrUnexpectedEOF), "f")
	if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "cannot read f: unexpected EOF" {
		t.Errorf("got %v", err)
	}
	// The longest document.
	text := "id: 8\n#" + strings.Repeat("x", document.MaxSize-len("id: 8\n#"))
	if list, err := readServers(iotest.HalfReader(strings.NewReader(text)), "f"); err != nil || len(list) != 1 {
		t.Errorf("of %d bytes: %v", len(text), err)
	}
	if _, err := readServers(strings.NewReader(text+"x"), "f"); err == nil {
		t.Error("one byte more")
	}
}
