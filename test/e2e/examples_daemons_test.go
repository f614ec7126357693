package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// Each example in two virtual servers at once, used by a client of its kind.

func TestExampleNginx(t *testing.T) {
	lab.Require(t, "nginx", "dav", "curl")
	tw := newTwins(t, "nginx.yaml", unedited)
	curl := func(id, password, path string, args ...string) lab.Result {
		return tw.client.TryRun(append([]string{"curl", "-sSf", "--max-time", "20",
			"-u", "alice:" + password, "http://192.0.2." + id + path}, args...)...)
	}
	again := tw.trade(t,
		func(id, file string) lab.Result { return curl(id, secrets[id], "/dav/x", "-T", file) },
		func(id, file string) lab.Result { return curl(id, secrets[id], "/dav/x", "-o", file) })
	if r := curl("8", "secret", "/dav/", "-X", "PROPFIND", "-H", "Depth: 1"); !strings.Contains(r.Stdout, "<D:href>/dav/x</D:href>") {
		t.Error(r)
	}
	refused(t, curl("9", "secret", "/dav/x"), "401")
	tw.killed(t, "web", again)
	// Where they share a pid file, this stops the other.
	before, other := tw.service(t, "8", "web"), tw.service(t, "9", "web")
	tw.MustVsrun(t, "exec", "9", "--", "nginx", "-s", "stop")
	tw.comesBack(t, "9", other)
	tw.unmoved(t, "8", before)
	tw.ends(t, tw.open(t, "80", "GET /dav/ HTTP/1.1\r\nHost: a\r\n\r\n", true), again)
}

func TestExampleSamba(t *testing.T) {
	lab.Require(t, "samba")
	tw := newTwins(t, "samba.yaml", unedited)
	client := func(id, share, user, command string) lab.Result {
		return tw.client.TryRun("smbclient", "-U", user, "//192.0.2."+id+"/"+share, "-c", command)
	}
	alice := func(id string) string { return "alice%" + secrets[id] }
	again := tw.trade(t,
		func(id, file string) lab.Result { return client(id, "files", alice(id), "put "+file+" x") },
		func(id, file string) lab.Result { return client(id, "files", alice(id), "get x "+file) })
	tw.must(t, client("8", "public", "%", "ls"))
	refused(t, client("8", "public", "%", "put /etc/hostname x"), "NT_STATUS_ACCESS_DENIED")
	refused(t, client("8", "files", "%", "ls"), "NT_STATUS_ACCESS_DENIED")
	refused(t, client("9", "files", alice("8"), "ls"), "NT_STATUS_LOGON_FAILURE")
	sid := func(id string) string {
		_, sid, _ := strings.Cut(tw.MustVsrun(t, "exec", id, "--", "net", "getlocalsid"), " is: ")
		return sid
	}
	if a, b := sid("8"), sid("9"); a == b {
		t.Errorf("both are %s", a)
	}

	// A session shows where it is, alone.
	typed := filepath.Join(t.TempDir(), "typed")
	if err := syscall.Mkfifo(typed, 0o600); err != nil {
		t.Fatal(err)
	}
	session := tw.client.Start(t, "sh", "-c", "exec smbclient -U "+alice("8")+" //192.0.2.8/files <"+typed)
	keyboard, err := os.OpenFile(typed, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	soon(t, func() error { return contains(tw.MustVsrun(t, "exec", "8", "--", "smbstatus", "-b"), "192.0.2.100") })
	if out := tw.MustVsrun(t, "exec", "9", "--", "smbstatus", "-b"); strings.Contains(out, "192.0.2.100") {
		t.Error(out)
	}
	keyboard.Close()
	<-session.Done()
	tw.killed(t, "smbd", again)
	before, other := tw.service(t, "8", "smbd"), tw.service(t, "9", "smbd")
	tw.MustVsrun(t, "exec", "9", "--", "smbcontrol", "smbd", "shutdown")
	tw.comesBack(t, "9", other)
	tw.unmoved(t, "8", before)
	tw.ends(t, tw.open(t, "445", "", false), again)
}

// nfs is a transfer by libnfs, as the user that owns /srv/alice.
func (tw *twins) nfs(path, version string, put bool) clientCommand {
	return func(id, file string) lab.Result {
		url := "nfs://192.0.2." + id + path + "?version=" + version + "&uid=1000&gid=1000"
		if put {
			return tw.client.TryRun("nfs-cp", file, url)
		}
		return tw.client.TryRun("nfs-cp", url, file)
	}
}

func TestExampleNFS4(t *testing.T) {
	lab.Require(t, "ganesha", "nfs-cp")
	const grace = 4 * time.Second
	tw := newTwins(t, "nfs4.yaml", func(_, text string) string {
		return strings.NewReplacer("Grace_Period = 90", "Grace_Period = 4", "Lease_Lifetime = 60", "Lease_Lifetime = 2").Replace(text)
	})
	again := tw.trade(t, // libnfs 4.0 cannot write more than 4 KiB by NFSv4
		func(id, file string) lab.Result {
			bytes, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return tw.VsrunIn(string(bytes), "exec", id, "--", "install", "-m", "644", "/dev/stdin", "/srv/alice/x")
		},
		tw.nfs("/files/alice/x", "4", false))
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, []byte("small"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, id := range pair {
		tw.must(t, tw.nfs("/files/alice/small", "4", true)(id, small))
		if out := tw.MustVsrun(t, "exec", id, "--", "stat", "-c", "%s %u", "/srv/alice/small"); out != "5 1000\n" {
			t.Errorf("in vs%s it is %q", id, out)
		}
	}
	refused(t, tw.nfs("/files/x", "4", true)("8", small), "NFS4ERR_ACCESS")
	// An owner may do what owners may.
	client := dialNFS(t, tw.site, "192.0.2.8")
	client.user = 1000
	fh, err := client.handle("files", "alice", "small")
	if err != nil {
		t.Fatal(err)
	}
	for what, op := range map[string][]byte{"write": write([]byte("S")), "change the mode": setMode(0o600), "change the group": setGroup("1000")} {
		if _, err := client.compound(putHandle(fh), op); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := tw.MustVsrun(t, "exec", "8", "--", "sh", "-c", "cat /srv/alice/small; stat -c ' %a' /srv/alice/small"); got != "Small 600\n" {
		t.Errorf("it is %q", got)
	}

	client.Close()

	// Its clients are known to 8 when it is back, and get their time. 9 serves
	// meanwhile.
	other := tw.service(t, "9", "nfsd")
	began := time.Now()
	restart := tw.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "service", "restart", "8", "nfsd")
	soon(t, func() error {
		return contains(tw.MustVsrun(t, "logs", "8", "nfsd"), "Shutting down exports for FSAL VFS")
	})
	again("9")
	if took := time.Since(began); took > grace {
		t.Errorf("9 has been asked after %s only", took)
	}
	<-restart.Done()
	if took := time.Since(began); took < grace {
		t.Errorf("8 is ready after %s, before grace is over: %s", took, tw.MustVsrun(t, "logs", "8"))
	}
	tw.unmoved(t, "9", other)
	if log := tw.MustVsrun(t, "logs", "9", "nfsd"); strings.Count(log, "Now IN GRACE") != 1 {
		t.Errorf("9 was in grace again:\n%s", log)
	}
	again(pair...)
	tw.killed(t, "nfsd", again)
	tw.ends(t, tw.open(t, "2049", "", false), again)
}

func TestExampleNFS3(t *testing.T) {
	lab.Require(t, "ganesha", "nfs-cp", "rpcbind")
	tw := newTwins(t, "nfs3.yaml", oftenLooked)
	again := tw.trade(t, tw.nfs("/srv/alice/x", "3", true), tw.nfs("/srv/alice/x", "3", false))
	refused(t, tw.nfs("/srv/x", "3", true)("8", "/etc/hostname"), "NFS3ERR_ACCES")
	// Each has registered where it is, alone, and takes back its own.
	registered := func(id string, want bool) {
		t.Helper()
		out := tw.client.Run(t, "rpcinfo", "-p", "192.0.2."+id)
		for _, program := range []string{"100003", "100005"} {
			if strings.Contains(out, program) != want {
				t.Errorf("program %s at vs%s, want %v:\n%s", program, id, want, out)
			}
		}
	}
	registered("8", true)
	tw.MustVsrun(t, "service", "stop", "8", "nfsd")
	registered("8", false)
	registered("9", true)
	tw.MustVsrun(t, "service", "start", "8", "nfsd")
	registered("8", true)
	tw.killed(t, "nfsd", again)
	before := tw.service(t, "8", "nfsd")
	if err := syscall.Kill(tw.service(t, "8", "rpcbind").Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tw.comesBack(t, "8", before)
	registered("8", true)
	tw.ends(t, tw.open(t, "2049", "", false), again)
}

// oftenLooked is a document whose services are checked all the time.
func oftenLooked(_, text string) string {
	return strings.ReplaceAll(text, "interval: 10s", "interval: 100ms")
}

func TestExampleVsftpd(t *testing.T) {
	lab.Require(t, "vsftpd", "lftp")
	tw := newTwins(t, "vsftpd.yaml", func(_, text string) string { // a wrong password takes 2 s, else
		return strings.Replace(text, "auth    required pam_unix.so", "auth    required pam_unix.so nodelay", 1)
	})
	lftp := func(id, password, command string) lab.Result {
		return tw.client.TryRun("lftp", "-u", "alice,"+password, "-e",
			"set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 10; set xfer:clobber yes; "+command+"; bye", "192.0.2."+id)
	}
	again := tw.trade(t,
		func(id, file string) lab.Result { return lftp(id, secrets[id], "put "+file+" -o x") },
		func(id, file string) lab.Result { return lftp(id, secrets[id], "get x -o "+file) })
	refused(t, lftp("9", "secret", "ls"), "Login incorrect")
	if r := lftp("8", "secret", "cls -1 /.. /"); r.Code != 0 || strings.Contains(r.Stdout, "etc") {
		t.Errorf("she sees more than her directory: %v", r)
	}
	tw.killed(t, "ftpd", again)
	tw.ends(t, tw.open(t, "21", "", true), again)
}

func TestExampleSFTP(t *testing.T) {
	lab.Require(t, "sshd", "sftp")
	dir := t.TempDir()
	key := func(id string) string { return filepath.Join(dir, "key"+id) }
	hosts := func(id string) string { return filepath.Join(dir, "known"+id) }
	tw := newTwins(t, "sftp.yaml", func(id, text string) string { return strings.Replace(text, exampleKey, newKey(t, key(id)), 1) })
	sftp := func(id, key, known, command string) lab.Result {
		batch := filepath.Join(dir, "batch")
		if err := os.WriteFile(batch, []byte(command+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return tw.client.TryRun("sftp", "-i", key, "-o", "UserKnownHostsFile="+known, "-o", "StrictHostKeyChecking=accept-new",
			"-o", "GlobalKnownHostsFile=none", "-o", "HostKeyAlias=server", "-b", batch, "alice@192.0.2."+id)
	}
	again := tw.trade(t,
		func(id, file string) lab.Result { return sftp(id, key(id), hosts(id), "put "+file+" x") },
		func(id, file string) lab.Result { return sftp(id, key(id), hosts(id), "get x "+file) })
	refused(t, sftp("9", key("8"), hosts("9"), "ls"), "Permission denied")
	refused(t, sftp("9", key("9"), hosts("8"), "ls"), "REMOTE HOST IDENTIFICATION HAS CHANGED")
	if r := sftp("8", key("8"), hosts("8"), "ls /.."); r.Code != 0 || !strings.Contains(r.Stdout, "files") || strings.Contains(r.Stdout, "etc") {
		t.Errorf("she sees more than her directory: %v", r)
	}
	tw.killed(t, "sshd", again)
	tw.ends(t, tw.open(t, "22", "", true), again)
}

// newKey makes a key, and returns its public part.
func newKey(t *testing.T, path string) string {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(public)
}

func TestExampleRsync(t *testing.T) {
	lab.Require(t, "rsync")
	tw := newTwins(t, "rsync.yaml", unedited)
	dir := t.TempDir()
	rsync := func(id, password string, args ...string) lab.Result {
		file := filepath.Join(dir, "password")
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		return tw.client.TryRun(append([]string{"rsync", "--password-file", file}, args...)...)
	}
	url := func(id string) string { return "rsync://alice@192.0.2." + id + "/files/x" }
	again := tw.trade(t,
		func(id, file string) lab.Result { return rsync(id, secrets[id], file, url(id)) },
		func(id, file string) lab.Result { return rsync(id, secrets[id], url(id), file) })
	refused(t, rsync("9", "secret", url("9"), filepath.Join(dir, "got")), "auth failed")
	tw.killed(t, "rsyncd", again)
	tw.ends(t, tw.open(t, "873", "", true), again)
}
