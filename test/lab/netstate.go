package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// NetState is the state of a network namespace as canonical text, a line a
// thing: links, addresses, routes, rules, and the sysctls that a multi-homed
// server depends on. Two namespaces with the same text behave the same on the
// wire. ns is a name that `ip netns` knows, a path, or "" for the host.
//
// Whatever depends on the moment is left out: indices, life times, counters,
// and the kernel's own local table. Addresses are waited for until they are no
// longer tentative, three seconds at most.
func NetState(t testing.TB, ns string) string {
	t.Helper()
	text, err := netState(ns)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func netState(ns string) (string, error) {
	v, err := look(ns)
	if err != nil {
		return "", err
	}
	return v.state(ns)
}

func (v view) state(ns string) (string, error) {
	sysctls, err := sysctls(ns)
	if err != nil {
		return "", err
	}
	var out []string
	for _, lines := range [][]string{v.links(), v.addresses(), v.routes(), v.rules(), sysctls} {
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return strings.Join(out, "\n") + "\n", nil
}

// A view is what iproute2 shows of a namespace.
type view struct {
	devices []object
	family  map[string]familyView // by the option of ip: -4, -6
}

type familyView struct{ devices, routes, rules, neighbours []object }

// look starts iproute2 as seldom as can be: on a slow machine that is what
// tests spend their time on.
func look(ns string) (view, error) {
	lists, err := showAll(ns, "-d", "link show")
	if err != nil {
		return view{}, err
	}
	v := view{lists[0], map[string]familyView{}}
	for _, family := range []string{"-4", "-6"} {
		if v.family[family], err = lookAt(ns, family); err != nil {
			return view{}, err
		}
	}
	return v, nil
}

// lookAt waits until duplicate address detection is over.
func lookAt(ns, family string) (familyView, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		lists, err := showAll(ns, family, "addr show", "route show table all", "rule show",
			"neigh show nud permanent", "neigh show proxy")
		if err != nil {
			return familyView{}, err
		}
		if !slices.ContainsFunc(addressesOf(lists[0]), tentative) || time.Now().After(end) {
			return familyView{lists[0], lists[1], lists[2], append(lists[3], lists[4]...)}, nil
		}
	}
}

// tentative tells whether it is still being found out if the address is a
// duplicate. One found to be stays tentative for good.
func tentative(address object) bool {
	return address["tentative"] == true && address["dadfailed"] != true
}

// inside runs a command in the network namespace ns, a name, a path or "".
func inside(ns string, argv ...string) Result {
	return run("", enter(ns, argv)...)
}

func enter(ns string, argv []string) []string {
	if ns == "" {
		return argv
	}
	return append([]string{"nsenter", "--net=" + nsPath(ns), "--"}, argv...)
}

func nsPath(ns string) string {
	if strings.Contains(ns, "/") {
		return ns
	}
	return netnsDir + "/" + ns
}

// An object is one thing as iproute2 shows it in JSON.
type object = map[string]any

func show(ns string, argv ...string) ([]object, error) {
	lists, err := decode(inside(ns, argv...))
	if err != nil || len(lists) == 0 {
		return nil, err // nothing printed is iproute2's empty list, too
	}
	return lists[0], nil
}

// showAll returns what each of the commands of ip shows.
func showAll(ns, option string, commands ...string) ([][]object, error) {
	stdin := strings.Join(commands, "\n") + "\n"
	lists, err := decode(run(stdin, enter(ns, []string{"ip", option, "-j", "-batch", "-"})...))
	if err == nil && len(lists) != len(commands) {
		err = fmt.Errorf("ip %s answered %d of %q", option, len(lists), commands)
	}
	return lists, err
}

// decode reads the lists that iproute2 printed.
func decode(r Result) ([][]object, error) {
	if r.Code != 0 {
		return nil, fmt.Errorf("%v", r)
	}
	d := json.NewDecoder(strings.NewReader(r.Stdout))
	d.UseNumber()
	var lists [][]object
	for {
		var all []object
		if err := d.Decode(&all); err == io.EOF {
			return lists, nil
		} else if err != nil {
			return nil, fmt.Errorf("cannot read what %q printed: %w", r.command, err)
		}
		// iproute2 leaves an empty object for what a filter hid.
		lists = append(lists, slices.DeleteFunc(all, func(o object) bool { return len(o) == 0 }))
	}
}

// lasting are the link flags that do not come and go with the carrier.
var lasting = []string{"UP", "NOARP", "PROMISC", "ALLMULTI", "MASTER", "SLAVE"}

func (v view) links() []string {
	var lines []string
	for _, l := range v.devices {
		keep := pick(l, "ifname", "address", "mtu", "ifalias", "altnames", "master", "promiscuity", "allmulti")
		if flags, ok := l["flags"].([]any); ok {
			keep["flags"] = slices.DeleteFunc(flags, func(f any) bool { return !slices.Contains(lasting, f.(string)) })
		}
		info, _ := l["linkinfo"].(object)
		maps.Copy(keep, pick(info, "info_kind"))
		data, _ := info["info_data"].(object)
		maps.Copy(keep, pick(data, "mode", "flags", "id", "protocol", "table", "vrf"))
		if keep["info_kind"] != "veth" {
			keep["parent"] = parent(l)
		}
		lines = append(lines, "link "+line(keep, "ifname"))
	}
	return lines
}

// parent is the name of the port that a macvlan or VLAN is on, here or on the
// host.
func parent(link object) any {
	if name, ok := link["link"]; ok {
		return name
	}
	index, ok := link["link_index"]
	if !ok {
		return nil
	}
	ports, err := show("", "ip", "-j", "link", "show")
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p["ifindex"] == index {
			return p["ifname"]
		}
	}
	return fmt.Sprintf("index %v", index)
}

// addressesOf are the addresses of devices, each with its device's name.
func addressesOf(devices []object) []object {
	var all []object
	for _, l := range devices {
		infos, _ := l["addr_info"].([]any)
		for _, info := range infos {
			if a, _ := info.(object); len(a) > 0 {
				a["dev"] = l["ifname"]
				all = append(all, a)
			}
		}
	}
	return all
}

func (v view) addresses() []string {
	var lines []string
	for _, family := range v.family {
		for _, a := range addressesOf(family.devices) {
			for _, life := range []string{"valid_life_time", "preferred_life_time"} {
				if fmt.Sprint(a[life]) == "4294967295" { // for ever
					delete(a, life)
				} else {
					a[life] = "limited"
				}
			}
			drop(a, "tentative", "optimistic", "label")
			lines = append(lines, "address "+line(a, "dev", "local", "prefixlen"))
		}
	}
	return lines
}

func (v view) routes() []string {
	var lines []string
	for option, family := range v.family {
		for _, r := range family.routes {
			if r["table"] == "local" {
				continue
			}
			drop(r, "expires", "used", "age", "users", "pref")
			if flags, ok := r["flags"].([]any); ok { // linkdown, dead: the carrier's
				r["flags"] = slices.DeleteFunc(flags, func(f any) bool { return f != "onlink" })
			}
			lines = append(lines, "route "+option+" "+line(r, "dst", "gateway", "dev"))
		}
	}
	return lines
}

func (v view) rules() []string {
	var lines []string
	for option, family := range v.family {
		for _, r := range family.rules {
			lines = append(lines, "rule "+option+" "+line(r, "priority"))
		}
	}
	return lines
}

// confs are the per-device sysctls that NetState shows.
var confs = map[string][]string{
	"ipv4": {"arp_ignore", "arp_announce", "arp_notify", "rp_filter", "accept_redirects", "send_redirects",
		"promote_secondaries", "forwarding"},
	"ipv6": {"accept_ra", "autoconf", "optimistic_dad", "use_optimistic", "keep_addr_on_down", "accept_redirects",
		"addr_gen_mode", "disable_ipv6", "accept_dad", "forwarding"},
}

const (
	sysctlTop     = "/proc/sys/net/"
	sysctlForward = sysctlTop + "ipv4/ip_forward"
)

func sysctls(ns string) ([]string, error) {
	if ns == "" {
		return hostSysctls()
	}
	patterns := []string{sysctlForward}
	for family, names := range confs {
		for _, name := range names {
			patterns = append(patterns, sysctlTop+family+"/conf/*/"+name)
		}
	}
	r := inside(ns, "sh", "-c", "grep -Hs '' "+strings.Join(patterns, " "))
	if r.Code > 2 || r.Stdout == "" { // 2: a name that this kernel lacks
		return nil, fmt.Errorf("cannot read the sysctls: %v", r)
	}
	var lines []string
	for l := range strings.Lines(r.Stdout) {
		path, value, _ := strings.Cut(l, ":")
		lines = append(lines, sysctlLine(path, value))
	}
	return lines, nil
}

// hostSysctls reads those of the namespace that the test is in.
func hostSysctls() ([]string, error) {
	paths := []string{sysctlForward}
	for family, names := range confs {
		devices, err := os.ReadDir(sysctlTop + family + "/conf")
		if err != nil {
			return nil, err
		}
		for _, dev := range devices {
			for _, name := range names {
				paths = append(paths, filepath.Join(sysctlTop, family, "conf", dev.Name(), name))
			}
		}
	}
	var lines []string
	for _, path := range paths {
		value, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its device has gone, or the kernel lacks it
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, sysctlLine(path, string(value)))
	}
	return lines, nil
}

func sysctlLine(path, value string) string {
	return "sysctl " + strings.TrimPrefix(path, sysctlTop) + " = " + strings.TrimSpace(value)
}

// neighbours are what somebody wrote into the neighbour tables and the ports'
// lists of addresses; what the kernel learned comes and goes.
func (v view) neighbours(ns string) ([]string, error) {
	all, err := show(ns, "bridge", "-j", "fdb", "show")
	for _, family := range v.family {
		all = append(all, family.neighbours...)
	}
	var lines []string
	for _, n := range all {
		if mac, _ := n["mac"].(string); isMulticast(mac) {
			continue // joined and left as addresses come and go
		}
		lines = append(lines, line(n, "ifname", "dev", "dst", "mac"))
	}
	return lines, err
}

func isMulticast(mac string) bool {
	return len(mac) > 1 && strings.ContainsAny(mac[1:2], "13579bdf")
}

func pick(from object, keys ...string) object {
	to := object{}
	for _, k := range keys {
		if v, ok := from[k]; ok {
			to[k] = v
		}
	}
	return to
}

func drop(from object, keys ...string) {
	for _, k := range keys {
		delete(from, k)
	}
}

// line writes an object with the keys in first before the others.
func line(o object, first ...string) string {
	keys := slices.Sorted(maps.Keys(o))
	keys = slices.DeleteFunc(keys, func(k string) bool { return slices.Contains(first, k) })
	var words []string
	for _, k := range append(slices.Clone(first), keys...) {
		v := o[k]
		if list, ok := v.([]any); v == nil || ok && len(list) == 0 {
			continue
		}
		words = append(words, fmt.Sprintf("%s=%v", k, v))
	}
	return strings.Join(words, " ")
}
