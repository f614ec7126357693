package stats

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

func parseSockstat(text string) (MIB, error) {
	s, err := parsed(text, (*parser).sockstat)
	return s.Sockets, err
}

func TestParseSockstat(t *testing.T) {
	for file, want := range map[string]MIB{
		"sockstat": {
			{"sockets", []Counter{{"used", 17}}},
			{"TCP", []Counter{{"inuse", 1}, {"tw", 2}}},
			{"UDP", []Counter{{"inuse", 4}}},
			{"UDPLITE", []Counter{{"inuse", 0}}},
			{"RAW", []Counter{{"inuse", 6}}},
			{"FRAG", []Counter{{"inuse", 7}, {"memory", 8}}},
		},
		"sockstat6": {
			{"TCP6", []Counter{{"inuse", 1}}},
			{"UDP6", []Counter{{"inuse", 2}}},
			{"UDPLITE6", []Counter{{"inuse", 0}}},
			{"RAW6", []Counter{{"inuse", 3}}},
			{"FRAG6", []Counter{{"inuse", 4}, {"memory", 5}}},
		},
	} {
		m, err := parseSockstat(fixture(t, file))
		if diff := cmp.Diff(want, m); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", file, err, diff)
		}
	}
}

func TestParseSockstatRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"\n":                           "a line has no protocol",
		"TCP inuse 1\n":                "a line has no protocol",
		": inuse 1\n":                  "a line has no protocol",
		"TCP: inuse\n":                 `TCP inuse: strconv.ParseUint: parsing "": invalid syntax`,
		"TCP: inuse x\n":               `TCP inuse: strconv.ParseUint: parsing "x": invalid syntax`,
		"TCP: inuse 1\nTCP: inuse 1\n": `TCP: counter "inuse": there twice`,
		"T\": inuse 1\n":               `group "T\"": not a name of letters and digits`,
	} {
		if m, err := parseSockstat(in); err == nil || err.Error() != want {
			t.Errorf("%q gives %v, %v, want %s", in, m, err, want)
		}
	}
}

// The sockets of one namespace are not another's, which is what tells those of the host.
func TestReadSockets(t *testing.T) {
	h := lab.New(t)
	ns := publish(t, h, 8)
	publish(t, h, 9)
	before := [2]Sample{read(t, 8), read(t, 9)}
	do(t, ns, func() error {
		for _, addr := range []string{"127.0.0.1:0", "127.0.0.1:0", "[::1]:0"} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
		}
		return nil
	})
	after := [2]Sample{read(t, 8), read(t, 9)}
	for _, want := range []struct {
		group, name string
		more        int64
	}{{"TCP", "inuse", 2}, {"TCP6", "inuse", 1}, {"UDP", "inuse", 0}} {
		was, _ := before[0].Sockets.Lookup(want.group, want.name)
		is, ok := after[0].Sockets.Lookup(want.group, want.name)
		if !ok || is-was != want.more {
			t.Errorf("%s %s went from %d to %d (%v), want %d more", want.group, want.name, was, is, ok, want.more)
		}
	}
	// Those of netlink that were closed are in there for a while.
	if used, _ := after[0].Sockets.Lookup("sockets", "used"); used < 3 {
		t.Errorf("%d sockets are used, of 3", used)
	}
	for _, m := range []*MIB{&before[1].Sockets, &after[1].Sockets} {
		*m = slices.DeleteFunc(*m, func(g Group) bool { return g.Name == "sockets" })
	}
	if diff := cmp.Diff(before[1].Sockets, after[1].Sockets); diff != "" {
		t.Errorf("the sockets of another namespace count here:\n%s", diff)
	}
}

func FuzzParseSockstat(f *testing.F) {
	f.Add(fixture(f, "sockstat"), fixture(f, "sockstat6"))
	f.Add("TCP: inuse -1 tw 18446744073709551615\n", "TCP: inuse 1 \n")
	f.Fuzz(func(t *testing.T, first, second string) {
		checkSecondParse(t, first, second, (*parser).sockstat)
		if m, err := parseSockstat(first); err == nil {
			checkJSON(t, m)
			if n := strings.Count(first, "\n"); len(m) > n+1 {
				t.Errorf("%d groups in %d lines", len(m), n)
			}
		}
	})
}
