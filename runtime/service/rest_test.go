package service

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnwritten(t *testing.T) {
	const smaps = `00400000-0055e000 r-xp 00000000 fe:01 3071 /usr/sbin/vs-init
Size:               1400 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
0055e000-00560000 r--p 0015e000 fe:01 3071 /usr/sbin/vs-init
Anonymous:             8 kB
00560000-00570000 rw-p 00160000 fe:01 3071 /usr/sbin/vs-init
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7ffc5a7f4000-7ffc5a7f8000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
7fff00000000-7fff00001000 r--p 00000000 fe:01 3072 /a file (deleted)
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x55e000}, {0x7fff00000000, 0x7fff00001000}}
	if got := unwritten(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// What was written before it became read-only is not the file's any more, and
// stays.
func TestDropProgram(t *testing.T) {
	file := t.TempDir() + "/file"
	write(t, file, strings.Repeat("x", 2*os.Getpagesize()))
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := unix.Mmap(int(f.Fd()), 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(text)
	text[0] = 'y'
	if err := unix.Mprotect(text, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	dropProgram()
	if text[0] != 'y' || text[os.Getpagesize()] != 'x' {
		t.Errorf("it holds %q", []byte{text[0], text[os.Getpagesize()]})
	}
}
