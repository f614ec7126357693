package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// sweep makes room for the next test after one that left something behind:
// holders first, then what they held. Errors show in the next test's snapshot.
func (h *Host) sweep() {
	procs, _ := listProcesses()
	for _, p := range procs {
		if h.rights[p.thing] == 0 {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	for _, n := range h.extra(namedNamespaces) {
		run("", "ip", "netns", "del", n.Text)
		os.Remove(filepath.Join(netnsDir, n.Text))
	}
	for _, m := range h.extra(mounts) {
		point, _, _ := strings.Cut(m.Text, " ")
		syscall.Unmount(point, syscall.MNT_DETACH)
	}
	for _, l := range h.extra(netThings) {
		if name := device(l); name != "" && !h.made(name) {
			run("", "ip", "link", "del", name)
		}
	}
	for _, g := range h.extra(cgroups) {
		os.Remove(g.Text)
	}
	os.RemoveAll(h.RunDir)
}

// extra is what is there now without a right to be, last first.
func (h *Host) extra(sense func(*Host) ([]Thing, error)) []Thing {
	things, _ := sense(h)
	slices.Reverse(things)
	return slices.DeleteFunc(things, func(t Thing) bool { return h.rights[t] > 0 })
}

// made tells whether the lab made the device: a test may have changed it, but
// the lab will remove it.
func (h *Host) made(name string) bool {
	for thing := range h.rights {
		if device(thing) == name {
			return true
		}
	}
	return false
}

// device is the name of the device that the thing is, or "".
func device(thing Thing) string {
	if thing.Kind != "link" {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(thing.Text, "ifname="), " ")
	return name
}
