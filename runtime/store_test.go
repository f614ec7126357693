package runtime

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsrun/vsrun/plumbing"
)

// asHolder makes the test binary a process that holds a lock until it is killed.
const asHolder = "STORE_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asHolder); dir != "" {
		if _, err := OpenStore(dir).lock(context.Background(), 8); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("held\n")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func serverOf(t *testing.T, text string) VirtualServer {
	t.Helper()
	list, err := readServers(strings.NewReader(text), "document")
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func TestStore(t *testing.T) {
	s := OpenStore(t.TempDir())
	if _, err := s.Load(8); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty store has vs8: %v", err)
	}
	for range 3 {
		if err := s.save(serverOf(t, everything)); err != nil {
			t.Fatal(err)
		}
	}
	vs, err := s.Load(8)
	if err != nil || !same(vs, serverOf(t, everything)) {
		t.Errorf("%+v, %v", vs, err)
	}
	for _, word := range []string{"8", "vs8", "VS8", "finance", "Finance"} {
		if id, err := s.Find(word); id != 8 || err != nil {
			t.Errorf("%s is %d, %v", word, id, err)
		}
	}
	for _, word := range []string{"", "0", "4095", "vs4095", "99999999999999999999", "sales", "../vs8"} {
		if id, err := s.Find(word); !errors.Is(err, ErrNotFound) && id != 0 {
			t.Errorf("%q is %d, %v", word, id, err)
		}
	}
	if names := files(t, s.dir); names != "vs8.json" {
		t.Errorf("files: %s", names)
	}
	if err := s.forget(8); err != nil || files(t, s.dir) != "" {
		t.Errorf("%v, left: %s", err, files(t, s.dir))
	}
	if err := s.forget(8); err != nil {
		t.Error(err)
	}
}

func files(t *testing.T, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// A record that is not ours to read is told, left as it is, and does not hide
// the others.
func TestStoreDamaged(t *testing.T) {
	good := string(serverOf(t, everything).record())
	for name, text := range map[string]string{
		"empty":       "",
		"half":        good[:len(good)/2],
		"two":         good + good,
		"another's":   strings.Replace(good, `"id": 8`, `"id": 7`, 1),
		"newer":       strings.Replace(good, `"id"`, `"colour": "red", "id"`, 1),
		"impossible":  strings.Replace(good, `"mtu": 1400`, `"mtu": 14`, 1),
		"not JSON":    "id: 8\n",
		"binary":      "\x00\xff\x00",
		"wrong type":  `{"id": 8, "interfaces": {}}`,
		"half a rune": "{\"id\": 8, \"name\": \"\xc3\"}",
	} {
		s := OpenStore(t.TempDir())
		if err := s.save(VirtualServer{ID: 9}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(8), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load(8)
		var refusal *plumbing.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), s.path(8)) || refusal.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		}
		list, err := s.List()
		if len(list) != 1 || list[0].ID != 9 || err == nil {
			t.Errorf("%s: listed %v, %v", name, list, err)
		}
		if err := s.claim(t.Context(), VirtualServer{ID: 10}, "machine"); err == nil {
			t.Errorf("%s: claimed beside a record that nobody can read", name)
		}
		if left, _ := os.ReadFile(s.path(8)); string(left) != text {
			t.Errorf("%s: the record was changed", name)
		}
	}
}

func TestClaim(t *testing.T) {
	interfaces := func(port, mac, address string) string {
		return "\ninterfaces: [{name: eth0, port: " + port + ", mac: \"" + mac + "\", addresses: [" + address + "]}]"
	}
	derived := plumbing.DeriveMAC("machine", "vs8", "eth0").String()
	for _, tt := range []struct{ name, first, second, want string }{
		{"nothing in common", "id: 8", "id: 9", ""},
		{"itself again", "id: 8\nname: a", "id: 8\nname: a", ""},
		{"name", "id: 8\nname: Finance", "id: 9\nname: finance", "vs8 (Finance) already has name finance"},
		{"address", "id: 8" + interfaces("p1", "", "192.0.2.8/24"), "id: 9" + interfaces("p1", "", "192.0.2.8/25"), "vs8 already has address 192.0.2.8 on port p1"},
		{"address on another port", "id: 8" + interfaces("p1", "", "192.0.2.8/24"), "id: 9" + interfaces("p2", "", "192.0.2.8/24"), ""},
		{"MAC", "id: 8" + interfaces("p1", "02:00:00:00:00:01", ""), "id: 9" + interfaces("p2", "02:00:00:00:00:01", ""), "vs8 already has MAC 02:00:00:00:00:01"},
		{"derived MAC", "id: 8" + interfaces("p1", "", ""), "id: 9" + interfaces("p1", derived, ""), "vs8 already has MAC " + derived},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := OpenStore(t.TempDir())
			if err := s.claim(t.Context(), serverOf(t, tt.first), "machine"); err != nil {
				t.Fatal(err)
			}
			second := serverOf(t, tt.second)
			err := s.claim(t.Context(), second, "machine")
			got := ""
			if err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if _, err := s.Load(second.ID); (err == nil) != (tt.want == "") {
				t.Errorf("stored: %v", err)
			}
		})
	}
}

// Another process's lock is waited for, only for its virtual server, and goes
// with it.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := OpenStore(dir)
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), asHolder+"="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatal(line, err)
	}
	unlock, err := s.lock(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.lock(short, 8); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("locked twice: %v", err)
	}
	holder.Process.Kill()
	unlock, err = s.lock(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if names := files(t, filepath.Clean(dir)); names != "lock" {
		t.Errorf("files: %s", names)
	}
}
