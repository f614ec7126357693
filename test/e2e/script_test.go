package e2e_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsrun/vsrun/test/lab"
)

// TestScript plays testdata/script: what the command line promises, as scripts
// that people can read. Beside testscript's own commands there are
//
//	vsrun ARG…              run vsrun; `!` when it must fail
//	status N                the exit status of the last vsrun
//	line TEXT               its stdout was this one line
//	json PATH VALUE         its stdout is JSON with the value there: interfaces.0.mtu 1400
//	keys PATH KEY…          its stdout is JSON with exactly these keys there
//	segment PORT…           ports of the host, on a new segment
//	client NAME PORT CIDR…  a client on the segment of that port
//	ping NAME ADDRESS       the client reaches the address; `!`: nobody holds it
//	await FILE REGEXP       wait until the file has a match
//
// A name in $ that is not set is the empty string, as in a shell.
func TestScript(t *testing.T) {
	testscript.RunT(serially{t}, testscript.Params{
		Dir:   "testdata/script",
		Setup: setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"vsrun":   runVsrun,
			"status":  checkStatus,
			"line":    checkLine,
			"json":    checkJSON,
			"keys":    checkKeys,
			"segment": makeSegment,
			"client":  makeClient,
			"ping":    pingFromClient,
			"await":   awaitMatch,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// serially keeps scripts from running at once: the host is the process's.
type serially struct{ *testing.T }

func (s serially) Parallel()     {}
func (s serially) Verbose() bool { return testing.Verbose() }
func (s serially) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(serially{t}) })
}

// A scene is what the commands of one script share.
type scene struct {
	t        *testing.T
	host     *lab.Host
	segments map[string]*lab.Segment
	clients  map[string]*lab.Client
	status   int // of the last vsrun
}

func setupScript(env *testscript.Env) error {
	t := env.T().(serially).T
	s := &scene{t, newHost(t), map[string]*lab.Segment{}, map[string]*lab.Client{}, 0}
	env.Values["scene"] = s
	// Directories that the user may not read would turn "not found" into
	// "permission denied", as in execvp(3).
	env.Setenv("PATH", lab.Programs(t)+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	env.Setenv("VSRUN_STATE_DIR", s.host.StateDir)
	env.Setenv("VSRUN_RUN_DIR", s.host.RunDir)
	env.Setenv("VSRUN_NETNS_DIR", s.host.NetnsDir)
	return nil
}

func sceneOf(ts *testscript.TestScript) *scene { return ts.Value("scene").(*scene) }

func runVsrun(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	err := ts.Exec("vsrun", args...)
	s.status = 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		s.status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if neg != (err != nil) {
		ts.Fatalf("exit status %d", s.status)
	}
}

func checkStatus(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(sceneOf(ts).status); len(args) != 1 || got != args[0] {
		ts.Fatalf("exit status %s, not %v", got, args)
	}
}

func checkLine(ts *testscript.TestScript, _ bool, args []string) {
	if got, want := ts.ReadFile("stdout"), strings.Join(args, " ")+"\n"; got != want {
		ts.Fatalf("stdout is %q, not %q", got, want)
	}
}

func checkJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH VALUE")
	}
	text, ok := at(ts, args[0]).(string)
	if !ok {
		b, err := json.Marshal(at(ts, args[0]))
		ts.Check(err)
		text = string(b)
	}
	if neg == (text == args[1]) {
		ts.Fatalf("%s is %s", args[0], text)
	}
}

func checkKeys(ts *testscript.TestScript, _ bool, args []string) {
	object, ok := at(ts, args[0]).(map[string]any)
	if !ok {
		ts.Fatalf("there is no object at %s", args[0])
	}
	got, want := slices.Sorted(maps.Keys(object)), slices.Sorted(slices.Values(args[1:]))
	if !slices.Equal(got, want) {
		ts.Fatalf("%s has the keys %v, not %v", args[0], got, want)
	}
}

// at is what the JSON on the last stdout has at a path such as interfaces.0.mac;
// a dot alone is the whole.
func at(ts *testscript.TestScript, path string) any {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	d.UseNumber()
	var v any
	ts.Check(d.Decode(&v))
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' }) {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[step]
			if !ok {
				ts.Fatalf("%s: there is no %s", path, step)
			}
			v = next
		case []any:
			k, err := strconv.Atoi(step)
			if err != nil || k >= len(in) {
				ts.Fatalf("%s: there is no %s among %d", path, step, len(in))
			}
			v = in[k]
		default:
			ts.Fatalf("%s: nothing can be below %v", path, v)
		}
	}
	return v
}

func makeSegment(ts *testscript.TestScript, _ bool, ports []string) {
	s := sceneOf(ts)
	segment := s.host.Segment(ports...)
	for _, port := range ports {
		s.segments[port] = segment
	}
}

func makeClient(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	if len(args) < 2 || s.segments[args[1]] == nil {
		ts.Fatalf("usage: client NAME PORT CIDR…, after segment PORT")
	}
	c := s.segments[args[1]].Client(args[0], args[2:]...)
	s.clients[args[0]] = c
	ts.Setenv(args[0]+"_mac", c.MAC(s.t))
}

func pingFromClient(ts *testscript.TestScript, neg bool, args []string) {
	c := sceneOf(ts).clients[args[0]]
	if neg {
		ts.Check(c.Silent(args[1]))
		return
	}
	ts.Check(c.Ping(args[1]))
}

func awaitMatch(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[1])
	var text []byte
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text, _ = os.ReadFile(ts.MkAbs(args[0])); want.Match(text) {
			return
		}
	}
	ts.Fatalf("no %q in %s for ten seconds:\n%s", args[1], args[0], text)
}
