package service

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Service is a program that the init of a virtual server keeps running.
type Service struct {
	// Name is unique in the virtual server: 1 to 63 characters of a-z, A-Z,
	// 0-9, '.', '_' and '-', the first a letter or digit. "init" is taken.
	Name string `json:"name,omitempty" yaml:"name,omitempty"`
	// Command is the program and its arguments. A program without a slash is
	// looked up in the virtual server's own PATH.
	Command []string `json:"command,omitempty" yaml:"command,omitempty"`
	// Restart says what happens when the program ends by itself.
	Restart Restart `json:"restart,omitempty" yaml:"restart,omitempty"`
	// StartLimit is how often it may be started in a while.
	StartLimit StartLimit `json:"startLimit,omitzero" yaml:"startLimit,omitempty"`
	// Private are directories that the virtual server has for itself, instead
	// of the host's, and keeps when it is disabled. They must exist on the host,
	// except below those that are in memory (see Config.Share). When one is made it
	// belongs to the User and Group of the first service that has it, where that
	// names them, else to whom the host's belongs.
	Private []string `json:"private,omitempty" yaml:"private,omitempty"`
	// After are services of the same virtual server that have to be ready before
	// this one is started. It is stopped before they are.
	After []string `json:"after,omitempty" yaml:"after,omitempty"`
	// Ready says when the service counts as running: zero is as soon as its
	// program is.
	Ready Ready `json:"ready,omitzero" yaml:"ready,omitempty"`
	// Sockets are opened for it, and held while it is started anew.
	Sockets []Socket `json:"sockets,omitempty" yaml:"sockets,omitempty"`
	// Health says how it is checked while it runs: zero is not at all.
	Health Health `json:"health,omitzero" yaml:"health,omitempty"`
	// Stop says how it is asked to end.
	Stop Stop `json:"stop,omitzero" yaml:"stop,omitempty"`
	// Reload says how it is told to read its configuration again.
	Reload Reload `json:"reload,omitzero" yaml:"reload,omitempty"`

	Settings `yaml:",inline"`
}

// A Problem is one thing wrong with a value, and where: Path is the field as it
// is written in a document ("command[0]").
type Problem struct {
	Path string
	Err  error
}

func (p Problem) Error() string { return p.Path + ": " + p.Err.Error() }

// initName is the reserved name: its log is the init's own, and Shutdown
// reports an init that had to be killed under it.
const initName = "init"

// Validate reports everything that is wrong with the service, nil when nothing
// is.
func (s Service) Validate() []Problem {
	var problems []Problem
	add := func(path string, err error) {
		if err != nil {
			problems = append(problems, Problem{path, err})
		}
	}
	add("name", checkName(s.Name))
	if len(s.Command) == 0 {
		add("command", errors.New("is missing"))
	} else if s.Command[0] == "" {
		add("command[0]", errors.New("is empty"))
	}
	for i, arg := range s.Command {
		add(fmt.Sprintf("command[%d]", i), checkText(arg))
	}
	if int(s.Restart) >= len(restarts) {
		add("restart", errUnknownRestart(fmt.Sprint(uint8(s.Restart))))
	}
	s.StartLimit.validate(add)
	for i, dir := range s.Private {
		add(fmt.Sprintf("private[%d]", i), checkPrivate(dir))
	}
	for i, name := range s.After {
		add(fmt.Sprintf("after[%d]", i), checkName(name))
	}
	s.Ready.validate(add)
	validateSockets(s, add)
	s.Health.validate(add)
	s.Stop.validate(add)
	s.Reload.validate(add)
	if !s.Reload.equal(Reload{}) && isGanesha(s.Command) && !s.UnsafeExports {
		add("reload", errors.New("would not look at what it exports then: restart it instead"))
	}
	s.Settings.validate(add)
	return problems
}

// maxServices bounds what it takes to see that none is started after itself.
const maxServices = 256

// Validate reports everything that is wrong with a virtual server's list of
// services; paths begin with "services[i].".
func Validate(services []Service) []Problem {
	if len(services) > maxServices {
		return []Problem{{"services", fmt.Errorf("%d are too many: at most %d", len(services), maxServices)}}
	}
	var problems []Problem
	seen := map[string]bool{}
	for i, s := range services {
		at := fmt.Sprintf("services[%d].", i)
		for _, p := range s.Validate() {
			problems = append(problems, Problem{at + p.Path, p.Err})
		}
		if seen[s.Name] {
			problems = append(problems, Problem{at + "name", fmt.Errorf("%q is there twice", s.Name)})
		}
		seen[s.Name] = true
	}
	for i, s := range services {
		for k, name := range s.After {
			at := fmt.Sprintf("services[%d].after[%d]", i, k)
			switch {
			case !seen[name]:
				problems = append(problems, Problem{at, fmt.Errorf("%q is no service here", name)})
			case comesAfter(services, name, s.Name):
				problems = append(problems, Problem{at, fmt.Errorf("%q is itself started after %q", name, s.Name)})
			}
		}
	}
	return problems
}

// comesAfter reports whether the service name is, or is started after, other.
func comesAfter(services []Service, name, other string) bool {
	seen := map[string]bool{}
	var reaches func(string) bool
	reaches = func(name string) bool {
		if name == other {
			return true
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		k := slices.IndexFunc(services, func(s Service) bool { return s.Name == name })
		return k >= 0 && slices.ContainsFunc(services[k].After, reaches)
	}
	return reaches(name)
}

// chain is how long it takes at most when the services do something in turn, each
// when those have that it is started after, or the other way round.
func chain(services []Service, own func(Service) time.Duration) (most time.Duration) {
	known := map[string]time.Duration{}
	var through func(string) time.Duration
	through = func(name string) time.Duration {
		k := slices.IndexFunc(services, func(s Service) bool { return s.Name == name })
		if _, ok := known[name]; !ok && k >= 0 {
			var before time.Duration
			for _, name := range services[k].After {
				before = max(before, through(name))
			}
			known[name] = before + own(services[k])
		}
		return known[name]
	}
	for _, s := range services {
		most = max(most, through(s.Name))
	}
	return most
}

func checkName(name string) error {
	valid := func(r rune) bool { return isAlnum(r) || strings.ContainsRune("._-", r) }
	switch {
	case name == "":
		return errors.New("is missing")
	case len(name) > 63:
		return fmt.Errorf("%q is longer than 63 characters", name)
	case !isAlnum(rune(name[0])):
		return fmt.Errorf("%q does not begin with a letter or digit", name)
	case strings.IndexFunc(name, func(r rune) bool { return !valid(r) }) >= 0:
		return fmt.Errorf("%q holds something else than a-z, A-Z, 0-9, '.', '_' and '-'", name)
	case name == initName:
		return fmt.Errorf("%q is the name of the virtual server's own init", name)
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func checkPrivate(dir string) error {
	switch {
	case checkText(dir) != nil:
		return checkText(dir)
	case !path.IsAbs(dir):
		return fmt.Errorf("%q is not an absolute path", dir)
	case path.Clean(dir) != dir:
		return fmt.Errorf("%q is to be written %q", dir, path.Clean(dir))
	case dir == "/":
		return errors.New(`"/" cannot be private`)
	case within(dir, "/proc"), within(dir, "/sys"):
		return fmt.Errorf("%q is the virtual server's own anyway", dir)
	}
	return nil
}

// checkText refuses what the kernel would cut off, and what JSON would change.
func checkText(s string) error {
	switch {
	case strings.ContainsRune(s, 0):
		return errors.New("holds a NUL byte")
	case !utf8.ValidString(s):
		return fmt.Errorf("%q is not UTF-8", s)
	}
	return nil
}

// within reports whether the clean path p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// Equal reports whether both are the same definition.
func (s Service) Equal(o Service) bool {
	return s.Name == o.Name && s.Restart == o.Restart && s.Reload.equal(o.Reload) && s.Stop == o.Stop && s.StartLimit == o.StartLimit &&
		slices.Equal(s.Command, o.Command) && slices.Equal(s.Private, o.Private) && slices.Equal(s.After, o.After) &&
		s.Ready.equal(o.Ready) && s.Health.equal(o.Health) && slices.Equal(s.Sockets, o.Sockets) && s.Settings.equal(o.Settings)
}

// Restart says what happens when a service's program ends without having been
// asked to.
type Restart uint8

const (
	RestartAlways    Restart = iota // start it again
	RestartOnFailure                // start it again unless it ended with status 0
	RestartNever                    // leave it
)

var restarts = []string{"always", "on-failure", "never"}

func errUnknownRestart(word string) error {
	return fmt.Errorf("%q is none of %s", word, strings.Join(restarts, ", "))
}

func (r Restart) String() string {
	if int(r) < len(restarts) {
		return restarts[r]
	}
	return fmt.Sprintf("Restart(%d)", uint8(r))
}

// MarshalText writes always, on-failure or never.
func (r Restart) MarshalText() ([]byte, error) {
	if int(r) >= len(restarts) {
		return nil, errUnknownRestart(fmt.Sprint(uint8(r)))
	}
	return []byte(restarts[r]), nil
}

// UnmarshalText reads always, on-failure or never.
func (r *Restart) UnmarshalText(text []byte) error {
	i := slices.Index(restarts, string(text))
	if i < 0 {
		return errUnknownRestart(string(text))
	}
	*r = Restart(i)
	return nil
}
