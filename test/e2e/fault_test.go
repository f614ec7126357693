package e2e_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/fault"
	"github.com/vsrun/vsrun/test/lab"
)

// faultsVar says which faults are tried: all; all kills, and each error of each kind of call
// once in each operation (first), or the other errors (repeats); or those of calls with such
// words. And of these each (1), or each n-th from the k-th on (n/k), so that several may go
// through them side by side. Without it, so many that each system call that changes something
// is killed at once, and fails once, in vsrun or a daemon, and is killed at once in the init.
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

// An operation is a command that is made to fail, or a daemon.
type operation struct {
	doc, args string
	from      string // what there is before: a document, "" for nothing
	then      string // what a shell does after that
	halves    bool   // after an error some of it may be done
	litter    bool   // and gc finds the rest: it takes down what it can
	clear     string // what takes all of it away; empty: destroy 8

	program string                                    // empty: vsrun
	work    func(*testing.T, *matrix, *fault.Program) // what is done with a daemon, and how it is ended
}

var operations = []operation{
	{doc: faultDocument, args: "create --no-probe -f -"},
	{args: "create 8 --no-probe --port eth1 --address 192.0.2.8/24"},
	{args: "attach 8 --no-probe --port eth1 --address 203.0.113.8/24 --gateway 203.0.113.1", from: faultDocument},
	{args: "detach 8 eth0", from: faultDocument},
	{doc: changedDocument, args: "apply --no-probe -f -", from: faultDocument},
	{args: "service add 8 two -- sleep 100001", from: faultDocument},
	{args: "service rm 8 two", from: changedDocument},
	{args: "enable 8 --no-probe", from: faultDocument, then: "vsrun disable 8"},
	{args: "exec 8 -- true", from: faultDocument, then: "vsrun exec 8 -- true"}, // which makes the cgroup for that
	{args: "exec 8 -- true", from: "{id: 8}", halves: true},                     // the init that is started stays
	{args: "disable 8", from: faultDocument, halves: true, litter: true},
	{args: "destroy 8", from: faultDocument, halves: true, litter: true},
}

var portOperations = []operation{
	{args: "port create bond0 --members eth1,eth2 --mode active-backup", clear: "port destroy bond0"},
	{args: "port destroy bond0", from: portDocument8, halves: true, litter: true, clear: "port destroy bond0"},
	{doc: changedPortDocument, args: "apply -f -", from: portDocument8, clear: "port destroy bond0"},
	{doc: vlanDocument, args: "create --no-probe -f -"},
	{args: "destroy 8", from: vlanDocument, halves: true, litter: true},
}

var errnos = []syscall.Errno{syscall.ENOMEM, syscall.EBUSY, syscall.ENOSPC, syscall.EPERM, syscall.EIO}

// Whatever call fails, and wherever a command, a daemon or the init is killed: the same
// completes when it is run again, nothing is left that should not be, and after an error
// of a command all is as it was.
func TestFaults(t *testing.T) { faults(t, newSite(t), slices.Concat(operations, daemons)) }

// The same of what the host's devices are changed by.
func TestFaultsOfPorts(t *testing.T) {
	lab.Require(t, "kind:vlan")
	faults(t, newPortSite(t), portOperations)
}

func faults(t *testing.T, s *site, operations []operation) {
	lab.Require(t, "cgroup2") // an init that is killed leaves no process behind
	wanted := choiceOf(os.Getenv(faultsVar))
	for _, op := range operations {
		t.Run(strings.TrimSpace(op.program+" "+op.args), func(t *testing.T) {
			m := matrix{site: s, operation: op}
			calls := m.record(t)
			points := all(calls)
			kills, errors, missed := 0, 0, 0
			for _, f := range points {
				if !wanted.takes(op, f) {
					continue
				}
				if f.Errno == 0 {
					kills++
				} else {
					errors++
				}
				if !m.strike(t, f) {
					missed++
				}
			}
			t.Logf("%d calls and %d faults; %d kills and %d errors tried, %d of them did not come to the call",
				len(calls), len(points), kills, errors, missed)
		})
	}
}

// A choice is which faults are tried.
type choice struct {
	which       string
	every, from int
	found       int
	met         map[string]bool
}

func choiceOf(words string) *choice {
	c := &choice{every: 1, met: map[string]bool{}}
	for word := range strings.FieldsSeq(words) {
		n, k, _ := strings.Cut(word, "/")
		if every, err := strconv.Atoi(n); err != nil || every < 1 {
			c.which = word
		} else {
			c.which, c.every = cmp.Or(c.which, "all"), every
			c.from, _ = strconv.Atoi(k)
		}
	}
	return c
}

func (c *choice) takes(op operation, f fault.Fault) bool {
	if !c.among(op, f) {
		return false
	}
	c.found++
	return (c.found-1)%c.every == c.from
}

func (c *choice) among(op operation, f fault.Fault) bool {
	way := fmt.Sprint(op.program, op.args, op.from, f.Call.Kind, f.Errno)
	switch c.which {
	case "all":
		return true
	case "first":
		return f.Errno == 0 || c.isNew(way)
	case "repeats":
		return f.Errno != 0 && !c.isNew(way)
	case "":
		return isSample(f) && c.isNew(kindOf(f))
	}
	return strings.Contains(f.Call.Words, c.which)
}

func (c *choice) isNew(what string) bool {
	met := c.met[what]
	c.met[what] = true
	return !met
}

// all that may befall the calls. One that only looks is the same each time.
func all(calls []fault.Call) (list []fault.Fault) {
	for _, call := range calls {
		switch {
		case call.Message:
			list = append(list, fault.Fault{Call: call, Errno: syscall.EOPNOTSUPP})
			continue
		case call.Changes:
			list = append(list, fault.Fault{Call: call})
		case call.Nth > 1:
			continue
		}
		for _, errno := range errnos {
			// Of a cgroup, that says that the hierarchy is somebody else's.
			if errno != syscall.EPERM || !strings.Contains(call.Words, "cgroup") {
				list = append(list, fault.Fault{Call: call, Errno: errno})
			}
		}
	}
	return list
}

// isSample leaves out those that take long to show: an init's services are tried again
// and again.
func isSample(f fault.Fault) bool {
	return f.Call.Changes && (f.Errno == 0 || !strings.HasPrefix(f.Call.Kind, "vs-init"))
}

// kindOf is the same for all that a sample has one of. What a daemon does as vsrun does is
// the same code.
func kindOf(f fault.Fault) string {
	kind := strings.NewReplacer("vsd: ", "vsrun: ", "ipmd: ", "vsrun: ").Replace(f.Call.Kind)
	return fmt.Sprint(f.Errno == 0, kind)
}

// A matrix strikes one operation in all ways.
type matrix struct {
	*site
	operation
	before, after string // the host, as it should be
	trial         *fault.Trial
	what          string // befalls it now
	vsd           int    // what keeps one running beside it; 0: there is none
}

// prepare begins a trial. What is there before is watched as well: an init takes part in
// what is done with its virtual server.
func (m *matrix) prepare(t *testing.T) {
	t.Helper()
	m.trial = new(fault.Trial)
	if m.from != "" {
		m.must(t, m.ended(t, m.start(t, m.from, "vsrun", "apply", "--no-probe", "-f", "-")))
	}
	if m.then != "" {
		m.Run(t, "sh", "-ec", "PATH="+lab.Programs(t)+":$PATH; "+m.then)
	}
}

func (m *matrix) start(t *testing.T, stdin, program string, args ...string) *fault.Program {
	t.Helper()
	p, err := m.trial.Start(stdin, append([]string{filepath.Join(lab.Programs(t), program)}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ended waits until it has ended.
func (m *matrix) ended(t *testing.T, p *fault.Program) lab.Result {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Errorf("it has not ended, but is\n%s", lab.Whereabouts(p.Pid()))
		p.Signal(syscall.SIGKILL)
	}
	r := p.Wait()
	return lab.Result{Stdout: r.Output, Code: r.Code}
}

// run runs the operation.
func (m *matrix) run(t *testing.T) lab.Result {
	t.Helper()
	p := m.start(t, m.doc, cmp.Or(m.program, "vsrun"), strings.Fields(m.args)...)
	if m.work != nil {
		m.work(t, m, p)
	}
	return m.ended(t, p)
}

// record runs it without a fault.
func (m *matrix) record(t *testing.T) []fault.Call {
	t.Helper()
	m.prepare(t)
	m.before = m.state(t)
	m.trial.Begin(fault.Fault{})
	m.must(t, m.run(t))
	calls, _ := m.trial.End()
	m.after = m.state(t)
	m.remove(t, "without a fault")
	if m.program != "" { // what others do for a daemon, they do for vsrun as well
		calls = slices.DeleteFunc(calls, func(c fault.Call) bool { return !strings.HasPrefix(c.Kind, m.program) })
	}
	return calls
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
// kernel makes, the init's end of a connection whose other end is closed, a ledger that
// could not be written, or half of one, which its next writing takes over. A vsd beside is no
// matter of an operation's.
var passing = regexp.MustCompile(`\bvsd\b|\[pidfd\]|seccomp notify|=fe80::|^socket .*init\.sock|/ledger\.json -|/\.ledger\.json\.new -`)

// individual is what one process or namespace differs in from another of its kind.
var individual = regexp.MustCompile(`^(process +\S) \d+| \(born \d+\)|net:\[\d+\]|^file .*\.log .*\n`)

// strike runs it with a fault, and again without. It reports whether the fault befell it.
func (m *matrix) strike(t *testing.T, f fault.Fault) bool {
	t.Helper()
	m.prepare(t)
	m.what = fmt.Sprintf("%s %s\n%s befalls %s (%d)", m.program, m.args, name(f), f.Call.Words, f.Call.Nth)
	if os.Getenv(faultsVar) != "" { // what hangs is the last
		t.Log(m.what)
	}
	m.trial.Begin(f)
	r := m.run(t)
	_, struck := m.trial.End()
	what := fmt.Sprintf("%s: %v\n", m.what, r)
	ofInit := strings.HasPrefix(f.Call.Words, "vs-init")
	atomic := f.Errno != 0 || m.from == "" && ofInit
	if struck && atomic && !m.halves && r.Code != 0 {
		if d := differing(m.before, m.state(t)); d != "" {
			t.Errorf("%safter the error (-before +now):\n%s", what, d)
		}
	}
	if struck && f.Errno != 0 && !m.litter && r.Code != 0 {
		if r := m.Vsrun("gc", "--dry-run"); r.Stdout != "nothing to remove\n" {
			t.Errorf("%safter the error: %v", what, r)
		}
	}
	m.again(t, what, ofInit)
	return struck
}

// again runs it once more, and looks whether all is as it should be. patient: a service
// that was killed when it was about to start is started again.
func (m *matrix) again(t *testing.T, what string, patient bool) {
	t.Helper()
	if r := m.run(t); r.Code != 0 {
		t.Errorf("%sand again: %v", what, r)
	}
	if r := m.Vsrun("gc"); r.Code != 0 || r.Stdout != "nothing to remove\n" || r.Stderr != "" {
		t.Errorf("%sthen: %v", what, r)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, d := m.Vsrun("diff"), differing(m.after, m.state(t))
		if r.Code == 0 && r.Stdout == "" && d == "" {
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
	left := m.state(t)
	for end := time.Now().Add(3 * time.Second); left != "" && m.vsd > 0 && time.Now().Before(end); left = m.state(t) {
		time.Sleep(50 * time.Millisecond) // what vsd has begun to look at, it closes
	}
	if left != "" {
		t.Fatalf("%s: destroyed, it leaves\n%s", what, left)
	}
}
