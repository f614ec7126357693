package service

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// answer is what a script says that runs once with the settings.
func answer(t *testing.T, v *virtual, script string, settings Settings, private ...string) string {
	t.Helper()
	os.Remove(v.cfg.LogDir + "/once.log")
	s := Service{Name: "once", Command: []string{"sh", "-c", script}, Restart: RestartNever, Private: private, Settings: settings}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool { s := v.unit("once").State; return s == Finished || s == Failed })
	if err := v.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(said(v, "once"))
}

const privileges = `sed -n 's/^\(Cap...\|NoNewPrivs\|Seccomp\):[[:space:]]*\(.*\)/\1=\2/p' /proc/self/status | tr '\n' ' '`

// Nobody has a capability that is not named, and none can be gained.
func TestPrivileges(t *testing.T) {
	v := up(t)
	const none = "0000000000000000"
	mask := func(caps ...int) string {
		n := uint64(0)
		for _, c := range caps {
			n |= 1 << c
		}
		return fmt.Sprintf("%016x", n)
	}
	row := func(inherited, permitted, ambient, seccomp string) string {
		return fmt.Sprintf("CapInh=%s CapPrm=%s CapEff=%[2]s CapBnd=%[2]s CapAmb=%s NoNewPrivs=1 Seccomp=%s", inherited, permitted, ambient, seccomp)
	}
	bind := mask(unix.CAP_NET_BIND_SERVICE)
	nginx := mask(unix.CAP_CHOWN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETGID, unix.CAP_SETUID)
	for _, tt := range []struct {
		name     string
		settings Settings
		want     string
	}{
		{"by default", Settings{}, row(none, none, none, "2")},
		{"one", Settings{Capabilities: []string{"NET_BIND_SERVICE"}}, row(bind, bind, none, "2")},
		{"a daemon's", Settings{Capabilities: []string{"nginx", "CHOWN"}}, row(nginx, nginx, none, "2")},
		{"no filter", Settings{Syscalls: "all"}, row(none, none, none, "0")},
	} {
		if got := answer(t, v, privileges, tt.settings); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
	t.Run("another user", func(t *testing.T) {
		lab.NeedRoot(t, "there is another user then")
		ask := Settings{User: "65533", Group: "65532", Capabilities: []string{"NET_BIND_SERVICE"}}
		if got, want := answer(t, v, privileges, ask), row(bind, bind, bind, "2"); got != want {
			t.Errorf("\ngot  %s\nwant %s", got, want)
		}
		if got := answer(t, v, "id -u; id -g; id -G; echo $HOME", ask); got != "65533\n65532\n65532\n/" {
			t.Errorf("%q", got)
		}
	})
}

func TestSettings(t *testing.T) {
	v := up(t)
	got := answer(t, v, `pwd; umask; ulimit -n; ulimit -Hn; nice; cat /proc/self/oom_score_adj; echo $TZ $PATH`, Settings{
		Directory: "/run", Umask: "027", Limits: map[string]string{"nofile": "100:200"}, Nice: 5, OOMScore: 300,
		Environment: map[string]string{"TZ": "UTC", "PATH": "/bin:/usr/bin"},
	})
	if want := "/run\n0027\n100\n200\n5\n300\nUTC /bin:/usr/bin"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// keyringRole prints its session keyring.
func keyringRole() error {
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	fmt.Println(id)
	return err
}

// Nothing is left of whoever has started the init.
func TestNothingInherited(t *testing.T) {
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &had); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: had.Max, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &had)
	v := up(t)
	if got := answer(t, v, "ulimit -Sc", Settings{}); got != "0" {
		t.Errorf("a core dump may have %s", got)
	}
	seen := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		s := role(t, name, "keyring")
		s.Syscalls = allSyscalls
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has ended", func() bool { return v.unit(name).State == Finished })
		seen[said(v, name)] = true
	}
	if len(seen) != 2 {
		t.Errorf("both have the keyring %v", seen)
	}
}

func TestImpossibleSettings(t *testing.T) {
	v := up(t)
	for want, settings := range map[string]Settings{
		"there is no user no-such-user":        {User: "no-such-user"},
		"there is no group no-such-group":      {Group: "no-such-group"},
		"cannot go to /nowhere: no such file":  {Directory: "/nowhere"},
		"cannot set the limit nofile: operati": {Limits: map[string]string{"nofile": "2000000000"}},
	} {
		err := v.Set(t.Context(), []Service{{Name: "a", Command: []string{"true"}, Restart: RestartNever, Settings: settings}})
		if err == nil || !strings.HasPrefix(err.Error(), "cannot start a: "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if s := v.unit("a"); s.State != Failed || s.Pid != 0 {
			t.Errorf("%+v", s)
		}
		if err := v.Set(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
}

func TestValidateSettings(t *testing.T) {
	bad := Service{
		Name: "a", Command: []string{"true"}, After: []string{"a/b"}, Reload: Reload{Signal: "HUPP"},
		Ready: Ready{TCP: 70000, Notify: true, Timeout: -1}, Stop: Stop{Signal: "9", Timeout: Duration(Longest + 1)},
		Settings: Settings{
			User: "a:b", Group: "a\nb", Capabilities: []string{"NET_BIND_SERVICE", "net_raw", "CAP_CHOWN", "apache"}, Syscalls: "some",
			Environment: map[string]string{"A=B": "c"}, Directory: "run", Umask: "9", Writable: []string{"/srv/a", "srv", "/srv/", "/"},
			Limits: map[string]string{"nofile": "2:1", "files": "1", "core": "many"}, Nice: 20, OOMScore: -1001,
		},
	}
	var paths []string
	for _, p := range bad.Validate() {
		paths = append(paths, p.Path)
	}
	want := []string{"after[0]", "ready", "ready.tcp", "ready.timeout", "stop.signal", "stop.timeout", "reload",
		"capabilities[1]", "capabilities[2]", "capabilities[3]", "syscalls", "writable[1]", "writable[2]", "writable[3]", "user", "group", "environment", "directory", "umask",
		"limits.core", "limits.files", "limits.nofile", "nice", "oomScore"}
	if !slices.Equal(paths, want) {
		t.Errorf("got  %q\nwant %q", paths, want)
	}
}

func TestValidateOrder(t *testing.T) {
	s := func(name string, after ...string) Service {
		return Service{Name: name, Command: []string{"true"}, After: after}
	}
	for _, tt := range []struct {
		list []Service
		want []string
	}{
		{[]Service{s("a", "b"), s("b")}, nil},
		{[]Service{s("a", "c"), s("b")}, []string{`services[0].after[0]: "c" is no service here`}},
		{[]Service{s("a", "a")}, []string{`services[0].after[0]: "a" is itself started after "a"`}},
		{[]Service{s("a", "b"), s("b", "c"), s("c", "a")}, []string{
			`services[0].after[0]: "b" is itself started after "a"`, `services[1].after[0]: "c" is itself started after "b"`,
			`services[2].after[0]: "a" is itself started after "c"`}},
	} {
		var got []string
		for _, p := range Validate(tt.list) {
			got = append(got, p.Error())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// What the filter answers, for calls of this and of other conventions.
func TestFilter(t *testing.T) {
	const arch = unix.AUDIT_ARCH_X86_64
	vm, err := bpf.NewVM(filter(arch))
	if err != nil {
		t.Fatal(err)
	}
	eperm, enosys := uint32(unix.SECCOMP_RET_ERRNO|unix.EPERM), uint32(unix.SECCOMP_RET_ERRNO|unix.ENOSYS)
	for _, tt := range []struct {
		name         string
		number, arch uint32
		args         [3]uint32
		want         uint32
	}{
		{"read", unix.SYS_READ, arch, [3]uint32{}, unix.SECCOMP_RET_ALLOW},
		{"execve", unix.SYS_EXECVE, arch, [3]uint32{}, unix.SECCOMP_RET_ALLOW},
		{"unshare", unix.SYS_UNSHARE, arch, [3]uint32{}, eperm},
		{"the last of the list", refusedSyscalls[len(refusedSyscalls)-1].number, arch, [3]uint32{}, eperm},
		{"fork", unix.SYS_CLONE, arch, [3]uint32{uint32(unix.SIGCHLD)}, unix.SECCOMP_RET_ALLOW},
		{"a thread", unix.SYS_CLONE, arch, [3]uint32{unix.CLONE_VM | unix.CLONE_THREAD}, unix.SECCOMP_RET_ALLOW},
		{"a namespace", unix.SYS_CLONE, arch, [3]uint32{unix.CLONE_NEWUSER | uint32(unix.SIGCHLD)}, eperm},
		{"clone3", unix.SYS_CLONE3, arch, [3]uint32{}, enosys},
		{"x32", unix.SYS_READ | x32, arch, [3]uint32{}, enosys},
		{"another architecture", unix.SYS_READ, unix.AUDIT_ARCH_I386, [3]uint32{}, enosys},
		{"a socket", unix.SYS_SOCKET, arch, [3]uint32{unix.AF_INET6, unix.SOCK_STREAM}, unix.SECCOMP_RET_ALLOW},
		{"a socket of another family", unix.SYS_SOCKET, arch, [3]uint32{unix.AF_VSOCK}, uint32(unix.SECCOMP_RET_ERRNO | unix.EAFNOSUPPORT)},
		{"an option", unix.SYS_SETSOCKOPT, arch, [3]uint32{3, unix.SOL_SOCKET, unix.IP_FREEBIND}, unix.SECCOMP_RET_ALLOW},
		{"an option of IP's", unix.SYS_SETSOCKOPT, arch, [3]uint32{3, unix.SOL_IP, unix.IP_TOS}, unix.SECCOMP_RET_ALLOW},
		{"IP_FREEBIND", unix.SYS_SETSOCKOPT, arch, [3]uint32{3, unix.SOL_IP, unix.IP_FREEBIND}, eperm},
		{"IPV6_FREEBIND", unix.SYS_SETSOCKOPT, arch, [3]uint32{3, unix.SOL_IPV6, unix.IPV6_FREEBIND}, eperm},
	} {
		data := make([]byte, 64) // bpf.VM reads in network byte order
		for at, v := range map[int]uint32{0: tt.number, 4: tt.arch, 16: tt.args[0], 24: tt.args[1], 32: tt.args[2]} {
			data[at], data[at+1], data[at+2], data[at+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
		}
		got, err := vm.Run(data)
		if err != nil || uint32(got) != tt.want {
			t.Errorf("%s: %#x, %v; want %#x", tt.name, got, err, tt.want)
		}
	}
}

// An init goes last when memory is short; its services do not inherit that.
func TestInitIsKilledLast(t *testing.T) {
	v := up(t)
	want := "-999"
	const own = "/proc/self/oom_score_adj"
	if os.WriteFile(own, []byte("-1"), 0) != nil { // not in a user namespace, nor without CAP_SYS_RESOURCE
		want = "0"
	} else if err := os.WriteFile(own, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", v.Pid()))
	if got := strings.TrimSpace(string(score)); err != nil || got != want {
		t.Errorf("the init has %s, %v, not %s", got, err, want)
	}
	if got := answer(t, v, "cat /proc/self/oom_score_adj", Settings{}); got != "0" {
		t.Errorf("a service has %s", got)
	}
}

// Numbers that the kernel takes for another user's, or for no change, are nobody's.
func TestUserByNumber(t *testing.T) {
	for word, want := range map[string]string{
		"1234":       "",
		"0":          "",
		"-1":         "there is no user -1",
		"4294967295": "there is no user 4294967295",
		"4294967296": "there is no user 4294967296",
		"2000000118": "there is no user 2000000118",
		"nosuchuser": "there is no user nosuchuser",
	} {
		a, err := findUser(word)
		if want == "" && (err != nil || strconv.Itoa(a.uid) != word) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %+v, %v", word, a, err)
		}
		if _, err := findGroup(word); (err == nil) != (want == "") {
			t.Errorf("group %s: %v", word, err)
		}
	}
}
