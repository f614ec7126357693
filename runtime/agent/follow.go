package agent

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/runtime"
)

// An inode tells which namespace is published. The zero inode is none.
type inode struct{ dev, ino uint64 }

func inodeOf(path string) (at inode) {
	var st syscall.Stat_t
	var fs syscall.Statfs_t
	if syscall.Stat(path, &st) == nil && syscall.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC {
		at = inode{st.Dev, st.Ino}
	}
	return at
}

// follow hears what happens in the namespace that is published for a virtual server, if it
// is another one than before.
func (a *Agent) follow(id int) {
	s := a.world.servers[id]
	now := inodeOf(a.runtime.Path(id))
	if now == s.ns && (now != inode{} || s.vs.Disabled) { // none may be none again: one came and went
		return
	}
	s.ns, s.lost = now, map[int]bool{}
	a.unfollow(id, s)
	a.mark(subject{id: id}, settle)
	if now == (inode{}) {
		return
	}
	ns, err := nsutil.Open(a.runtime.Path(id))
	if errors.Is(err, fs.ErrNotExist) { // which another notice tells
		return
	}
	if err != nil {
		a.missed(subject{id: id}.String(), err)
		return
	}
	defer ns.Close()
	name, err := a.world.ear.Follow(ns)
	if err == nil {
		a.world.named[name] = id
		err = a.followSysctls(id, ns)
	}
	if err != nil {
		a.missed("all that happens in "+subject{id: id}.String(), err)
	}
}

// followSysctls hears those of its interfaces, too, as they are now.
func (a *Agent) followSysctls(id int, ns *nsutil.Namespace) error {
	s := a.world.servers[id]
	watches, err := a.world.sysctls.Follow(ns, heeding(s.vs)...)
	a.world.drop(slices.DeleteFunc(s.watches, func(w int) bool { return slices.Contains(watches, w) }))
	s.watches = watches
	for _, w := range watches {
		a.world.watches[w] = id
	}
	return err
}

// heeding are the interfaces that heed routers.
func heeding(vs runtime.VirtualServer) (names []string) {
	for _, i := range vs.Interfaces {
		if i.RA {
			names = append(names, i.Name)
		}
	}
	return names
}

// refollow does so again for one that has been looked at: a link made anew has other sysctls.
func (a *Agent) refollow(id int) {
	s := a.world.servers[id]
	if s == nil || len(heeding(s.vs)) == 0 {
		return
	}
	ns, err := nsutil.Open(a.runtime.Path(id))
	if err == nil {
		defer ns.Close()
		err = a.followSysctls(id, ns)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.missed("all that happens in "+subject{id: id}.String(), err)
	}
}

// unfollow lets go of a namespace, and of what was heard of its interfaces' ends: it must not
// be counted in another one.
func (a *Agent) unfollow(id int, s *server) {
	w := &a.world
	w.drop(s.watches)
	s.watches = nil
	w.drop(slices.Collect(maps.Values(s.limits)))
	s.limits = nil
	a.runtime.Store.Ledgers().Unheard(id)
}

func (w *world) drop(watches []int) {
	for _, watch := range watches {
		delete(w.watches, watch)
	}
	w.sysctls.Unfollow(watches)
}

// followLimits hears when somebody sets other limits for the services, which come and go.
// Where the kernel has no room for that, such a change is seen late.
func (a *Agent) followLimits(id int) {
	s := a.world.servers[id]
	if s == nil || len(s.vs.Services) == 0 || s.vs.Supervisor == runtime.Systemd {
		return
	}
	dirs := a.world.groups.Dirs(cgroup.Name(id))
	maps.DeleteFunc(s.limits, func(dir string, watch int) bool {
		gone := !slices.Contains(dirs, dir)
		if gone && a.world.watches[watch] == id {
			delete(a.world.watches, watch)
		}
		return gone
	})
	for _, dir := range dirs {
		watch, err := a.world.sysctls.FollowDir(dir)
		if err != nil {
			continue
		}
		if s.limits == nil {
			s.limits = map[string]int{}
		}
		if was, had := s.limits[dir]; !had || was != watch { // what came before it was not heard
			a.mark(subject{id: id}, settle)
		}
		s.limits[dir], a.world.watches[watch] = watch, id
	}
}

func (a *Agent) followAll() {
	for id := range a.world.servers {
		a.follow(id)
	}
}
