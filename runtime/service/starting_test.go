package service

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// role is a service that is this test binary in another role.
func role(t *testing.T, name, role string, args ...string) Service {
	t.Helper()
	return Service{
		Name: name, Command: append([]string{binary}, args...), Restart: RestartNever,
		Settings: Settings{Environment: map[string]string{roleVar: role}},
	}
}

// slow is how long the services of these tests take to be ready.
const slow = 300 * time.Millisecond

// listenRole listens after a while, as a daemon that reads its files first.
func listenRole() error {
	time.Sleep(slow)
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		return err
	}
	defer l.Close()
	<-time.After(time.Hour)
	return nil
}

// notifyRole says that it is ready after a while.
func notifyRole() error {
	time.Sleep(slow)
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte("STATUS=here\nREADY=1\n")); err != nil {
		return err
	}
	<-time.After(time.Hour)
	return nil
}

// Set returns when the services are ready, by whatever sign; what comes after them
// is started then.
func TestReady(t *testing.T) {
	v := plan(t)
	sign, both := filepath.Join(v.dir, "sign"), filepath.Join(v.dir, "both")
	v.begin()
	if _, code := v.run("ip", "link", "set", "lo", "up"); code != 0 {
		t.Fatal("there is no loopback")
	}
	ready := func(s Service, r Ready) Service { s.Ready = r; return s }
	for _, s := range []Service{
		ready(role(t, "tcp", "listen", "127.0.0.1:8000"), Ready{TCP: 8000}),
		ready(role(t, "tcp6", "listen", "[::1]:8001"), Ready{TCP: 8001}),
		ready(role(t, "notify", "notify"), Ready{Notify: true}),
		ready(sh("command", "sleep 0.3; touch "+sign+"; exec sleep 100000"), Ready{Command: []string{"test", "-e", sign}}),
		ready(sh("output", `echo in grace; sleep 0.3; printf 'NOT IN'; printf ' GRACE now\n'; exec sleep 100000`), Ready{Output: "NOT IN GRACE"}),
		ready(sh("both", "echo up; sleep 0.3; touch "+both+"; exec sleep 100000"), Ready{Output: "up", Command: []string{"test", "-e", both}}),
	} {
		t.Run(s.Name, func(t *testing.T) {
			begin := time.Now()
			next := sh("next", "exec sleep 100000")
			next.After = []string{s.Name}
			if err := v.Set(t.Context(), []Service{next, s}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took < slow {
				t.Errorf("it was ready after %s", took)
			}
			for _, name := range []string{s.Name, "next"} {
				if now := v.unit(name); now.State != Running {
					t.Errorf("%+v", now)
				}
			}
			if first, second := v.unit(s.Name), v.unit("next"); second.Since.Before(first.Since) {
				t.Errorf("the next has run since %s, before %s", second.Since, first.Since)
			}
		})
	}
	if _, err := os.Stat(sign); err != nil {
		t.Error(err)
	}
}

func TestNeverReady(t *testing.T) {
	v := up(t)
	late := sh("late", "exec sleep 100000")
	late.Restart, late.Ready = RestartNever, Ready{TCP: 9, Timeout: Duration(slow)}
	next := sh("next", "exec sleep 100000")
	next.After = []string{"late"}
	err := v.Set(t.Context(), []Service{late, next})
	want := "cannot start late: it was not ready after 300ms; cannot start next: it waits for late"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if s := v.unit("late"); s.State != Failed || s.Pid != 0 {
		t.Errorf("%+v", s)
	}
	if s := v.unit("next"); s.State != Waiting || s.Pid != 0 {
		t.Errorf("%+v", s)
	}
	// When what it waits for is there, it is started.
	late.Ready = Ready{}
	if err := v.Set(t.Context(), []Service{late, next}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next runs", func() bool { return v.unit("next").State == Running })
}

// What a service has written in an earlier life, or others write, is no sign.
func TestReadyByOutputOfThisLife(t *testing.T) {
	v := plan(t)
	once := filepath.Join(v.dir, "once")
	v.begin()
	a := sh("a", fmt.Sprintf("[ -e %s ] || { touch %[1]s; echo up; }; exec sleep 100000", once))
	a.Ready = Ready{Output: "up", Timeout: Duration(2 * time.Second)}
	if err := v.Set(t.Context(), []Service{a, sh("other", "while :; do echo up; sleep 0.05; done")}); err != nil {
		t.Fatal(err)
	}
	if err := v.RestartService(t.Context(), "a"); err == nil || err.Error() != "cannot start a: it was not ready after 2s" {
		t.Errorf("%v", err)
	}
}

// A stranger's word counts for nothing.
func TestNotifiedByAnother(t *testing.T) {
	v := up(t)
	quiet := sh("quiet", "exec sleep 100000")
	quiet.Ready, quiet.Restart = Ready{Notify: true, Timeout: Duration(2 * slow)}, RestartNever
	liar := role(t, "liar", "notify")
	liar.Settings.Environment["NOTIFY_SOCKET"] = notifySocket
	if err := v.Set(t.Context(), []Service{quiet, liar}); err == nil {
		t.Error("it became ready")
	}
}

// Services are stopped in the reverse order of their start, each when those that
// need it have ended.
func TestOrder(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	talker := func(name string, after ...string) Service {
		s := sh(name, fmt.Sprintf(`trap 'sleep 0.1; echo stop %s >>%s; exit' TERM; echo start %[1]s >>%[2]s; echo >%[2]s.%[1]s; while :; do sleep 0.01; done`, name, out))
		s.After, s.Ready = after, Ready{Command: []string{"test", "-e", out + "." + name}}
		return s
	}
	list := []Service{talker("web", "db", "auth"), talker("auth", "db"), talker("db")}
	if err := v.Set(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if killed, err := v.Shutdown(t.Context(), 10*time.Second); err != nil || killed != nil {
		t.Errorf("%q, %v", killed, err)
	}
	want := "start db start auth start web stop web stop auth stop db"
	if got := strings.Join(strings.Fields(read(t, out)), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Each service has its own time to end, more or less than what is usual.
func TestShutdownInTheirOwnTime(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	slow := sh("slow", fmt.Sprintf("trap 'sleep 10.5; echo slow >>%s; exit' TERM; echo up; while :; do sleep 0.01; done", out))
	slow.Ready.Output, slow.Stop.Timeout = "up", Duration(20*time.Second)
	brief := sh("brief", "trap '' TERM; echo up; while :; do sleep 0.01; done")
	brief.Ready.Output, brief.Stop.Timeout = "up", Duration(300*time.Millisecond)
	if err := v.Set(t.Context(), []Service{slow, brief}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	done := make(chan time.Duration)
	pid := v.unit("brief").Pid
	go func() {
		for exists(pid) {
			time.Sleep(10 * time.Millisecond)
		}
		done <- time.Since(begin)
	}()
	killed, err := v.Shutdown(t.Context(), OwnTimeout)
	if err != nil || !slices.Equal(killed, []string{"brief"}) {
		t.Errorf("killed %q, %v", killed, err)
	}
	if took := <-done; took < 300*time.Millisecond || took > 8*time.Second {
		t.Errorf("the brief took %s", took)
	}
	if text := read(t, out); text != "slow\n" {
		t.Errorf("the slow said %q", text)
	}
}

// What others are started after gets a moment to end even when they took all the time.
func TestShutdownLeavesAMoment(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	db := sh("db", fmt.Sprintf("trap 'sleep 0.3; echo db >>%s; exit' TERM; echo up; while :; do sleep 0.01; done", out))
	auth := sh("auth", "trap '' TERM; echo up; while :; do sleep 0.01; done")
	auth.After, auth.Stop.Timeout = []string{"db"}, Duration(200*time.Millisecond)
	web := sh("web", "trap '' TERM; echo up; while :; do sleep 0.01; done")
	web.After = []string{"auth"}
	db.Ready.Output, auth.Ready.Output, web.Ready.Output = "up", "up", "up"
	if err := v.Set(t.Context(), []Service{db, auth, web}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	killed, err := v.Shutdown(t.Context(), 300*time.Millisecond)
	if err != nil || !slices.Equal(killed, []string{"web", "auth"}) {
		t.Errorf("killed %q, %v", killed, err)
	}
	if took := time.Since(begin); took < 800*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if text := read(t, out); text != "db\n" {
		t.Errorf("the first said %q", text)
	}
}

func TestChain(t *testing.T) {
	stop := func(name string, d time.Duration, after ...string) Service {
		return Service{Name: name, After: after, Stop: Stop{Timeout: Duration(d)}}
	}
	list := []Service{stop("web", 3, "db", "auth"), stop("auth", 4, "db"), stop("db", 5), stop("alone", 11)}
	within := func(s Service) time.Duration { return s.Stop.Within() }
	if got := chain(list, within); got != 12 {
		t.Errorf("got %d", got)
	}
	if got := chain(nil, within); got != 0 {
		t.Errorf("of none: %d", got)
	}
}

func TestStopAndReload(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	s := sh("a", fmt.Sprintf(`trap 'echo usr >>%s; exit' USR1; trap 'echo hup >>%[1]s' HUP; trap '' TERM; echo up >>%[1]s; while :; do sleep 0.01; done`, out))
	s.Stop, s.Reload.Signal = Stop{Signal: "USR1"}, "HUP"
	deaf := sh("deaf", "trap '' TERM; echo deaf; while :; do sleep 0.01; done")
	deaf.Ready.Output = "deaf" // it hears until then
	deaf.Stop.Timeout = Duration(slow)
	if err := v.Set(t.Context(), []Service{s, deaf}); err != nil {
		t.Fatal(err)
	}
	has := func(line string) func() bool {
		return func() bool { text, _ := os.ReadFile(out); return strings.Contains(string(text), line) }
	}
	eventually(t, "it is up", has("up\n"))
	if err := v.ReloadService(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it reloads", has("hup\n"))
	if err := v.ReloadService(t.Context(), "deaf"); err == nil || err.Error() != "service deaf has no reload signal or command" {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"a", "deaf"} {
		if err := v.StopService(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if !has("usr\n")() {
		t.Error("it was not asked with USR1")
	}
	if last := v.unit("deaf").Last; last != "signal: killed" {
		t.Errorf("the deaf: %s", last)
	}
	if err := v.ReloadService(t.Context(), "a"); err == nil || err.Error() != "service a is stopped" {
		t.Errorf("%v", err)
	}
}

// A command tells whether it worked.
func TestReloadByCommand(t *testing.T) {
	v := plan(t)
	out := filepath.Join(v.dir, "out")
	v.begin()
	s := sh("a", fmt.Sprintf(`trap 'echo hup >>%s' HUP; echo up; while :; do sleep 0.01; done`, out))
	s.Ready.Output = "up"
	for command, want := range map[string]string{
		"kill -HUP $MAINPID": "",
		"exit 3":             "its command failed: exit status 3",
		"kill -TERM $MAINPID; sleep 32007 & exec sleep 32008": "its command failed: signal: killed",
	} {
		s.Reload.Command = []string{"sh", "-c", command}
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		if err := v.ReloadService(t.Context(), "a"); errorText(err) != want {
			t.Errorf("%s: %v", command, err)
		}
		if want == "" {
			eventually(t, "it has been told", func() bool { b, _ := os.ReadFile(out); return string(b) == "hup\n" })
		}
		if err := v.StartService(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	s.Reload.Command = []string{"no-such-command"}
	if err := v.Set(t.Context(), []Service{s}); err != nil {
		t.Fatal(err)
	}
	if err := v.ReloadService(t.Context(), "a"); err == nil || err.Error() != "its command failed: no-such-command: no such file or directory" {
		t.Error(err)
	}
	eventually(t, "none is left", func() bool { return len(processes("sleep 3200")) == 0 })
}

func TestListensOn(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 00000000000000000000000000000000:01BD 00000000000000000000000000000000:0000 0A 0 0 0
   3: broken
   4: 0100007F:xyz 00000000:0000 0A
`
	for port, want := range map[int]bool{8000: true, 8001: false, 445: true, 80: false, 0: false} {
		if listensOn(strings.NewReader(table), port) != want {
			t.Errorf("port %d", port)
		}
	}
}
