package e2e_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/test/lab"
)

// An asked is the model of what should be: what the commands that succeeded have asked for.
type asked map[int]*askedServer

type askedServer struct {
	disabled   bool
	interfaces map[string]string // its address, by name; all are on eth1
	services   map[string]string // running or stopped, by name
}

// An askedStep is one command on one virtual server, and how it has to end.
type askedStep struct {
	id   int
	args string
	doc  string
	code int
	then func() // what has changed when it succeeds
}

// Any sequence of commands, some at once, and what people do to namespaces and inits
// meanwhile, leaves what was asked for. More of it: -rapid.checks=100 -rapid.steps=50.
func TestAnySequence(t *testing.T) {
	lab.Require(t, "cgroup2")
	flags := map[string]string{"rapid.checks": "2", "rapid.steps": "12"}
	flag.Visit(func(f *flag.Flag) { delete(flags, f.Name) })
	for name, value := range flags {
		was := flag.Lookup(name).Value.String()
		flag.Set(name, value)
		t.Cleanup(func() { flag.Lookup(name).Value.Set(was) })
	}
	s := newSite(t)
	rapid.Check(t, func(t *rapid.T) {
		if r := s.Vsrun("destroy", "8", "9", "10"); r.Code != 0 {
			t.Fatal(r)
		}
		m := asked{}
		t.Repeat(map[string]func(*rapid.T){
			"one": func(t *rapid.T) { m.run(t, s, m.draw(t, 8+rapid.IntRange(0, 2).Draw(t, "id"), true)) },
			"some at once": func(t *rapid.T) {
				m.run(t, s, m.draw(t, 8, false), m.draw(t, 9, false), m.draw(t, 10, false))
			},
			"":        func(t *rapid.T) { m.holds(t, s) },
			"meddle":  func(t *rapid.T) { m.meddle(t, s) },
			"dry run": func(t *rapid.T) { m.dryRun(t, s) },
		})
	})
}

// draw is a command on one virtual server. One that wants what others might have is
// not run at the same time as theirs.
func (m asked) draw(t *rapid.T, id int, alone bool) askedStep {
	step := askedStep{id: id, then: func() {}}
	vs := m[id]
	name := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "service")
	dev := rapid.SampledFrom([]string{"eth0", "lan", "wan"}).Draw(t, "interface")
	address := fmt.Sprintf("192.0.2.%d/24", 10*id+rapid.IntRange(0, 2).Draw(t, "address"))
	if alone && rapid.Bool().Draw(t, "shared address") {
		address = "192.0.2.30/24"
	}
	verb := rapid.SampledFrom([]string{"create", "create", "apply", "attach", "attach", "detach", "enable", "disable", "destroy",
		"service add", "service add", "service rm", "service stop", "service start", "exec"}).Draw(t, "command")
	if vs == nil && verb != "create" && verb != "apply" && verb != "destroy" {
		step.code = 3
	}
	switch verb {
	case "create":
		disabled := rapid.Bool().Draw(t, "disabled")
		step.args = fmt.Sprintf("create %d --no-probe --port eth1 --address %s", id, address)
		if disabled {
			step.args += " --disabled"
		}
		want := &askedServer{disabled, map[string]string{"eth0": address}, map[string]string{}}
		switch {
		case vs == nil && m.taken(id, address), vs != nil && !vs.same(want):
			step.code = 1
		case vs == nil:
			step.then = func() { m[id] = want }
		}
	case "apply":
		step.args = "apply --no-probe -f -"
		step.doc = fmt.Sprintf("id: %d\ninterfaces: [{name: %s, port: eth1, addresses: [%s]}]\nservices: [{name: %s, command: [sleep, \"100000\"]}]\n", id, dev, address, name)
		want := &askedServer{false, map[string]string{dev: address}, map[string]string{name: "running"}}
		if vs != nil && !vs.disabled && vs.services[name] == "stopped" { // it stays so
			want.services[name] = "stopped"
		}
		step.then = func() { m[id] = want }
		if m.taken(id, address) {
			step.code = 1
		}
	case "attach":
		step.args = fmt.Sprintf("attach %d --no-probe --port eth1 --ifname %s --address %s", id, dev, address)
		if vs == nil {
			break
		}
		there, twice := vs.interfaces[dev], slices.Contains(slices.Collect(maps.Values(vs.interfaces)), address)
		switch {
		case there == address:
		case there != "" || twice:
			step.code = 2
		case m.taken(id, address):
			step.code = 1
		}
		step.then = func() { vs.interfaces[dev] = address }
	case "detach":
		step.args = fmt.Sprintf("detach %d %s", id, dev)
		step.then = func() { delete(vs.interfaces, dev) }
	case "enable":
		step.args = fmt.Sprintf("enable %d --no-probe", id)
		step.then = func() { vs.disabled = false }
	case "disable":
		step.args = fmt.Sprintf("disable %d", id)
		step.then = func() { vs.disabled = true; vs.startAll() }
	case "destroy":
		step.args = fmt.Sprintf("destroy %d", id)
		step.then = func() { delete(m, id) }
	case "service add":
		step.args = fmt.Sprintf("service add %d %s -- sleep 100000", id, name)
		if vs != nil && vs.services[name] == "" {
			step.then = func() { vs.services[name] = "running" }
		}
	case "service rm":
		step.args = fmt.Sprintf("service rm %d %s", id, name)
		step.then = func() { delete(vs.services, name) }
	case "service stop", "service start":
		step.args = fmt.Sprintf("%s %d %s", verb, id, name)
		if vs != nil && (vs.disabled || vs.services[name] == "") {
			step.code = 1
		}
		state := map[string]string{"service stop": "stopped", "service start": "running"}[verb]
		step.then = func() { vs.services[name] = state }
	case "exec":
		step.args = fmt.Sprintf("exec %d -- true", id)
		if vs != nil && vs.disabled {
			step.code = 1
		}
	}
	return step
}

func (vs *askedServer) same(other *askedServer) bool {
	return vs.disabled == other.disabled && maps.Equal(vs.interfaces, other.interfaces) &&
		slices.Equal(slices.Sorted(maps.Keys(vs.services)), slices.Sorted(maps.Keys(other.services)))
}

// startAll: a new init starts all that there are.
func (vs *askedServer) startAll() {
	for name := range vs.services {
		vs.services[name] = "running"
	}
}

// taken reports whether another one has the address, or did not give it up.
func (m asked) taken(id int, address string) bool {
	for other, vs := range m {
		if other != id && slices.Contains(slices.Collect(maps.Values(vs.interfaces)), address) {
			return true
		}
	}
	return false
}

// run runs the commands at once.
func (m asked) run(t *rapid.T, s *site, steps ...askedStep) {
	results := make([]lab.Result, len(steps))
	var all sync.WaitGroup
	for k, step := range steps {
		word := "$ "
		if step.doc != "" {
			word += fmt.Sprintf("printf '%s' | ", strings.ReplaceAll(step.doc, "\n", `\n`))
		}
		if k > 0 {
			word = "and at once: " + word
		}
		t.Logf("%svsrun %s", word, step.args)
		all.Go(func() { results[k] = s.VsrunIn(step.doc, strings.Fields(step.args)...) })
	}
	all.Wait()
	for k, step := range steps {
		if results[k].Code != step.code {
			t.Fatalf("%v\nnot %d", results[k], step.code)
		}
		if step.code == 0 {
			step.then()
		}
	}
}

// meddle does to a virtual server what only people do, and mends it.
func (m asked) meddle(t *rapid.T, s *site) {
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(id int) bool { return m[id].disabled })
	if len(ids) == 0 {
		t.Skip("none is enabled") // rapid draws another step
	}
	id := rapid.SampledFrom(ids).Draw(t, "id")
	vs, ns := m[id], fmt.Sprintf("vs%d", id)
	what := rapid.SampledFrom([]string{"ip netns del NS", "ip -n NS link set lo down", "ip -n NS link del eth0", "ip -n NS addr flush dev eth0",
		"ip -n NS link set eth0 down", "ip -n NS link set eth0 alias ''", "ip -n NS link set eth0 down name other", "kill the init", "rm -r RUN/NS", "umount -l /run/netns/NS"}).Draw(t, "what")
	what = strings.NewReplacer("NS", ns, "RUN", s.RunDir).Replace(what)
	t.Logf("$ %s", what)
	had := hasInit(s, ns)
	switch {
	case what == "kill the init":
		if killInit(s, ns) == nil {
			vs.startAll()
		}
	default:
		_ = exec.Command("sh", "-c", what).Run() // it may not have what is to be changed
	}
	if strings.HasPrefix(what, "rm -r") && had { // nobody can ask it for anything any more
		vs.startAll()
	}
	m.run(t, s, askedStep{id: id, args: fmt.Sprintf("enable %d --no-probe", id), then: func() {}})
}

func hasInit(s *site, ns string) bool {
	c, err := service.Dial(filepath.Join(s.RunDir, ns, "init.sock"))
	if err == nil {
		c.Close()
	}
	return err == nil
}

func killInit(s *site, ns string) error {
	c, err := service.Dial(filepath.Join(s.RunDir, ns, "init.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	return syscall.Kill(c.Pid(), syscall.SIGKILL)
}

// dryRun changes nothing.
func (m asked) dryRun(t *rapid.T, s *site) {
	step := m.draw(t, 8, false)
	if verb, _, _ := strings.Cut(step.args, " "); verb != "create" && verb != "attach" && verb != "apply" {
		t.Skip("it has no dry run") // rapid draws another step
	}
	step.args = strings.Replace(step.args, " --no-probe", " --dry-run", 1)
	step.then = func() {}
	m.run(t, s, step)
}

// holds compares the model with what vsrun says, and with the kernel.
func (m asked) holds(t *rapid.T, s *site) {
	var namespaces []string
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if !m[id].disabled {
			namespaces = append(namespaces, fmt.Sprintf("vs%d", id))
		}
		if err := m[id].holds(s, id); err != nil {
			t.Fatalf("vs%d: %v", id, err)
		}
	}
	entries, _ := os.ReadDir(s.NetnsDir)
	var have []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "vs") {
			have = append(have, e.Name())
		}
	}
	slices.Sort(have)
	slices.Sort(namespaces)
	if !slices.Equal(have, namespaces) {
		t.Fatalf("namespaces %v, not %v", have, namespaces)
	}
	for _, args := range []string{"diff", "gc --dry-run"} {
		if r := s.Vsrun(strings.Fields(args)...); r.Code != 0 || args != "diff" && r.Stdout != "nothing to remove\n" {
			t.Fatal(r)
		}
	}
}

func (vs *askedServer) holds(s *site, id int) error {
	var got shown
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r := s.Vsrun("show", fmt.Sprint(id), "-o", "json")
		if r.Code != 0 {
			return errors.New(r.String())
		}
		got, err = unmarshalled[shown](r.Stdout)
		if err != nil {
			return err
		}
		if err = vs.matches(got); err == nil {
			break
		}
		if vs.disabled || !strings.Contains(err.Error(), "starting") {
			return err
		}
	}
	if err != nil || vs.disabled {
		return err
	}
	for name, address := range vs.interfaces { // the kernel's own word
		r := s.TryRun("ip", "-n", fmt.Sprintf("vs%d", id), "-o", "addr", "show", "dev", name)
		if !strings.Contains(r.Stdout, " "+address+" ") {
			return fmt.Errorf("%s has %s", name, r.Stdout)
		}
	}
	return nil
}

// matches tells what differs.
func (vs *askedServer) matches(got shown) error {
	state := map[bool]string{true: "disabled", false: "enabled"}[vs.disabled]
	interfaces, services := map[string]string{}, map[string]string{}
	for _, i := range got.Interfaces {
		interfaces[i.Name] = strings.Join(i.Addresses, " ")
	}
	for _, one := range got.Services {
		services[one.Name] = one.State
	}
	want := maps.Clone(vs.services)
	if vs.disabled {
		for name := range want {
			want[name] = "stopped"
		}
	}
	if got.State != state || !maps.Equal(interfaces, vs.interfaces) || !maps.Equal(services, want) {
		return fmt.Errorf("it is %s with %v, %v, drift %v; not %s with %v, %v", got.State, interfaces, services, got.Drift, state, vs.interfaces, want)
	}
	return nil
}
