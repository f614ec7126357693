package runtime

import (
	"errors"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/plumbing"
)

func crowdOf(n int) (list []VirtualServer) {
	for id := 1; id <= n; id++ {
		list = append(list, VirtualServer{ID: id, Network: plumbing.Network{Interfaces: []plumbing.Interface{{
			Name: "eth0", Port: "eth1", Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}), 24)},
		}}}})
	}
	return list
}

// Who has what another one wants is found whether the records are read or what was kept of
// them, and whatever has become of either since.
func TestSurvey(t *testing.T) {
	s := OpenStore(t.TempDir())
	for _, vs := range crowdOf(40) {
		if err := s.claim(t.Context(), vs, "m"); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond) // else none is trusted
	wish := func(last byte) VirtualServer {
		vs := crowdOf(1)[0]
		vs.ID, vs.Interfaces[0].Addresses[0] = 99, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 24)
		return vs
	}
	taken := func(what string, last byte, machine, by string) (read int) {
		t.Helper()
		v, err := s.survey(wish(last), machine)
		if err != nil {
			t.Fatal(err)
		}
		err = v.refuse(wish(last))
		if by == "" && err != nil || by != "" && (err == nil || !strings.HasPrefix(err.Error(), by+" already has")) {
			t.Errorf("%s: 192.0.2.%d is %q's, and told is: %v", what, last, by, err)
		}
		v.keep()
		if shared := v.read + 1; len(v.rivals) > shared {
			t.Errorf("%s: %d records were read, of which %d had changed", what, len(v.rivals), v.read)
		}
		return v.read
	}
	file := filepath.Join(s.dir, surveyFile)
	taken("at first", 7, "m", "vs7")
	if n := taken("kept", 7, "m", "vs7"); n >= fewRecords/2 {
		t.Errorf("%d records were read that had not changed", n)
	}
	if n := taken("kept", 70, "m", ""); n >= fewRecords/2 {
		t.Errorf("%d records were read that had not changed", n)
	}
	if n := taken("another machine", 7, "o", "vs7"); n != 40 {
		t.Errorf("%d records were read for another machine", n)
	}
	taken("again", 7, "m", "vs7")

	changed := crowdOf(7)[6]
	changed.Interfaces[0].Addresses = wish(70).Interfaces[0].Addresses
	if err := s.save(changed); err != nil {
		t.Fatal(err)
	}
	taken("changed", 70, "m", "vs7")
	taken("changed", 7, "m", "")
	inPlace := strings.Replace(string(crowdOf(8)[7].record()), "192.0.2.8/", "192.0.2.9/", 1)
	if err := os.WriteFile(s.path(8), []byte(inPlace), 0o600); err != nil { // by an editor
		t.Fatal(err)
	}
	taken("written to", 8, "m", "")
	if err := s.forget(6); err != nil {
		t.Fatal(err)
	}
	taken("destroyed", 6, "m", "")

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for k := 0; k < len(text); k += 97 { // spoiled anywhere, or cut off: it is no worse than none
		spoiled := append([]byte(nil), text...)
		spoiled[k] ^= 0x20
		for _, b := range [][]byte{spoiled, text[:k]} {
			v := &survey{store: s, machineID: "m"}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if v.load(); v.records != nil {
				t.Fatalf("taken for whole: byte %d of %d changed, or the end", k, len(text))
			}
		}
	}
	for k := 0; k < len(text); k += 7 { // whole as it seems
		v := &survey{store: s, machineID: "m"}
		if err := os.WriteFile(file, order.AppendUint32(text[:k:k], crc32.ChecksumIEEE(text[:k])), 0o600); err != nil {
			t.Fatal(err)
		}
		v.load() // without a panic
	}
	taken("spoiled", 5, "m", "vs5")
	if err := os.WriteFile(s.path(3), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var refusal *plumbing.Refusal
		if err := s.free(wish(70), "m"); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "vs3.json") {
			t.Errorf("a record that cannot be read is passed over: %v", err)
		}
	}
}

// One that claims more than most is kept as well, and what is planted where the file is
// made is not followed.
func TestSurveyKeeps(t *testing.T) {
	s := OpenStore(t.TempDir())
	v := &survey{store: s, machineID: "m", read: fewRecords, records: map[int]indexed{}}
	for id := range fewRecords {
		v.records[id+1] = indexed{inode: uint64(id), claims: []sums{{key: uint64(id), as: 1}}}
	}
	v.records[7] = indexed{claims: make([]sums, 70_000)}
	file, victim := filepath.Join(s.dir, surveyFile), filepath.Join(s.dir, "victim")
	if err := os.Symlink(victim, file+".new"); err != nil {
		t.Fatal(err)
	}
	v.keep()
	again := &survey{store: s, machineID: "m"}
	if again.load(); !reflect.DeepEqual(again.records, v.records) {
		t.Error("it is not read as it was written")
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("a symlink was followed")
	}
}
