package units

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsrun/vsrun/runtime/service"
)

// errOnlyInit is what a field is refused with that only an init of vsrun's can hold.
var errOnlyInit = errors.New("is not to be had with supervisor: systemd")

// Validate reports what systemd cannot give services; paths begin with "services[i].".
// What is wrong with them anyway is service.Validate's.
func Validate(services []service.Service) []service.Problem {
	var problems []service.Problem
	var private []string
	for _, s := range services {
		private = append(private, s.Private...)
	}
	for i, s := range services {
		refuse(s, private, func(path string, err error) {
			problems = append(problems, service.Problem{Path: fmt.Sprintf("services[%d].%s", i, path), Err: err})
		})
	}
	return problems
}

func refuse(s service.Service, private []string, add func(path string, err error)) {
	for _, f := range []struct {
		path  string
		given bool
	}{
		{"health", s.Health.TCP != 0 || len(s.Health.Command) > 0},
		{"ready.tcp", s.Ready.TCP != 0},
		{"ready.command", len(s.Ready.Command) > 0},
		{"ready.output", s.Ready.Output != ""},
		{"sockets", len(s.Sockets) > 0},
		{"reload.command", len(s.Reload.Command) > 0},
		{"resources.io", len(s.Resources.IO) > 0},
	} {
		if f.given {
			add(f.path, errOnlyInit)
		}
	}
	// systemd 252 writes ; and $ down so that they mean something else when it reads the
	// unit again (systemctl daemon-reload), and may take a newline for the next setting.
	for i, arg := range s.Command {
		if strings.ContainsFunc(arg, func(r rune) bool { return r == ';' || r == '$' || r < ' ' }) {
			add(fmt.Sprintf("command[%d]", i), fmt.Errorf("%q has a ; or $ or a control character, which %w: put it into a file", arg, errOnlyInit))
		}
	}
	checkPath(s.Directory, func(err error) { add("directory", err) })
	for i, c := range s.Capabilities {
		if c == "MKNOD" || c == "SYS_RAWIO" { // PrivateDevices=, systemd.exec(5)
			add(fmt.Sprintf("capabilities[%d]", i), fmt.Errorf("%s %w", c, errOnlyInit))
		}
	}
	for i, p := range s.Private {
		add := func(err error) { add(fmt.Sprintf("private[%d]", i), err) }
		checkPath(p, add)
		// Whoever writes to the one could make a symlink where systemd looks for the other.
		if below(p, private) {
			add(fmt.Errorf("%q is below another private directory, which %w", p, errOnlyInit))
		}
	}
	for i, p := range s.Writable {
		add := func(err error) { add(fmt.Sprintf("writable[%d]", i), err) }
		checkPath(p, add)
		if strings.HasPrefix(p+"/", "/proc/") || strings.HasPrefix(p+"/", "/sys/") {
			add(fmt.Errorf("%q %w", p, errOnlyInit))
		}
		// Like a private directory it must not be where the service can make a symlink.
		if !s.ReadOnly && !below(p, service.System) {
			add(fmt.Errorf("%q is writable anyway, unless readOnly is true", p))
		}
		if below(p, append(slices.Clip(s.Writable), private...)) {
			add(fmt.Errorf("%q is below another path that is written to, which %w", p, errOnlyInit))
		}
	}
	if len(s.Command) > 0 && filepath.Base(s.Command[0]) == "ganesha.nfsd" && !s.UnsafeExports {
		add("unsafeExports", errors.New("is to be true with supervisor: systemd, where nobody looks at what an NFS server exports"))
	}
}

func below(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(p, dir+"/") })
}

// checkPath refuses what cannot stand in a list of paths without quotes.
func checkPath(p string, add func(error)) {
	if strings.ContainsAny(p, " \t\n\r:;$\"'\\%") {
		add(fmt.Errorf("%q has a character that, with supervisor: systemd, no path may have", p))
	}
}
