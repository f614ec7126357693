package service

import (
	"errors"
	"io/fs"
	"os"
	"slices"
)

// An ownFile is seen in place of the host's, wherever a symlink had that when it
// was made: what services have made since is not to lead it elsewhere.
type ownFile struct {
	path string
	bind
}

// hosts is the text of the virtual server's /etc/hosts. Its name has the address
// that Debian gives a host's (Debian Reference, 5.1.1), not those of the
// interfaces: these change while the init lives, and many programs read the file
// once. 127.0.1.1 is always there, and leads to all that listen on any address.
func (c Config) hosts() string {
	return "# made by vsrun\n" +
		"127.0.0.1 localhost\n" +
		"::1 localhost ip6-localhost ip6-loopback\n" +
		"127.0.1.1 " + c.hostname() + "\n"
}

// writeEtc writes the files of /etc that are the virtual server's own, as far as
// the host has them: there is nothing to mount on otherwise.
func (m *mounts) writeEtc(r room, c Config) error {
	resolver, err := m.resolvConf(c.DNS)
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, text string }{
		{"hosts", c.hosts()}, {"hostname", c.hostname() + "\n"}, {"resolv.conf", resolver},
	} {
		path := "/etc/" + f.name
		target, there, err := m.has(path)
		if err != nil {
			return err
		}
		if !there || f.text == "" {
			continue
		}
		source, err := r.write(f.name, f.text)
		if err != nil {
			return err
		}
		m.etc = append(m.etc, ownFile{path, bind{target: target, source: source}})
	}
	return nil
}

// resolvConf is the text of a resolv.conf of the virtual server's own: what dns
// says, or what the host's says now if that is going out of sight, as it does
// where it is a symlink into /run. "" when it sees the host's.
func (m *mounts) resolvConf(dns DNS) (string, error) {
	const path = "/etc/resolv.conf"
	if !dns.isZero() {
		_, there, err := m.has(path)
		if err == nil && !there {
			err = missing(path, "create it, an empty file will do", fs.ErrNotExist)
		}
		return dns.resolvConf(), err
	}
	target, err := resolve(path)
	if err != nil || m.place(target) == nil {
		return "", err
	}
	text, err := os.ReadFile(target)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// has is where a path leads, and whether a file can be mounted on there: it is
// there, or it can be made.
func (m *mounts) has(path string) (target string, there bool, err error) {
	target, err = m.follow(path)
	if err != nil || m.place(target) != nil {
		return target, err == nil, err
	}
	_, err = os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return target, false, nil
	}
	return target, err == nil, err
}

// showFiles mounts the files of its own, and again where the host's have been
// replaced since.
func (m *mounts) showFiles() error {
	var errs []error
	for _, f := range m.ownFiles() {
		errs = append(errs, m.show(f))
	}
	return errors.Join(errs...)
}

// ownFiles are those of /etc, and those that it was told to have.
func (m *mounts) ownFiles() []ownFile {
	list := slices.Clone(m.etc)
	for _, l := range m.files {
		list = append(list, l.own)
	}
	return list
}

func (m *mounts) show(f ownFile) error {
	if m.isPrivate(f.target) {
		return nil
	}
	if err := m.point(f.target, false); err != nil {
		return err
	}
	return f.mount()
}
