package plumbing

import (
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the word, a shell reads it as that one word.
func TestQuote(t *testing.T) {
	word := rapid.OneOf(
		rapid.StringOf(rapid.RuneFrom([]rune(" \t\n'\"\\$`!*?[]{}()<>|&;#~=%@:,./-_+ab0ß\u00a0"))),
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		// Many at once: it is the shell that takes long.
		words := rapid.SliceOfN(word, 1, 50).Draw(t, "words")
		var line, want strings.Builder
		line.WriteString("printf '<%s>'")
		for _, w := range words {
			w = strings.ReplaceAll(w, "\x00", "") // no program can be given one
			line.WriteString(" " + quote(w))
			want.WriteString("<" + w + ">")
		}
		got, err := exec.Command("sh", "-c", line.String()).Output()
		if err != nil || string(got) != want.String() {
			t.Errorf("sh -c %q\ngot  %q, %v\nwant %q", line.String(), got, err, want.String())
		}
	})
}
