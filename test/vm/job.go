package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Where the guest finds what it was sent.
const (
	guestRoom    = "/vm"
	guestProgram = guestRoom + "/agent"
	guestDir     = guestRoom + "/dir" // the current directory
	guestBin     = guestRoom + "/bin" // VSRUN_BIN
	jobFile      = guestRoom + "/job"
)

// A job is what the guest is to run.
type job struct {
	Args  []string
	Env   []string
	Shell bool // on the console, instead
	Boot  int  // of systemd, the nth on this disk; 0 without systemd
}

// A message is what the guest says. Gob leaves out what is zero.
type message struct {
	Kind   kind
	Data   []byte
	File   string
	Status int
}

type kind int

const (
	started kind = iota + 1
	output       // Data
	file         // Data is what it holds
	ended        // Status
)

// pack writes all that the guest needs to a nameless file, as tar. QEMU wants a
// descriptor that can only be read.
func pack(j job) (*os.File, error) {
	w, err := os.CreateTemp("", "vm-*.tar")
	if err != nil {
		return nil, err
	}
	defer w.Close()
	r, err := os.Open(w.Name())
	if err := errors.Join(err, os.Remove(w.Name())); err != nil {
		return nil, err
	}
	p := packer{tar.NewWriter(w)}
	if err := errors.Join(p.job(j), p.Close()); err != nil {
		return nil, fmt.Errorf("cannot send the program to the virtual machine: %w", err)
	}
	size, err := w.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	const sector = 512 // a disk has whole ones
	return r, w.Truncate((size + sector - 1) / sector * sector)
}

type packer struct{ *tar.Writer }

func (p packer) job(j job) error {
	if err := p.file("/proc/self/exe", guestProgram); err != nil {
		return err
	}
	if err := p.inputs(&j); err != nil {
		return err
	}
	j.Env = []string{"HOME=/root", "USER=root", "TERM=" + os.Getenv("TERM"),
		"VSRUN_BIN=" + guestBin, "PATH=" + guestBin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "VSRUN_") && name != "VSRUN_BIN" {
			j.Env = append(j.Env, v)
		}
	}
	if j.Boot > 0 {
		j.Env = append(j.Env, fmt.Sprint("VSRUN_VM_BOOT=", j.Boot))
	}
	if err := p.programs(); err != nil {
		return err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return p.content(text, jobFile, 0o644)
}

// inputs sends the program, where it is a file, and what it reads.
func (p packer) inputs(j *job) error {
	if len(j.Args) > 0 && strings.Contains(j.Args[0], "/") {
		inside := filepath.Join(guestRoom, filepath.Base(j.Args[0]))
		if err := p.file(j.Args[0], inside); err != nil {
			return err
		}
		j.Args = append([]string{inside}, j.Args[1:]...)
	}
	for i, arg := range j.Args {
		if st, err := os.Stat(arg); i == 0 || err != nil || !st.Mode().IsRegular() || isTheGuests(arg) {
			continue
		}
		inside := arg
		if !filepath.IsAbs(arg) {
			inside = filepath.Join(guestDir, arg)
		}
		if err := p.file(arg, inside); err != nil {
			return err
		}
	}
	if _, err := os.Stat("testdata"); err != nil {
		return nil
	}
	return p.tree("testdata", guestDir+"/testdata")
}

// isTheGuests tells whether the path means a file of the guest's own system.
func isTheGuests(path string) bool {
	return filepath.IsAbs(path) && !strings.HasPrefix(path, os.TempDir()+"/")
}

// programs sends those in VSRUN_BIN or else beside this one.
func (p packer) programs() error {
	dir := os.Getenv("VSRUN_BIN")
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		dir = filepath.Dir(self)
	}
	return p.tree(dir, guestBin)
}

func (p packer) tree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return p.file(path, to+strings.TrimPrefix(path, from))
	})
}

func (p packer) file(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := p.header(to, st.Mode().Perm(), st.Size()); err != nil {
		return err
	}
	_, err = io.Copy(p, f)
	return err
}

func (p packer) content(text []byte, to string, mode os.FileMode) error {
	if err := p.header(to, mode, int64(len(text))); err != nil {
		return err
	}
	_, err := p.Write(text)
	return err
}

func (p packer) header(to string, mode os.FileMode, size int64) error {
	return p.WriteHeader(&tar.Header{Name: strings.TrimPrefix(to, "/"), Mode: int64(mode), Size: size})
}
