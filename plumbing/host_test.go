package plumbing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// A fataler is a test, or one run of a property.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// ports is a host with the ports eth1 and eth2 on two segments, and with vs8's
// place.
func ports(t *testing.T) *lab.Host {
	t.Helper()
	h := lab.New(t)
	h.Segment("eth1")
	h.Segment("eth2")
	return h
}

// at opens a place until the end of the test.
func at(t *testing.T, place Place) *Handle {
	t.Helper()
	h := open(t, place)
	t.Cleanup(h.Close)
	return h
}

func open(t fataler, place Place) *Handle {
	t.Helper()
	h, err := Open(place)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// planFor is what has to be done, without asking the segment: that takes long,
// and has its own tests.
func planFor(t fataler, h *Handle, want Network) Plan {
	t.Helper()
	plan, err := Diff(h.place, want, observe(t, h, want))
	if err != nil {
		t.Fatal(err)
	}
	return plan.WithoutProbe()
}

func observe(t fataler, h *Handle, want Network) State {
	t.Helper()
	have, err := h.Observe(want)
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// apply makes the namespace hold what is wanted, looking at it as often as a
// virtual server's enable does.
func apply(t fataler, h *Handle, want Network) {
	t.Helper()
	var tried string
	for range 3 {
		plan := planFor(t, h, want)
		if len(plan) == 0 {
			return
		}
		tried += plan.Script(h.place) + "\n"
		if err := plan.Apply(context.Background(), h); err != nil {
			t.Fatalf("%v\nafter\n%s", err, tried)
		}
	}
	if plan := planFor(t, h, want); len(plan) > 0 {
		t.Fatalf("after three rounds there is still to do\n%safter\n%s", plan.Script(h.place), tried)
	}
}

// enable makes a namespace that holds what is wanted, until the end of the test.
func enable(t *testing.T, place Place, want Network) *Handle {
	t.Helper()
	h := at(t, place)
	t.Cleanup(func() { remove(t, place) })
	apply(t, h, want)
	return h
}

func remove(t fataler, place Place) {
	t.Helper()
	h := open(t, place)
	defer h.Close()
	if err := Removal(observe(t, h, Network{})).Force(context.Background(), h); err != nil {
		t.Errorf("cannot remove %s: %v", place.Name, err)
	}
}

// A failing step does nothing else.
type failing struct{}

var errTest = errors.New("this is a test")

func (failing) String() string                       { return "go on" }
func (failing) Command(Place) string                 { return "" }
func (failing) undo() Step                           { return nil }
func (failing) apply(context.Context, *Handle) error { return errTest }

// A cancelling step is the moment at which somebody gives up.
type cancelling struct{ cancel context.CancelCauseFunc }

func (cancelling) String() string       { return "give up" }
func (cancelling) Command(Place) string { return "" }
func (cancelling) undo() Step           { return nil }
func (s cancelling) apply(context.Context, *Handle) error {
	s.cancel(errTest)
	return nil
}

// impossible is a request that the kernel refuses.
var impossible = setRoute{Route: Route{
	To: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("198.51.100.77"), Dev: "lo",
}}

// look is all that iproute2 shows of a namespace, sorted; the addresses of a
// device are below it in their order, which matters. What depends on the moment
// is left out: indexes, operational states (linkwatch), duplicate address detection, and the kernel's own table
// local, which it fills a little later (addrconf_dad_work).
func look(t fataler, h *lab.Host, place Place) string {
	t.Helper()
	var b strings.Builder
	for _, words := range []string{"-d address show", "-4 route show table all", "-6 route show table all", "-4 rule show", "-6 rule show"} {
		var things []string
		for _, o := range show(t, h, append([]string{"ip", "-n", place.Name, "-j"}, strings.Fields(words)...)...) {
			if o["table"] == "local" {
				continue
			}
			infos, _ := o["addr_info"].([]any)
			delete(o, "addr_info")
			thing := line(t, o)
			for _, info := range infos {
				thing += "\n  " + line(t, info.(map[string]any))
			}
			things = append(things, thing)
		}
		slices.Sort(things)
		fmt.Fprintln(&b, strings.Join(things, "\n"))
	}
	return b.String()
}

func show(t fataler, h *lab.Host, argv ...string) []map[string]any {
	t.Helper()
	r := h.TryRun(argv...)
	if r.Code != 0 {
		t.Fatal(r)
	}
	var list []map[string]any
	if strings.TrimSpace(r.Stdout) != "" { // iproute2's empty list
		d := json.NewDecoder(strings.NewReader(r.Stdout))
		d.UseNumber()
		if err := d.Decode(&list); err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
	}
	return slices.DeleteFunc(list, func(o map[string]any) bool { return len(o) == 0 })
}

func line(t fataler, o map[string]any) string {
	t.Helper()
	for _, key := range []string{"ifindex", "link_index", "operstate", "tentative", "optimistic", "expires"} {
		delete(o, key)
	}
	if flags, ok := o["flags"].([]any); ok { // the carrier's
		o["flags"] = slices.DeleteFunc(flags, func(f any) bool { return f == "NO-CARRIER" || f == "LOWER_UP" })
	}
	for _, life := range []string{"valid_life_time", "preferred_life_time"} {
		if left, ok := o[life].(json.Number); ok && left != "4294967295" { // not for ever
			o[life] = "limited"
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// holds checks that a namespace holds what is wanted and, but for what the
// kernel makes by itself, nothing else. It asks iproute2.
func holds(t fataler, h *lab.Host, place Place, want Network) {
	t.Helper()
	got, wanted := []string{}, []string{"lo up vsrun:" + place.Name}
	for _, l := range show(t, h, "ip", "-n", place.Name, "-j", "-d", "address", "show") {
		name, _ := l["ifname"].(string)
		words := []string{name}
		if flags, _ := l["flags"].([]any); slices.Contains(flags, any("UP")) {
			words = append(words, "up")
		}
		words = append(words, fmt.Sprint(l["ifalias"]))
		if name != "lo" {
			info, _ := l["linkinfo"].(map[string]any)
			data, _ := info["info_data"].(map[string]any)
			words = append(words, fmt.Sprint(info["info_kind"], " ", data["mode"], " ", l["address"], " mtu ", l["mtu"], " on ", l["link_index"]))
		}
		got = append(got, strings.Join(words, " "))
		infos, _ := l["addr_info"].([]any)
		for _, info := range infos {
			a := info.(map[string]any)
			if a["scope"] == "global" {
				got = append(got, fmt.Sprintf("%s %v/%v brd %v", name, a["local"], a["prefixlen"], a["broadcast"]))
			}
		}
	}
	for _, family := range []string{"-4", "-6"} {
		for _, r := range show(t, h, "ip", "-n", place.Name, family, "-j", "route", "show", "table", "all") {
			if r["protocol"] == "kernel" || r["table"] == "local" {
				continue
			}
			flow, _ := r["flow"].(map[string]any)
			got = append(got, fmt.Sprintf("%s %v via %v dev %v src %v table %v metric %v realm %v proto %v",
				family, r["dst"], r["gateway"], r["dev"], r["prefsrc"], r["table"], r["metric"], flow["to"], r["protocol"]))
		}
		for line := range strings.Lines(h.TryRun("ip", "-n", place.Name, family, "rule", "show").Stdout) {
			if strings.Contains(line, " proto 118") {
				got = append(got, family+" "+strings.TrimSpace(line))
			}
		}
	}
	index := map[string]any{}
	mtu := map[string]any{}
	for _, l := range show(t, h, "ip", "-j", "link", "show") {
		index[l["ifname"].(string)], mtu[l["ifname"].(string)] = l["ifindex"], l["mtu"]
	}
	for _, i := range want.Interfaces {
		m := any(i.MTU)
		if i.MTU == 0 {
			m = mtu[i.Port]
		}
		wanted = append(wanted, fmt.Sprintf("%s up %s macvlan %s %s mtu %v on %v",
			i.Name, "vsrun:"+place.Name+"/"+i.Name, i.trait().mode, i.MAC, m, index[i.Port]))
		for _, p := range i.Addresses {
			var brd any
			if p.Addr().Is4() && p.Bits() < 31 {
				brd = lastAddr(p)
			}
			wanted = append(wanted, fmt.Sprintf("%s %v brd %v", i.Name, p, brd))
		}
	}
	for _, r := range want.allRoutes() {
		wanted = append(wanted, routeLine(r))
	}
	for _, r := range want.allRules() {
		wanted = append(wanted, ruleLine(r))
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if d := cmp.Diff(wanted, got); d != "" {
		t.Fatalf("%s holds (-want +got):\n%s", place.Name, d)
	}
}

// ruleLine is how ip rule shows it.
func ruleLine(r Rule) string {
	family, line := "-4", fmt.Sprintf("%d:\tfrom ", r.Priority)
	if r.IPv6 {
		family = "-6"
	}
	from := "all"
	if r.From.IsValid() {
		from = r.From.Addr().String()
	}
	line += from
	if r.To.IsValid() {
		line += " to " + r.To.String()
	}
	if r.IIF != "" {
		line += " iif " + r.IIF
	}
	line += fmt.Sprintf(" lookup %d", r.Table)
	if r.Realm != 0 {
		line += fmt.Sprintf(" realms %d", r.Realm)
	}
	return family + " " + line + " proto 118"
}

func routeLine(r Route) string {
	var via, src, table, metric, realm any
	family, to := "-4", strings.TrimSuffix(prefixName(r.To), "/32")
	if r.To.Addr().Is6() {
		family, metric = "-6", 1024
		to = strings.TrimSuffix(to, "/128")
	}
	if r.Via.IsValid() {
		via = r.Via
	}
	if r.Src.IsValid() {
		src = r.Src
	}
	if r.Table != 0 {
		table = r.Table
	}
	if r.Metric != 0 {
		metric = r.Metric
	}
	if r.Realm != 0 {
		realm = r.Realm
	}
	return fmt.Sprintf("%s %v via %v dev %v src %v table %v metric %v realm %v proto 118", family, to, via, r.Dev, src, table, metric, realm)
}
