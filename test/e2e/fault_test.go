package e2e_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

// faultsVar says how many of the faults are tried: each n-th, from the k-th on (n/k), or
// all (1). Without it, so many that each system call that changes something is killed at
// once in each program, and fails once in vsrun.
const faultsVar = "VSRUN_FAULTS"

const faultDocument = `
id: 8
interfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24, "2001:db8::8/64"], gateways: [192.0.2.1]}]
routes: [{to: 198.51.100.0/24, via: 192.0.2.7}]
volumes: [{path: /srv, type: tmpfs, size: 1M}]
files: [{path: /run/own, content: text}]
resources: {tasks: 100}
services:
- {name: one, command: [sleep, "100000"], private: [/run/one], sockets: [{stream: "80"}]}
`

// changedDocument has something else of everything that may change while it runs.
var changedDocument = strings.NewReplacer("192.0.2.8/24", "192.0.2.9/24", "192.0.2.7", "192.0.2.6", "text", "other",
	"tasks: 100", "tasks: 99", "services:", "services:\n- {name: two, command: [sleep, \"100001\"]}").Replace(faultDocument)

const (
	vlanDocument        = "id: 8\ninterfaces: [{name: eth0, port: eth1, vlan: [100, 10], addresses: [192.0.2.8/24]}]\n"
	portDocument8       = "ports: [{name: bond0, mode: active-backup, members: [eth1, eth2]}]"
	changedPortDocument = "ports: [{name: bond0, mode: balance-rr, members: [eth2, eth3], mtu: 1300}]"
)

// An operation is a command that is made to fail.
type operation struct {
	doc, args string
	from      string // what there is before: a document, "" for nothing
	then      string // a command that follows it
	halves    bool   // after an error some of it may be done: it takes down what it can
	clear     string // what takes all of it away; empty: destroy 8
}

var operations = []operation{
	{doc: faultDocument, args: "create --no-probe -f -"},
	{args: "create 8 --no-probe --port eth1 --address 192.0.2.8/24"},
	{args: "attach 8 --no-probe --port eth1 --address 203.0.113.8/24 --gateway 203.0.113.1", from: faultDocument},
	{args: "detach 8 eth0", from: faultDocument},
	{doc: changedDocument, args: "apply --no-probe -f -", from: faultDocument},
	{args: "service add 8 two -- sleep 100001", from: faultDocument},
	{args: "service rm 8 one", from: faultDocument},
	{args: "enable 8 --no-probe", from: faultDocument, then: "disable 8"},
	{args: "disable 8", from: faultDocument, halves: true},
	{args: "destroy 8", from: faultDocument, halves: true},
}

var portOperations = []operation{
	{args: "port create bond0 --members eth1,eth2 --mode active-backup", clear: "port destroy bond0"},
	{args: "port destroy bond0", from: portDocument8, halves: true, clear: "port destroy bond0"},
	{doc: changedPortDocument, args: "apply -f -", from: portDocument8, clear: "port destroy bond0"},
	{doc: vlanDocument, args: "create --no-probe -f -"},
	{args: "destroy 8", from: vlanDocument, halves: true},
}

var errnos = []syscall.Errno{syscall.ENOMEM, syscall.EBUSY, syscall.ENOSPC, syscall.EPERM, syscall.EIO}

// Whatever call fails, and wherever a command is killed: the same command completes when
// it is run again, nothing is left that should not be, and after an error all is as it was.
func TestFaults(t *testing.T) { faults(t, newSite(t), operations) }

// The same of what the host's devices are changed by.
func TestFaultsOfPorts(t *testing.T) {
	lab.Require(t, "kind:vlan")
	faults(t, newPortSite(t), portOperations)
}

func faults(t *testing.T, s *site, operations []operation) {
	lab.Require(t, "cgroup2") // an init that is killed leaves no process behind
	struck := map[string]bool{}
	every, from := 0, 0
	if all := os.Getenv(faultsVar); all != "" {
		n, k, _ := strings.Cut(all, "/")
		every, _ = strconv.Atoi(n)
		from, _ = strconv.Atoi(k)
	}
	for _, op := range operations {
		m := matrix{site: s, operation: op}
		calls := m.record(t)
		kills, failures := 0, 0
		for k, call := range calls {
			due := every > 0 && k%every == from
			if call.Changes && !call.Message && (due || every == 0 && !struck["kill "+call.Kind]) {
				struck["kill "+call.Kind] = true
				m.strike(t, fault.Fault{Call: k + 1})
				kills++
			}
			first := every == 0 && call.Changes && strings.HasPrefix(call.Kind, "vsrun") && !struck[call.Kind]
			if due && !struck[op.args+call.Words] || first {
				struck[call.Kind], struck[op.args+call.Words] = true, true
				m.strike(t, fault.Fault{Call: k + 1, Errno: errnoFor(k, call)})
				failures++
			}
		}
		t.Logf("%s: %d calls, killed at %d of them, %d made to fail", op.args, len(calls), kills, failures)
	}
}

// errnoFor is each of them in turn, but for what a hierarchy of another's says.
func errnoFor(k int, call fault.Call) syscall.Errno {
	errno := errnos[k%len(errnos)]
	if errno == syscall.EPERM && strings.Contains(call.Words, "cgroup") {
		return syscall.ENOMEM
	}
	return errno
}

// A matrix strikes one operation in all ways.
type matrix struct {
	*site
	operation
	before, after string // the host, as it should be
}

func (m *matrix) prepare(t *testing.T) {
	t.Helper()
	if m.from != "" {
		m.must(t, m.VsrunIn(m.from, "apply", "--no-probe", "-f", "-"))
	}
	if m.then != "" {
		m.MustVsrun(t, strings.Fields(m.then)...)
	}
}

func (m *matrix) start(t *testing.T, f fault.Fault) fault.Run {
	t.Helper()
	r, err := fault.Start(f, m.doc, append([]string{filepath.Join(lab.Programs(t), "vsrun")}, strings.Fields(m.args)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// record runs it without a fault.
func (m *matrix) record(t *testing.T) []fault.Call {
	t.Helper()
	m.prepare(t)
	m.before = m.state(t)
	r := m.start(t, fault.Fault{})
	if r.Code != 0 {
		t.Fatalf("%s: %s", m.args, r.Output)
	}
	m.after = m.state(t)
	m.remove(t, "without a fault")
	return r.Calls
}

// state is all that there is, without what differs each time.
func (m *matrix) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(m.Leaks()) {
		if !passing.MatchString(line) {
			b.WriteString(individual.ReplaceAllString(line, "$1"))
		}
	}
	for _, path := range []string{"vs8.json", "port-bond0.json"} {
		text, _ := os.ReadFile(filepath.Join(m.StateDir, path))
		b.Write(text)
	}
	return b.String()
}

// passing is what comes or goes a little later: the test's listener, addresses that the
// kernel makes, the init's end of a connection whose other end is closed.
var passing = regexp.MustCompile(`seccomp notify|=fe80::|^socket .*init\.sock`)

// individual is what one process or namespace differs in from another of its kind.
var individual = regexp.MustCompile(`^(process +\S) \d+| \(born \d+\)|net:\[\d+\]|^file .*\.log .*\n`)

// strike runs it with a fault, and again without.
func (m *matrix) strike(t *testing.T, f fault.Fault) {
	t.Helper()
	m.prepare(t)
	r := m.start(t, f)
	what := fmt.Sprintf("%s\n%s befalls call %d, %s: exit status %d\n%s", m.args, name(f), f.Call, r.Struck, r.Code, r.Output)
	if os.Getenv(faultsVar) != "" { // what hangs is the last
		t.Log(what)
	}
	atomic := f.Errno != 0 || m.from == "" && strings.HasPrefix(r.Struck, "vs-init")
	if r.Struck != "" && atomic && !m.halves && r.Code != 0 {
		if d := differing(m.before, m.state(t)); d != "" {
			t.Errorf("%safter the error (-before +now):\n%s", what, d)
		}
	}
	m.again(t, what, strings.HasPrefix(r.Struck, "vs-init"))
}

// again runs it once more, and looks whether all is as it should be. patient: a service
// that was killed when it was about to start is started again.
func (m *matrix) again(t *testing.T, what string, patient bool) {
	t.Helper()
	if again := m.VsrunIn(m.doc, strings.Fields(m.args)...); again.Code != 0 {
		t.Errorf("%sand again: %v", what, again)
	}
	if r := m.Vsrun("gc"); r.Code != 0 || r.Stdout != "nothing to remove\n" || r.Stderr != "" {
		t.Errorf("%sthen: %v", what, r)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, d := m.Vsrun("diff"), differing(m.after, m.state(t))
		if r.Code == 0 && d == "" {
			break
		}
		if !patient || time.Now().After(end) {
			t.Errorf("%sthen: %v\nand again (-as it should be +now):\n%s", what, r, d)
			break
		}
	}
	m.remove(t, what)
}

// differing are the lines that one has and the other has not.
func differing(want, got string) string {
	var b strings.Builder
	for _, d := range []struct{ sign, a, b string }{{"-", want, got}, {"+", got, want}} {
		for line := range strings.Lines(d.a) {
			if strings.Count(d.a, line) > strings.Count(d.b, line) {
				b.WriteString(d.sign + line)
			}
		}
	}
	return b.String()
}

func name(f fault.Fault) string {
	if f.Errno == 0 {
		return "SIGKILL"
	}
	return f.Errno.Error()
}

// remove leaves nothing.
func (m *matrix) remove(t *testing.T, what string) {
	t.Helper()
	m.MustVsrun(t, strings.Fields(cmp.Or(m.clear, "destroy 8"))...)
	if left := m.state(t); left != "" {
		t.Fatalf("%s: destroyed, it leaves\n%s", what, left)
	}
}
