package screen

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A Screen is a terminal that one program draws on. It is not safe for concurrent
// use, but for its channels.
type Screen struct {
	Keys    <-chan Key     // closed when the terminal has gone
	Resized chan os.Signal // when its size has changed

	in, out *os.File
	color   bool
	before  *term.State
	shown   [][]byte // what each row has
	width   int
}

// Possible is nil where a Screen can be opened, and says why it cannot elsewhere.
func Possible(in, out *os.File) error {
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return errors.New("this is no terminal")
	}
	// Who changes a terminal in the background is stopped (SIGTTOU), as timeout(1) has it.
	if group, err := unix.IoctlGetInt(int(in.Fd()), unix.TIOCGPGRP); err == nil && group != unix.Getpgrp() {
		return errors.New("this is in the background of its terminal")
	}
	if name := os.Getenv("TERM"); name == "" || name == "dumb" {
		return fmt.Errorf("a terminal with TERM=%s cannot be drawn on", name)
	}
	return nil
}

// Unicode tells whether the terminal shows more than ASCII, and has signs of
// eight heights: the console of Linux has not.
func Unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" { // the first that is set counts (locale(7))
			v = strings.ToLower(v)
			return os.Getenv("TERM") != "linux" && (strings.HasSuffix(v, "utf-8") || strings.HasSuffix(v, "utf8"))
		}
	}
	return false
}

const (
	enter = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no wrapping
	leave = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// Open takes over the terminal until Close. With NO_COLOR in the environment there
// are no colours (no-color.org).
func Open(in, out *os.File) (*Screen, error) {
	if err := Possible(in, out); err != nil {
		return nil, err
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("cannot take over the terminal: %w", err)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	keys := make(chan Key)
	go readKeys(in, keys)
	s := &Screen{Keys: keys, Resized: resized, in: in, out: out, color: os.Getenv("NO_COLOR") == "", before: before}
	_, err = out.WriteString(enter)
	return s, err
}

// Close gives the terminal back.
func (s *Screen) Close() error {
	signal.Stop(s.Resized)
	_, err := s.out.WriteString(leave)
	return errors.Join(err, term.Restore(int(s.in.Fd()), s.before))
}

// Size is how many columns and rows there are now, 80 and 24 where nobody knows.
func (s *Screen) Size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width == 0 || height == 0 {
		return 80, 24
	}
	return width, height
}

// Redraw has the next Draw write all rows, whatever they show now.
func (s *Screen) Redraw() { s.shown = nil }

// Draw shows the lines, from the first row on; what they do not fill is empty,
// what does not fit is cut. Only rows that changed are written.
func (s *Screen) Draw(lines []Line) error {
	width, height := s.Size()
	if width != s.width || len(s.shown) != height {
		s.shown, s.width = make([][]byte, height), width
	}
	var b bytes.Buffer
	for row := range height {
		text := []byte{} // nil is a row of which nothing is known
		if row < len(lines) {
			text = lines[row].encode(width, s.color)
		}
		if s.shown[row] == nil || !bytes.Equal(s.shown[row], text) {
			fmt.Fprintf(&b, "\x1b[%d;1H\x1b[K%s", row+1, text) // erased first: past the last column it would take that
			s.shown[row] = text
		}
	}
	_, err := s.out.Write(b.Bytes())
	return err
}
