package ebpf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// loaded is the program in the kernel, and its maps.
type loaded struct {
	read, locate    *ebpf.Program
	wanted, records *ebpf.Map
	memory          []byte // of records
	size            uint32
	free            []uint32 // records
	cpus            []uint32
	args            [3]uint64 // of a run
	options         ebpf.RunOptions
	begin           []uint64 // see newForm
}

// modules may have the types of kinds of links that the kernel itself has not.
var modules = []string{"macvlan", "ipvlan", "8021q"}

// load loads the program with room for so many namespaces.
func load(size uint32) (l *loaded, err error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	l = &loaded{size: size}
	if l.cpus, err = possibleCPUs(); err != nil {
		return nil, err
	}
	if spec.Maps["records"].ValueSize != uint32(recordSize) {
		return nil, errors.New("the program is another one's")
	}
	spec.Maps["wanted"].MaxEntries, spec.Maps["records"].MaxEntries = size, size
	if err := l.tell(spec); err != nil {
		return nil, err
	}
	var extra []*btf.Spec
	for _, name := range modules {
		s, err := btf.LoadKernelModuleSpec(name)
		switch {
		case err == nil:
			extra = append(extra, s)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{ExtraRelocationTargets: extra}})
	if err != nil {
		return nil, err
	}
	defer c.Close() // what is detached from it stays
	l.read, l.locate = c.DetachProgram("read_counters"), c.DetachProgram("locate")
	l.wanted, l.records = c.DetachMap("wanted"), c.DetachMap("records")
	for k := range size {
		l.free = append(l.free, size-1-k)
	}
	if err := l.start(c.Variables["at"]); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// tell sets the program's constants.
func (l *loaded) tell(spec *ebpf.CollectionSpec) error {
	var cpus [1024]uint32
	copy(cpus[:], l.cpus)
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var device *btf.Struct
	if err := types.TypeByName("net_device", &device); err != nil {
		return err
	}
	const align = 32 // NETDEV_ALIGN
	private := (device.Size + align - 1) / align * align
	for _, m := range device.Members {
		if m.Name == "priv" { // since Linux 6.10
			private = m.Offset.Bytes()
		}
	}
	return errors.Join(
		spec.Variables["cpus"].Set(uint32(len(l.cpus))),
		spec.Variables["cpu"].Set(cpus),
		spec.Variables["priv_offset"].Set(private),
	)
}

// start has the program find what it needs.
func (l *loaded) start(at *ebpf.Variable) (err error) {
	size := (int(l.size)*recordSize + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	if l.memory, err = unix.Mmap(l.records.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("cannot map the records: %w", err)
	}
	n, err := l.locate.Run(&ebpf.RunOptions{})
	if err != nil {
		return err
	}
	if n != 0 {
		return errors.New("the kernel's per-CPU memory is not to be found")
	}
	l.begin = make([]uint64, len(mibs)+1)
	return at.Get(l.begin)
}

// run reads what is wanted of the kernel's list of namespaces behind the first skip, but
// no more than most; it returns how many of the list are done, 0 when all are.
func (l *loaded) run(run, skip, most uint64) (seen int32, err error) {
	l.args = [3]uint64{run, skip, most}
	l.options.Context = &l.args
	n, err := l.read.Run(&l.options)
	if seen = int32(n); err == nil && seen < 0 {
		err = errors.New("the kernel's list of namespaces is not to be found")
	}
	return seen, err
}

func (l *loaded) record(k uint32) *record {
	return (*record)(unsafe.Pointer(&l.memory[int(k)*recordSize]))
}

// unused takes a record that nobody has; false when there is none.
func (l *loaded) unused() (k uint32, ok bool) {
	n := len(l.free)
	if n == 0 {
		return 0, false
	}
	k = l.free[n-1]
	l.free = l.free[:n-1]
	return k, true
}

func (l *loaded) close() {
	if l.memory != nil {
		unix.Munmap(l.memory)
	}
	l.read.Close()
	l.locate.Close()
	l.wanted.Close()
	l.records.Close()
}

// possibleCPUs are the numbers of those that have counters: all that there may ever be.
func possibleCPUs() (list []uint32, err error) {
	const path = "/sys/devices/system/cpu/possible"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for part := range bytes.SplitSeq(bytes.TrimSpace(text), []byte(",")) {
		var first, last uint32
		n, err := fmt.Sscanf(string(part), "%d-%d", &first, &last)
		if n == 1 {
			last, err = first, nil
		}
		if err != nil || last < first || last >= 1024 {
			return nil, fmt.Errorf("%s: there are processors %q, and only those below 1024 can be read", path, part)
		}
		for ; first <= last; first++ {
			list = append(list, first)
		}
	}
	return list, nil
}
