package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/test/lab"
	"golang.org/x/sys/unix"
)

// budget is what an init at rest may have resident, in KiB.
const budget = 4608

// There is an init for every virtual server, so each package it contains is
// paid for a thousand times.
func TestLean(t *testing.T) {
	lab.Require(t, "go")
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	for _, p := range []string{"net", "net/http", "crypto", "text/template", "os/exec", "regexp", "math/big"} {
		if slices.Contains(packages, p) {
			t.Errorf("vs-init contains %s", p)
		}
	}
	for _, p := range packages {
		host, _, _ := strings.Cut(p, "/")
		ours := strings.HasPrefix(p, "github.com/vsrun/") || strings.HasPrefix(p, "golang.org/x/sys/")
		small := p == "github.com/moby/sys/capability" || p == "golang.org/x/net/bpf"
		if strings.Contains(host, ".") && !ours && !small {
			t.Errorf("vs-init contains %s", p)
		}
	}
}

var ctx = context.Background()

const insideVar = "VSRUN_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) == "" {
		os.Exit(m.Run())
	}
	if err := measure(os.Getenv(insideVar)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestMemory measures the real program, in a host of its own.
func TestMemory(t *testing.T) {
	lab.Require(t, "go")
	program := filepath.Join(t.TempDir(), "vs-init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-gcflags=all=-l", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: without libc
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), insideVar+"="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// measure keeps an init busy and prints what it has resident, and how long it
// takes to start.
func measure(program string) error {
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC},
		{"tmpfs", "/run", "tmpfs", 0},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/sys/fs/cgroup", "tmpfs", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	const count = 20 // a host has many; they share the program's pages
	var took []time.Duration
	var c *service.Client
	for id := 1; id <= count; id++ {
		ns, err := nsutil.New()
		if err != nil {
			return err
		}
		begin := time.Now()
		c, err = service.Start(ctx, ns, program, fmt.Sprintf("/run/%d.sock", id), service.Config{
			ID: id, NetnsDir: "/run/netns", LogDir: fmt.Sprintf("/run/log/%d", id), PrivateDir: "/run/private",
		})
		if err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	fmt.Printf("from Start to ready: median %s, longest %s\n", took[count/2], took[count-1])
	if err := report("new", c.Pid(), budget); err != nil {
		return err
	}
	if err := work(c); err != nil {
		return err
	}
	if err := report("at work", c.Pid(), 2*budget); err != nil {
		return err
	}
	// It gives memory back when nothing has happened for a second; the runtime goes
	// on with that for a while.
	var over error
	for range 10 {
		<-time.After(2 * time.Second)
		if over = report("after work", c.Pid(), budget); over == nil {
			break
		}
	}
	if over != nil {
		return over
	}
	// What was given back comes again with the first request.
	for _, when := range []string{"the first request", "the next"} {
		begin := time.Now()
		if _, err := c.Status(ctx); err != nil {
			return err
		}
		fmt.Printf("%s took %s\n", when, time.Since(begin))
	}
	return c.Kill(ctx)
}

// work has the init do what it does in months.
func work(c *service.Client) error {
	var list []service.Service
	for i := range 9 {
		list = append(list, service.Service{
			Name: "s" + strconv.Itoa(i), Command: []string{"sleep", "1000"},
			Sockets: []service.Socket{{Stream: "@s" + strconv.Itoa(i)}},
		})
	}
	for i := range 20 {
		list[i%9].Command[1] = strconv.Itoa(2000 + i)
		interval := 5 * time.Millisecond // all are checked all the time, and in the end seldom
		if i > 10 {
			interval = time.Minute
		}
		list[i%9].Health = service.Health{Command: []string{"true"}, Interval: service.Duration(interval)}
		if err := c.Set(ctx, list); err != nil {
			return err
		}
		if _, err := c.Order(ctx, service.OrderRestart, "s1"); err != nil {
			return err
		}
		for range 50 {
			if _, err := c.Status(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// report prints the memory of the process, and objects when it is over the limit
// in KiB.
func report(when string, pid, limit int) error {
	figures := map[string]int{} // KiB
	for _, file := range []string{"status", "smaps_rollup"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) == 3 {
				figures[fields[0]], _ = strconv.Atoi(fields[1])
			}
		}
	}
	fmt.Printf("%s: resident %d KiB (anonymous %d, file %d), proportional %d, private dirty %d\n", when,
		figures["VmRSS:"], figures["RssAnon:"], figures["RssFile:"], figures["Pss:"], figures["Private_Dirty:"])
	if figures["VmRSS:"] > limit {
		return fmt.Errorf("%s: %d KiB resident, %d are allowed", when, figures["VmRSS:"], limit)
	}
	return nil
}
