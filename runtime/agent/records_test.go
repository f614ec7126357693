package agent

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// inotify is an event about a file, as the kernel writes it.
func inotify(mask uint32, name string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, 1)
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, 32)
	return append(append(b, name...), make([]byte, 32-len(name))...)
}

func TestChanges(t *testing.T) {
	list, err := parseChanges(slices.Concat(inotify(unix.IN_MOVED_TO, "vs8.json"), inotify(unix.IN_MOVED_FROM, ".vs8.json.new"),
		inotify(unix.IN_DELETE, "port-bond0.json"), inotify(unix.IN_CLOSE_WRITE, "lock"), inotify(unix.IN_CLOSE_WRITE, "vs0.json")))
	if want := []subject{{id: 8}, {port: "bond0"}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := parseChanges(inotify(unix.IN_Q_OVERFLOW, "")); err == nil {
		t.Error("an overflow is not told")
	}
}

func FuzzChanges(f *testing.F) {
	f.Add(inotify(unix.IN_MOVED_TO, "vs8.json"))
	f.Add(inotify(unix.IN_Q_OVERFLOW, "")[:20])
	f.Fuzz(func(_ *testing.T, b []byte) { parseChanges(b) })
}

// An event that is understood is told on as it was.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","event":"mended","id":8,"drift":[{"topic":"address","text":"add address"}],"tookSeconds":0.5,"waitSeconds":1}`))
	f.Add([]byte(`{"event":"failed","port":"bond0","error":"no","waitSeconds":1e300}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var e, again Event
		if json.Unmarshal(text, &e) != nil {
			return
		}
		_, _ = e.Subject(), e.String()
		line, err := json.Marshal(e)
		if err == nil {
			err = json.Unmarshal(line, &again)
		}
		if err != nil || again.String() != e.String() || again.Subject() != e.Subject() {
			t.Errorf("%s is told as %s, %v", text, line, err)
		}
	})
}
