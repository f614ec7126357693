package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

// sayable fails unless a document says what the flags have said.
func sayable(t *testing.T, vs runtime.VirtualServer) {
	t.Helper()
	if valid(vs) != nil {
		return
	}
	text, err := json.Marshal(vs)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := runtime.ReadDocuments(bytes.NewReader(text), "flags")
	if err != nil || len(docs.Servers) != 1 {
		t.Fatalf("%s\nis no document: %v", text, err)
	}
	if again, err := json.Marshal(docs.Servers[0]); err != nil || !bytes.Equal(again, text) {
		t.Errorf("%s\nis read as\n%s, %v", text, again, err)
	}
}

func FuzzInterfaceFlags(f *testing.F) {
	f.Add("eth1", "10", "macvlan", "eth0", "02:00:5e:10:00:08", 1500, "192.0.2.8/24", "192.0.2.1", "198.51.100.0/24 via 192.0.2.7 dev eth0 table 9 metric 50 realm 3")
	f.Add("eth1", "100.10", "vlan", "lan0", "", 0, "2001:db8::8/64", "2001:db8::1", "default via 2001:db8::7")
	f.Add("eth1", "", "", "", "", 0, "192.0.2.8/32", "fe80::1%eth0", "default")
	f.Fuzz(func(t *testing.T, port, vlan, kind, ifname, mac string, mtu int, address, gateway, route string) {
		flags := interfaceFlags{port: port, vlan: vlan, kind: kind, ifname: ifname, mac: mac, mtu: mtu,
			addresses: []string{address}, gateways: []string{gateway}, routeTo: []string{route}}
		interfaces, routes, err := flags.parse(plumbing.Network{})
		if err == nil {
			sayable(t, runtime.VirtualServer{ID: 8, Network: plumbing.Network{Interfaces: interfaces, Routes: routes}})
		}
	})
}

// A route is told as it can be given.
func FuzzRoute(f *testing.F) {
	f.Add("198.51.100.0/24 via 192.0.2.7 dev eth0 table 9 metric 50 realm 3")
	f.Add("default via 2001:db8::7")
	f.Add("0.0.0.0/0 table 254")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRoute(text)
		if err != nil || len((plumbing.Network{Routes: []plumbing.Route{r}}).Validate()) > 1 { // the gateway is nobody's
			return
		}
		again, err := parseRoute(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q is %q, and that is %q, %v", text, r, again, err)
		}
	})
}

// words are flags, one a line.
func FuzzServiceFlags(f *testing.F) {
	f.Add("--io=/srv read 50M writeops 7\n--env=TZ=UTC\n--limit=nofile=1:2\n--after=a,b\n--listen-stream=80,[::1]:81", "web", "nginx\n-g\ndaemon off;")
	f.Add("--memory=1G\n--cpu=50%\n--restart=never\n--ready-tcp=80\n--health-command=true\n--umask=027", "a", "x")
	f.Fuzz(func(t *testing.T, words, name, command string) {
		var flags serviceFlags
		c := &cobra.Command{}
		flags.register(c)
		if c.ParseFlags(strings.Split(words, "\n")) != nil {
			return
		}
		if s, err := flags.parse(name, strings.Split(command, "\n")); err == nil {
			sayable(t, runtime.VirtualServer{ID: 8, Services: []service.Service{s}})
		}
	})
}
