package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// Everything at once, twice: what comes in by one protocol goes out by all, also after
// all of it has been killed.
func TestExampleNAS(t *testing.T) {
	lab.Require(t, "nginx", "curl", "samba", "ganesha", "nfs-cp", "rpcbind", "vsftpd", "lftp", "sshd", "sftp", "rsync")
	dir := t.TempDir()
	key, password := filepath.Join(dir, "key"), filepath.Join(dir, "password")
	public := newKey(t, key)
	tw := newTwins(t, "nas.yaml", func(_, text string) string {
		return strings.NewReplacer(exampleKey, public, "interval: 10s", "interval: 200ms",
			"RecoveryBackend = fs;", "RecoveryBackend = fs; Grace_Period = 2; Lease_Lifetime = 2;").Replace(text)
	})
	run := func(argv ...string) lab.Result { return tw.client.TryRun(argv...) }
	host := func(id string) string { return "192.0.2." + id }
	smb := func(id, command string) lab.Result {
		return run("smbclient", "-U", "alice%"+secrets[id], "//"+host(id)+"/files", "-c", command)
	}
	check := tw.fill(t, func(id, file string) lab.Result { return smb(id, "put "+file+" x") })
	again := func(ids ...string) {
		t.Helper()
		for _, get := range []clientCommand{
			func(id, file string) lab.Result { return smb(id, "get x "+file) },
			func(id, file string) lab.Result { return run("curl", "-sSf", "-o", file, "http://"+host(id)+"/x") },
			tw.nfs("/srv/files/x", "3", false),
			tw.nfs("/srv/files/x", "4", false),
			func(id, file string) lab.Result {
				return run("lftp", "-u", "alice,"+secrets[id], "-e", "set net:max-retries 1; get x -o "+file+"; bye", host(id))
			},
			func(id, file string) lab.Result {
				return run("sftp", "-q", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
					"alice@"+host(id)+":/files/x", file)
			},
			func(id, file string) lab.Result {
				if err := os.WriteFile(password, []byte(secrets[id]), 0o600); err != nil {
					t.Fatal(err)
				}
				return run("rsync", "--password-file", password, "rsync://alice@"+host(id)+"/files/x", file)
			},
		} {
			check(get, ids...)
		}
	}
	again(pair...)
	services := tw.show(t, "8").Services
	for _, s := range services {
		if err := syscall.Kill(s.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range services {
		tw.comesBack(t, "8", s)
	}
	soon(t, func() error { // nfsd may have been there before rpcbind, and is restarted then
		if now := tw.service(t, "8", "nfsd"); now.State != "running" {
			return fmt.Errorf("%+v", now)
		}
		return contains(run("rpcinfo", "-p", host("8")).Stdout, "100005")
	})
	again("8")
	tw.ends(t, tw.open(t, "22", "", true), again)
}
