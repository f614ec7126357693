package main

import "regexp"

// alarm is how the kernel begins to tell of what should not happen.
var alarm = regexp.MustCompile(`(?m)^.*(WARNING: |BUG: |Oops: |general protection fault|blocked for more than|self-detected stall|Out of memory: ).*$`)

// complaint is what a console shows from the kernel's first alarm on, or nil.
func complaint(console []byte) []byte {
	at := alarm.FindIndex(console)
	if at == nil {
		return nil
	}
	return console[at[0]:]
}
