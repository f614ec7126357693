package runtime

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A survey finds those that may have what a virtual server wants, without reading a
// thousand records for it: beside them is kept what each claims, with what the kernel says
// of its file, as in git's index. That file is a cache of the program that wrote it: where it
// is missing, or anything of it does not fit, the records are read. It has sums of claims
// only; who may have something is read, and judged by the record.
type survey struct {
	store     *Store
	machineID string
	records   map[int]indexed
	read      int             // records that were not in the file as they are
	rivals    []VirtualServer // that may have something
	errs      []error         // what keeps records from being read
}

// An indexed is what a record claims, and the file that it was read from.
type indexed struct {
	inode         uint64
	changed, size int64 // in nanoseconds, in bytes
	claims        []sums
}

// sums are of a claim's key, and of what others are who may have the thing as well (0: nobody).
type sums struct{ key, as uint64 }

func (s sums) meets(o sums) bool { return s.as != 0 && s.as == o.as }

// clashes reports whether two cannot be, but for what only looks like it.
func clashes(a, b []sums) bool {
	return slices.ContainsFunc(a, func(x sums) bool {
		return slices.ContainsFunc(b, func(y sums) bool { return x.key == y.key && !x.meets(y) })
	})
}

const surveyFile = ".claims"

// fewRecords are read as fast as the file.
const fewRecords = 16

// aged says whether the next record has another time than one that was replaced then. The
// kernel's clock for files stands still for a tick, and some filesystems count seconds.
func aged(changed unix.Timespec) bool {
	tick := 50 * time.Millisecond
	if changed.Nsec == 0 {
		tick = 2 * time.Second
	}
	return time.Since(time.Unix(changed.Unix())) > tick
}

// survey is about what vs wants.
func (s *Store) survey(vs VirtualServer, machineID string) (*survey, error) {
	v := &survey{store: s, machineID: machineID}
	dir, err := os.Open(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { id, _ := RecordOf(name); return id == 0 })
	if len(names) >= fewRecords {
		v.load()
	}
	fresh := make(map[int]indexed, len(names))
	wanted := v.claims(vs)
	for _, name := range names {
		id, _ := RecordOf(name)
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			continue
		}
		one, known := v.records[id]
		known = known && one.inode == st.Ino && one.changed == st.Ctim.Nano() && one.size == st.Size
		if known && !clashes(one.claims, wanted) {
			fresh[id] = one
			continue
		}
		other, err := s.Load(id)
		switch {
		case errors.Is(err, ErrNotFound): // destroyed since
			continue
		case err != nil:
			v.errs = append(v.errs, err)
			continue
		}
		v.rivals = append(v.rivals, other)
		if known {
			fresh[id] = one
			continue
		}
		v.read++
		if aged(st.Ctim) {
			fresh[id] = indexed{st.Ino, st.Ctim.Nano(), st.Size, v.claims(other)}
		}
	}
	v.records = fresh
	return v, nil
}

// refuse reports whose it is when another virtual server has what vs wants.
func (v *survey) refuse(vs VirtualServer) error {
	if err := errors.Join(v.errs...); err != nil {
		return err
	}
	slices.SortFunc(v.rivals, func(a, b VirtualServer) int { return a.ID - b.ID })
	return free(vs, v.rivals, v.machineID)
}

func (v *survey) claims(vs VirtualServer) (list []sums) {
	for _, one := range vs.resolved(v.machineID).claims() {
		list = append(list, sums{sum(one.key), sum(one.as)})
	}
	return list
}

func sum(word string) uint64 {
	if word == "" {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(word))
	return h.Sum64()
}

var order = binary.LittleEndian

// head tells whose file it is: another program may take other things for claims, and on
// another machine MACs derive from another id. The first page of a program has the id of its
// build (.note.go.buildid).
func (v *survey) head() []byte {
	var page [4096]byte
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if n, err := unix.Read(fd, page[:]); err != nil || n < len(page) {
		return nil
	}
	b := order.AppendUint64([]byte("vsrun claims\n"), sum(string(page[:])))
	return order.AppendUint64(b, sum(v.machineID))
}

// load reads the file; whatever is wrong with it makes it none.
func (v *survey) load() {
	text, err := readRecord(filepath.Join(v.store.dir, surveyFile))
	head := v.head()
	if err != nil || head == nil || len(text) < 4 {
		return
	}
	body := text[:len(text)-4]
	rest, ours := bytes.CutPrefix(body, head)
	if !ours || order.Uint32(text[len(body):]) != crc32.ChecksumIEEE(body) {
		return
	}
	records := map[int]indexed{}
	for b := rest; len(b) > 0; {
		if len(b) < indexedSize {
			return
		}
		one := indexed{inode: order.Uint64(b[8:]), changed: int64(order.Uint64(b[16:])), size: int64(order.Uint64(b[24:]))}
		id, n := order.Uint32(b), int(order.Uint32(b[4:]))
		if b = b[indexedSize:]; len(b)/sumsSize < n {
			return
		}
		for ; n > 0; n-- {
			one.claims = append(one.claims, sums{order.Uint64(b), order.Uint64(b[8:])})
			b = b[sumsSize:]
		}
		records[int(id)] = one
	}
	v.records = records
}

// What an indexed without claims, and each of them, takes in the file, in bytes.
const indexedSize, sumsSize = 32, 16

// keep writes the file where it would save the next survey something. It need not be on
// the disk: its checksum tells.
func (v *survey) keep() {
	head := v.head()
	if v.read < fewRecords/2 || len(v.records) < fewRecords || head == nil {
		return
	}
	b := head
	for id, one := range v.records {
		b = order.AppendUint32(b, uint32(id))
		b = order.AppendUint32(b, uint32(len(one.claims)))
		b = order.AppendUint64(b, one.inode)
		b = order.AppendUint64(b, uint64(one.changed))
		b = order.AppendUint64(b, uint64(one.size))
		for _, c := range one.claims {
			b = order.AppendUint64(order.AppendUint64(b, c.key), c.as)
		}
	}
	b = order.AppendUint32(b, crc32.ChecksumIEEE(b))
	path := filepath.Join(v.store.dir, surveyFile)
	f, err := createNew(path + ".new")
	if err == nil {
		_, err = f.Write(b)
		err = cmp.Or(err, f.Close())
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
	}
}
