package stats

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

func parseConntrack(text string) (MIB, error) {
	s, err := parsed(text, (*parser).conntrack)
	return s.Conntrack, err
}

func TestParseConntrack(t *testing.T) {
	m, err := parseConntrack(fixture(t, "nf_conntrack"))
	want := MIB{{"nf_conntrack", []Counter{
		{"entries", 12}, {"clashres", 0x11}, {"found", 0x22}, {"invalid", 0x33}, {"chainlength", 0x44}, {"insert", 0x55},
		{"insert_failed", 0x66}, {"drop", 0x77}, {"early_drop", 0x88}, {"icmp_error", 0xffffffff + 9},
		{"expect_new", 0xaa}, {"expect_create", 0xbb}, {"expect_delete", 0xcc}, {"search_restart", 0xdd},
	}}}
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseConntrackRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                           `heading "" does not begin with "entries"`,
		"found entries\n":            `heading "found entries" does not begin with "entries"`,
		"entries found\n1\n":         `found: "" is not a hexadecimal number of 32 bits`,
		"entries found\n1 g\n":       `found: "g" is not a hexadecimal number of 32 bits`,
		"entries\n123456789\n":       `entries: "123456789" is not a hexadecimal number of 32 bits`,
		"entries found\n1 2 3\n":     `there are more values than the 2 names`,
		"entries found found\n1 2 3": `nf_conntrack: counter "found": there twice`,
		"entries fo\"und\n1 2\n":     `nf_conntrack: counter "fo\"und": not a name of letters and digits`,
	} {
		if m, err := parseConntrack(in); err == nil || err.Error() != want {
			t.Errorf("%q gives %v, %v, want %s", in, m, err, want)
		}
	}
}

func TestReadConntrack(t *testing.T) {
	ns := publish(t, lab.New(t), 8)
	var there bool
	do(t, ns, func() error {
		_, err := os.Stat("/proc/thread-self/net/stat/nf_conntrack")
		there = err == nil
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	if entries, ok := read(t, 8).Conntrack.Lookup("nf_conntrack", "entries"); ok != there || entries != 0 {
		t.Errorf("%d entries, %v; the kernel has the file: %v", entries, ok, there)
	}
}

// A module's file comes and goes with it.
func TestReaderWhileModulesComeAndGo(t *testing.T) {
	h := lab.New(t)
	publish(t, h, 8)
	r := reader(t)
	var s Sample
	again(t, r, 8, &s)
	ns := r.kept[path(8)]
	last := len(procFiles) - 1
	if ns.open[last] < 0 {
		if h.TryRun("modprobe", "nf_conntrack").Code != 0 {
			return // this kernel has none at all
		}
		defer h.TryRun("rmmod", "nf_conntrack")
	} else {
		unix.Close(ns.open[last])
		ns.open[last] = -1
	}
	ns.since = ns.since.Add(-2 * lookAgain)
	again(t, r, 8, &s)
	if _, ok := s.Conntrack.Lookup("nf_conntrack", "entries"); !ok {
		t.Error("the file is there by now, and is not read")
	}
	dir, err := os.Open("/") // as if it was gone: it cannot be read
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Dup3(int(dir.Fd()), ns.open[last], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	again(t, r, 8, &s)
}

func FuzzParseConntrack(f *testing.F) {
	f.Add(fixture(f, "nf_conntrack"), "entries new\n0 1\n")
	f.Add("entries found\n1 ffffffff\n1 ffffffff\n", "entries\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		checkSecondParse(t, first, second, (*parser).conntrack)
		m, err := parseConntrack(first)
		if err != nil {
			return
		}
		checkJSON(t, m)
		for _, c := range m[0].Counters {
			if most := int64(1<<32) * int64(strings.Count(first, "\n")+1); c.Value < 0 || c.Value >= most {
				t.Errorf("%s is %d", c.Name, c.Value)
			}
		}
	})
}
