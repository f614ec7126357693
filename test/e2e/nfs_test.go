package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// An nfs is a client of an NFS server, version 4.0 (RFC 7530): as little of it as
// it takes to read by a file handle, which may be a forged one.
type nfs struct {
	net.Conn
	user int // and group; 0 is root
}

func dialNFS(t *testing.T, s *site, addr string) nfs {
	t.Helper()
	conn, err := s.client.Dial("tcp", addr+":2049")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return nfs{Conn: conn}
}

// An nfsError is a status other than NFS4_OK.
type nfsError uint32

func (e nfsError) Error() string { return fmt.Sprintf("nfsstat4 %d", uint32(e)) }

const (
	nfsStale     nfsError = 70
	nfsBadHandle nfsError = 10001
)

// Operations and what they take (RFC 7530, 16).
func putRoot() []byte            { return xdr(24) }
func putHandle(fh []byte) []byte { return xdr(22, fh) }
func lookup(name string) []byte  { return xdr(15, []byte(name)) }
func getHandle() []byte          { return xdr(10) }
func read(n int) []byte          { return xdr(25, 0, 0, 0, 0, 0, 0, n) } // by the anonymous stateid, from 0

func write(data []byte) []byte   { return xdr(38, 0, 0, 0, 0, 0, 0, 2, data) }
func setMode(mode int) []byte    { return xdr(34, 0, 0, 0, 0, 2, 0, 1<<1, xdr(mode)) }
func setGroup(gid string) []byte { return xdr(34, 0, 0, 0, 0, 2, 0, 1<<5, xdr([]byte(gid))) }

// xdr encodes numbers as 32 bits, and bytes as variable-length opaque (RFC 4506).
func xdr(words ...any) []byte {
	var b []byte
	for _, w := range words {
		switch w := w.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(w))
		case []byte:
			b = append(append(b, xdr(len(w))...), w...)
			b = append(b, make([]byte, -len(w)&3)...)
		}
	}
	return b
}

// compound asks for operations by a user of the client (RFC 5531, RFC 7530 15.2), and
// returns what the last one answers.
func (c nfs) compound(ops ...[]byte) ([]byte, error) {
	const tag = "test"
	const call, rpc, program, version, compound, authSys = 0, 2, 100003, 4, 1, 1
	body := xdr(7, call, rpc, program, version, compound,
		authSys, xdr(0, []byte("client"), c.user, c.user, 0), 0, 0,
		[]byte(tag), 0, len(ops))
	body = append(body, bytes.Join(ops, nil)...)
	const lastFragment = 1 << 31
	if _, err := c.Write(append(xdr(lastFragment|len(body)), body...)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint32(head[:])&^lastFragment)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	const accepted = 24 // xid, reply, accepted, verifier, success
	if len(answer) < accepted+4 {
		return nil, fmt.Errorf("the answer is %x", answer)
	}
	if status := binary.BigEndian.Uint32(answer[accepted:]); status != 0 {
		return nil, nfsError(status)
	}
	const result = 8 // number and status; only the last of these has more
	at := accepted + len(xdr(0, []byte(tag), 0)) + len(ops)*result
	if len(answer) < at {
		return nil, fmt.Errorf("the answer is %x", answer)
	}
	return answer[at:], nil
}

// opaque decodes bytes at the front.
func opaque(b []byte) ([]byte, error) {
	if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint32(b)) {
		return nil, fmt.Errorf("there are no bytes in %x", b)
	}
	return b[4:][:binary.BigEndian.Uint32(b)], nil
}

// handle is the file handle of a path.
func (c nfs) handle(names ...string) ([]byte, error) {
	ops := [][]byte{putRoot()}
	for _, name := range names {
		ops = append(ops, lookup(name))
	}
	b, err := c.compound(append(ops, getHandle())...)
	if err != nil {
		return nil, err
	}
	return opaque(b)
}

// content reads what a file handle leads to.
func (c nfs) content(fh []byte) (string, error) {
	b, err := c.compound(putHandle(fh), read(4096))
	if err != nil {
		return "", err
	}
	text, err := opaque(b[4:]) // after eof
	return string(text), err
}

const ganeshaConf = `
NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFSV4 { RecoveryBackend = fs; Grace_Period = 15; Lease_Lifetime = 10; }
EXPORT {
    Export_Id = 1; Path = DIR; Pseudo = /files; SecType = sys; Access_Type = RW; Squash = No_Root_Squash;
    FSAL { Name = VFS; }
}`

// exporter is a document of a virtual server that exports dir.
func exporter(id int, dir, volumes, private, more string) string {
	return fmt.Sprintf(`
id: %d
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.%[1]d/24]}]
volumes: [%s]
files: [{path: /etc/ganesha/ganesha.conf, content: %q}]
services:
  - name: nfsd
    command: [ganesha.nfsd, -F, -L, /dev/stdout, -p, /run/ganesha.pid]
    capabilities: [ganesha]
    private: [/var/lib/nfs%s]
    ready: {output: NOT IN GRACE, tcp: 2049}
    restart: never%s
`, id, volumes, strings.ReplaceAll(ganeshaConf, "DIR", dir), private, more)
}

// forge is a file handle as Ganesha makes them: its own first part, with where the
// export's filesystem is, then what the kernel calls the file (struct file_handle).
func forge(part []byte, file unix.FileHandle) []byte {
	const length = 4 // the place of the length of what follows it
	fh := append(append(bytes.Clone(part), byte(file.Type())), file.Bytes()...)
	fh[length] = byte(len(fh) - length - 1)
	return fh
}

// Clients make up file handles. Where the exported directory is a filesystem of its
// own these lead to nothing but what is in it, else to whatever the host has there.
func TestForgedHandles(t *testing.T) {
	lab.NeedRoot(t, "loop devices are the machine's")
	lab.Require(t, "ganesha", "loop", "mkfs.ext4")
	s := newSite(t)
	dir := s.Dir(t)
	create := func(document string) lab.Result { return s.VsrunIn(document, "create", "--no-probe", "-f", "-") }

	r := create(exporter(7, dir, "", ", "+dir, ""))
	if r.Code != 1 || !strings.Contains(r.Stderr, "cannot start nfsd: it exports "+dir+", which shares a filesystem with other") {
		t.Errorf("an unsafe export: %v", r)
	}
	if r := create(exporter(7, dir, "", ", "+dir, "\n    unsafeExports: true")); r.Code != 0 {
		t.Fatal(r)
	}
	volume := "{path: " + dir + ", size: 16M}"
	for _, id := range []int{8, 9} {
		if r := create(exporter(id, dir, volume, "", "")); r.Code != 0 {
			t.Fatal(r)
		}
	}
	clients, handles, parts := map[int]nfs{}, map[int][]byte{}, map[int][]byte{}
	files := map[int]unix.FileHandle{}
	for _, id := range []int{7, 8, 9} {
		s.MustVsrun(t, "exec", fmt.Sprint(id), "--", "sh", "-c", fmt.Sprintf("echo of %d >%s/own", id, dir))
		clients[id] = dialNFS(t, s, fmt.Sprintf("192.0.2.%d", id))
		fh, err := clients[id].handle("files", "own")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := clients[id].content(fh); err != nil || got != fmt.Sprintf("of %d\n", id) {
			t.Fatalf("its own file: %q, %v", got, err)
		}
		kernels := 8 // bytes in the kernel's handle of a file on ext4: inode and generation
		if id == 7 {
			own, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(s.StateDir, "vs7/private", dir, "own"), 0)
			if err != nil {
				t.Fatal(err)
			}
			kernels = own.Size()
		}
		parts[id], handles[id] = fh[:len(fh)-kernels-1], fh
		files[id] = unix.NewFileHandle(int32(fh[len(fh)-kernels-1]), fh[len(fh)-kernels:])
	}
	secret := filepath.Join(s.StateDir, "secret")
	if err := os.WriteFile(secret, []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(secret) })
	hosts, _, err := unix.NameToHandleAt(unix.AT_FDCWD, secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := clients[7].content(forge(parts[7], hosts)); got != "the host's" {
		t.Errorf("this forgery should succeed: %q, %v", got, err)
	}
	for what, fh := range map[string][]byte{
		"the host's file":                          forge(parts[7], hosts),
		"the host's file, as if in its filesystem": forge(parts[8], hosts),
		"another's file":                           handles[9],
		"another's file, as if in its filesystem":  forge(parts[8], files[9]),
		"nothing": {},
		"noise":   bytes.Repeat([]byte{0x43}, 30),
	} {
		got, err := clients[8].content(fh)
		if !errors.Is(err, nfsStale) && !errors.Is(err, nfsBadHandle) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
		t.Logf("%s: %v", what, err)
	}
}
