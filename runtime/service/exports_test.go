package service

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadExports(t *testing.T) {
	dir := t.TempDir()
	included := filepath.Join(dir, "included.conf")
	if err := os.WriteFile(included, []byte("EXPORT { Path = /included; }"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"NFSV4 { Path = /a; }", ""},
		{"EXPORT { Export_Id = 1; Path = /a; FSAL { Name = VFS; } }", "/a"},
		{"export{path=/a;fsal{name=vfs;}}", "/a"},
		{"EXPORT { Path = /a; }", "/a"},
		{"EXPORT { Path = /a; FSAL { Name = MEM; } }", ""},
		{"EXPORT { Path = /a; FSAL { Name = MDCACHE; FSAL { Name = \"XFS\"; } } }", "/a"},
		{"EXPORT { FSAL { Name = VFS; } Path = \"/a b\"; }\nEXPORT { Path = '/c\\'; }", "/a b /c\\"},
		{`EXPORT { Path = "/a\"b"; }`, `/a"b`},
		{"# EXPORT { Path = /a; }\nEXPORT { Path = /b; # or }\n}", "/b"},
		{"EXPORT { Path = /a; CLIENT { Path = /b; } }", "/a"},
		{"EXPORT { Pseudo = \"}\"; Path = /a; }", "/a"},
		{"EXPORT { Path = /a", ""},
		{"}}} EXPORT { Path = /a; }", "/a"},
		{"%include " + included + "\nEXPORT { Path = /a; }", "/included /a"},
		{"%include \"" + included + "\"", "/included"},
		{"%include elsewhere.conf", "error: %include elsewhere.conf is not followed"},
		{"%url rados://pool/a", "error: %url rados://pool/a is not followed"},
		{"%dir /etc/ganesha/conf.d", "error: %dir /etc/ganesha/conf.d is not followed"},
		{"%include " + filepath.Join(dir, "conf"), "error: " + filepath.Join(dir, "conf") + ": is included too deep"},
	} {
		conf := filepath.Join(dir, "conf")
		if err := os.WriteFile(conf, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths, err := readExports(conf, 0)
		got := strings.Join(paths, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want && !(strings.HasPrefix(c.want, "error: ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s\n%q, want %q", c.text, got, c.want)
		}
	}
}

func TestGaneshaConf(t *testing.T) {
	for args, want := range map[string]string{
		"-F":                "/etc/ganesha/ganesha.conf",
		"-F -f /a -L /dev":  "/a",
		"-f/a -F":           "/a",
		"-Ff /a":            "/a",
		"-f /a -f /b":       "/b",
		"-L -f -p /c":       "/etc/ganesha/ganesha.conf",
		"-L /dev/stdout -f": "",
	} {
		if got := ganeshaConf(strings.Fields(args)); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func FuzzGaneshaWords(f *testing.F) {
	for _, text := range []string{"EXPORT { Path = /a; }", `a = "b\"`, "'", "#", "%include"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, word := range ganeshaWords(text) {
			if word == "" || !strings.Contains(text, word) {
				t.Errorf("%q is not in %q", word, text)
			}
			unquoted(word)
		}
	})
}

func TestRootOfMount(t *testing.T) {
	const mountinfo = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
37 35 7:0 / /srv rw - ext4 /dev/loop0 rw
`
	for id, want := range map[uint64]string{36: "/mnt1", 37: "/", 3: ""} {
		got, err := rootOfMount(strings.NewReader(mountinfo), id)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%d: %q, %v", id, got, err)
		}
	}
	if _, err := isWholeFilesystem("/nowhere"); !slices.Contains([]string{"no such file or directory"}, err.Error()) {
		t.Error(err)
	}
}

func TestNoReloadAroundTheCheck(t *testing.T) {
	s := Service{Name: "nfsd", Command: []string{"/usr/bin/ganesha.nfsd", "-F"}, Reload: Reload{Signal: "HUP"}}
	if p := s.Validate(); len(p) != 1 || p[0].Path != "reload" {
		t.Errorf("%v", p)
	}
	if s.UnsafeExports = true; s.Validate() != nil {
		t.Errorf("%v", s.Validate())
	}
}
