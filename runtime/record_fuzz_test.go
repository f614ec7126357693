package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is not a record is refused at once, whatever it is, and is not written through.
func TestRecordsThatAreNoFiles(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte(`{"id": 8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink":   func(path string) error { return os.Symlink(elsewhere, path) },
		"a huge file": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := OpenStore(t.TempDir())
			for _, path := range []string{s.path(8), s.portPath("bond0")} {
				if err := plant(path); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Load(8); err == nil || !strings.Contains(err.Error(), "cannot use the record") {
				t.Errorf("loaded: %v", err)
			}
			if _, err := s.loadPort("bond0"); err == nil || !strings.Contains(err.Error(), "cannot use the record") {
				t.Errorf("the port loaded: %v", err)
			}
			if err := s.save(VirtualServer{ID: 8}); err == nil {
				t.Error("it is replaced")
			}
			if err := plant(s.fresh(9)); err != nil { // as if a crash had left it
				t.Fatal(err)
			}
			if err := s.save(VirtualServer{ID: 9}); err != nil {
				t.Error(err)
			}
			if text, err := os.ReadFile(elsewhere); err != nil || string(text) != `{"id": 8}` {
				t.Errorf("what it leads to has %q, %v", text, err)
			}
		})
	}
}

// Whatever a record holds, it is refused, or it is what is stored again.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id": 8}`))
	f.Add([]byte(`{"id": 8, "name": "finance", "interfaces": [{"name": "eth0", "port": "eth1", "vlan": [100, 10], "kind": "vlan", "addresses": ["192.0.2.8/24"], "gateways": ["192.0.2.1"]}], "routes": [{"to": "198.51.100.0/24", "via": "192.0.2.7"}]}`))
	f.Add([]byte(`{"id": 8, "services": [{"name": "web", "command": ["nginx"], "restart": "always", "sockets": [{"stream": "80"}], "limits": {"nofile": "4096"}}], "volumes": [{"path": "/srv", "size": "1G"}], "files": [{"path": "/etc/x", "content": "y"}]}`))
	f.Add([]byte(`{"id": 8, "disabled": true, "before": {"id": 8, "name": "finance", "interfaces": [{"name": "eth0", "port": "eth1", "kind": "macvlan"}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		vs, err := decodeRecord(text)
		if err != nil {
			return
		}
		again, err := decodeRecord(vs.record())
		if err != nil || !same(vs, again) {
			t.Errorf("%s\nis stored as\n%s\nand read as %+v, %v", text, vs.record(), again, err)
		}
	})
}

// The same of ports.
func FuzzPortRecord(f *testing.F) {
	f.Add([]byte(`{"name": "bond0", "mode": "active-backup", "members": ["eth1"], "before": {"eth1": {"up": true, "addresses": [{"prefix": "192.0.2.1/24", "broadcast": "192.0.2.255", "label": "eth1:x"}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decodePortRecord(text)
		if err != nil {
			return
		}
		s := OpenStore(t.TempDir())
		if err := s.savePort(p); err != nil {
			t.Fatal(err)
		}
		if again, err := s.loadPort(p.Name); err != nil || !sameBond(again.Bond, p.Bond) || len(again.Before) != len(p.Before) {
			t.Errorf("%s\nis read as %+v, %v", text, again, err)
		}
	})
}
