package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats/ipmd"
	"github.com/vsrun/vsrun/test/lab"
)

// A clusterNode is a host of its own, with an ipmd.
type clusterNode struct {
	*lab.Client
	name, address string
	dir           string // of its configuration and credentials
	run           string
	servers       []string
	ipmd          *lab.Process
	flags         []string
}

// A testCluster is three nodes on one segment.
type testCluster struct {
	h       *lab.Host
	ca      *lab.Authority
	nodes   []*clusterNode
	a, b, c *clusterNode
}

func newCluster(t *testing.T) *testCluster {
	t.Helper()
	k := &testCluster{h: lab.New(t), ca: lab.NewAuthority(t, "ca")}
	wire := k.h.Segment("wire")
	for i, name := range []string{"a", "b", "c"} {
		address := fmt.Sprintf("192.0.2.%d", i+1)
		n := &clusterNode{
			Client: wire.Client("node-"+name, address+"/24"), name: name, address: address + ":9118",
			dir: t.TempDir(), run: "/run/vsrun-" + name,
		}
		n.flags = []string{"--state-dir", filepath.Join(n.dir, "state"), "--run-dir", n.run, "--netns-dir", "/run/netns-" + name}
		k.nodes = append(k.nodes, n)
		t.Cleanup(func() { n.gone(t) })
	}
	k.a, k.b, k.c = k.nodes[0], k.nodes[1], k.nodes[2]
	for _, n := range k.nodes {
		k.ca.Issue(t, n.name).Write(t, n.dir, k.ca)
		k.configure(t, n, "")
		n.start(t)
	}
	k.a.create(t, "8", "--name", "web")
	k.b.create(t, "9", "--name", "db")
	k.c.create(t, "10")
	return k
}

// configure writes the node's configuration, with more at its end.
func (k *testCluster) configure(t *testing.T, n *clusterNode, more string) {
	t.Helper()
	text := fmt.Sprintf("node: %s\nlisten:\n  address: %s\n  certificate: %[3]s/node.crt\n  key: %[3]s/node.key\n  authorities: %[3]s/authorities.crt\npeers:\n",
		n.name, n.address, n.dir)
	for _, p := range k.nodes {
		if p != n {
			text += fmt.Sprintf("- {name: %s, address: '%s'}\n", p.name, p.address)
		}
	}
	if err := os.WriteFile(filepath.Join(n.dir, "ipmd.yaml"), []byte(text+more), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *clusterNode) socket() string { return filepath.Join(n.run, "ipmd.sock") }

func (n *clusterNode) start(t *testing.T) {
	t.Helper()
	n.ipmd = n.Start(t, append([]string{filepath.Join(lab.Programs(t), "ipmd"), "--config", filepath.Join(n.dir, "ipmd.yaml")}, n.flags...)...)
	soon(t, func() error {
		conn, err := net.Dial("unix", n.socket())
		if err != nil {
			return fmt.Errorf("%w; ipmd says %s", err, n.ipmd.Output())
		}
		return conn.Close()
	})
}

func (n *clusterNode) vsrun(t *testing.T, args ...string) lab.Result {
	t.Helper()
	return n.TryRun(append(append([]string{filepath.Join(lab.Programs(t), "vsrun")}, n.flags...), args...)...)
}

func (n *clusterNode) create(t *testing.T, id string, args ...string) {
	t.Helper()
	if r := n.vsrun(t, append([]string{"create", id}, args...)...); r.Code != 0 {
		t.Fatal(r)
	}
	n.servers = append(n.servers, id)
}

// gone removes what the node has left on the lab's host.
func (n *clusterNode) gone(t *testing.T) {
	if n.ipmd != nil {
		n.ipmd.Stop()
	}
	for _, id := range n.servers {
		n.vsrun(t, "destroy", id)
	}
	dir := "/run/netns-" + n.name
	syscall.Unmount(dir, syscall.MNT_DETACH)
	os.RemoveAll(dir)
	os.RemoveAll(n.run)
}

// ask asks the node's ipmd for what some nodes have, or all.
func (n *clusterNode) ask(t *testing.T, within time.Duration, nodes []string, ids ...string) (ipmd.ClusterAnswer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return ipmd.Client{Socket: n.socket()}.ClusterStats(ctx, nodes, ids...)
}

// found is what is in an answer, as 8@a, and what the nodes say that have not
// answered.
func found(answer ipmd.ClusterAnswer) (have []string, silent map[string]string) {
	silent = map[string]string{}
	for _, s := range answer.Samples {
		have = append(have, fmt.Sprintf("%d@%s", s.ID, s.Node))
	}
	for _, n := range answer.Nodes {
		if !n.Answered {
			silent[n.Name] = n.Error
		}
	}
	return have, silent
}

// complete waits until all nodes answer a.
func (k *testCluster) complete(t *testing.T) {
	t.Helper()
	soon(t, func() error {
		answer, err := k.a.ask(t, 4*time.Second, nil)
		have, silent := found(answer)
		if err == nil && (len(have) != 3 || len(silent) > 0) {
			err = fmt.Errorf("%v, %v", have, silent)
		}
		return err
	})
}

// A request on any node is answered for a virtual server on any node.
func TestCluster(t *testing.T) {
	lab.Require(t, "curl")
	k := newCluster(t)
	k.complete(t)
	for _, n := range k.nodes {
		for _, test := range []struct {
			args []string
			want string
			code int
		}{
			{nil, "8@a 9@b 10@c", 0},
			{[]string{"web", "10"}, "8@a 10@c", 0},
			{[]string{"9"}, "9@b", 0},
			{[]string{"db", "11"}, "9@b", 3},
		} {
			r := n.vsrun(t, append([]string{"stats", "--cluster", "-o", "json"}, test.args...)...)
			var all []ipmd.ClusterSample
			if r.Stdout != "" {
				all = decoded[[]ipmd.ClusterSample](t, r.Stdout)
			}
			have, _ := found(ipmd.ClusterAnswer{Samples: all})
			if r.Code != test.code || strings.Join(have, " ") != test.want {
				t.Errorf("on %s: want %s\n%v", n.name, test.want, r)
			}
			for _, s := range all {
				if s.Age < 0 || s.Age > 5 || s.MIB == nil {
					t.Errorf("vs%d on %s: age %f", s.ID, s.Node, s.Age)
				}
			}
		}
	}
	r := k.a.vsrun(t, "stats", "--node", "b")
	if r.Code != 0 || !strings.HasPrefix(r.Stdout, "NODE  ID  ") || !strings.Contains(r.Stdout, "\nb     9    db ") || strings.Contains(r.Stdout, "web") {
		t.Error(r)
	}
	r = k.a.vsrun(t, "stats", "--cluster", "11")
	if want := "vsrun: cannot read counters: no such virtual server on any node: \"11\"\n"; r.Code != 3 || r.Stderr != want {
		t.Errorf("%v\nwant %s", r, want)
	}
	r = k.a.vsrun(t, "stats", "--node", "x")
	if want := "vsrun: cannot read counters: no such node: \"x\"\n"; r.Code != 1 || r.Stderr != want {
		t.Errorf("%v\nwant %s", r, want)
	}
	r = k.a.vsrun(t, "stats", "9")
	if want := "\nhint: it may be on another node: vsrun stats --cluster\n"; r.Code != 3 || !strings.HasSuffix(r.Stderr, want) {
		t.Errorf("%v\nwant %s", r, want)
	}
	socket := curlOn(t, k.h, k.a.socket(), "/cluster/stats?id=8&id=9&interface=none&node=b&timeout=1s&mib=no")
	if !strings.HasSuffix(socket, `"error":"no such virtual server on any node: \"8\", \"9\""}`+"\n") {
		t.Error(socket)
	}
	if bare := curlOn(t, k.h, k.a.socket(), "/cluster/stats?id=9&mib=no&maxAge=0s"); !strings.HasPrefix(bare, `{"samples":[{"node":"b","age":0.`) ||
		strings.Contains(bare, "RtoAlgorithm") || !strings.Contains(bare, `"id":9`) {
		t.Error(bare)
	}
	for _, wrong := range []string{"timeout=soon", "timeout=0s", "timeout=11s", "maxAge=soon"} {
		if body := curlOn(t, k.h, k.a.socket(), "/cluster/stats?"+wrong); !strings.HasPrefix(body, `{"error":"cannot understand the request: `) {
			t.Errorf("%s: %s", wrong, body)
		}
	}
	k.testFailures(t)
	k.testConflict(t)
	k.testAskers(t)
}

func curlOn(t *testing.T, h *lab.Host, socket, path string) string {
	t.Helper()
	return h.Run(t, "curl", "-sS", "--max-time", "10", "--unix-socket", socket, "http://ipmd"+path)
}

// What does not answer is named, and costs the others nothing.
func (k *testCluster) testFailures(t *testing.T) {
	t.Helper()
	const late = "no answer in time"
	for _, test := range []struct {
		name         string
		breakC, mend func()
		says         string
		err          string
	}{
		{"stopped", func() { syscall.Kill(k.c.ipmd.Pid(), syscall.SIGSTOP) }, func() { syscall.Kill(k.c.ipmd.Pid(), syscall.SIGCONT) }, late, "10"},
		{"killed", func() { k.c.ipmd.Stop() }, func() { k.c.start(t) }, "connection refused", "10"},
		{"without its link", func() { k.c.Run(t, "ip", "link", "set", "dev", "eth0", "down") }, func() { k.c.Run(t, "ip", "link", "set", "dev", "eth0", "up") }, late, "10"},
	} {
		test.breakC()
		begun := time.Now()
		answer, err := k.a.ask(t, 4*time.Second, nil)
		have, silent := found(answer)
		if err != nil || strings.Join(have, " ") != "8@a 9@b" || !strings.Contains(silent["c"], test.says) {
			t.Errorf("%s: %v, %v, %v", test.name, have, silent, err)
		}
		if took := time.Since(begun); took > 3900*time.Millisecond {
			t.Errorf("%s: it took %v", test.name, took)
		}
		if _, err := k.a.ask(t, 4*time.Second, nil, "9"); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		begun = time.Now()
		if _, err := k.a.ask(t, 4*time.Second, nil, "10"); err == nil || err.Error() != `"10" may be on a node that does not answer (c)` {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := k.a.ask(t, 4*time.Second, []string{"b"}); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if took := time.Since(begun); took > 2900*time.Millisecond { // of the 3 s that would be waited
			t.Errorf("%s: what is known not to answer is waited for: %v", test.name, took)
		}
		test.mend()
		k.complete(t)
	}
	k.c.ipmd.Stop()
	r := k.a.vsrun(t, "stats", "--cluster")
	if r.Code != 1 || !strings.HasPrefix(r.Stderr, "vsrun: node c does not answer: ") || !strings.Contains(r.Stdout, "\nb     9    db ") {
		t.Error(r)
	}
	for _, test := range []struct {
		pair lab.Pair
		by   *lab.Authority
		says string
	}{
		{k.ca.Issue(t, "x"), k.ca, "certificate is valid for x, not c"},
		{k.ca.IssueUntil(t, "c", time.Now().Add(-time.Minute)), k.ca, "certificate has expired"},
		{lab.NewAuthority(t, "ca").Issue(t, "c"), k.ca, "signed by unknown authority"},
		{k.ca.Issue(t, "c"), lab.NewAuthority(t, "ca"), "remote error: tls: unknown certificate authority"},
	} {
		test.pair.Write(t, k.c.dir, test.by)
		k.c.start(t)
		answer, err := k.a.ask(t, 2*time.Second, nil)
		if have, silent := found(answer); err != nil || len(have) != 2 || !strings.Contains(silent["c"], test.says) {
			t.Errorf("%v, %v, %v, want %s", have, silent, err, test.says)
		}
		k.c.ipmd.Stop()
	}
	k.ca.Issue(t, "c").Write(t, k.c.dir, k.ca)
	k.c.start(t)
	k.complete(t)
}

// A virtual server that runs on two nodes is shown twice, and that is said.
func (k *testCluster) testConflict(t *testing.T) {
	t.Helper()
	k.b.create(t, "8")
	r := k.c.vsrun(t, "stats", "--cluster", "8")
	if r.Code != 0 || r.Stderr != "vsrun: vs8 runs on several nodes at once: a, b\n" ||
		!strings.Contains(r.Stdout, "\na     8   web ") || !strings.Contains(r.Stdout, "\nb     8   ") {
		t.Error(r)
	}
}

// Who is no peer may ask what a rule says, once it says so.
func (k *testCluster) testAskers(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	k.ca.Issue(t, "prometheus").Write(t, dir, k.ca)
	curl := func(path string, args ...string) lab.Result {
		return k.b.TryRun(append([]string{"curl", "-sS", "--max-time", "5", "-w", "%{http_code}", "--connect-to", "a:443:" + k.a.address,
			"--cacert", dir + "/authorities.crt", "https://a" + path}, args...)...)
	}
	pair := []string{"--cert", dir + "/node.crt", "--key", dir + "/node.key"}
	if r := curl("/metrics", pair...); !strings.HasSuffix(r.Stdout, "403") {
		t.Error(r)
	}
	if r := curl("/metrics"); r.Code == 0 {
		t.Error(r)
	}
	if r := k.b.TryRun("curl", "-sS", "--max-time", "5", "http://"+k.a.address+"/metrics"); !strings.Contains(r.Stdout, "ipmd expects TLS here") {
		t.Error(r)
	}
	k.configure(t, k.a, "access:\n- {certificate: prometheus, servers: [all], ask: [metrics]}\n- {certificate: prometheus, servers: [9], ask: [cluster]}\n")
	syscall.Kill(k.a.ipmd.Pid(), syscall.SIGHUP)
	soon(t, func() error {
		if r := curl("/metrics", pair...); !strings.HasSuffix(r.Stdout, "200") || !strings.Contains(r.Stdout, "\nipmd_certificate_expiry_timestamp_seconds ") {
			return errors.New(r.String())
		}
		return nil
	})
	for path, want := range map[string]string{
		"/stats":              "may not ask for stats",
		"/cluster/stats?id=8": `may not ask for virtual server \"8\"`, // which is on a
		"/cluster/stats?id=7": `may not ask for virtual server \"7\"`, // which is nowhere
	} {
		if r := curl(path, pair...); !strings.HasSuffix(r.Stdout, "403") || !strings.Contains(r.Stdout, want) {
			t.Error(r)
		}
	}
	if r := curl("/cluster/stats", pair...); !strings.HasPrefix(r.Stdout, `{"samples":[{"node":"b",`) || strings.Count(r.Stdout, `"age":`) != 1 {
		t.Error(r)
	}
	for _, want := range []string{`from=192.0.2.2 reason="it has no certificate"`, `from=192.0.2.2 reason="it does not speak TLS"`} {
		if got := k.a.ipmd.Output(); strings.Count(got, want) != 1 {
			t.Errorf("%s is not in the log once:\n%s", want, got)
		}
	}
}

// Certificates are renewed, and authorities replaced, while questions are asked, and
// none fails.
func TestClusterRenewal(t *testing.T) {
	k := newCluster(t)
	k.complete(t)
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for _, n := range k.nodes {
		askers.Go(func() {
			for ctx.Err() == nil {
				answer, err := ipmd.Client{Socket: n.socket()}.ClusterStats(t.Context(), nil)
				if have, silent := found(answer); err != nil || !slices.Equal(have, []string{"8@a", "9@b", "10@c"}) {
					t.Errorf("on %s: %v, %v, %v", n.name, have, silent, err)
				}
				asked.Add(1)
			}
		})
	}
	// all has every node take what write writes.
	times := 1
	all := func(write func(n *clusterNode)) {
		times++
		for _, n := range k.nodes {
			write(n)
		}
		for _, n := range k.nodes {
			soon(t, func() error {
				if got := strings.Count(n.ipmd.Output(), "ipmd has read its certificate"); got < times {
					return fmt.Errorf("%s has read %d of %d", n.name, got, times)
				}
				return nil
			})
		}
		for end := asked.Load() + 30; asked.Load() < end && !t.Failed(); time.Sleep(time.Millisecond) {
		}
	}
	other := lab.NewAuthority(t, "other")
	for range 3 {
		all(func(n *clusterNode) { k.ca.Issue(t, n.name).Write(t, n.dir, k.ca) })
	}
	authorities := func(text ...[]byte) func(n *clusterNode) {
		return func(n *clusterNode) {
			lab.Replace(t, filepath.Join(n.dir, "authorities.crt"), slices.Concat(text...))
		}
	}
	all(authorities(k.ca.PEM, other.PEM))
	all(func(n *clusterNode) { other.Issue(t, n.name).Write(t, n.dir, k.ca, other) })
	all(authorities(other.PEM))
	cancel()
	askers.Wait()
	for _, n := range k.nodes {
		n.ipmd.Stop()
		if log := n.ipmd.Output(); strings.Contains(log, "refused") {
			t.Errorf("%s:\n%s", n.name, log)
		}
	}
	t.Logf("%d questions", asked.Load())
}
