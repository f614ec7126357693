package screen

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestKeys(t *testing.T) {
	for in, want := range map[string][]Key{
		"q/ä":                  {'q', '/', 'ä'},
		"\x1b[A\x1bOB\x1b[6~":  {Up, Down, PageDown},
		"\x1b":                 {Escape},
		"\x1bq":                {Escape, 'q'},
		"\x1b[1;5C\x1b[200~x":  {'x'},
		"\r\n\x7f\x03":         {Enter, Enter, Backspace, CtrlC},
		"\x1b[":                nil,
		"\xff\xc3":             {0xfffd, 0xfffd},
		"\x1b[H\x1b[F\x1b[1~z": {Home, End, Home, 'z'},
	} {
		for name, reader := range map[string]io.Reader{"whole": strings.NewReader(in), "bytewise": iotest.OneByteReader(strings.NewReader(in))} {
			keys := make(chan Key)
			go readKeys(reader, keys)
			var got []Key
			for k := range keys {
				got = append(got, k)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q, %s: %s", in, name, diff)
			}
		}
	}
}

// Names are made by others: none may leave its place, or be obeyed.
func TestLinesStayInTheirRow(t *testing.T) {
	l := Line{{"a\x1b[2Jb\nc", Bold}, {"äß", Green}, {"漢字", Plain}, {"e\u0301▁", Plain}}
	for _, c := range []struct {
		width int
		color bool
		want  string
	}{
		{80, true, "\x1b[1ma?[2Jb?c\x1b[0m\x1b[32mäß\x1b[0m??e?▁"},
		{80, false, "\x1b[1ma?[2Jb?c\x1b[0mäß??e?▁"},
		{9, false, "\x1b[1ma?[2Jb?c\x1b[0mä"},
	} {
		if got := string(l.encode(c.width, c.color)); got != c.want {
			t.Errorf("%d, %v: %q, want %q", c.width, c.color, got, c.want)
		}
	}
}

// Every byte that is typed is taken once.
func FuzzParseKey(f *testing.F) {
	f.Add([]byte("q/ä\x1b[1;5C\x1b[200~\xff"), true)
	f.Add([]byte("\x1b["), false)
	f.Fuzz(func(t *testing.T, b []byte, all bool) {
		if _, n := parseKey(b, all); n < 0 || n > len(b) || all && n == 0 && len(b) > 0 {
			t.Errorf("%q, %v: %d bytes", b, all, n)
		}
	})
}
