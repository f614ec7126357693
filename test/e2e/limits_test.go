package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A glutton takes all the memory that it can get: tail keeps the last line, which
// does not end.
var glutton = []string{"tail", "/dev/zero"}

// twoServers are vs8, to be limited, and vs9, which is to notice nothing of it: the
// second value fails the test if it has.
func twoServers(t *testing.T) (*site, func()) {
	t.Helper()
	s := &site{Host: bareHost(t)}
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id)
		add(t, s, id, "calm", []string{"sleep", "100000"})
	}
	before := s.service(t, "9", "calm")
	return s, func() {
		t.Helper()
		if now := s.service(t, "9", "calm"); now.Pid != before.Pid || now.Restarts != 0 {
			t.Errorf("beside it %+v has become %+v", before, now)
		}
		s.MustVsrun(t, "destroy", "8", "9")
	}
}

func TestMemoryLimit(t *testing.T) {
	lab.Require(t, "controller:memory")
	s, unharmed := twoServers(t)
	calm := s.service(t, "8", "calm")
	add(t, s, "8", "glutton", glutton, "--memory", "16M")
	soon(t, func() error {
		if now := s.service(t, "8", "glutton"); now.Restarts < 2 || now.Last != "signal: killed (out of memory)" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	if r := s.Vsrun("ps", "8"); !strings.Contains(r.Stdout, "(out of memory)") {
		t.Error(r)
	}
	if now := s.service(t, "8", "calm"); now.Pid != calm.Pid {
		t.Errorf("in the same virtual server %+v has become %+v", calm, now)
	}
	// What is killed by a person is not said to be starved.
	s.MustVsrun(t, "service", "rm", "8", "glutton")
	s.Run(t, "kill", "-KILL", fmt.Sprint(calm.Pid))
	soon(t, func() error {
		if now := s.service(t, "8", "calm"); now.Last != "signal: killed" {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	unharmed()
}

func TestTasksLimit(t *testing.T) {
	lab.Require(t, "controller:pids", "perl")
	s, unharmed := twoServers(t)
	const most = 20
	const bomb = `1 while defined fork; warn "$!\n"; sleep 100000`
	add(t, s, "8", "bomb", []string{"perl", "-e", bomb}, "--tasks", fmt.Sprint(most))
	soon(t, func() error {
		if n := strings.Count(s.MustVsrun(t, "logs", "8", "bomb"), "Resource temporarily unavailable"); n != most {
			return fmt.Errorf("%d processes have been refused a child", n)
		}
		return nil
	})
	if now := s.service(t, "8", "bomb"); now.Use.Tasks == nil || *now.Use.Tasks != most || alive(t, bomb) != most {
		t.Errorf("%+v, and %d processes, not %d", now, alive(t, bomb), most)
	}
	s.MustVsrun(t, "service", "rm", "8", "bomb")
	soon(t, func() error { // killed, they take a moment
		if n := alive(t, bomb); n != 0 {
			return fmt.Errorf("removed, %d of it live", n)
		}
		return nil
	})
	unharmed()
}

func TestCPULimit(t *testing.T) {
	lab.Require(t, "controller:cpu")
	s, unharmed := twoServers(t)
	const percent = 10
	began := time.Now() // before it
	add(t, s, "8", "busy", []string{"sh", "-c", "while :; do :; done"}, "--cpu", fmt.Sprint(percent, "%"))
	soon(t, func() error {
		if now := s.service(t, "8", "busy"); now.Use.Throttled == nil || *now.Use.Throttled == 0 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	used := *s.service(t, "8", "busy").Use.CPU
	if most := time.Since(began).Microseconds()*percent/100 + 100_000; used > most {
		t.Errorf("it has used %d µs, %d are allowed", used, most)
	}
	unharmed()
}

// What is used is told by stats, with ipmd and without, and as metrics.
func TestStatsOfServices(t *testing.T) {
	lab.Require(t, "controller:memory", "controller:pids", "controller:cpu")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8", "--name", "finance")
	s.MustVsrun(t, "create", "9")
	add(t, s, "8", "calm", []string{"sleep", "100000"})
	add(t, s, "8", "glutton", glutton, "--memory", "16M")
	soon(t, func() error {
		if now := s.service(t, "8", "glutton"); now.Restarts < 2 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	s.MustVsrun(t, "service", "stop", "8", "glutton")
	check := func(with string) {
		t.Helper()
		all := readStats(t, s.Host)
		of := all[0]
		if all[1].Use != nil || all[1].Services != nil || of.Use == nil || len(of.Services) != 1 || of.Services[0].Name != "calm" {
			t.Fatalf("%s: %+v", with, all)
		}
		calm := of.Services[0].Use
		if *calm.Tasks != 1 || calm.Memory == nil || calm.MemoryPeak == nil || *calm.CPU < *calm.CPUUser ||
			*of.Use.Tasks < 2 || *of.Use.CPU <= *calm.CPU || *of.Use.MemoryPeak < 15<<20 {
			t.Errorf("%s: %+v and of all %+v", with, calm, of.Use)
		}
		if kills := of.Use.OOMKills; kills != nil && *kills < 2 { // v1 has no number of all
			t.Errorf("%s: %d were killed", with, *kills)
		}
		if table := s.MustVsrun(t, "stats", "8"); !strings.Contains(table, "\n\nID  NAME     SERVICE ") || !strings.Contains(table, "finance  calm ") {
			t.Errorf("%s:\n%s", with, table)
		}
	}
	check("direct")
	startIPMD(t, s.Host)
	check("through ipmd")
	text := curlIPMD(t, s.Host, "/metrics")
	families, err := parseMetrics(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	f := families["vsrun_service_tasks"].GetMetric()
	if len(f) != 1 || f[0].GetGauge().GetValue() != 1 || label(f[0], "service") != "calm" || families["vsrun_cpu_usage_seconds_total"] == nil {
		t.Errorf("%s", text)
	}
}

// limitOf is what the kernel has in a file of a virtual server's cgroup, v2 or v1.
func limitOf(t *testing.T, id, file string) string {
	t.Helper()
	for _, top := range []string{"/sys/fs/cgroup", "/run/lab/cgroup/*"} {
		if found, _ := filepath.Glob(filepath.Join(top, "vsrun/vs"+id, file)); found != nil {
			text, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("vs%s has no %s", id, file)
	return ""
}

// Limits are changed without anybody being restarted.
func TestLimitsChange(t *testing.T) {
	lab.Require(t, "controller:pids", "controller:memory")
	s := &site{Host: bareHost(t)}
	s.MustVsrun(t, "create", "8", "--tasks", "100")
	add(t, s, "8", "calm", []string{"sleep", "100000"})
	before := s.service(t, "8", "calm")
	if got := limitOf(t, "8", "pids.max"); got != "100" {
		t.Errorf("the limit is %s", got)
	}
	for _, c := range []struct{ limits, ofOne, want, wantOfOne string }{
		{"resources: {tasks: 50}", "tasks: 7", "50", "7"}, {"", "memory: 50M", "max", "max"},
	} {
		document := "id: 8\nservices: [{name: calm, command: [sleep, \"100000\"], resources: {" + c.ofOne + "}}]\n" + c.limits
		if r := s.VsrunIn(document, "apply", "-f", "-"); r.Code != 0 {
			t.Fatal(r)
		}
		if got := limitOf(t, "8", "pids.max"); got != c.want {
			t.Errorf("after %q the limit is %s", c.limits, got)
		}
		if got := limitOf(t, "8", "calm.service/pids.max"); got != c.wantOfOne {
			t.Errorf("after %q that of the service is %s", c.ofOne, got)
		}
		if r := s.Vsrun("diff", "8"); r.Code != 0 {
			t.Error(r)
		}
	}
	if now := s.service(t, "8", "calm"); now.Pid != before.Pid {
		t.Errorf("%+v has become %+v", before, now)
	}
}

func TestIOLimit(t *testing.T) {
	lab.Require(t, "controller:io", "disk")
	s, unharmed := twoServers(t)
	const rate = 200_000
	began := time.Now()
	reader := []string{"sh", "-c", "while :; do dd if=/usr/bin/perl of=/dev/null bs=20k iflag=direct; done"}
	add(t, s, "8", "reader", reader, "--io", fmt.Sprint("/usr read ", rate))
	for n := int64(0); n < 3*rate; {
		now := s.service(t, "8", "reader")
		if now.Use.ReadBytes == nil {
			t.Fatalf("nobody counts: %+v", now)
		}
		n = *now.Use.ReadBytes
		if most := time.Since(began).Seconds()*rate + rate; float64(n) > most {
			t.Fatalf("it has read %d bytes, %.0f are allowed", n, most)
		}
		time.Sleep(10 * time.Millisecond)
	}
	unharmed()
}

// What takes more memory than its virtual server may have takes nobody else's: all
// but the glutton go on, in both.
func TestMemoryOfOneServerAlone(t *testing.T) {
	lab.Require(t, "controller:memory", "nginx", "curl")
	s := newSite(t)
	pids := map[string]int{}
	shares := map[string]share{}
	for _, id := range []string{"8", "9"} {
		s.MustVsrun(t, "create", id, "--no-probe", "--port", "eth1", "--address", "192.0.2."+id+"/24", "--memory", "64M")
		share, command := nginx(t, s)
		add(t, s, id, "web", command, "--capability", "nginx")
		serves(t, s.client, "http://192.0.2."+id+"/report", share)
		pids[id], shares[id] = s.service(t, id, "web").Pid, share
	}
	calm := s.longest(t, shares["9"], func(round int) bool { return round < 10 })
	add(t, s, "8", "glutton", glutton)
	worst := s.longest(t, shares["9"], func(int) bool { return s.service(t, "8", "glutton").Restarts < 3 })
	if now := s.service(t, "8", "glutton"); !strings.Contains(now.Last, "out of memory") {
		t.Errorf("%+v", now)
	}
	t.Logf("a fetch from the other took %v at most before, %v while the one was short of memory", calm, worst)
	for id, pid := range pids {
		if now := s.service(t, id, "web"); now.Pid != pid {
			t.Errorf("in vs%s process %d has become %+v", id, pid, now)
		}
		serves(t, s.client, "http://192.0.2."+id+"/report", shares[id])
	}
	// What cannot wait may exceed the limit a little (mm/memcontrol.c, try_charge_memcg, force).
	const limit, excess = 64 << 20, 4 << 20
	if peak := s.show(t, "8").Use.MemoryPeak; peak == nil || *peak > limit+excess {
		t.Errorf("it has had %s bytes, and may have %d", optional(peak), limit)
	}
}

func optional(n *int64) string {
	if n == nil {
		return "no"
	}
	return fmt.Sprint(*n)
}

// longest fetches vs9's share as long as it is wanted to, without any failure, and
// returns how long one took at most.
func (s *site) longest(t *testing.T, want share, wanted func(round int) bool) (most time.Duration) {
	t.Helper()
	for round := 0; wanted(round); round++ {
		began := time.Now()
		if sum, err := fetch(t, s.client, "http://192.0.2.9/report"); err != nil || sum != want.sum {
			t.Fatalf("fetch %d: another file, or none: %v", round, err)
		}
		most = max(most, time.Since(began))
	}
	return most.Round(time.Millisecond)
}
