package service

import (
	"fmt"
	"os"
	"path/filepath"
)

// PrivateAt is where the private directory of that path is kept.
func (c Config) PrivateAt(path string) string { return filepath.Join(c.PrivateDir, targetOf(path)) }

// targetOf is where symlinks of the host's lead, as far as there is something.
func targetOf(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// MakePrivate makes the private directories of a service that no init is to start.
func (c Config) MakePrivate(s Service) error {
	if len(s.Private) == 0 {
		return nil
	}
	above := filepath.Dir(c.PrivateDir)
	if err := os.MkdirAll(above, 0o750); err != nil {
		return err
	}
	keep, err := os.OpenRoot(above)
	if err != nil {
		return err
	}
	defer keep.Close()
	m := &mounts{keep: keep, dir: filepath.Base(c.PrivateDir)}
	defer func() {
		if m.root != nil {
			m.root.Close()
		}
	}()
	for _, path := range s.Private {
		if _, err := os.Stat(path); err != nil && !ofMemory(path) {
			return missing(path, "create it", err)
		}
		dir, err := m.open(targetOf(path), s.Settings)
		if err != nil {
			return fmt.Errorf("cannot make a private %s: %w", path, err)
		}
		dir.Close()
	}
	return nil
}

// ofMemory reports whether the path is below what is not the host's.
func ofMemory(path string) bool {
	for _, d := range inMemory {
		if within(path, d.path) {
			return true
		}
	}
	return false
}
