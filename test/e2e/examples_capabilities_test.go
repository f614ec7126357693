package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/test/lab"
)

// needs is what becomes of an example that lacks one of its capabilities: what the
// daemon, its client or vsrun says matches.
var needs = []struct{ file, preset, capability, without string }{
	{"nginx.yaml", "nginx", "CHOWN", `chown\("/var/lib/nginx/body", 33\) failed`},
	{"nginx.yaml", "nginx", "NET_BIND_SERVICE", `bind\(\) to 0.0.0.0:80 failed`},
	{"nginx.yaml", "nginx", "SETGID", `setgid\(33\) failed`},
	{"nginx.yaml", "nginx", "SETUID", `setuid\(33\) failed`},
	{"samba.yaml", "samba", "NET_BIND_SERVICE", "open_socket_in failed: Permission denied"},
	{"samba.yaml", "samba", "SETGID", "sys_setgroups failed"},
	{"samba.yaml", "samba", "SETUID", "failed to set uid"},
	{"nfs4.yaml", "ganesha", "CHOWN", "change the group: nfsstat4 1"},
	{"nfs4.yaml", "ganesha", "DAC_OVERRIDE", "write: nfsstat4 13"},
	{"nfs4.yaml", "ganesha", "DAC_READ_SEARCH", "NFS4ERR_PERM"},
	{"nfs4.yaml", "ganesha", "FOWNER", "NFS4ERR_PERM"},
	{"nfs4.yaml", "ganesha", "SETGID", "exit status 2"},
	{"nfs4.yaml", "ganesha", "SETUID", "NFS4ERR"},
	{"nfs3.yaml", "rpcbind", "NET_BIND_SERVICE", "cannot start rpcbind: it was not ready after 5s"},
	{"nfs3.yaml", "rpcbind", "SETGID", endsAtOnce},
	{"nfs3.yaml", "rpcbind", "SETUID", endsAtOnce},
	{"vsftpd.yaml", "vsftpd", "NET_BIND_SERVICE", "exit status 2"},
	{"vsftpd.yaml", "vsftpd", "SETGID", "500 OOPS: setgroups"},
	{"vsftpd.yaml", "vsftpd", "SETUID", "500 OOPS: setuid"},
	{"vsftpd.yaml", "vsftpd", "SYS_CHROOT", "500 OOPS: chroot"},
	{"sftp.yaml", "sshd", "NET_BIND_SERVICE", "Bind to port 22 on 0.0.0.0 failed: Permission denied"},
	{"sftp.yaml", "sshd", "SETGID", "setgroups: Operation not permitted"},
	{"sftp.yaml", "sshd", "SETUID", "setresuid 104: Operation not permitted"},
	{"sftp.yaml", "sshd", "SYS_CHROOT", `chroot\("/run/sshd"\): Operation not permitted`},
	{"rsync.yaml", "rsync", "NET_BIND_SERVICE", "exit status 10"},
	{"rsync.yaml", "rsync", "SETGID", "setgid failed"},
	{"rsync.yaml", "rsync", "SETUID", "setuid failed"},
	{"rsync.yaml", "rsync", "SYS_CHROOT", "chroot failed"},
}

// rpcbind says nothing, and may have listened just long enough for what comes after it.
const endsAtOnce = `waits for rpcbind|rpcbind .* exit status 1\n`

// A preset has what its daemon needs, and nothing else: without any one of its
// capabilities something fails.
func TestPresetsAreMinimal(t *testing.T) {
	lab.Require(t, "nginx", "dav", "curl", "samba", "ganesha", "nfs-cp", "rpcbind", "vsftpd", "lftp", "sshd", "sftp", "rsync", "loop", "mkfs.ext4")
	lab.NeedRoot(t, "daemons become other users")
	listed := map[string][]string{}
	for _, n := range needs {
		listed[n.preset] = append(listed[n.preset], n.capability)
	}
	for preset, has := range service.Presets {
		if slices.Contains(has, "NET_ADMIN") || slices.Contains(has, "NET_RAW") || !slices.Equal(has, listed[preset]) {
			t.Errorf("preset %s has %v, here are %v", preset, has, listed[preset])
		}
	}
	s := newSite(t)
	u := user{site: s, dir: t.TempDir()}
	u.furnish(t)
	todo := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for k := range todo {
				n := needs[k]
				if got := u.without(t, fmt.Sprint(10+k), n.file, n.preset, n.capability); !regexp.MustCompile(n.without).MatchString(got) {
					t.Errorf("%s without %s, want %q:\n%s", n.preset, n.capability, n.without, got)
				}
			}
		})
	}
	for k := range needs {
		todo <- k
	}
	close(todo)
	workers.Wait()
}

// A user does with each example what it is there for.
type user struct {
	*site
	dir string
	key string // public
}

func (u *user) furnish(t *testing.T) {
	t.Helper()
	u.key = newKey(t, filepath.Join(u.dir, "key"))
	for name, text := range map[string]string{
		"small": "small", "password": "secret", "batch": "put " + filepath.Join(u.dir, "small") + " x\n",
	} {
		if err := os.WriteFile(filepath.Join(u.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// without is all that is said while an example is created and used whose service
// lacks a capability.
func (u *user) without(t *testing.T, id, file, preset, capability string) string {
	rest := slices.DeleteFunc(slices.Clone(service.Presets[preset]), func(c string) bool { return c == capability })
	text := strings.NewReplacer(
		"size: 10G", "size: 16M", "capabilities: ["+preset+"]", "capabilities: ["+strings.Join(rest, ", ")+"]",
		", timeout: 2m", "", "ready: {", "ready: {timeout: 5s, ", otherHash, exampleHash, "alice:other", "alice:secret",
		exampleKey, u.key,
	).Replace(exampleFor(t, file, id))
	r := u.VsrunIn(text, "create", "--no-probe", "-f", "-")
	said := r.String()
	if r.Code != 0 {
		return said
	}
	tw := twins{u.site, map[string]string{id: text}}
	said += tw.tryToPrepare(id) + u.use(t, id, file)
	said += u.Vsrun("ps", id).String() + u.Vsrun("logs", id).String()
	return said + u.Vsrun("destroy", id, "--timeout", "1s").Stderr
}

func (u *user) use(t *testing.T, id, file string) string {
	host, small := "192.0.2."+id, filepath.Join(u.dir, "small")
	var argv []string
	switch file {
	case "nginx.yaml":
		argv = []string{"curl", "-sSf", "--max-time", "1", "-u", "alice:secret", "-T", small, "http://" + host + "/dav/x"}
	case "samba.yaml":
		argv = []string{"smbclient", "-U", "alice%secret", "//" + host + "/files", "-c", "put " + small + " x"}
	case "nfs4.yaml":
		return u.useNFS(t, id, host, small)
	case "nfs3.yaml":
		argv = []string{"nfs-cp", small, "nfs://" + host + "/srv/alice/x?version=3&uid=1000&gid=1000"}
	case "vsftpd.yaml":
		argv = []string{"lftp", "-u", "alice,secret", "-e", "set net:max-retries 1; set net:timeout 5; put " + small + "; bye", host}
	case "sftp.yaml":
		argv = []string{"sftp", "-i", filepath.Join(u.dir, "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-b", filepath.Join(u.dir, "batch"), "alice@" + host}
	case "rsync.yaml":
		argv = []string{"rsync", "--password-file", filepath.Join(u.dir, "password"), small, "rsync://alice@" + host + "/files/x"}
	}
	return u.client.TryRun(append([]string{"timeout", "5"}, argv...)...).String()
}

// useNFS makes a file, and does with one that is there what its owner may.
func (u *user) useNFS(t *testing.T, id, host, small string) string {
	said := u.client.TryRun("timeout", "5", "nfs-cp", small, "nfs://"+host+"/files/alice/x?version=4&uid=1000&gid=1000").String()
	u.Vsrun("exec", id, "--", "install", "-o", "1000", "/dev/null", "/srv/alice/own")
	conn, err := u.client.Dial("tcp", host+":2049")
	if err != nil {
		return said + err.Error()
	}
	defer conn.Close()
	client := nfs{conn, 1000}
	fh, err := client.handle("files", "alice", "own")
	said += fmt.Sprintf("look up: %v\n", err)
	for what, op := range map[string][]byte{"write": write([]byte("x")), "change the mode": setMode(0o600), "change the group": setGroup("1000")} {
		_, err := client.compound(putHandle(fh), op)
		said += fmt.Sprintf("%s: %v\n", what, err)
	}
	return said
}
