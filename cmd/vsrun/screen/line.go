package screen

import (
	"bytes"
	"strings"
	"unicode"
)

// A Style is how text looks. Colours are left out where they are not wanted: what
// must be seen needs another sign, too.
type Style string

// Styles are parameters of SGR (ECMA-48, 8.3.117).
const (
	Plain   Style = ""
	Bold    Style = "1"
	Reverse Style = "7"
	Green   Style = "32"
	Yellow  Style = "33"
	Cyan    Style = "36"
)

func (s Style) isColor() bool { return len(s) == 2 }

// A Line is a row's text, in pieces.
type Line []Piece

// A Piece is text in one style.
type Piece struct {
	Text  string
	Style Style
}

// Text is a line in one style.
func Text(text string, style Style) Line { return Line{{text, style}} }

// String is the text alone.
func (l Line) String() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.Text)
	}
	return b.String()
}

// encode writes the line for the terminal, in so many columns at most.
func (l Line) encode(width int, color bool) []byte {
	var b bytes.Buffer
	for _, p := range l {
		text := Fit(p.Text, width)
		width -= Width(text)
		if p.Style == Plain || p.Style.isColor() && !color {
			b.WriteString(text)
			continue
		}
		b.WriteString("\x1b[" + string(p.Style) + "m" + text + "\x1b[0m")
	}
	return b.Bytes()
}

// Width is how many columns the text takes, once it has been through Fit.
func Width(text string) int { return len([]rune(text)) }

// Fit cuts the text to so many columns. What is neither printable nor surely one
// column wide is replaced: names can be made of anything.
func Fit(text string, width int) string {
	var b strings.Builder
	for _, r := range text {
		if width--; width < 0 {
			break
		}
		if !narrow(r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// narrow tells whether each terminal shows the rune in one column: letters of
// Latin, Greek and Cyrillic, and the signs that are drawn with.
func narrow(r rune) bool {
	const lastCyrillic = 0x52f
	switch {
	case r >= 0x300 && r <= 0x36f, r >= 0x483 && r <= 0x489: // they combine
		return false
	case r >= '←' && r <= '↓', r >= '▀' && r <= '█', strings.ContainsRune("…›▲▼–", r):
		return true
	}
	return r <= lastCyrillic && unicode.IsPrint(r)
}
