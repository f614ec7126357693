package stats

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// A Source is a virtual server to read, the file that its network namespace is
// published at, and where the host has its cgroups.
type Source struct {
	ID     int
	Name   string
	Path   string
	Groups *cgroup.Tree // nil: none
}

// Read reads the counters of a virtual server. Without its namespace the error
// is fs.ErrNotExist, and only then.
func Read(src Source) (Sample, error) {
	files, err := openIn(src.Path)
	if err != nil {
		return Sample{}, fmt.Errorf("cannot read the counters of vs%d: %w", src.ID, err)
	}
	defer files.close() // an open /proc/net file keeps its namespace alive
	sample := Sample{ID: src.ID, Name: src.Name, Time: time.Now().UTC()}
	if err := files.read(&sample); err != nil {
		return Sample{}, fmt.Errorf("cannot read the counters of vs%d: %w", src.ID, err)
	}
	sample.account(src.Groups)
	return sample, nil
}

// procFiles are a namespace's counter files. They stay its files when they are
// read outside.
type procFiles struct {
	dev, snmp, netstat *os.File
	snmp6              *os.File // nil on a kernel without IPv6
}

func openIn(path string) (*procFiles, error) {
	ns, err := nsutil.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	files := &procFiles{}
	if err := ns.Do(files.open); err != nil {
		files.close()
		// A missing /proc file must not pass for a missing namespace.
		return nil, errors.New(err.Error())
	}
	return files, nil
}

// open opens the files of the calling thread's namespace. /proc/net would be the
// thread-group leader's.
func (f *procFiles) open() error {
	for _, file := range []struct {
		name string
		to   **os.File
	}{{"dev", &f.dev}, {"snmp", &f.snmp}, {"netstat", &f.netstat}, {"snmp6", &f.snmp6}} {
		opened, err := os.Open("/proc/thread-self/net/" + file.name)
		if errors.Is(err, fs.ErrNotExist) && file.name == "snmp6" {
			continue
		}
		if err != nil {
			return err
		}
		*file.to = opened
	}
	return nil
}

func (f *procFiles) close() {
	for _, file := range []*os.File{f.dev, f.snmp, f.netstat, f.snmp6} {
		if file != nil {
			file.Close()
		}
	}
}

func (f *procFiles) read(s *Sample) error {
	devices, err := parseDev(f.dev)
	if err != nil {
		return fmt.Errorf("%s: %w", f.dev.Name(), err)
	}
	s.Interfaces = slices.DeleteFunc(devices, func(d Interface) bool { return d.Name == "lo" })
	for _, d := range s.Interfaces {
		s.Total = s.Total.Plus(d.Counters)
	}
	for _, part := range []struct {
		file  *os.File
		parse func(io.Reader) (MIB, error)
	}{{f.snmp, parseSNMP}, {f.snmp6, parseSNMP6}, {f.netstat, parseSNMP}} {
		if part.file == nil {
			continue
		}
		m, err := part.parse(part.file)
		if err != nil {
			return fmt.Errorf("%s: %w", part.file.Name(), err)
		}
		s.MIB = append(s.MIB, m...)
	}
	return nil
}
