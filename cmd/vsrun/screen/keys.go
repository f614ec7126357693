package screen

import (
	"io"
	"time"
	"unicode/utf8"
)

// A Key is a key that was pressed: a character, or one of these.
type Key rune

// Keys that are no characters. Those that a terminal sends as control characters
// have their values.
const (
	CtrlC     Key = 0x03
	Backspace Key = 0x08
	CtrlL     Key = 0x0c
	Enter     Key = '\r'
	Escape    Key = 0x1b

	Up Key = -iota - 1
	Down
	Left
	Right
	PageUp
	PageDown
	Home
	End
	unknown
)

// sequences are what terminals send after ESC [ or ESC O.
var sequences = map[string]Key{
	"A": Up, "B": Down, "C": Right, "D": Left, "H": Home, "F": End,
	"1~": Home, "7~": Home, "4~": End, "8~": End, "5~": PageUp, "6~": PageDown,
}

// alone is how long after ESC the rest of a sequence may come; over ssh it comes
// in the same packet.
const alone = 50 * time.Millisecond

// readKeys sends what is pressed until the terminal has gone.
func readKeys(in io.Reader, keys chan<- Key) {
	defer close(keys)
	chunks := make(chan []byte)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 256)
			n, err := in.Read(b)
			if err != nil {
				return
			}
			chunks <- b[:n]
		}
	}()
	var pending []byte
	for {
		key, n := parseKey(pending, false)
		if n == 0 {
			more, ok := await(chunks, len(pending) > 0)
			if pending = append(pending, more...); more == nil {
				key, n = parseKey(pending, true)
			}
			if !ok && n == 0 {
				return
			}
		}
		if pending = pending[n:]; n > 0 && key != unknown {
			keys <- key
		}
	}
}

// await is the next chunk; nil when none comes in time.
func await(chunks <-chan []byte, soon bool) (chunk []byte, ok bool) {
	var late <-chan time.Time
	if soon {
		late = time.After(alone)
	}
	select {
	case chunk, ok = <-chunks:
		return chunk, ok
	case <-late:
		return nil, true
	}
}

// parseKey is the key that b begins with, and how many bytes it has: 0 where more
// may follow, unless that is all.
func parseKey(b []byte, all bool) (Key, int) {
	if len(b) == 0 {
		return unknown, 0
	}
	if b[0] == byte(Escape) {
		return parseEscape(b, all)
	}
	if !all && !utf8.FullRune(b) {
		return unknown, 0
	}
	switch r, n := utf8.DecodeRune(b); r {
	case '\n':
		return Enter, n
	case 0x7f:
		return Backspace, n
	default:
		return Key(r), n
	}
}

func parseEscape(b []byte, all bool) (Key, int) {
	switch {
	case len(b) == 1 && !all:
		return unknown, 0
	case len(b) == 1, b[1] != '[' && b[1] != 'O':
		return Escape, 1
	}
	for end := 2; end < len(b); end++ {
		if b[end] >= 0x40 && b[end] <= 0x7e { // the last byte of a sequence (ECMA-48, 5.4)
			if key, known := sequences[string(b[2:end+1])]; known {
				return key, end + 1
			}
			return unknown, end + 1
		}
	}
	if all {
		return unknown, len(b)
	}
	return unknown, 0
}
