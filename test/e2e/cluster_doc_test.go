package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsrun/vsrun/test/lab"
)

// The certificates and the configuration of docs/cluster.md do what it says.
func TestClusterDoc(t *testing.T) {
	lab.Require(t, "openssl", "curl")
	text, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) string {
		_, rest, _ := strings.Cut(string(text), "\n```"+kind+"\n")
		found, _, _ := strings.Cut(rest, "```")
		return found
	}
	h := lab.New(t)
	a := h.Segment("wire").Client("node-a", "192.0.2.1/24")
	dir := t.TempDir()
	h.Run(t, "sh", "-ec", "cd "+dir+"\n"+block("sh"))
	config := filepath.Join(dir, "ipmd.yaml")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(block("yaml"), "/etc/vsrun", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "ipmd.sock")
	ipmd := a.Start(t, filepath.Join(lab.Programs(t), "ipmd"), "--config", config, "--socket", socket)
	t.Cleanup(func() { ipmd.Stop() })
	soon(t, func() error {
		_, err := os.Stat(socket)
		return err
	})
	ask := func(name string) lab.Result {
		return a.TryRun("curl", "-sS", "--max-time", "5", "-w", "%{http_code}", "--connect-to", "a:443:192.0.2.1:9118",
			"--cacert", dir+"/authority.crt", "--cert", dir+"/"+name+".crt", "--key", dir+"/"+name+".key", "https://a/stats")
	}
	if r := ask("b"); r.Stdout != "[]\n200" {
		t.Errorf("%v\n%s", r, ipmd.Output())
	}
	if r := ask("a"); !strings.HasSuffix(r.Stdout, "403") { // no peer of itself
		t.Error(r)
	}
	if log := ipmd.Output(); strings.Contains(log, "level=WARN") {
		t.Error(log)
	}
}
