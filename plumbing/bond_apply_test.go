package plumbing

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsrun/vsrun/test/lab"
)

// bondHost is a host with four NICs that have something of their own.
func bondHost(t *testing.T) *lab.Host {
	t.Helper()
	lab.Require(t, "kind:bond")
	host := lab.New(t)
	host.Segment("eth1", "eth2", "eth3")
	ip := func(lines ...string) {
		t.Helper()
		host.Run(t, "sh", "-ec", "ip -batch - <<'END'\n"+strings.Join(lines, "\n")+"\nEND\n")
	}
	fresh := host.Snapshot()
	ip("addr add 192.0.2.1/24 broadcast 192.0.2.255 dev eth1 label eth1:a",
		"addr add 192.0.2.2/24 dev eth1",
		"addr add 203.0.113.1 peer 203.0.113.2/32 dev eth1",
		"addr add 2001:db8::1/64 dev eth1 nodad",
		"addr add 2001:db8::2/64 dev eth1 nodad noprefixroute",
		"addr add fe80::1/64 dev eth1 nodad",
		"link set dev eth1 mtu 1400",
		"link set dev eth2 down",
		"addr add 198.51.100.1/24 dev eth3")
	t.Cleanup(func() {
		ip("addr flush dev eth1", "addr flush dev eth3", "link set dev eth1 down", "link set dev eth3 down",
			"link set dev eth1 mtu 1500", "link set dev eth1 up", "link set dev eth2 up", "link set dev eth3 up")
		awaitClean(t, host, fresh)
	})
	return host
}

// members are how the host's NICs are.
func members(t *testing.T) []Member {
	t.Helper()
	w := &bondWorld{t: t}
	defer w.close()
	_, s := w.observe("eth1", "eth2", "eth3")
	return s.Members
}

// exactly compares what is not exported, too.
var exactly = cmp.Options{cmp.AllowUnexported(Port{}), cmpopts.EquateComparable(OwnAddress{}, origin{})}

func mustHave(t *testing.T, want []Member, what string, k int, plan Plan) {
	t.Helper()
	if d := cmp.Diff(want, members(t), exactly); d != "" {
		last := "nothing"
		if k > 0 && k <= len(plan) {
			last = plan[k-1].String()
		}
		t.Fatalf("%s: the members after step %d, %s (-before +after):\n%s", what, k, last, d)
	}
}

// A bondChange goes from one bond to another.
var bondChanges = []struct {
	name     string
	from, to Bond // without a name: none
}{
	{"create", Bond{}, abBond(nil)},
	{"another mode", abBond(nil), abBond(func(b *Bond) { b.Mode, b.MTU = LACP, 1300 })},
	{"other members", abBond(nil), abBond(func(b *Bond) { b.Members, b.Primary = []string{"eth2", "eth3"}, "eth3" })},
	{"other members in another mode", abBond(nil), Bond{Name: "bond0", Mode: BalanceRR, Members: []string{"eth3"}, MAC: MAC{2, 0, 0, 0, 0, 9}}},
	{"watched by ARP", abBond(nil), abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets = 100, addrs("192.0.2.1", "192.0.2.9") })},
	{"by carrier", abBond(func(b *Bond) { b.ARPInterval, b.ARPTargets = 100, addrs("192.0.2.1") }), abBond(func(b *Bond) { b.UpDelay = 200 })},
}

// A bondWorld is what the store would remember beside what the kernel holds.
type bondWorld struct {
	t      *testing.T
	want   Bond
	before map[string]Before
	h      *Handle // the last command's
}

func newBondWorld(t *testing.T, from Bond) *bondWorld {
	t.Helper()
	w := &bondWorld{t: t, before: map[string]Before{}}
	if from.Name != "" {
		w.apply(from)
	}
	return w
}

func (w *bondWorld) close() {
	if w.h != nil {
		w.h.Close()
	}
	w.h = nil
}

// observe begins another command.
func (w *bondWorld) observe(others ...string) (*Handle, BondState) {
	w.t.Helper()
	w.close()
	var err error
	if w.h, err = OpenHost(); err != nil {
		w.t.Fatal(err)
	}
	for name := range w.before {
		others = append(others, name)
	}
	s, err := w.h.ObserveBond(w.want, others...)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.h, s
}

// plan plans, and remembers first.
func (w *bondWorld) plan(want Bond) (*Handle, Plan) {
	w.t.Helper()
	w.want = want
	h, have := w.observe()
	for name, b := range have.Before(want) {
		if _, once := w.before[name]; !once {
			w.before[name] = b
		}
	}
	plan, err := DiffBond(want, w.before, have)
	if err != nil {
		w.t.Fatal(err)
	}
	return h, plan
}

func (w *bondWorld) apply(want Bond) {
	w.t.Helper()
	h, plan := w.plan(want)
	if err := plan.Apply(w.t.Context(), h); err != nil {
		w.t.Fatal(err)
	}
	if _, again := w.plan(want); len(again) > 0 {
		w.t.Fatalf("there is still to do:\n%s", again.Script(Place{}))
	}
	for name := range w.before {
		if !slices.Contains(want.Members, name) {
			delete(w.before, name)
		}
	}
}

func (w *bondWorld) remove() {
	w.t.Helper()
	h, have := w.observe()
	defer w.close()
	plan, err := RemoveBond("bond0", w.before, have)
	if err == nil {
		err = plan.Force(w.t.Context(), h)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Dead after any step, the next command finds enough: it completes, or gives the
// members back as they were before the first.
func TestBondAfterACrash(t *testing.T) {
	host := bondHost(t)
	before, clean := members(t), host.Snapshot()
	for _, tt := range bondChanges {
		for k, steps := 0, 1; k <= steps; k++ {
			w := newBondWorld(t, tt.from)
			h, plan := w.plan(tt.to)
			steps = len(plan)
			if err := plan[:k].Apply(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			if k%2 == 0 {
				w.apply(tt.to)
			}
			w.remove()
			mustHave(t, before, tt.name, k, plan)
		}
	}
	// Dead while it is taken away.
	for k, steps := 0, 1; k <= steps; k++ {
		w := newBondWorld(t, abBond(nil))
		h, have := w.observe()
		plan, err := RemoveBond("bond0", w.before, have)
		if err != nil {
			t.Fatal(err)
		}
		steps = len(plan)
		if err := plan[:k].Force(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		w.remove()
		mustHave(t, before, "remove", k, plan)
	}
	awaitClean(t, host, clean)
}

// Wherever a plan fails, what was there before is there again.
func TestBondUndone(t *testing.T) {
	host := bondHost(t)
	before, clean := members(t), host.Snapshot()
	for _, tt := range bondChanges {
		w := newBondWorld(t, tt.from)
		_, was := w.observe()
		for k, steps := 0, 1; k <= steps; k++ {
			try := &bondWorld{t: t, want: tt.from, before: maps.Clone(w.before)}
			h, plan := try.plan(tt.to)
			steps = len(plan)
			broken := slices.Insert(slices.Clone(plan), k, Step(failing{}))
			if err := broken.Apply(t.Context(), h); err == nil || err.Error() != "cannot go on: this is a test" {
				t.Errorf("%s: step %d failed, and the error is: %v", tt.name, k, err)
			}
			try.close()
			if tt.from.Name == "" {
				mustHave(t, before, tt.name, k, plan)
				continue
			}
			_, is := w.observe()
			ignore := []cmp.Option{exactly, cmpopts.IgnoreFields(Port{}, "Addresses"),
				cmpopts.IgnoreFields(Member{}, "MII", "Backup", "Failures"), cmpopts.IgnoreFields(BondState{}, "Active", "Carrier")}
			if d := cmp.Diff(was, is, ignore...); d != "" {
				t.Fatalf("%s: undone after step %d (-before +after):\n%s\n%s", tt.name, k, d, plan.Script(Place{}))
			}
		}
		w.remove()
		mustHave(t, before, tt.name, 0, nil)
	}
	awaitClean(t, host, clean)
}

// Every option in every mode that knows it is what the kernel shows afterwards, and
// can be changed live to its default and back.
func TestBondOptions(t *testing.T) {
	host := bondHost(t)
	before, clean := members(t), host.Snapshot()
	for _, mode := range bondModes {
		plain := Bond{Name: "bond0", Mode: BondMode(mode), Members: []string{"eth1", "eth3"}}
		full := plain
		full.Miimon, full.UpDelay, full.DownDelay, full.MTU = 50, 100, 150, 1300
		set := func(to *string, name string, k int) {
			if o := optionNamed(name); o.known(full.Mode) {
				*to = o.words[k%len(o.words)]
			}
		}
		watched := plain
		if slices.Contains(arpModes, plain.Mode) {
			watched.ARPInterval, watched.ARPTargets = 200, addrs("192.0.2.9", "192.0.2.8")
		}
		if slices.Contains(primaryModes, plain.Mode) {
			full.Primary = "eth3"
		}
		w := newBondWorld(t, Bond{})
		for k := range 3 {
			set(&full.PrimaryReselect, "primary_reselect", k)
			set(&full.FailOverMAC, "fail_over_mac", k)
			set(&full.HashPolicy, "xmit_hash_policy", 5-k)
			set(&full.LACPRate, "lacp_rate", k)
			if watched.ARPInterval > 0 {
				set(&watched.ARPValidate, "arp_validate", 2*k)
			}
			for _, b := range []Bond{full, watched, plain} {
				if problems := b.Validate(); len(problems) > 0 {
					t.Fatalf("no bond to test with: %v", problems)
				}
				w.apply(b)
				_, have := w.observe()
				for _, s := range b.settings() {
					if have.Options[s.name] != s.value {
						t.Errorf("%s: %s, and the kernel has %s", mode, s, have.Options[s.name])
					}
				}
			}
		}
		w.remove()
		mustHave(t, before, mode, 0, nil)
	}
	awaitClean(t, host, clean)
}

// The kernel's module makes a bond0 when it is loaded (max_bonds): it is nobody's.
func TestIdleBondIsTakenOver(t *testing.T) {
	host := bondHost(t)
	before, clean := members(t), host.Snapshot()
	host.Run(t, "ip", "link", "add", "bond0", "type", "bond")
	w := newBondWorld(t, abBond(nil))
	w.remove()
	// Loaded between the look and the making.
	h, plan := w.plan(abBond(nil))
	host.Run(t, "ip", "link", "add", "bond0", "type", "bond")
	if err := plan.Apply(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	w.remove()
	mustHave(t, before, "taken over", 0, nil)
	awaitClean(t, host, clean)
}

// awaitClean also waits for the link-local addresses that come with the carrier.
func awaitClean(t *testing.T, host *lab.Host, clean lab.Snapshot) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		diff := clean.Diff(host.Snapshot())
		if diff == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left:\n%s", diff)
		}
	}
}
