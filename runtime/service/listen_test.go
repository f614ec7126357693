package service

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answerRole is a daemon that is handed its socket, answers each line by its process
// id, and when asked to end has answered first whom it has taken.
func answerRole() error {
	if os.Getenv("LISTEN_PID") != fmt.Sprint(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return errors.New("there is no socket")
	}
	l, err := net.FileListener(os.NewFile(firstSocket, "socket"))
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	go func() { <-asked; l.Close() }()
	fmt.Println("answering")
	var busy sync.WaitGroup
	defer busy.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		busy.Go(func() {
			defer conn.Close()
			if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				fmt.Fprintln(conn, os.Getpid())
			}
		})
	}
}

// askOnce connects to a port in the virtual server and wants an answer.
func (v *virtual) askOnce(address string) (refused, unanswered error) {
	err := v.ns.Do(func() error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			refused = err
			return nil
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintln(conn, "?")
		_, unanswered = bufio.NewReader(conn).ReadString('\n')
		return nil
	})
	return errors.Join(refused, err), unanswered
}

// Whoever connects while a service is restarted, or killed, waits, is not refused,
// and is answered.
func TestNobodyIsRefused(t *testing.T) {
	v := up(t)
	if _, code := v.run("ip", "link", "set", "lo", "up"); code != 0 {
		t.Fatal("there is no loopback")
	}
	s := role(t, "a", "answer")
	s.Restart, s.Sockets, s.Ready.Output = RestartAlways, []Socket{{Stream: "8000"}}, "answering"
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	var asked, lost atomic.Int32
	done := make(chan struct{})
	var clients sync.WaitGroup
	for _, address := range []string{"127.0.0.1:8000", "[::1]:8000"} {
		clients.Go(func() {
			for {
				refused, unanswered := v.askOnce(address)
				if refused != nil {
					t.Error(refused)
				}
				if unanswered != nil {
					lost.Add(1)
				}
				asked.Add(1)
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	for range 20 {
		if err := v.RestartService(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if n := lost.Load(); n != 0 {
		t.Errorf("%d were not answered", n)
	}
	const kills = 20
	for range kills {
		before := v.unit("a")
		if err := unix.Kill(before.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs again", func() bool {
			now := v.unit("a")
			return now.State == Running && now.Pid != before.Pid
		})
		if err := v.RestartService(t.Context(), "a"); err != nil { // without the longer and longer pauses
			t.Fatal(err)
		}
	}
	close(done)
	clients.Wait()
	// What it had taken when it was killed is lost with it: one of each client's.
	if n := lost.Load(); n > 2*kills {
		t.Errorf("%d were not answered", n)
	}
	t.Logf("%d asked during 40 restarts and %d kills, %d of them the killed did not answer", asked.Load(), kills, lost.Load())
	for _, end := range []func() error{
		func() error { return v.StopService(t.Context(), "a") },
		func() error { return errors.Join(v.StartService(t.Context(), "a"), v.Set(t.Context(), nil)) },
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if refused, _ := v.askOnce("127.0.0.1:8000"); refused == nil {
			t.Error("nobody runs, and somebody listens")
		}
	}
}

// The program gets them in their order, knows which is which, and has no others.
func TestSocketsAreHandedOver(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	s := sh("a", fmt.Sprintf(`{ echo $LISTEN_FDS $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo mine; readlink /proc/$$/fd/3 /proc/$$/fd/4 /proc/$$/fd/5 /proc/$$/fd/6 /proc/$$/fd/7; } >%s.new; [ $LISTEN_FDS = 2 ] || sleep 100000 & mv %[1]s.new %[1]s; exec sleep 100000`, out))
	s.Sockets = []Socket{{Stream: "192.0.2.1:80", Name: "web"}, {Datagram: "[::]:53"}, {Stream: "@abstract"}, {Stream: "/run/sub/a.sock"}}
	v.output("ip addr add 192.0.2.1 dev lo; ip link set lo up")
	run := func(want string) {
		t.Helper()
		os.Remove(out)
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has written", func() bool { _, err := os.Stat(out); return err == nil })
		words := strings.Fields(read(t, out))
		for i, word := range words {
			words[i], _, _ = strings.Cut(word, "[") // socket:[inode]
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	listening := func() string {
		v.t.Helper()
		var lines []string
		for line := range strings.Lines(v.output("ss -Hltunx")) {
			if f := strings.Fields(line); !strings.Contains(line, "@vsrun") && !strings.Contains(line, "init.sock") {
				lines = append(lines, f[0]+" "+f[4])
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, ", ")
	}
	run("4 web:a:a:a mine socket: socket: socket: socket:")
	if got := listening(); got != "tcp 192.0.2.1:80, u_str /run/sub/a.sock, u_str @abstract, udp [::]:53" {
		t.Errorf("it listens on %s", got)
	}
	if got := v.output("stat -c %a /run/sub/a.sock"); got != "666" {
		t.Errorf("the socket's mode is %s", got)
	}
	// A change keeps what is to stay. What the last program has begun may hold the rest for a
	// moment, but nobody finds it by a name.
	inode := func() string { return v.output("ss -Hlx | grep -o '@abstract *[0-9]*'") }
	before := inode()
	s.Sockets = []Socket{{Stream: "@abstract"}, {Datagram: "/run/b.sock", Name: "b"}}
	run("2 a:b mine socket: socket:")
	eventually(t, "it listens on what it is to alone", func() bool { return listening() == "u_dgr /run/b.sock, u_str @abstract" })
	if inode() != before {
		t.Errorf("@abstract is another one")
	}
	if err := v.Set(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := listening() + v.output("ls -A /run/sub /run/b.sock 2>/dev/null || true"); got != "/run/sub:" {
		t.Errorf("removed, it leaves %s", got)
	}
}

// All sockets are there before the first service is started, and one that is
// somebody's keeps its service from starting until it is free.
func TestSocketsComeFirst(t *testing.T) {
	v := up(t)
	first := sh("first", "ss -Hlxn | grep -q @second && echo there; exec sleep 100000")
	second := sh("second", "exec sleep 100000")
	second.Sockets = []Socket{{Stream: "@second"}}
	if err := v.Set(t.Context(), []Service{first, second}); err != nil {
		t.Fatal(err)
	}
	waitForLog(v, "first", "there\n")
	third := sh("third", "exec sleep 100000")
	third.Sockets = []Socket{{Stream: "@second"}, {Stream: "/run/third"}}
	err := v.Set(t.Context(), []Service{first, second, third})
	if want := "cannot start third: cannot listen on @second: address already in use"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := v.Set(t.Context(), []Service{first, third}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return v.unit("third").State == Running })
}

func TestParseListen(t *testing.T) {
	for text, want := range map[string]unix.Sockaddr{
		"80":              &unix.SockaddrInet6{Port: 80},
		"192.0.2.8:80":    &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, 8}},
		"[2001:db8::]:80": &unix.SockaddrInet6{Port: 80, Addr: [16]byte{0x20, 0x01, 0x0d, 0xb8}},
		"/run/a":          &unix.SockaddrUnix{Name: "/run/a"},
		"@a":              &unix.SockaddrUnix{Name: "@a"},
	} {
		if got, err := parseListen(text); err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
			t.Errorf("%s: %#v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "65536", "-1", "a", "localhost:80", "192.0.2.8", "192.0.2.8:0", "[fe80::1%eth0]:80",
		"/", "@", "/run//a", "/run/a/", "a\x00", "/" + strings.Repeat("a", 107)} {
		if got, err := parseListen(text); err == nil {
			t.Errorf("%q: %#v", text, got)
		}
	}
}

// Sockets move between services, and to services and names that are new, and nobody is
// refused meanwhile.
func TestSocketsMove(t *testing.T) {
	v := up(t)
	if _, code := v.run("ip", "link", "set", "lo", "up"); code != 0 {
		t.Fatal("there is no loopback")
	}
	answers := func(name string, s Socket) Service {
		one := role(t, name, "answer")
		one.Sockets, one.Ready.Output = []Socket{s}, "answering"
		return one
	}
	set := func(list ...Service) {
		t.Helper()
		if err := v.Set(t.Context(), list); err != nil {
			t.Error(err)
		}
	}
	by := func(port string) string {
		pid := ""
		v.ns.Do(func() error {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				defer conn.Close()
				fmt.Fprintln(conn, "?")
				pid, _ = bufio.NewReader(conn).ReadString('\n')
			}
			return nil
		})
		out := v.output("cat /proc/" + strings.TrimSpace(pid) + "/environ | tr '\\0' '\\n' | grep LISTEN_FDNAMES")
		return strings.TrimPrefix(strings.TrimSpace(out), "LISTEN_FDNAMES=")
	}
	set(answers("a", Socket{Stream: "8000"}), answers("b", Socket{Stream: "8001"}))
	done := make(chan struct{})
	var clients sync.WaitGroup
	for _, address := range []string{"127.0.0.1:8000", "127.0.0.1:8001"} {
		clients.Go(func() {
			for {
				if refused, unanswered := v.askOnce(address); refused != nil || unanswered != nil {
					t.Error(refused, unanswered)
				}
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	for _, step := range []struct {
		list []Service
		want string
	}{
		{[]Service{answers("a", Socket{Stream: "8001"}), answers("b", Socket{Stream: "8000"})}, "b a"},
		{[]Service{answers("b", Socket{Stream: "8001"}), answers("c", Socket{Stream: "8000"})}, "c b"},
		{[]Service{answers("b", Socket{Stream: "8000"}), answers("d", Socket{Stream: "8001", Name: "web"})}, "b web"},
		{[]Service{answers("b", Socket{Stream: "8000", Name: "x"}), answers("d", Socket{Stream: "8001", Name: "y"})}, "x y"},
	} {
		set(step.list...)
		if got := by("8000") + " " + by("8001"); got != step.want {
			t.Errorf("they are %s, want %s", got, step.want)
		}
	}
	close(done)
	clients.Wait()

	// What somebody has stopped holds none.
	if err := v.StopService(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	set(answers("b", Socket{Stream: "8001"}))
	if refused, _ := v.askOnce("127.0.0.1:8001"); refused == nil {
		t.Error("a stopped one listens")
	}
}

// Who is to have a socket is started when the program that had it has ended, in whatever order
// they are: no connection is taken by one that is about to go.
func TestSocketsHaveOneProgram(t *testing.T) {
	v := up(t)
	v.output("ip link set lo up")
	slow := func(name, port string) Service {
		s := sh(name, `[ ! -e /run/had`+port+` ] || ! kill -0 $(cat /run/had`+port+`) 2>/dev/null || exit 1
echo $$ >/run/had`+port+`; echo alone; trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.01; done`)
		s.Sockets, s.Restart, s.Ready.Output = []Socket{{Stream: port}}, RestartNever, "alone"
		return s
	}
	for _, list := range [][]Service{
		{slow("a", "8000"), slow("b", "8001")},
		{slow("a", "8001"), slow("b", "8000")}, // swapped
		{slow("c", "8000"), slow("b", "8001")}, // b takes a's, which goes
		{slow("c", "8001")},
	} {
		if err := v.Set(t.Context(), list); err != nil {
			t.Error(err)
		}
		for _, one := range list {
			if got := v.unit(one.Name); got.State != Running {
				t.Errorf("%s is %v: %s", one.Name, got.State, got.Last)
			}
		}
	}
}

// Services may write where a socket is to be, and lay symlinks there; the init, which
// may write everywhere, follows none.
func TestSocketsFollowNoSymlink(t *testing.T) {
	v := plan(t)
	v.begin()
	v.output("ln -s /etc /run/way; ln -s /etc/hosts /run/file.sock")
	s := sh("a", "exec sleep 100000")
	for path, want := range map[string]string{
		"/run/way/a.sock":      "there is a symlink on the way to it",
		"/run/way/deep/a.sock": "there is a symlink on the way to it",
		"/run/file.sock":       "is not a socket",
	} {
		s.Sockets = []Socket{{Stream: path}}
		if err := v.Set(t.Context(), []Service{s}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if entries, _ := filepath.Glob("/etc/*a.sock"); entries != nil {
		t.Errorf("it made %q", entries)
	}
	s.Sockets = []Socket{{Stream: "/var/run/deep/a.sock"}}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	if got := v.output("stat -c '%a %F' /run/deep/a.sock"); got != "666 socket" {
		t.Errorf("made where it should: %s", got)
	}
}

// A socket that was moved before everybody may use it, with something else in its
// place: that stays as it is.
func TestSocketMovedAway(t *testing.T) {
	dir := t.TempDir()
	name, elsewhere, secret := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "secret")
	write(t, secret, "")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	l := listener{Socket{Stream: name}, -1}
	if err := l.bind(unix.AF_UNIX, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l.fd)
	if err := errors.Join(os.Rename(name, elsewhere), os.Symlink(secret, name)); err != nil {
		t.Fatal(err)
	}
	if err := l.openUp(name); err == nil || !strings.Contains(err.Error(), "it leads to "+elsewhere) {
		t.Error(err)
	}
	if fi, err := os.Stat(secret); err != nil || fi.Mode() != 0o600 {
		t.Errorf("what was put in its place: %v, %v", fi.Mode(), err)
	}
	if _, err := os.Lstat(elsewhere); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

// A program that shuts its socket down leaves it in order for the next one.
func TestSocketShutDown(t *testing.T) {
	l, err := Socket{Stream: "127.0.0.1:8080"}.open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l.fd)
	if err := unix.Shutdown(l.fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	u := unit{listeners: []listener{l}}
	u.handed()
	if n, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || n != 1 {
		t.Errorf("it does not listen: %d, %v", n, err)
	}
}
