package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// An apt is apt with a state of its own: it reads the archives that the
// machine's apt reads, and changes nothing on the machine.
type apt struct{ dir string }

func newApt(dir string) (apt, error) {
	a := apt{dir}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return a, err
		}
	}
	if err := a.writeSources(); err != nil {
		return a, err
	}
	_, err := a.run("apt-get", "--quiet", "update")
	return a, err
}

func (a apt) sources() string { return filepath.Join(a.dir, "sources.list") }

// writeSources copies where the machine's own package lists came from.
func (a apt) writeSources() error {
	list, err := commandOutput("", "apt-get", "indextargets",
		"--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return err
	}
	if list == "" {
		return errors.New("this machine's apt has no package lists\nhint: apt-get update")
	}
	return os.WriteFile(a.sources(), []byte(list), 0o644)
}

func (a apt) run(command string, args ...string) (string, error) {
	argv := []string{command,
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Dir::Etc::sourcelist=" + a.sources(),
		"-o", "Dir::Etc::sourceparts=/dev/null",
		// Its user for downloads could not write here.
		"-o", "APT::Sandbox::User=",
	}
	return commandOutput(a.dir, append(argv, args...)...)
}

// fetch downloads a package and unpacks it below the directory.
func (a apt) fetch(name, dir string) error {
	if _, err := a.run("apt-get", "--quiet", "download", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if err != nil || len(debs) == 0 {
		return errors.Join(err, errors.New("apt-get download left no "+name))
	}
	_, err = commandOutput("", "dpkg-deb", "-x", debs[0], dir)
	return err
}

// newest is the package with the highest version in its name, of those with the
// prefix and the suffix, or "".
func (a apt) newest(prefix, suffix string) (string, error) {
	names, err := a.run("apt-cache", "pkgnames", prefix)
	if err != nil {
		return "", err
	}
	best := ""
	for name := range strings.FieldsSeq(names) {
		if strings.HasSuffix(name, suffix) && (best == "" || versionLess(best, name)) {
			best = name
		}
	}
	return best, nil
}

// versionLess compares as dpkg does.
func versionLess(a, b string) bool {
	_, err := commandOutput("", "dpkg", "--compare-versions", a, "lt", b)
	return err == nil
}
