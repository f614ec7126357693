package e2e_test

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/examples"
	"github.com/vsrun/vsrun/test/lab"
)

// Twins are two virtual servers that the same example has made, on one port: 8 is
// the example as it is, 9 differs by its address, its number and its secrets.
type twins struct {
	*site
	documents map[string]string
}

// pair are their numbers.
var pair = []string{"8", "9"}

// secrets are alice's passwords.
var secrets = map[string]string{"8": "secret", "9": "other"}

// exampleKey is alice's, of nobody.
const exampleKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEX alice\n"

// As openssl passwd -6 has them.
const exampleHash = `$6$examples$Nj1cN13Tf2JvOeCuV3wwLXKftJo0EWCZ8lhohWgjgzjr22mFwTbVwo7dM4bENxL2WPqF/kAK/EqW.2z4eNICx1`
const otherHash = `$6$examples$3SqeOp7AlUQgGb2uEOxAKrQB2pqL3uT2mkFWb6KhqlJXS7k9j1MKx1fnRwof4CnVZXDruCilH0pKL/QVBEYk21`

// newTwins makes them, and does what the example's comment tells a person to do.
// edit may change a document.
func newTwins(t *testing.T, file string, edit func(id, text string) string) *twins {
	t.Helper()
	lab.NeedRoot(t, "daemons become other users")
	lab.Require(t, "loop", "mkfs.ext4")
	tw := &twins{newSite(t), map[string]string{}}
	for _, id := range pair {
		text := strings.Replace(exampleFor(t, file, id), "size: 10G", "size: 64M", 1)
		tw.documents[id] = edit(id, text)
		tw.must(t, tw.VsrunIn(tw.documents[id], "create", "--no-probe", "-f", "-"))
		tw.prepare(t, id)
	}
	return tw
}

func unedited(_, text string) string { return text }

// exampleFor is the document of an example, for another number.
func exampleFor(t *testing.T, file, id string) string {
	t.Helper()
	text, err := examples.Documents.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if id == "8" {
		return string(text)
	}
	name := text[strings.Index(string(text), "\nname: "):]
	name = name[:strings.Index(string(name[1:]), "\n")+1]
	return strings.NewReplacer(
		"192.0.2.8", "192.0.2."+id, "id: 8", "id: "+id, "exec 8", "exec "+id, string(name), "",
		exampleHash, otherHash,
		"alice:secret", "alice:"+secrets["9"],
	).Replace(string(text))
}

// prepare runs the example's own lines.
func (tw *twins) prepare(t *testing.T, id string) {
	t.Helper()
	if wrong := tw.tryToPrepare(id); wrong != "" {
		t.Fatal(wrong)
	}
}

// tryToPrepare returns what goes wrong. A password is not asked for on a terminal.
func (tw *twins) tryToPrepare(id string) (wrong string) {
	for line := range strings.Lines(tw.documents[id]) {
		if words, ok := strings.CutPrefix(line, "#   vsrun exec "); ok {
			words = strings.Replace(words, "smbpasswd -a", "smbpasswd -s -a", 1)
			twice := strings.Repeat(cmp.Or(secrets[id], secrets["8"])+"\n", 2)
			if r := tw.VsrunIn(twice, append([]string{"exec"}, strings.Fields(words)...)...); r.Code != 0 {
				wrong += r.String()
			}
		}
	}
	return wrong
}

// A clientCommand is one that puts a file on a virtual server, or gets it.
type clientCommand func(id, file string) lab.Result

// trade has the client put a file on each and get it back, of one name and with
// different bytes. What it returns gets them again.
func (tw *twins) trade(t *testing.T, put, get clientCommand) (again func(ids ...string)) {
	t.Helper()
	check := tw.fill(t, put)
	again = func(ids ...string) { t.Helper(); check(get, ids...) }
	again(pair...)
	return again
}

// fill has the client put a file on each. What it returns gets them by another command.
func (tw *twins) fill(t *testing.T, put clientCommand) (check func(get clientCommand, ids ...string)) {
	t.Helper()
	dir := t.TempDir()
	sums := map[string][32]byte{}
	for _, id := range pair {
		bytes := make([]byte, 2<<20)
		rand.Read(bytes)
		sums[id] = sha256.Sum256(bytes)
		file := filepath.Join(dir, id)
		if err := os.WriteFile(file, bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		tw.must(t, put(id, file))
	}
	return func(get clientCommand, ids ...string) {
		t.Helper()
		for _, id := range ids {
			file := filepath.Join(dir, "got")
			tw.must(t, get(id, file))
			bytes, err := os.ReadFile(file)
			if err != nil || sha256.Sum256(bytes) != sums[id] {
				t.Errorf("vs%s has another file, of %d bytes: %v", id, len(bytes), err)
			}
			os.Remove(file)
		}
	}
}

// killed has 8's service killed: it comes back over what it has left, and 9's runs on.
func (tw *twins) killed(t *testing.T, service string, again func(...string)) {
	t.Helper()
	before, other := tw.service(t, "8", service), tw.service(t, "9", service)
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tw.comesBack(t, "8", before)
	again(pair...)
	tw.unmoved(t, "9", other)
}

// comesBack waits until a service is another process than it was, and ready.
func (tw *twins) comesBack(t *testing.T, id string, was shownService) {
	t.Helper()
	soon(t, func() error {
		if now := tw.service(t, id, was.Name); now.State != "running" || now.Pid == was.Pid {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
}

// unmoved checks that a service is the process that it was.
func (tw *twins) unmoved(t *testing.T, id string, was shownService) {
	t.Helper()
	if now := tw.service(t, id, was.Name); now.Pid != was.Pid || now.State != "running" {
		t.Errorf("vs%s: it was %+v, and is %+v", id, was, now)
	}
}

// open is a connection to each that the daemon has taken: it has greeted, unless
// its protocol lets the client begin.
func (tw *twins) open(t *testing.T, port, hello string, greets bool) map[string]net.Conn {
	t.Helper()
	conns := map[string]net.Conn{}
	for _, id := range pair {
		conn, err := tw.client.Dial("tcp", "192.0.2."+id+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[id] = conn
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err = conn.Write([]byte(hello)); err == nil && greets {
			_, err = conn.Read(make([]byte, 64<<10))
		}
		if err != nil {
			t.Fatalf("vs%s: %v", id, err)
		}
	}
	return conns
}

// ends disables 8 while connections to both are open: 8's is closed by the time
// that the command returns, and 9's is not. Enabled again, 8 has what it had.
// Destroyed, both leave nothing.
func (tw *twins) ends(t *testing.T, conns map[string]net.Conn, again func(...string)) {
	t.Helper()
	began := time.Now()
	if out := tw.MustVsrun(t, "disable", "8"); strings.Contains(out, "kill") {
		t.Error(out)
	}
	took := time.Since(began)
	t.Logf("disable with an open client: %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Error("that is long")
	}
	conns["8"].SetDeadline(time.Now().Add(100 * time.Millisecond))
	var err error
	for err == nil {
		_, err = conns["8"].Read(make([]byte, 64<<10))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("8 is disabled, and its client waits")
	}
	conns["9"].SetDeadline(time.Now().Add(20 * time.Millisecond))
	for err = nil; err == nil; {
		_, err = conns["9"].Read(make([]byte, 64<<10))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("9's client has lost its connection as well: %v", err)
	}
	conns["8"].Close()
	conns["9"].Close()
	again("9")
	tw.MustVsrun(t, "enable", "8", "--no-probe")
	again(pair...)
	tw.MustVsrun(t, "destroy", "8", "9")
	if leaks := tw.Leaks(); leaks != "" {
		t.Errorf("destroyed, they leave\n%s", leaks)
	}
}

// refused checks that what a client does fails, for a reason that it is told.
func refused(t *testing.T, r lab.Result, why string) {
	t.Helper()
	if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, why) {
		t.Errorf("it should be refused (%s): %v", why, r)
	}
}
