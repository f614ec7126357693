package ipmd

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReadConfig(t *testing.T) {
	for text, want := range map[string]func(*Config){
		"":                 func(*Config) {},
		"# nothing\n---\n": func(*Config) {},
		"{}":               func(*Config) {},
		"maxAge: 0s":       func(c *Config) { c.MaxAge = 0 },
		"reader: proc":     func(c *Config) { c.Reader = ReadProc },
		`{"maxAge": "1m30s", "limits": {"requests": 7}}`: func(c *Config) { c.MaxAge = 90 * time.Second; c.Limits.Requests = 7 },
		"access:\n- {user: 0, servers: [8, web], ask: [cluster]}\n- {group: root, servers: [all]}\n- {certificate: node2, servers: [9]}\n": func(c *Config) {
			c.Access = []Rule{
				{User: "0", Servers: []string{"8", "web"}, Ask: []string{"cluster"}},
				{Group: "root", Servers: []string{"all"}},
				{Certificate: "node2", Servers: []string{"9"}},
			}
		},
		"node: a\nlisten: {address: ':9118', certificate: /c, key: /k, authorities: /ca}\npeers:\n- {name: b, address: '192.0.2.2:9118'}\n- {name: c.example.test, address: 'c.example.test:1'}\n": func(c *Config) {
			c.Node, c.Listen = "a", Endpoint{":9118", "/c", "/k", "/ca"}
			c.Peers = []Peer{{"b", "192.0.2.2:9118"}, {"c.example.test", "c.example.test:1"}}
		},
	} {
		config := DefaultConfig()
		want(&config)
		got, err := ReadConfig(strings.NewReader(text), "f")
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if d := cmp.Diff(config, got, cmpopts.IgnoreUnexported(Rule{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}

func TestReadConfigRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"- maxAge: 1s", "f:1:1: ipmd's fields are expected here, not a list"},
		{"maxAge: [\n", "f:2:1: did not find expected node content"},
		{"maxAge: 1s\n---\nmaxAge: 2s\n", "f: there is more than one document in it"},
		{"colour: red\nmaxAge: soon\nlimits: {requests: many, conections: 3}\naccess: {user: root}\n",
			"f:1:1: unknown field colour\nf:2:9: soon is not a time, such as 10s or 1m30s\nf:3:20: many is not a whole number\n" +
				"f:3:26: unknown field conections\nf:4:9: a list is expected here"},
		{"maxAge: 61m\nlimits:\n  requests: 0\n  watchers: 1000001\n",
			"f:1:9: 1h1m0s is out of range: 0 to 1h\nf:3:13: 0 is out of range: 1 to 1000000\nf:4:13: 1000001 is out of range: 1 to 1000000"},
		{"reader: perf", `f:1:9: "perf" is none of auto, proc and ebpf`},
		{"access: [root]", "f:1:10: a rule's fields are expected here"},
		{"access:\n- {servers: [8]}\n- {user: root, group: root, servers: [8]}\n",
			"f:2:3: one of user, group and certificate is expected in a rule\nf:3:3: one of user, group and certificate is expected in a rule"},
		{"access:\n- user: no-such-user\n- {group: no-such-group, servers: [8], ask: [stats, all]}\n",
			`f:2:9: there is no user "no-such-user" in /etc/passwd: one that is elsewhere is named by number` + "\n" +
				"f:2:3: servers are missing: numbers and names, or all\n" +
				`f:3:11: there is no group "no-such-group" in /etc/group: one that is elsewhere is named by number` + "\n" +
				`f:3:53: "all" is none of [stats metrics stream cluster]`},
		{"listen: {address: 192.0.2.1, certificate: c.pem, key: /k, authoritys: /ca}\n",
			"f:1:59: unknown field authoritys\n" +
				`f:1:19: "192.0.2.1" is not an address with port, such as 192.0.2.1:9118` + "\n" +
				`f:1:43: "c.pem" is not the absolute path of the file for certificate` + "\n" +
				`f:1:9: "" is not the absolute path of the file for authorities`},
		{"node: A_1\npeers:\n- {name: b, address: 'b:0'}\n- {name: b, address: 'b:65536'}\n- {name: \"b\\e\", address: ':1'}\n",
			`f:1:7: "A_1" cannot be a certificate's name: small letters, digits, dashes and dots` + "\n" +
				"f:3:1: peers are asked with the certificate of listen, which is missing\n" +
				`f:3:22: "b:0" is not an address with port, such as 192.0.2.1:9118` + "\n" +
				"f:4:10: b is there twice, or is this node\n" +
				`f:4:22: "b:65536" is not an address with port, such as 192.0.2.1:9118` + "\n" +
				`f:5:10: "b\x1b" cannot be a certificate's name: small letters, digits, dashes and dots` + "\n" +
				`f:5:26: ":1" is not an address with port, such as 192.0.2.1:9118`},
	} {
		config, err := ReadConfig(strings.NewReader(test.text), "f")
		if err == nil {
			t.Errorf("%s: read as %+v", test.text, config)
			continue
		}
		if d := cmp.Diff(test.want, err.Error()); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, d)
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add("maxAge: 1s\naccess: [{user: root, servers: [all], ask: [stats]}]\nlimits: {requests: 1}\n")
	f.Add("a: &a [*a]\nlimits: *a\naccess: *a\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		config, err := ReadConfig(strings.NewReader(text), "f")
		if err == nil && len(config.Validate()) > 0 {
			t.Errorf("%+v was accepted", config)
		}
	})
}
