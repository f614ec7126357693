package runtime

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a store remembers is what reading all again gives, whatever others do meanwhile.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	others, kept := OpenStore(dir), OpenStore(dir)
	defer kept.Keep()()
	draw := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		id := 1 + draw.IntN(5)
		vs := server(id, fmt.Sprintf("name%d", draw.IntN(8)), []string{fmt.Sprintf("192.0.2.%d/24", 1+draw.IntN(8))})
		switch draw.IntN(6) {
		case 0:
			others.forget(id)
		case 1:
			os.WriteFile(others.path(id), []byte("{"), 0o600)
		default:
			if err := others.save(vs); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time of what is remembered alone
			want, wantErr := others.List()
			got, err := kept.List()
			if d := cmp.Diff(want, got, exact); d != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("%v, reading all: %v\n%s", err, wantErr, d)
			}
		}
		vs.ID = 9
		if got, want := kept.free(vs, machine), others.free(vs, machine); (got == nil) != (want == nil) {
			t.Fatalf("free: %v, reading all: %v", got, want)
		}
	}
}
