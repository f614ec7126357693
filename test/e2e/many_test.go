package e2e_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A plainServer is what one may be in the model of many: which of its interfaces it has,
// each with one of two addresses. The zero value is one that is not there.
type plainServer struct {
	there, disabled bool
	eth0, lan       int
}

func (p *plainServer) device(name string) *int {
	return map[string]*int{"eth0": &p.eth0, "lan": &p.lan}[name]
}

// A manyStep is a command on one virtual server, when it was run, and what it does to the
// model: how it has to end, and a word that it has to say.
type manyStep struct {
	args, doc  string
	from, till time.Time
	result     lab.Result
	does       func(p *plainServer) (code int, says string)
}

// A crowd is virtual servers that many processes see to at once, without asking each other.
type crowd struct {
	*site
	on      string // flags of all interfaces
	field   string // the same in a document
	servers int

	mu      sync.Mutex
	history map[int][]*manyStep
}

func (c *crowd) address(id, which int) string {
	return fmt.Sprintf("198.51.100.%d/24", 4*id+which)
}

func (c *crowd) draw(id int) *manyStep {
	dev, which := []string{"eth0", "lan"}[rand.IntN(2)], 1+rand.IntN(2)
	known := func(step func(p *plainServer) (int, string)) func(p *plainServer) (int, string) {
		return func(p *plainServer) (int, string) {
			if !p.there {
				return 3, ""
			}
			return step(p)
		}
	}
	flags := fmt.Sprintf(" --no-probe %s --ifname %s --address %s", c.on, dev, c.address(id, which))
	whole := plainServer{there: true}
	*whole.device(dev) = which
	s := &manyStep{}
	switch verb := []string{"create", "create", "apply", "attach", "attach", "detach", "enable", "disable", "destroy", "stats", "diff"}[rand.IntN(11)]; verb {
	case "create":
		s.args = fmt.Sprintf("create %d", id) + flags
		s.does = func(p *plainServer) (int, string) {
			switch {
			case !p.there:
				*p = whole
				return 0, " created: "
			case *p != whole:
				return 1, "exists, and is different"
			}
			return 0, " unchanged: "
		}
	case "apply":
		s.args = "apply --no-probe -f -"
		s.doc = fmt.Sprintf("id: %d\ninterfaces: [{name: %s, %s, addresses: [%s]}]\n", id, dev, c.field, c.address(id, which))
		s.does = func(p *plainServer) (code int, says string) {
			switch {
			case !p.there:
				says = " created"
			case *p == whole:
				says = " unchanged"
			default:
				says = " changed"
			}
			*p = whole
			return 0, says
		}
	case "attach":
		s.args = fmt.Sprintf("attach %d", id) + flags
		s.does = known(func(p *plainServer) (int, string) {
			other := map[string]string{"eth0": "lan", "lan": "eth0"}[dev]
			has := p.device(dev)
			if *has != 0 && *has != which || *p.device(other) == which {
				return 2, "is there twice"
			}
			*has = which
			return 0, " attached"
		})
	case "detach":
		s.args = fmt.Sprintf("detach %d %s", id, dev)
		s.does = known(func(p *plainServer) (int, string) {
			has := p.device(dev)
			says := map[bool]string{true: " had no interface ", false: " detached: "}[*has == 0]
			*has = 0
			return 0, says
		})
	case "enable", "disable":
		s.args = fmt.Sprintf("%s %d", verb, id) + map[string]string{"enable": " --no-probe"}[verb]
		s.does = known(func(p *plainServer) (int, string) { p.disabled = verb == "disable"; return 0, verb + "d" })
	case "destroy":
		s.args = fmt.Sprintf("destroy %d", id)
		s.does = func(p *plainServer) (int, string) {
			says := map[bool]string{true: " destroyed", false: " was not there"}[p.there]
			*p = plainServer{}
			return 0, says
		}
	case "stats", "diff": // they wait for nobody, and change nothing
		s.args = fmt.Sprintf("%s %d", verb, id)
	}
	return s
}

// run has so many processes at a time do so much each.
func (c *crowd) run(t *testing.T, processes, rounds int) {
	c.history = map[int][]*manyStep{}
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			for range rounds {
				id := 1 + rand.IntN(c.servers)
				step := c.draw(id)
				step.from = time.Now()
				step.result = c.VsrunIn(step.doc, strings.Fields(step.args)...)
				step.till = time.Now()
				if step.does == nil {
					if r := step.result; r.Code != 0 && r.Code != 1 && r.Code != 3 || strings.Contains(r.Stderr, "panic") {
						t.Error(r)
					}
					continue
				}
				c.mu.Lock()
				c.history[id] = append(c.history[id], step)
				c.mu.Unlock()
			}
		})
	}
	all.Wait()
}

// explains reports whether the commands could have been done one after the other, each
// between its begin and its end, so that each ended as it did, and end was left.
func explains(steps []*manyStep, end plainServer) bool {
	type place struct {
		done string
		p    plainServer
	}
	seen := map[place]bool{}
	var from func(done []bool, p plainServer) bool
	from = func(done []bool, p plainServer) bool {
		at := place{fmt.Sprint(done), p}
		if seen[at] {
			return false
		}
		seen[at] = true
		if !slices.Contains(done, false) {
			return p == end
		}
		for k, s := range steps {
			earlier := func(o *manyStep) bool { return o.till.Before(s.from) }
			late := false
			for j, o := range steps {
				late = late || !done[j] && earlier(o)
			}
			if done[k] || late {
				continue
			}
			next := p
			code, says := s.does(&next)
			heard := s.result.Stdout + s.result.Stderr // not all of it where too much goes on (exec.ErrWaitDelay)
			if code == s.result.Code && (strings.Contains(heard, says) || strings.Contains(heard, "lab: it left ")) {
				after := slices.Clone(done)
				after[k] = true
				if from(after, next) {
					return true
				}
			}
		}
		return false
	}
	return from(make([]bool, len(steps)), plainServer{})
}

// check compares with the model what vsrun says now that nobody is at work, and with
// vsrun the kernel.
func (c *crowd) check(t *testing.T) {
	t.Helper()
	commands := 0
	for _, id := range slices.Sorted(maps.Keys(c.history)) {
		steps := c.history[id]
		commands += len(steps)
		end := plainServer{}
		r := c.Vsrun("show", fmt.Sprint(id), "-o", "json")
		if r.Code == 0 {
			is := decoded[shown](t, r.Stdout)
			end = plainServer{there: true, disabled: is.State == "disabled"}
			for _, i := range is.Interfaces {
				for which := range 3 {
					if slices.Equal(i.Addresses, []string{c.address(id, which)}) {
						*end.device(i.Name) = which
					}
				}
			}
			if is.State != "disabled" && is.State != "enabled" {
				t.Errorf("%s", r)
			}
		}
		if !explains(steps, end) {
			var lines strings.Builder
			for _, s := range steps {
				fmt.Fprintf(&lines, "%s to %s: %v\n", s.from.Format("05.000"), s.till.Format("05.000"), s.result)
			}
			t.Errorf("vs%d is %+v: no order of these leads there\n%s", id, end, &lines)
		}
	}
	t.Logf("%d commands on %d virtual servers", commands, len(c.history))
	if r := c.Vsrun("diff"); r.Code != 0 {
		t.Error(r)
	}
	if r := c.Vsrun("gc", "--dry-run"); r.Stdout != "nothing to remove\n" {
		t.Error(r)
	}
}

// Fifty processes at a time do at random what they like with twenty virtual servers: each
// command waits for the one before it, nothing that succeeded is lost, nothing hangs, and
// nothing is left; with vsd, too, which sees all of that.
func TestFiftyAtOnce(t *testing.T) {
	for _, watched := range []bool{false, true} {
		t.Run(fmt.Sprintf("vsd=%v", watched), func(t *testing.T) {
			c := &crowd{site: newSite(t), on: "--port eth1", field: "port: eth1", servers: 20}
			if watched {
				vsd := c.Start(t, filepath.Join(lab.Programs(t), "vsd"))
				soon(t, func() error {
					if !strings.Contains(vsd.Output(), "vsd is running") {
						return fmt.Errorf("%s", vsd.Output())
					}
					return nil
				})
				defer func() { c.Run(t, "kill", fmt.Sprint(vsd.Pid())); <-vsd.Done() }()
			}
			c.run(t, 50, 6)
			c.check(t)
			c.MustVsrun(t, "destroy", "--all")
		})
	}
}
