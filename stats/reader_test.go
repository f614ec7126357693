package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/test/lab"
)

// reader is one that the test's end closes, before its namespaces are looked for.
func reader(t testing.TB) *Reader {
	r := new(Reader)
	t.Cleanup(func() { r.Close() })
	return r
}

func again(t testing.TB, r *Reader, id int, s *Sample) {
	t.Helper()
	if err := r.Read(source(id), s); err != nil {
		t.Fatal(err)
	}
}

func TestReaderReadsAsReadDoes(t *testing.T) {
	a, b := pair(t, lab.New(t))
	r := reader(t)
	var s Sample
	for range 3 {
		send(t, a, b, netip.MustParseAddr("192.0.2.2"), 5, 100)
		for id := 1; id <= 2; id++ { // the sample is the other's, too
			again(t, r, id, &s)
			once := read(t, id)
			once.Time = s.Time
			once.Sockets[0], s.Sockets[0] = Group{}, Group{} // the kernel takes its time to free some
			if diff := cmp.Diff(once, s); diff != "" {
				t.Errorf("vs%d:\n%s", id, diff)
			}
		}
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	pair(t, lab.New(t))
	allocatesNothing(t, source(1), source(2))
}

func TestReaderAllocatesNothingWithServices(t *testing.T) {
	lab.Require(t, "cgroup2")
	pair(t, lab.New(t))
	groups := cgroup.Find()
	whole, err := groups.Make(cgroup.Name(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		whole.Close()
		if err := groups.Remove(cgroup.Name(1)); err != nil {
			t.Error(err)
		}
	})
	web, err := whole.Child(cgroup.ServiceName("web", 0))
	if err != nil {
		t.Fatal(err)
	}
	web.Close()
	sources := []Source{source(1), source(2)} // the second one has no cgroup
	for i := range sources {
		sources[i].Groups = groups
	}
	samples := allocatesNothing(t, sources...)
	if s := samples[0]; s.Use == nil || len(s.Services) != 1 || s.Services[0].Name != "web" || samples[1].Use != nil {
		t.Errorf("%+v", samples)
	}
}

func allocatesNothing(t *testing.T, sources ...Source) []Sample {
	t.Helper()
	r := reader(t)
	samples := make([]Sample, len(sources))
	allocations := testing.AllocsPerRun(100, func() {
		for i, src := range sources {
			if err := r.Read(src, &samples[i]); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
	return samples
}

func TestReaderFollowsTheName(t *testing.T) {
	h := lab.New(t)
	publish(t, h, 8)
	r := reader(t)
	var first, second, third Sample
	again(t, r, 8, &first)
	again(t, r, 8, &second)
	if first.Life == "" || first.Life != second.Life {
		t.Errorf("one namespace has the lives %q and %q", first.Life, second.Life)
	}
	other, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := errors.Join(nsutil.Unpublish(path(8)), other.Publish(path(8))); err != nil {
		t.Fatal(err)
	}
	again(t, r, 8, &third)
	if third.Life == first.Life {
		t.Error("it reads the namespace that had the name")
	}
	if err := nsutil.Unpublish(path(8)); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(source(8), &third); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the name: %v", err)
	}
	if n := openCounters(t, other); n != 1 { // other itself
		t.Errorf("%d descriptors are left", n-1)
	}
}

func TestReaderLetsGo(t *testing.T) {
	h := lab.New(t)
	var all []*nsutil.Namespace
	for id := 1; id <= 3; id++ {
		all = append(all, publish(t, h, id))
	}
	r := reader(t)
	var s Sample
	for id := 1; id <= 3; id++ {
		again(t, r, id, &s)
	}
	each := openCounters(t, all[0]) - 1
	if err := nsutil.Unpublish(path(1)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func()
		kept int
	}{
		{"nothing", func() {}, 3},
		{"Recheck", r.Recheck, 2},
		{"Forget", func() { r.Forget(path(2)); r.Forget("/none") }, 1},
		{"Close", func() { r.Close() }, 0},
	} {
		step.do()
		if n, want := openCounters(t, all[0])-1, step.kept*each/3; n != want {
			t.Errorf("after %s %d descriptors are open, want %d", step.what, n, want)
		}
	}
	again(t, r, 3, &s)
}

// What is opened while its name goes must not stay open.
func TestReaderWhileNamesComeAndGo(t *testing.T) {
	h := lab.New(t)
	r := reader(t)
	changes, err := nsutil.WatchMounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		for range changes {
			r.Recheck()
		}
	})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var s Sample
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := r.Read(source(8), &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		ns, err := nsutil.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(ns.Publish(path(8)), nsutil.Unpublish(path(8)), ns.Close()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	none := publish(t, h, 9)
	for end := time.Now().Add(10 * time.Second); openCounters(t, none) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are open", openCounters(t, none))
		}
	}
}

func TestReaderWithoutDescriptors(t *testing.T) {
	h := lab.New(t)
	const servers = 8
	for id := 1; id <= servers; id++ {
		publish(t, h, id).Close()
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	r := reader(t)
	readAll := func() {
		t.Helper()
		var s Sample
		for range 2 {
			for id := 1; id <= servers; id++ {
				again(t, r, id, &s)
			}
		}
	}
	readAll()
	if r.files == 0 || r.files > int(few.Cur/2) {
		t.Errorf("it keeps %d files open", r.files)
	}
	var taken []*os.File
	for {
		f, err := os.Open("/dev/null")
		if errors.Is(err, unix.EMFILE) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, f)
	}
	readAll()
	for _, f := range taken {
		f.Close()
	}
	readAll()
}

// A file may be longer than the buffer, as that of many devices is.
func TestReaderOfManyDevices(t *testing.T) {
	h := lab.New(t)
	publish(t, h, 8)
	var batch strings.Builder
	const devices = 200
	for i := range devices {
		fmt.Fprintf(&batch, "link add v%d type veth peer name w%d\n", i, i)
	}
	file := t.TempDir() + "/batch"
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run(t, "ip", "-n", "vs8", "-batch", file)
	r := reader(t)
	var s Sample
	for range 2 {
		again(t, r, 8, &s)
		if len(s.Interfaces) != 2*devices || !hasInterface(s, "v0") || !hasInterface(s, fmt.Sprintf("w%d", devices-1)) {
			t.Errorf("%d interfaces", len(s.Interfaces))
		}
	}
}
