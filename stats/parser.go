package stats

import (
	"bytes"
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A parser reads the files of a namespace, one after the other. What a file looked like
// the last time is what it most likely looks like, so that only values are to be read.
type parser struct {
	words  *vocabulary
	buffer []byte
	form   *form
	next   int  // where in the form the parser is
	other  bool // the file does not look as it did
}

// read reads a file from its beginning. What it returns is valid until the next read.
func (p *parser) read(fd int) ([]byte, error) {
	for n := 0; ; {
		if n == len(p.buffer) {
			p.buffer = append(p.buffer, make([]byte, max(n, 16<<10))...)
		}
		more, err := unix.Pread(fd, p.buffer[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case more == 0:
			return p.buffer[:n], nil
		default:
			n += more
		}
	}
}

// A form is what a file looks like: its text, but for the values.
type form []*heading

// A heading names what values are: a line of names before one of values, or what leads
// a line with a value.
type heading struct {
	text  string
	group string
	names []string
}

// A vocabulary has the headings that a kernel uses, each once.
type vocabulary struct {
	mu    sync.Mutex
	known map[string]*heading
}

// vocabularyMost is what a vocabulary may grow to: ICMP's message types make for more
// headings than the few dozen that all namespaces have.
const vocabularyMost = 4096

// expected is the heading that was here the last time, nil when there was none.
func (p *parser) expected() *heading {
	if p.next < len(*p.form) {
		return (*p.form)[p.next]
	}
	return nil
}

// learn is the heading that is here instead, which understand makes of its text.
func (p *parser) learn(text []byte, understand func(text string) (*heading, error)) (*heading, error) {
	h, err := p.words.heading(text, understand)
	if err != nil {
		return nil, err
	}
	p.other = true
	*p.form = append((*p.form)[:p.next], h)
	return h, nil
}

// end ends a file: what looks otherwise than the last time is checked.
func (p *parser) end(m MIB, err error) error {
	if err == nil && p.other {
		err = m.check()
	}
	if err != nil {
		*p.form = nil // to be checked again
		return err
	}
	*p.form = (*p.form)[:p.next]
	return nil
}

func (v *vocabulary) heading(text []byte, understand func(text string) (*heading, error)) (*heading, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.known[string(text)]; h != nil {
		return h, nil
	}
	h, err := understand(string(text))
	if err != nil {
		return nil, err
	}
	if v.known == nil || len(v.known) >= vocabularyMost {
		v.known = make(map[string]*heading)
	}
	v.known[h.text] = h
	return h, nil
}

// cutLine cuts the first line off, and its end.
func cutLine(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// cutWord cuts the first word off; it is empty at the end of the line.
func cutWord(line []byte) (word, rest []byte) {
	from := 0
	for from < len(line) && isSpace(line[from]) {
		from++
	}
	to := from
	for to < len(line) && !isSpace(line[to]) {
		to++
	}
	return line[from:to], line[to:]
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// parseUint is strconv's for bytes.
func parseUint(word []byte) (n uint64, err error) {
	if len(word) == 0 || len(word) > 19 { // 19 digits always fit
		return strconv.ParseUint(string(word), 10, 64)
	}
	for _, c := range word {
		if c < '0' || c > '9' {
			return strconv.ParseUint(string(word), 10, 64)
		}
		n = 10*n + uint64(c-'0')
	}
	return n, nil
}

// parseValue takes what the kernel prints as signed (Tcp's MaxConn) and as
// unsigned. An unsigned value beyond int64 is a gauge below zero: see Counter.
func parseValue(word []byte) (int64, error) {
	if len(word) > 0 && word[0] == '-' {
		return strconv.ParseInt(string(word), 10, 64)
	}
	u, err := parseUint(word)
	return int64(u), err
}
