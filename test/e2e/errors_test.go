package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/test/lab"
)

// errorCases is every error that a person can provoke, as words on stderr: a
// first line that says what could not be done and why, and a hint. In them and
// in the arguments $C1 is the client's MAC address, $STATE the state directory,
// $DIR a scratch directory.
//
// There are already: vs5, with nothing; vs7 (finance), 192.0.2.7 with MAC 02:00:00:00:00:07 on
// eth1; the client c1 on that segment, 192.0.2.100 and 2001:db8::100; eth2,
// down; eth3 in the bridge br0; eth4 with nothing on it; the namespace vs6 of
// somebody else's.
var errorCases = []struct {
	name   string
	args   string // words of the command line, in quotes where they have spaces
	doc    string // standard input
	under  string // a shell command that runs "$@" in other circumstances
	code   int
	stderr string
}{
	// Ports.
	{name: "no such port", args: "create 8 --port eth9 --address 192.0.2.8/24", code: 1, stderr: `
vsrun: cannot create vs8: no port eth9 on this host
hint: ports here: br0, eth1, eth2, eth3, eth4
`},
	{name: "port down", args: "create 8 --port eth2 --address 192.0.2.8/24", code: 1, stderr: `
vsrun: cannot create vs8: port eth2 is down
hint: bring it up: ip link set eth2 up
`},
	{name: "port is a member", args: "create 8 --port eth3 --address 192.0.2.8/24", code: 1, stderr: `
vsrun: cannot create vs8: eth3 is a member of bridge br0
hint: use --port br0
`},
	{name: "port is the loopback", args: "create 8 --port lo --address 192.0.2.8/24", code: 1, stderr: `
vsrun: cannot create vs8: port lo is the loopback: nothing can sit on it
hint: use a device that leads to a network
`},
	{name: "mtu above the port's", args: "create 8 --port eth1 --mtu 9000", code: 1, stderr: `
vsrun: cannot create vs8: mtu 9000 of eth0 is above 1500, the mtu of port eth1
hint: raise the port's: ip link set eth1 mtu 9000
`},
	{name: "attach to no port", args: "attach 7 --port eth9", code: 1, stderr: `
vsrun: cannot attach an interface to 7: no port eth9 on this host
hint: ports here: br0, eth1, eth2, eth3, eth4
`},

	// Addresses.
	{name: "no prefix length", args: "create 8 --port eth1 --address 192.0.2.8", code: 2, stderr: `
vsrun: "192.0.2.8" is not an address with prefix length, such as 192.0.2.8/24
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "bad CIDR", args: "create 8 --port eth1 --address 192.0.2.256/24", code: 2, stderr: `
vsrun: "192.0.2.256/24" is not an address with prefix length, such as 192.0.2.8/24
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "prefix too long", args: "create 8 --port eth1 --address 192.0.2.8/33", code: 2, stderr: `
vsrun: "192.0.2.8/33" is not an address with prefix length, such as 192.0.2.8/24
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "network's address", args: "create 8 --port eth1 --address 192.0.2.0/24", code: 2, stderr: `
vsrun: address 192.0.2.0/24 is the network's own address, not a host's
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "broadcast address", args: "create 8 --port eth1 --address 192.0.2.255/24", code: 2, stderr: `
vsrun: address 192.0.2.255/24 is the network's broadcast address
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "multicast address", args: "create 8 --port eth1 --address ff02::8/64", code: 2, stderr: `
vsrun: address ff02::8/64 cannot be an interface's
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "gateway is no address", args: "create 8 --port eth1 --address 192.0.2.8/24 --gateway 192.0.2", code: 2, stderr: `
vsrun: "192.0.2" is not an IP address
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "gateway outside every prefix", args: "create 8 --port eth1 --address 192.0.2.8/24 --gateway 203.0.113.1", code: 2, stderr: `
vsrun: gateway 203.0.113.1 is outside every prefix of eth0
hint: a gateway is a neighbour: give the interface an address with a prefix that holds it
`},
	{name: "gateway outside, IPv6", args: "create 8 --port eth1 --address 2001:db8::8/64 --gateway 2001:db8:1::1", code: 2, stderr: `
vsrun: gateway 2001:db8:1::1 is outside every prefix of eth0
hint: a gateway is a neighbour: give the interface an address with a prefix that holds it
`},
	{name: "route outside every prefix", args: "create 8 --port eth1 --address 192.0.2.8/24 --route '198.51.100.0/24 via 203.0.113.1'", code: 2, stderr: `
vsrun: route to 198.51.100.0/24: gateway 203.0.113.1 is outside every connected prefix
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "route with host bits", args: "create 8 --port eth1 --address 192.0.2.8/24 --route '198.51.100.9/24 via 192.0.2.1'", code: 2, stderr: `
vsrun: route to 198.51.100.9/24 has host bits set: did you mean 198.51.100.0/24?
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "route in other words", args: "create 8 --port eth1 --route '198.51.100.0/24 through 192.0.2.1'", code: 2, stderr: `
vsrun: route "198.51.100.0/24 through 192.0.2.1": unknown word "through"
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "several at once", args: "create 5000 --port eth1 --address 192.0.2.8/24 --gateway 203.0.113.1 --mtu 60", code: 2, stderr: `
vsrun: id 5000 is out of range: 1 to 4094; mtu 60 is out of range: 68 to 65535 bytes; gateway 203.0.113.1 is outside every prefix of eth0
hint: a gateway is a neighbour: give the interface an address with a prefix that holds it
`},
	{name: "address in use on the segment", args: "create 8 --port eth1 --address 192.0.2.100/24", code: 1, stderr: `
vsrun: cannot create vs8: cannot use 192.0.2.100 on eth0 in vs8: 192.0.2.100 is in use on the segment by $C1
hint: choose another address, or skip the question with --no-probe
`},
	{name: "address in use on the segment, IPv6", args: "create 8 --port eth1 --address 2001:db8::100/64", code: 1, stderr: `
vsrun: cannot create vs8: cannot use 2001:db8::100 on eth0 in vs8: 2001:db8::100 is in use on the segment by $C1
hint: choose another address, or skip the question with --no-probe
`},
	{name: "attached address in use", args: "attach 7 --port eth1 --ifname lan --address 192.0.2.100/24", code: 1, stderr: `
vsrun: cannot attach an interface to 7: cannot use 192.0.2.100 on lan in vs7: 192.0.2.100 is in use on the segment by $C1
hint: choose another address, or skip the question with --no-probe
`},

	// What another virtual server has.
	{name: "duplicate id", args: "create 7 --port eth4", code: 1, stderr: `
vsrun: cannot create vs7: vs7 (finance) exists, and is different
hint: see it with: vsrun show 7; change it with vsrun apply, or destroy it first
`},
	{name: "duplicate name", args: "create 8 --name Finance", code: 1, stderr: `
vsrun: cannot create vs8 (Finance): vs7 (finance) already has name Finance
hint: choose another, or see it with: vsrun show 7
`},
	{name: "duplicate address", args: "create 8 --port eth1 --address 192.0.2.7/24", code: 1, stderr: `
vsrun: cannot create vs8: vs7 (finance) already has address 192.0.2.7 on port eth1
hint: choose another, or see it with: vsrun show 7
`},
	{name: "duplicate address, other length", args: "create 8 --port eth1 --address 192.0.2.7/32 --no-probe", code: 1, stderr: `
vsrun: cannot create vs8: vs7 (finance) already has address 192.0.2.7 on port eth1
hint: choose another, or see it with: vsrun show 7
`},
	{name: "duplicate MAC", args: "create 8 --port eth1 --mac 02:00:00:00:00:07", code: 1, stderr: `
vsrun: cannot create vs8: vs7 (finance) already has MAC 02:00:00:00:00:07
hint: choose another, or see it with: vsrun show 7
`},
	{name: "somebody's namespace", args: "create 6", code: 1, stderr: `
vsrun: cannot create vs6: /run/netns/vs6 is a network namespace of somebody else's
hint: choose another id, or remove it: ip netns delete vs6
`},
	{name: "somebody's namespace destroyed", args: "destroy 6", code: 1, stderr: `
vsrun: cannot destroy 6: /run/netns/vs6 is a network namespace of somebody else's: it is left alone
`},

	// Names.
	{name: "interface name over 15 bytes", args: "create 8 --port eth1 --ifname a-name-too-long0", code: 2, stderr: `
vsrun: name "a-name-too-long0" is 16 bytes long: the kernel's limit is 15
hint: choose a shorter one
`},
	{name: "port name over 15 bytes", args: "create 8 --port a-name-too-long0", code: 2, stderr: `
vsrun: name "a-name-too-long0" is 16 bytes long: the kernel's limit is 15
hint: choose a shorter one
`},
	{name: "kernel's name", args: "create 8 --port eth1 --ifname default", code: 2, stderr: `
vsrun: interface name "default" is taken by the kernel
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "no host name", args: "create 8 --name fin_ance", code: 2, stderr: `
vsrun: name "fin_ance" is not a host name: letters, digits and hyphens, at most 63
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "another's number", args: "create 8 --name vs9", code: 2, stderr: `
vsrun: name "vs9" looks like another virtual server's number
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "id out of range", args: "create 4095", code: 2, stderr: `
vsrun: id 4095 is out of range: 1 to 4094
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "id zero", args: "create 0", code: 2, stderr: `
vsrun: id is missing, or 0: it is 1 to 4094
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "bad MAC", args: "create 8 --port eth1 --mac 02:00", code: 2, stderr: `
vsrun: "02:00" is not a MAC address such as 02:00:5e:10:00:08
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "multicast MAC", args: "create 8 --port eth1 --mac 01:00:5e:00:00:01", code: 2, stderr: `
vsrun: MAC 01:00:5e:00:00:01 is a multicast address
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "unknown kind", args: "create 8 --port eth1 --kind tunnel", code: 2, stderr: `
vsrun: kind "tunnel" is unknown: it is macvlan, vlan or device
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "interface flags without a port", args: "create 8 --address 192.0.2.8/24", code: 2, stderr: `
vsrun: an interface needs --port, the host's device that it sits on
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "no such virtual server", args: "show 8", code: 3, stderr: `
vsrun: cannot show 8: no such virtual server: vs8
`},
	{name: "no such name", args: "attach shop --port eth1", code: 3, stderr: `
vsrun: cannot attach an interface to shop: no such virtual server: shop
`},

	// Documents.
	{name: "unknown field", args: "create -f -", doc: "id: 8\ncolour: red\n", code: 1, stderr: `
vsrun: stdin:2:1: unknown field colour
hint: an example of all fields: vsrun create --help
`},
	{name: "bad CIDR in a document", args: "create -f -", doc: "id: 8\ninterfaces:\n- {name: eth0, port: eth1, addresses: [192.0.2.8]}\n", code: 1, stderr: `
vsrun: stdin:3:40: 192.0.2.8 is not an address with prefix length, such as 192.0.2.8/24
hint: an example of all fields: vsrun create --help
`},
	{name: "no such file", args: "create -f $DIR/none.yaml", code: 1, stderr: `
vsrun: cannot read the document: open $DIR/none.yaml: no such file or directory
`},
	{name: "no YAML", args: "apply -f -", doc: "id: [8\n", code: 1, stderr: `
vsrun: stdin:2:1: did not find expected ',' or ']'
hint: an example of all fields: vsrun create --help
`},

	// The machine and who asks.
	{name: "no systemd", under: `unshare --mount sh -c 'test ! -e /run/systemd || mount -t tmpfs none /run/systemd && exec "$@"' -`, args: "create 8 --supervisor systemd", code: 1, stderr: `
vsrun: cannot create vs8: supervisor is systemd, but systemd has not booted this host
hint: leave supervisor out: services are then run by an init of the virtual server's own
`},
	{name: "unknown supervisor", args: "create 8 --supervisor runit", code: 2, stderr: `
vsrun: supervisor "runit" is unknown: it is systemd, or left out
hint: see vsrun --help, or vsrun COMMAND --help
`},
	{name: "more than systemd can hold", args: "create -f -", code: 1, doc: `id: 8
supervisor: systemd
share: [/run/dbus]
services:
  - name: web
    command: [nginx, -g, daemon off;]
    ready: {tcp: 80}
`, stderr: `
vsrun: stdin:3:8: share is not to be had with supervisor: systemd
vsrun: stdin:6:26: command[2] "daemon off;" has a ; or $ or a control character, which is not to be had with supervisor: systemd: put it into a file
vsrun: stdin:7:18: ready.tcp is not to be had with supervisor: systemd
hint: an example of all fields: vsrun create --help
`},
	{name: "not root", under: "unshare --user", args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: only root may do this
hint: try: sudo vsrun …
`},
	{name: "not root, listing", under: "unshare --user", args: "ls", code: 1, stderr: `
vsrun: cannot list virtual servers: only root may do this
hint: try: sudo vsrun …
`},
	{name: "root without CAP_SYS_ADMIN", under: "setpriv --bounding-set -sys_admin --inh-caps -sys_admin", args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot make the namespace in vs8: cannot create a network namespace: operation not permitted
hint: it takes CAP_SYS_ADMIN: run it as root, outside of a restricted container
`},
	{name: "no more network namespaces", under: `unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"' -`, args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot make the namespace in vs8: cannot create a network namespace: there are as many as the limit allows
hint: raise the limit: sysctl user.max_net_namespaces
`},
	// In a user namespace that does not see all of /proc nobody gets a whole one of his own.
	{name: "kernel without IPv6", under: `unshare --user --map-root-user --net --mount sh -c 'ip link add eth1 up type veth && mount -t tmpfs none /proc/sys/net/ipv6 && exec "$@"' -`, args: "create 8 --port eth1 --address 2001:db8::8/64", code: 1, stderr: `
vsrun: cannot create vs8: this kernel has no IPv6
hint: boot without ipv6.disable=1, or leave the IPv6 addresses out
`},
	{name: "no machine id", under: `unshare --mount sh -c 'for f in /etc/machine-id /var/lib/dbus/machine-id; do test ! -e $f || mount --bind /dev/null $f; done && exec "$@"' -`, args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: this machine has no id, which MAC addresses derive from
hint: make one with: systemd-machine-id-setup (or dbus-uuidgen --ensure=/etc/machine-id)
`},
	{name: "no vs-init", under: "env VSRUN_INIT=/nowhere/vs-init", args: "create -f -", doc: "id: 8\nservices: [{name: web, command: [sleep, infinity]}]\n", code: 1, stderr: `
vsrun: cannot create vs8: cannot start a process in vs8: the program vs-init is not at /nowhere/vs-init
hint: install it beside vsrun, or name it with VSRUN_INIT
`},
	{name: "no vs-init, exec", under: "env VSRUN_INIT=/nowhere/vs-init", args: "exec 5 -- true", code: 1, stderr: `
vsrun: cannot run true in 5: cannot start a process in vs5: the program vs-init is not at /nowhere/vs-init
hint: install it beside vsrun, or name it with VSRUN_INIT
`},
	{name: "no program", args: "create -f -", doc: "id: 8\nservices: [{name: web, command: [no-such-program]}]\n", code: 1, stderr: `
vsrun: cannot create vs8: cannot start the services of vs8: cannot start web: no-such-program: no such file or directory
`},
	{name: "no program, added", args: "service add 7 web -- /nowhere/httpd -D", code: 1, stderr: `
vsrun: cannot add service web to 7: cannot start the services of vs7 (finance): cannot start web: /nowhere/httpd: no such file or directory
`},
	{name: "not executable", args: "service add 7 web -- /etc/passwd", code: 1, stderr: `
vsrun: cannot add service web to 7: cannot start the services of vs7 (finance): cannot start web: /etc/passwd: permission denied
`},
	{name: "no private directory", args: "service add 7 web --private /nowhere -- sleep infinity", code: 1, stderr: `
vsrun: cannot add service web to 7: cannot start the services of vs7 (finance): /nowhere does not exist on this host: create it
`},

	// What is kept.
	{name: "read-only state", under: `unshare --mount sh -c 'mount -t tmpfs -o ro none "$VSRUN_STATE_DIR" && exec "$@"' -`, args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot open the lock: open $STATE/lock: read-only file system
hint: make that filesystem writable again: findmnt -T $STATE; dmesg may tell why it is not
`},
	{name: "state under a file", args: "--state-dir /dev/null/state create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot make the state directory: mkdir /dev/null: not a directory
`},
	{name: "state is full", under: `unshare --mount sh -c 'mount -t tmpfs -o nr_inodes=2 none "$VSRUN_STATE_DIR" && exec "$@"' -`, args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot store vs8: open $STATE/.vs8.json.new: no space left on device
hint: make room there: df -h $STATE; df -i $STATE, should there be too many files
`},
	{name: "netns directory is a file", args: "--netns-dir /dev/null create 8", code: 1, stderr: `
vsrun: cannot create vs8: open /dev/null/vs8: not a directory
`},
	{name: "corrupted record", under: broken("vs8.json", `{"id": 8, "na`), args: "show 8", code: 1, stderr: `
vsrun: cannot show 8: cannot use the record $STATE/vs8.json: it is no whole record: unexpected EOF
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
	{name: "corrupted record of another", under: broken("vs9.json", `{"id": 9, "na`), args: "create 8", code: 1, stderr: `
vsrun: cannot create vs8: cannot use the record $STATE/vs9.json: it is no whole record: unexpected EOF
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
	{name: "record of another", under: broken("vs8.json", `{"id": 9}`), args: "enable 8", code: 1, stderr: `
vsrun: cannot enable 8: cannot use the record $STATE/vs8.json: it is the record of vs9
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
	{name: "record of a newer vsrun", under: broken("vs8.json", `{"id": 8, "colour": "red"}`), args: "apply -f -", doc: "id: 8\n", code: 1, stderr: `
vsrun: cannot apply vs8: cannot use the record $STATE/vs8.json: it is no whole record: json: unknown field "colour"
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
	{name: "empty record", under: broken("vs8.json", ``), args: "ls", code: 1, stderr: `
vsrun: cannot list all: cannot use the record $STATE/vs8.json: it is no whole record: EOF
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
	{name: "two records in one", under: broken("vs8.json", `{"id": 8} {"id": 8}`), args: "diff", code: 1, stderr: `
vsrun: cannot compare: cannot use the record $STATE/vs8.json: something follows the record
hint: it is left as it is: mend it, or move it away and create the virtual server again
`},
}

// broken runs a command beside a file in the state directory that it must leave
// alone.
func broken(name, text string) string {
	file := fmt.Sprintf(`"$VSRUN_STATE_DIR/%s"`, name)
	return fmt.Sprintf(`sh -c 'printf %%s "$0" >%[1]s; "$@"; code=$?; test "$(cat %[1]s)" = "$0" && rm %[1]s; exit $code' '%[2]s'`, file, text)
}

func TestErrors(t *testing.T) {
	h := newHost(t)
	segment := h.Segment("eth1", "eth2", "eth3", "eth4")
	c1 := segment.Client("c1", "192.0.2.100/24", "2001:db8::100/64")
	furnishForErrors(t, h)
	scratch := t.TempDir()
	words := strings.NewReplacer("$C1", c1.MAC(t), "$STATE", h.StateDir, "$DIR", scratch)
	for _, c := range errorCases {
		t.Run(c.name, func(t *testing.T) {
			before, stored := h.Snapshot(), storedFiles(t, h)
			r := h.TryRun("sh", "-c", fmt.Sprintf("set -- %s/vsrun %s\n%s \"$@\" <<'END'\n%sEND\n", lab.Programs(t), words.Replace(c.args), c.under, c.doc))
			if r.Code != c.code {
				t.Errorf("exit status %d, not %d", r.Code, c.code)
			}
			if diff := cmp.Diff(strings.TrimPrefix(words.Replace(c.stderr), "\n"), r.Stderr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			if changes := before.Diff(h.Snapshot()); changes != "" {
				t.Errorf("it has changed the host:\n%s", changes)
			}
			if diff := cmp.Diff(stored, storedFiles(t, h)); diff != "" {
				t.Errorf("it has changed the state directory:\n%s", diff)
			}
		})
	}
}

// furnishForErrors makes what errorCases finds there.
func furnishForErrors(t *testing.T, h *lab.Host) {
	t.Helper()
	h.MustVsrun(t, "create", "7", "--name", "finance", "--port", "eth1", "--address", "192.0.2.7/24", "--mac", "02:00:00:00:00:07", "--no-probe")
	t.Cleanup(func() { h.MustVsrun(t, "destroy", "7") })
	h.MustVsrun(t, "create", "5")
	t.Cleanup(func() { h.MustVsrun(t, "destroy", "5") })
	// Its init stays once it runs, and logs what it is told.
	h.MustVsrun(t, "exec", "7", "--", "true")
	h.Keep(filepath.Join(h.StateDir, "vs7/log"))
	for _, do := range []struct{ line, undo string }{
		{"ip link set eth2 down", "ip link set eth2 up"},
		{"ip link add br0 type bridge", "ip link del br0"},
		{"ip link set br0 up", ""},
		{"ip link set eth3 master br0", "ip link set eth3 nomaster"},
		{"bridge link set dev eth3 learning off", ""},
		{"ip netns add vs6", "ip netns delete vs6"},
	} {
		h.Run(t, strings.Fields(do.line)...)
		if do.undo != "" {
			t.Cleanup(func() { h.Run(t, strings.Fields(do.undo)...) })
		}
	}
}

// storedFiles is what the state directory holds: a digest of each file.
func storedFiles(t *testing.T, h *lab.Host) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(h.StateDir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		// A ledger notes that something was about to be put on the network.
		if filepath.Base(filepath.Dir(path)) == "log" || filepath.Base(path) == "ledger.json" {
			return nil
		}
		text, err := os.ReadFile(path)
		files[path] = fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
