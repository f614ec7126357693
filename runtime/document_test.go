package runtime

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/document"
)

const everything = `id: 8
name: finance
interfaces:
  - name: eth0
    port: eth1
    mac: 02:00:5e:10:00:08
    mtu: 1400
    addresses: [192.0.2.8/24, "2001:db8::8/64"]
    gateways: [192.0.2.1, "2001:db8::1"]
routes:
  - {to: 198.51.100.0/24, via: 192.0.2.7, table: 5, metric: 50, realm: 3}
dns: {servers: [192.0.2.53], search: [example.test]}
share: [/run/dbus, "/tmp/a b"]
files:
  - path: /etc/web.conf
    mode: "640"
    content: |
      listen 80;
        root /srv;
services:
  - name: web
    command: [nginx, -g, daemon off;]
    restart: on-failure
    startLimit: {burst: 5, interval: 1m}
    private: [/run/web]
    ready: {output: ready, tcp: 81}
    health: {command: [curl, "http://127.0.0.1"], interval: 10s, timeout: 2s, failures: 2}
    sockets: [{stream: "80", name: http}, {datagram: /run/web/log}]
    reload: HUP
  - {name: auth, command: [auth], reload: {command: [auth, reload]}}
`

// What a document says is what is stored, and what is stored reads as it was.
func TestDocumentIsRecord(t *testing.T) {
	list, err := readServers(strings.NewReader(everything+"---\n{\"id\": 9}\n---\n"), "two.yaml")
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, vs := range list {
		back, err := decodeRecord(vs.record())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(vs.record()), string(back.record())); d != "" {
			t.Error(d)
		}
	}
	again, err := readServers(strings.NewReader(string(list[0].record())), "record")
	if err != nil || !same(again[0], list[0]) {
		t.Errorf("a record is no document: %v", err)
	}
}

func TestReadDocumentsRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "f: there is no virtual server in it"},
		{"only a comment", "# nothing\n", "f: there is no virtual server in it"},
		{"a list", "- id: 8\n", "f:1:1: a virtual server's fields are expected here, not a list"},
		{"a word", "eight\n", "f:1:1: a virtual server's fields are expected here"},
		{"no end", "id: [\n", "f:2:1: did not find expected node content"},
		{"a field twice", "id: 8\nid: 9\n", `f:2:1: mapping key "id" already defined at line 1`},
		{"unknown field", "id: 8\ncolour: red\n", "f:2:1: unknown field colour"},
		{"wrong types", "id: x\nname: [a]\ndisabled: perhaps\ninterfaces: 3\n",
			"f:1:5: x is not a whole number\nf:2:7: one word is expected here, not a list or fields\n" +
				"f:3:11: perhaps is neither true nor false\nf:4:13: a list is expected here"},
		{"impossible values, all at once", "id: 5000\nname: vs9\ninterfaces:\n- name: lo\n  port: a-port-of-16-byt\n  mtu: 60\n  gateways: [203.0.113.1]\n",
			"f:1:5: id 5000 is out of range: 1 to 4094\n" +
				`f:2:7: name "vs9" looks like another virtual server's number` + "\n" +
				`f:4:9: interface name "lo" is taken by the kernel` + "\n" +
				`f:5:9: name "a-port-of-16-byt" is 16 bytes long: the kernel's limit is 15` + "\n" +
				"f:6:8: mtu 60 is out of range: 68 to 65535 bytes\n" +
				"f:7:14: gateway 203.0.113.1 is outside every prefix of lo"},
		{"what follows from a wrong type is not told", "id: 8\ninterfaces:\n- name: eth0\n  port: eth1\n  addresses: [192.0.2.8]\n  gateways: [192.0.2.1]\nroutes: [{to: 198.51.100.0/24, via: 192.0.2.7}]\n",
			"f:5:15: 192.0.2.8 is not an address with prefix length, such as 192.0.2.8/24"},
		{"a value beside a wrong type is", "id: 8\ninterfaces:\n- name: eth0\n  port: eth1\n  mtu: 60\n  addresses: [192.0.2.8]\n",
			"f:5:8: mtu 60 is out of range: 68 to 65535 bytes\nf:6:15: 192.0.2.8 is not an address with prefix length, such as 192.0.2.8/24"},
		{"a service", "id: 8\nservices:\n- {name: web}\n- {name: a b, command: [x]}\n- {name: c, command: [x], restart: daily}\n",
			"f:3:3: command is missing\n" +
				`f:4:10: name "a b" holds something else than a-z, A-Z, 0-9, '.', '_' and '-'` + "\n" +
				`f:5:36: "daily" is none of always, on-failure, never`},
		{"a service's reload", "id: 8\nservices:\n- {name: a, command: [x], reload: [HUP]}\n- {name: b, command: [x], reload: {signals: HUP}}\n- {name: c, command: [x], reload: HUPP}\n",
			"f:3:35: a signal, or the field signal or command, is expected here, not a list\n" +
				"f:4:36: unknown field signals\n" +
				`f:5:35: reload "HUPP" is no signal such as TERM`},
		{"the second document", "id: 8\n---\nid: 0\n", "f:3:5: id is missing, or 0: it is 1 to 4094"},
		{"a gateway and a default route", "id: 8\ninterfaces: [{name: eth0, port: eth1, addresses: [192.0.2.8/24], gateways: [192.0.2.1]}]\nroutes: [{to: 0.0.0.0/0, via: 192.0.2.2}]\n",
			"f:3:10: route default via 192.0.2.2: there is one with its destination and metric"},
		{"too large", strings.Repeat("#", document.MaxSize+1), "cannot read f: it is larger than 4 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := readServers(strings.NewReader(tt.text), "f")
			if err == nil {
				t.Fatalf("read as %+v", list)
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Errorf("the errors (-want +got):\n%s", d)
			}
		})
	}
}

func FuzzReadDocuments(f *testing.F) {
	f.Add(everything)
	f.Add("id: 8\n---\n{\"id\": 9, \"routes\": [{}]}")
	f.Add("a: &a [*a, *a]\nid: *a\n")
	f.Add("interfaces: [{gateways: [x], addresses: [1.2.3.4/5]}]")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := readServers(strings.NewReader(text), "f")
		if (err == nil) == (len(list) == 0) {
			t.Fatalf("%d virtual servers, error %v", len(list), err)
		}
		for _, vs := range list { // what is accepted can be stored
			if _, err := decodeRecord(vs.record()); err != nil {
				t.Errorf("%v\n%s", err, vs.record())
			}
		}
	})
}

func readServers(r io.Reader, name string) ([]VirtualServer, error) {
	docs, err := ReadDocuments(r, name)
	return docs.Servers, err
}
