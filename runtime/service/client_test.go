package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

func TestDialNobody(t *testing.T) {
	v := up(t)
	for _, socket := range []string{v.socket + ".absent", "/run/absent/init.sock"} {
		if _, err := Dial(socket); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", socket, err)
		}
	}
	// A killed init leaves its socket, and the next one takes its place.
	if err := unix.Kill(v.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := v.init.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(v.socket); err != nil {
		t.Fatalf("no stale socket: %v", err)
	}
	if _, err := Dial(v.socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stale: %v", err)
	}
	old := v.Client
	v.begin()
	// A client of the old one neither talks to the new one nor takes its socket.
	if _, err := old.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("the old client: %v", err)
	}
	if killed, err := old.Shutdown(t.Context(), 0); err != nil || killed != nil {
		t.Errorf("the old client: %q, %v", killed, err)
	}
	if _, err := v.Status(t.Context()); err != nil {
		t.Errorf("the new client: %v", err)
	}
}

func TestContextEnds(t *testing.T) {
	v := up(t)
	if err := unix.Kill(v.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := v.Status(ctx); !errors.Is(err, ErrSilent) {
		t.Errorf("Status: %v", err)
	}
	c, err := Dial(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if in, err := c.InNamespace(v.ns); !in || err != nil {
		t.Errorf("InNamespace: %v, %v", in, err)
	}
	if _, err := c.Exec(t.Context(), []string{"true"}, nil, nil, nil, nil); err != nil {
		t.Errorf("Exec: %v", err)
	}
	if err := unix.Kill(v.Pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Status(t.Context()); err != nil {
		t.Errorf("awake: %v", err)
	}
}

func TestManyClients(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"), sh("b", "exec sleep 1000"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for range 10 {
				err := []func() error{
					func() error { _, err := v.Status(context.Background()); return err },
					func() error { return v.RestartService(context.Background(), "a") },
					func() error { return v.StopService(context.Background(), "b") },
					func() error { return v.StartService(context.Background(), "b") },
				}[i%4]()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := v.StartService(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if a, b := v.unit("a"), v.unit("b"); a.State != Running || b.State != Running {
		t.Errorf("%+v, %+v", a, b)
	}
}

// starterRole starts an init as the environment says, and is killed by the test
// somewhere on the way. Its output is the init's process id.
func starterRole() error {
	var b boot
	if err := json.Unmarshal([]byte(os.Getenv("BOOT")), &b); err != nil {
		return err
	}
	ns, err := nsutil.New()
	if err != nil {
		return err
	}
	if os.Getenv("SEND") == "" {
		fmt.Println("starting")
		_, err := Start(context.Background(), ns, "/proc/self/exe", b.Socket, b.Config)
		fmt.Println(err)
		return err
	}
	n, err := strconv.Atoi(os.Getenv("SEND"))
	if err != nil {
		return err
	}
	configR, configW, err := os.Pipe()
	if err != nil {
		return err
	}
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return err
	}
	p, err := clone(ns, "/proc/self/exe", b.Config.ID, nil, []*os.File{2: os.Stderr, configFd: configR, answerFd: answerW}, nil)
	if err != nil {
		return err
	}
	defer answerR.Close()
	answerW.Close()
	text, _ := json.Marshal(b)
	configW.Write(text[:len(text)*n/100])
	fmt.Println(p.Pid)
	select {}
}

func starter(t *testing.T, v *virtual, send string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	b, err := newBoot(v.cfg, v.socket)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(v.cfg.LogDir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := again("starter")
	cmd.Env = append(cmd.Env, "BOOT="+string(text), "SEND="+send)
	cmd.Stdout, cmd.Stderr = nil, nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// A starter that dies before it has sent everything, or before it is told that
// the init listens, leaves no init.
func TestStarterDies(t *testing.T) {
	for _, send := range []string{"0", "1", "50", "99", "100"} {
		v := plan(t)
		cmd, out := starter(t, v, send)
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		eventually(t, "no init after "+send+" per cent", func() bool { return !exists(pid) })
		if _, err := os.Lstat(v.socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %s per cent there is a socket: %v", send, err)
		}
	}
}

// Killed at any instant of Start, a starter leaves nothing or an init that can
// be found.
func TestStarterDiesAnywhere(t *testing.T) {
	found := 0
	for range 100 {
		v := plan(t)
		cmd, out := starter(t, v, "")
		out.ReadString('\n')
		<-time.After(time.Duration(rand.IntN(16000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		title := "vs-init vs" + strconv.Itoa(v.cfg.ID) + " "
		eventually(t, "nothing or an init that can be found", func() bool {
			c, err := Dial(v.socket)
			if err != nil {
				return errors.Is(err, ErrNotRunning) && len(processes(title)) == 0
			}
			defer c.Close()
			found++
			if err := c.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			return len(processes(title)) == 0
		})
	}
	t.Logf("an init was found %d times of 100", found)
}

// Of starters at once one succeeds.
func TestStartersRace(t *testing.T) {
	v := plan(t)
	var all sync.WaitGroup
	clients := make(chan *Client, 8)
	for range cap(clients) {
		all.Go(func() {
			c, err := Start(context.Background(), v.ns, "/proc/self/exe", v.socket, v.cfg)
			switch {
			case err == nil:
				clients <- c
			case !strings.Contains(err.Error(), "another init listens there"):
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(clients)
	if len(clients) != 1 {
		t.Errorf("%d have succeeded", len(clients))
	}
	for c := range clients {
		if err := c.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// askRole asks an init for its status in one's own name, and prints the answer.
func askRole() error {
	conn, err := connect(os.Getenv("SOCKET"))
	if err != nil {
		return err
	}
	_, err = roundTrip(context.Background(), conn, request{Op: opStatus})
	fmt.Println(err)
	return nil
}

func TestPeers(t *testing.T) {
	v := plan(t)
	v.socket = v.dir + "/init.sock" // where it can be seen
	v.begin()
	if fi, err := os.Stat(v.socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", fi.Mode(), err)
	}
	got, code := v.run("env", roleVar+"=ask", "SOCKET="+v.socket, binary)
	if want := "a virtual server's own processes may not command it\n"; !strings.HasPrefix(got, want) || code != 0 {
		t.Errorf("from inside: %q, %d", got, code)
	}
	lab.NeedRoot(t, "another user is to ask")
	if err := os.Chmod(v.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := again("ask")
	cmd.Env = append(cmd.Env, "SOCKET="+v.socket)
	cmd.Stdout = nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
	out, err := cmd.Output()
	if want := "user 65534 may not command this virtual server\n"; !strings.HasPrefix(string(out), want) || err != nil {
		t.Errorf("from another user: %q, %v", out, err)
	}
}
