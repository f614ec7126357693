package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/vsrun/vsrun/test/lab"
)

// newHost is a host with what may rightly stay: an empty run directory, as a
// package would make it, and the store's lock, which each vsrun makes anew.
func newHost(t *testing.T) *lab.Host {
	t.Helper()
	if err := os.MkdirAll("/run/vsrun", 0o755); err != nil {
		t.Fatal(err)
	}
	h := lab.New(t)
	h.Keep(filepath.Join(h.StateDir, "lock"))
	return h
}

// many is how many vsrun run at once.
const many = 20

// atOnce runs vsrun n times at once, and returns how they ended.
func atOnce(h *lab.Host, n int, args func(k int) []string) []lab.Result {
	results := make([]lab.Result, n)
	var all sync.WaitGroup
	for k := range n {
		all.Go(func() { results[k] = h.Vsrun(args(k)...) })
	}
	all.Wait()
	return results
}

func TestCreateSameAtOnce(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1")
	create := []string{"create", "8", "--name", "finance", "--port", "eth1", "--address", "192.0.2.8/24", "--gateway", "192.0.2.1"}
	for _, r := range atOnce(h, many, func(int) []string { return create }) {
		if r.Code != 0 || r.Stderr != "" {
			t.Error(r)
		}
	}
	mustBeSound(t, h, 8)
	for _, r := range atOnce(h, many, func(int) []string { return []string{"destroy", "8"} }) {
		if r.Code != 0 || r.Stderr != "" {
			t.Error(r)
		}
	}
	mustBeSound(t, h)
}

// Each of them wants one thing that all the others want too: exactly one wins.
func TestCreateRivalsAtOnce(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1")
	for what, args := range map[string][]string{
		"address 192.0.2.8 on port eth1": {"--port", "eth1", "--address", "192.0.2.8/24", "--no-probe"},
		"MAC 02:00:5e:10:00:08":          {"--port", "eth1", "--mac", "02:00:5e:10:00:08"},
		"name finance":                   {"--name", "finance"},
	} {
		var winners []int
		for k, r := range atOnce(h, many, func(k int) []string { return append([]string{"create", strconv.Itoa(k + 1)}, args...) }) {
			switch {
			case r.Code == 0:
				winners = append(winners, k+1)
			case r.Code != 1 || !strings.Contains(r.Stderr, " already has "+what+"\n"):
				t.Error(r)
			}
		}
		if len(winners) != 1 {
			t.Errorf("%s is had by %v", what, winners)
		}
		mustBeSound(t, h, winners...)
		h.MustVsrun(t, "destroy", "--all")
	}
}

// Different ones do not wait for one another: their probes overlap.
func TestCreateDifferentAtOnce(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1")
	var ids []int
	for k, r := range atOnce(h, many, func(k int) []string {
		return []string{"create", strconv.Itoa(k + 1), "--port", "eth1", "--address", fmt.Sprintf("192.0.2.%d/24", k+1)}
	}) {
		if r.Code != 0 {
			t.Error(r)
		}
		ids = append(ids, k+1)
	}
	mustBeSound(t, h, ids...)
	h.MustVsrun(t, "destroy", "--all")
}

// TestChaos has several vsrun do anything to a few virtual servers for a while.
// Whatever they tell, afterwards all is consistent, and nothing else is left.
func TestChaos(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1", "eth2")
	end := time.Now().Add(8 * time.Second)
	var all sync.WaitGroup
	for worker := range 6 {
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		all.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				args := anything(random)
				r := h.Vsrun(args...)
				killed := args[0] == "exec" && r.Code == 137 // by a disable or destroy
				if r.Code < 0 || r.Code > 3 && !killed || strings.Contains(r.Stderr, "panic") {
					t.Error(r)
				}
			}
		})
	}
	all.Wait()
	if r := h.Vsrun("enable", "--all", "--no-probe"); r.Code != 0 {
		t.Error(r)
	}
	mustBeSound(t, h, storedIDs(t, h)...)
	h.MustVsrun(t, "destroy", "--all")
	mustBeSound(t, h)
}

// anything is one command that changes something. Two of the addresses are
// wanted by several, and a third of the processes inside outlive their command.
func anything(random *rand.Rand) []string {
	id := strconv.Itoa(1 + random.IntN(4))
	address := fmt.Sprintf("192.0.2.%d/24", 1+random.IntN(5))
	commands := [][]string{
		{"create", id, "--port", "eth1", "--address", address, "--no-probe"},
		{"create", id, "--port", "eth1", "--address", "192.0.2.1" + id + "/24"},
		{"create", id, "--name", "name" + id, "--port", "eth1", "--mac", "02:00:5e:10:00:0" + id},
		{"create", id},
		{"attach", id, "--port", "eth2", "--ifname", "lan", "--address", "198.51.100." + id + "/24", "--no-probe"},
		{"detach", id, "lan"},
		{"enable", id, "--no-probe"},
		{"disable", id},
		{"destroy", id},
		{"destroy", id},
		{"service", "add", id, "beat", "--", "sleep", "infinity"},
		{"service", "rm", id, "beat"},
		{"exec", id, "--", "sh", "-c", "sleep infinity >/dev/null 2>&1 &"},
		{"ls", "-o", "json"},
		{"show", id},
		{"diff"},
	}
	return commands[random.IntN(len(commands))]
}

// mustBeSound checks that there are exactly these virtual servers, all of them
// enabled and as they should be, in the store and in the kernel.
func mustBeSound(t *testing.T, h *lab.Host, ids ...int) {
	t.Helper()
	if got := storedIDs(t, h); !slices.Equal(got, ids) {
		t.Errorf("stored are %v, not %v", got, ids)
	}
	if r := h.Vsrun("diff"); r.Code != 0 || r.Stdout+r.Stderr != "" {
		t.Error(r)
	}
	var names []string
	entries, err := os.ReadDir(h.NetnsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, id := range ids {
		name := fmt.Sprintf("vs%d", id)
		if !slices.Contains(names, name) {
			t.Errorf("there is no namespace %s", name)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
	}
	if len(names) > 0 {
		t.Errorf("left are the namespaces %v", names)
	}
}

func storedIDs(t *testing.T, h *lab.Host) []int {
	t.Helper()
	var all []struct{ ID int }
	if err := json.Unmarshal([]byte(h.MustVsrun(t, "ls", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, vs := range all {
		ids = append(ids, vs.ID)
	}
	return ids
}

// A person who presses ^C while the segment is asked gets the prompt back, and
// nothing is left: newHost's leaks and the snapshot tell.
func TestInterruptWhileProbing(t *testing.T) {
	h := newHost(t)
	segment := h.Segment("eth1")
	h.MustVsrun(t, "ls") // makes the state directory
	wire := segment.Capture(t, "eth1")
	before := h.Snapshot()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := h.Start(t, filepath.Join(lab.Programs(t), "vsrun"), "create", "8", "--port", "eth1", "--address", "192.0.2.8/24")
		if len(wire.Await(1, 10*time.Second, lab.Probes("192.0.2.8"))) == 0 {
			t.Fatal("nobody has been asked for the address")
		}
		began := time.Now()
		if err := syscall.Kill(p.Pid(), signal); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%v: it has ended after %v", signal, took)
		}
		if r := p.Stop(); r.Code == 0 || strings.Count(r.Stdout, "\n") != 1 {
			t.Errorf("%v: %v", signal, r)
		}
		if changes := before.Diff(h.Snapshot()); changes != "" {
			t.Errorf("%v: it has left:\n%s", signal, changes)
		}
		wire = segment.Capture(t, "eth1")
		before = h.Snapshot()
	}
}

// hostile are words that a program could trip over.
var hostile = []string{
	"", " ", ".", "..", "/", "../..", "../../etc/passwd", "vs8/../../x", "8/../9", "..%2f", "$(touch x)", "a b", "-",
	"line\nbreak", "\r", "\t8", "8\n", "\x1b[31m", "\x7f", "\u202e8", "８", "vs", "vs0", "-0", "+9", "0x8", "8.", "1e1",
	"99999999999999999999", "-1", strings.Repeat("a", 64), strings.Repeat("9", 100_000), strings.Repeat("../", 10_000),
}

// hostilePlaces are where the command line takes a word, and which hostile ones
// are nevertheless good there.
var hostilePlaces = []struct {
	args string // the word comes in place of @
	good *regexp.Regexp
}{
	{"create -- @", regexp.MustCompile(`^\+9$`)},
	{"create 9 --name=@", regexp.MustCompile(`^$|^vs$|^0x8$|^1e1$`)},
	{"create 9 --port=@", regexp.MustCompile(`^$`)},
	{"create 9 --port=eth1 --ifname=@", regexp.MustCompile(`^$|^[^\s/.-][^\s/]{0,9}$`)},
	{"create 9 --port=eth1 --address=@", nil},
	{"create 9 --port=eth1 --mac=@", regexp.MustCompile(`^$`)},
	{"create 9 --port=eth1 --route=@", nil},
	{"attach --port=eth1 -- @", regexp.MustCompile(`^$`)},
	{"service add 8 @ -- true", regexp.MustCompile(`^[[:alnum:]][[:alnum:]._-]{0,62}$`)},
	{"show -- @", regexp.MustCompile(`^$`)},
	{"exec @ -- true", regexp.MustCompile(`^$`)},
	{"logs 8 -- @", nil},
}

// TestHostileWords hands them to vsrun: each is refused in one line, and nothing
// is made anywhere.
func TestHostileWords(t *testing.T) {
	h := newHost(t)
	h.Segment("eth1")
	h.MustVsrun(t, "create", "8")
	before := h.Snapshot()
	for _, place := range hostilePlaces {
		for _, word := range hostile {
			if place.good != nil && place.good.MatchString(word) {
				continue
			}
			args := strings.Fields(place.args)
			for k := range args {
				args[k] = strings.ReplaceAll(args[k], "@", word)
			}
			r := h.Vsrun(args...)
			if r.Code < 1 || r.Code > 3 || r.Stdout != "" {
				t.Errorf("%.300v", r)
			}
			checkErrorLines(t, r)
		}
	}
	if changes := before.Diff(h.Snapshot()); changes != "" {
		t.Errorf("left:\n%s", changes)
	}
	h.MustVsrun(t, "destroy", "8")
}

// checkErrorLines checks that an error is one line, perhaps with a hint, that
// does nothing to a terminal.
func checkErrorLines(t *testing.T, r lab.Result) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
	hints := len(lines) == 1 || len(lines) == 2 && strings.HasPrefix(lines[1], "hint: ")
	if !strings.HasPrefix(lines[0], "vsrun: ") || !hints {
		t.Errorf("stderr is not one line and a hint: %.300q", r.Stderr)
	}
	odd := func(r rune) bool { return r != '\n' && unicode.IsControl(r) }
	if strings.ContainsFunc(r.Stderr, odd) {
		t.Errorf("stderr has control characters: %.300q", r.Stderr)
	}
}
