package lab

import (
	"encoding/json"
	"fmt"
	"maps"
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
	awaitAddresses(ns)
	var out []string
	for _, part := range []func(string) ([]string, error){links, addresses, routes, rules, sysctls} {
		lines, err := part(ns)
		if err != nil {
			return "", err
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return strings.Join(out, "\n") + "\n", nil
}

// awaitAddresses waits until duplicate address detection is over.
func awaitAddresses(ns string) {
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r := inside(ns, "ip", "-6", "-o", "addr", "show", "tentative")
		// One found to be a duplicate stays tentative for good.
		if strings.Count(r.Stdout, "\n") == strings.Count(r.Stdout, " dadfailed ") {
			return
		}
	}
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
	r := inside(ns, argv...)
	if r.Code != 0 {
		return nil, fmt.Errorf("%v", r)
	}
	if strings.TrimSpace(r.Stdout) == "" {
		return nil, nil // iproute2's empty list
	}
	d := json.NewDecoder(strings.NewReader(r.Stdout))
	d.UseNumber()
	var all []object
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("cannot read what %q printed: %w", argv, err)
	}
	// iproute2 leaves an empty object for what a filter hid.
	return slices.DeleteFunc(all, func(o object) bool { return len(o) == 0 }), nil
}

// lasting are the link flags that do not come and go with the carrier.
var lasting = []string{"UP", "NOARP", "PROMISC", "ALLMULTI", "MASTER", "SLAVE"}

func links(ns string) ([]string, error) {
	all, err := show(ns, "ip", "-j", "-d", "link", "show")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, l := range all {
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
	return lines, nil
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

func addresses(ns string) ([]string, error) {
	all, err := show(ns, "ip", "-j", "addr", "show")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, l := range all {
		infos, _ := l["addr_info"].([]any)
		for _, info := range infos {
			a, _ := info.(object)
			if len(a) == 0 {
				continue
			}
			for _, life := range []string{"valid_life_time", "preferred_life_time"} {
				if fmt.Sprint(a[life]) == "4294967295" { // for ever
					delete(a, life)
				} else {
					a[life] = "limited"
				}
			}
			drop(a, "tentative", "optimistic", "label")
			a["dev"] = l["ifname"]
			lines = append(lines, "address "+line(a, "dev", "local", "prefixlen"))
		}
	}
	return lines, nil
}

func routes(ns string) ([]string, error) {
	var lines []string
	for _, family := range []string{"-4", "-6"} {
		all, err := show(ns, "ip", family, "-j", "route", "show", "table", "all")
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if r["table"] == "local" {
				continue
			}
			drop(r, "expires", "used", "age", "users", "pref")
			if flags, ok := r["flags"].([]any); ok { // linkdown, dead: the carrier's
				r["flags"] = slices.DeleteFunc(flags, func(f any) bool { return f != "onlink" })
			}
			lines = append(lines, "route "+family+" "+line(r, "dst", "gateway", "dev"))
		}
	}
	return lines, nil
}

func rules(ns string) ([]string, error) {
	var lines []string
	for _, family := range []string{"-4", "-6"} {
		all, err := show(ns, "ip", family, "-j", "rule", "show")
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			lines = append(lines, "rule "+family+" "+line(r, "priority"))
		}
	}
	return lines, nil
}

// confs are the per-device sysctls that NetState shows.
var confs = map[string][]string{
	"ipv4": {"arp_ignore", "arp_announce", "arp_notify", "rp_filter", "accept_redirects", "send_redirects",
		"promote_secondaries", "forwarding"},
	"ipv6": {"accept_ra", "autoconf", "optimistic_dad", "use_optimistic", "keep_addr_on_down", "accept_redirects",
		"addr_gen_mode", "disable_ipv6", "accept_dad", "forwarding"},
}

func sysctls(ns string) ([]string, error) {
	const top = "/proc/sys/net/"
	script := "grep -Hs '' " + top + "ipv4/ip_forward"
	for _, family := range slices.Sorted(maps.Keys(confs)) {
		for _, name := range confs[family] {
			script += fmt.Sprintf(" %s%s/conf/*/%s", top, family, name)
		}
	}
	r := inside(ns, "sh", "-c", script)
	if r.Code > 2 || r.Stdout == "" { // 2: a name that this kernel lacks
		return nil, fmt.Errorf("cannot read the sysctls: %v", r)
	}
	var lines []string
	for l := range strings.Lines(r.Stdout) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(l, top)), ":")
		lines = append(lines, "sysctl "+name+" = "+value)
	}
	return lines, nil
}

// neighbours are what somebody wrote into the neighbour tables and the ports'
// lists of addresses; what the kernel learned comes and goes.
func neighbours(ns string) ([]string, error) {
	var lines []string
	for _, ask := range [][]string{
		{"ip", "-j", "neigh", "show", "nud", "permanent"},
		{"ip", "-j", "neigh", "show", "proxy"},
		{"bridge", "-j", "fdb", "show"},
	} {
		all, err := show(ns, ask...)
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			if mac, _ := n["mac"].(string); isMulticast(mac) {
				continue // joined and left as addresses come and go
			}
			lines = append(lines, line(n, "ifname", "dev", "dst", "mac"))
		}
	}
	return lines, nil
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
