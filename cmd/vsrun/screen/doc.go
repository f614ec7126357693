// Package screen draws text on the whole of a terminal, in place, and reads its
// keys: a [Screen] of [Line]s.
//
// It writes the few ANSI sequences that every terminal of today obeys, so that it
// adds nothing to the time in which a program starts, as databases of terminals do.
// It knows no windows, no mouse and no words.
//
// Contract: a line never leaves its row, whatever is in it; Close gives the
// terminal back as Open found it.
package screen
