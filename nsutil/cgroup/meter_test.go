package cgroup

import (
	"strings"
	"testing"
)

func TestMeter(t *testing.T) {
	all, one := made(t)
	m := Find().Meter("vs8")
	defer m.Close()
	buf := make([]byte, textMost)
	var use *Use
	var services []ServiceUse
	check := func(want string) {
		t.Helper()
		m.Read(buf, &use, &services)
		var names []string
		for _, s := range services {
			names = append(names, s.Name)
			if s.CPU == nil {
				t.Errorf("%s has used %+v", s.Name, s.Use)
			}
		}
		if got := strings.Join(names, " "); use == nil || use.CPU == nil || got != want {
			t.Errorf("%+v, services %q, want %q", use, got, want)
		}
	}
	check("one")
	if n := testing.AllocsPerRun(20, func() { m.Read(buf, &use, &services) }); n != 0 {
		t.Errorf("%v allocations", n)
	}

	two, err := all.Child("another.service") // one more
	if err != nil {
		t.Fatal(err)
	}
	two.Close()
	check("another one")
	third, err := all.Child("one@1.service") // the one that counts
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, third, "true").Wait()
	third.Close()
	check("another one")
	if err := all.Remove("one.service"); err != nil {
		t.Error(err)
	}
	check("another one")
	if err := all.Remove("another.service"); err != nil { // as many as before
		t.Error(err)
	}
	if new, err := all.Child("last.service"); err == nil {
		new.Close()
	}
	check("last one")
	one.Close()

	if err := Find().Remove("vs8"); err != nil {
		t.Error(err)
	}
	for range 2 {
		if m.Read(buf, &use, &services); use != nil || len(services) > 0 || m.Files() != 0 {
			t.Errorf("of what is gone it reads %+v, %+v, and holds %d", use, services, m.Files())
		}
	}
	if n := testing.AllocsPerRun(20, func() { m.Read(buf, &use, &services) }); n != 0 {
		t.Errorf("without a cgroup there are %v allocations", n)
	}
	again, err := Find().Make("vs8")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	check("")
}
