package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The reading of one is found and cut out as if all were decoded, in any company.
func TestOneReading(t *testing.T) {
	all := readings{}
	for _, id := range []int{1, 8, 18, 80, 81, 118, 4094} {
		e := all[id]
		e.Token = `"8":{"token":`
		e.Last.Life = "life"
		e.Last.Links = []link{{Closed: id == 8}}
		all[id] = e
	}
	text := seal(all)
	var decoded readings
	if err := unseal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	body, ok := unsealText(text)
	if !ok {
		t.Fatalf("not as it is written: %s", text)
	}
	for _, id := range []int{1, 8, 18, 80, 81, 118, 4094, 11, 4} {
		one, _, _, err := locate(body, id)
		if err != nil {
			t.Fatal(err)
		}
		want := readings{}
		if e, ok := decoded[id]; ok {
			want[id] = e
		}
		if a, b := seal(one), seal(want); !bytes.Equal(a, b) {
			t.Errorf("of %d it is\n%s, want\n%s", id, a, b)
		}
	}
	for _, ids := range [][]int{{}, {1}, {8}, {4094}, {8, 4}, {80, 8, 81}, {1, 4094}, {4094, 118, 81}, {1, 8, 18, 80, 81, 118, 4094}} {
		rest := map[int]any{}
		for id, e := range all {
			rest[id] = e
		}
		for _, id := range ids {
			delete(rest, id)
		}
		want, err := json.Marshal(rest)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(without(body, ids))); diff != "" {
			t.Errorf("without %v (-want +got):\n%s", ids, diff)
		}
	}
	if _, ok := unsealText(bytes.Replace(text, []byte("life"), []byte("lift"), 1)); ok {
		t.Error("what was changed is taken for whole")
	}
}

// Forget takes one reading out, and the file with the last one; it takes what somebody has
// indented.
func TestForget(t *testing.T) {
	b := &Book{Dir: t.TempDir(), Read: os.ReadFile, Replace: replaceIn, Lock: func(context.Context) (func(), error) { return func() {}, nil }}
	all := readings{}
	for _, id := range []int{7, 8, 9} {
		e := all[id]
		e.Token = "t"
		all[id] = e
	}
	indented := &bytes.Buffer{}
	if err := json.Indent(indented, seal(all), "", "  "); err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{seal(all), indented.Bytes()} {
		if err := os.WriteFile(b.readingsPath(), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Forget(t.Context(), 8, 5); err != nil {
			t.Fatal(err)
		}
		left, err := b.all()
		if _, there := left[8]; err != nil || there || len(left) != 2 {
			t.Errorf("%v is left: %v", left, err)
		}
		if err := b.Forget(t.Context(), 7, 9); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(b.readingsPath()); !os.IsNotExist(err) {
			t.Errorf("the file is left: %v", err)
		}
	}
}
