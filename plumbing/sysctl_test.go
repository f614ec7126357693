package plumbing

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// What is not offered is not set, and all else is.
func TestOffered(t *testing.T) {
	count := func(f Features) map[string]int {
		n := map[string]int{}
		for _, c := range serverSysctls {
			if f.offered(c) {
				n[strings.Split(c.key, ".")[1]]++
			}
		}
		return n
	}
	all, noDetection, noIPv6 := count(modern), count(Features{IPv6: true}), count(Features{})
	if all["ipv4"]+all["ipv6"] != len(serverSysctls) {
		t.Errorf("of %d, a modern kernel has %v", len(serverSysctls), all)
	}
	if noDetection["ipv4"] != all["ipv4"] || noDetection["ipv6"] != all["ipv6"]-2 {
		t.Errorf("without optimistic detection: %v of %v", noDetection, all)
	}
	if !maps.Equal(noIPv6, map[string]int{"ipv4": all["ipv4"]}) {
		t.Errorf("without IPv6: %v of %v", noIPv6, all)
	}
}

// A key that is there twice, or misspelt, would show as drift for ever.
func TestSysctlKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range serverSysctls {
		if seen[c.key] {
			t.Errorf("%s is there twice", c.key)
		}
		seen[c.key] = true
		if _, err := os.Stat(c.path()); err != nil && !strings.Contains(c.key, "optimistic") {
			t.Error(err)
		}
	}
}

// What is set in a namespace is that namespace's, and the others' stays.
func TestSysctlsAreTheNamespaces(t *testing.T) {
	lab.New(t)
	here, there := namespace(t), namespace(t)
	for _, c := range serverSysctls {
		var was, is, elsewhere string
		if err := there.Do(func() (err error) { was, err = c.read(); return err }); err != nil {
			t.Fatal(err)
		}
		if was == "" && slices.Contains([]string{"net.ipv6.conf.all.optimistic_dad", "net.ipv6.conf.all.use_optimistic"}, c.key) {
			continue // this kernel has none
		}
		other := sysctl{c.key, map[bool]string{true: "1", false: "0"}[was == "0"]}
		if err := here.Do(other.write); err != nil {
			t.Error(err)
		}
		here.Do(func() (err error) { is, err = other.read(); return err })
		there.Do(func() (err error) { elsewhere, err = other.read(); return err })
		if is != other.value || elsewhere != was {
			t.Errorf("%s: %s here and %s elsewhere, want %s and %s", c.key, is, elsewhere, other.value, was)
		}
	}
	absent := sysctl{"net.ipv4.conf.all.nothing", "1"}
	if v, err := absent.read(); v != "" || err != nil {
		t.Errorf("what is not there is read as %q, %v", v, err)
	}
	if err := absent.write(); err == nil || !strings.HasPrefix(err.Error(), "net.ipv4.conf.all.nothing: ") {
		t.Errorf("what is not there is written: %v", err)
	}
}
