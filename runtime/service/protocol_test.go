package service

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBadRequests(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	for _, c := range []struct{ line, want string }{
		{"\n", "cannot understand the request: EOF"},
		{"garbage\n", "cannot understand the request: invalid character"},
		{"\x00\xff\n", "cannot understand the request: invalid character"},
		{"[]\n", "cannot understand the request: json: cannot unmarshal array"},
		{"{}\n", `cannot do "": this init does not know how`},
		{`{"op":"dance"}` + "\n", `cannot do "dance": this init does not know how`},
		{`{"op":"status"} {}` + "\n", "something follows it"},
		{`{"op":"status","color":"red"}` + "\n", `unknown field "color": this init is older than who asks`},
		{`{"op":"set","services":[{"name":"a","sandbox":"none"}]}` + "\n", `unknown field "sandbox": this init is older`},
		{`{"op":"set","services":[{"name":"b"}]}` + "\n", "services[0].command: is missing"},
		{`{"op":"stop"}` + "\n", "is missing"},
		{`{"op":"stop","name":"b"}` + "\n", "there is no service b"},
		{`{"op":"shutdown","timeout":-1}` + "\n", "the timeout is negative"},
		{strings.Repeat("x", maxLine+1), "is longer than 1 MiB"},
	} {
		conn, err := connect(v.socket)
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, c.line)
		line, err := bufio.NewReader(conn).ReadBytes('\n')
		var r response
		if json.Unmarshal(line, &r); !strings.Contains(r.Error, c.want) {
			t.Errorf("%.60q: %q, %v", c.line, line, err)
		}
		conn.Close()
	}
	if s := v.unit("a"); s.State != Running {
		t.Errorf("%+v", s)
	}
	long := sh("long", strings.Repeat("x", maxLine))
	if err := v.Set(t.Context(), []Service{long}); !errors.Is(err, errTooLong) {
		t.Errorf("a long Set: %v", err)
	}
}

// Several requests on one connection, sent at once and in pieces.
func TestConversation(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	conn, err := connect(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const two = `{"op":"status"}` + "\nx\n"
	for _, piece := range []string{two, two[:7], two[7:], two} {
		if _, err := io.WriteString(conn, piece); err != nil {
			t.Fatal(err)
		}
	}
	lines := bufio.NewReader(conn)
	for i := range 6 {
		var r response
		line, err := lines.ReadBytes('\n')
		if err != nil || json.Unmarshal(line, &r) != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if bad := i%2 == 1; bad != (r.Error != "") {
			t.Errorf("answer %d: %s", i, line)
		}
	}
}

// FuzzServe: whatever comes in, each line gets one answer, and what is handed
// on is valid.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"op":"status"}` + "\n" + `{"op":"set","services":[{"name":"a","command":["x"],"restart":"never"}]}`))
	f.Add([]byte(`{"op":"shutdown","timeout":1}` + "\n\n\r\n[{"))
	f.Add([]byte(`{"op":"stop","name":"a"}`))
	f.Fuzz(func(t *testing.T, input []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		us, them := os.NewFile(uintptr(fds[0]), "us"), os.NewFile(uintptr(fds[1]), "them")
		var all sync.WaitGroup
		defer us.Close()
		defer all.Wait()
		all.Go(func() {
			us.Write(input)
			unix.Shutdown(fds[0], unix.SHUT_WR)
		})
		all.Go(func() {
			serve(them, func(r request) *call {
				if err := r.check(); err != nil {
					t.Errorf("%+v was handed on: %v", r, err)
				}
				c := newCall(r)
				c.answer <- response{}
				return c
			})
		})
		answers, err := io.ReadAll(us)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Count(input, []byte("\n"))
		if len(input) > 0 && input[len(input)-1] != '\n' {
			want++
		}
		if got := bytes.Count(answers, []byte("\n")); got != want {
			t.Errorf("%d lines got %d answers: %q", want, got, answers)
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add(`41 40 0:4 net:[1] /run/netns/a\040b rw - nsfs nsfs rw`)
	f.Fuzz(func(t *testing.T, text string) {
		points, _ := mountsWithin(strings.NewReader(text), "/run")
		for _, p := range points {
			if !within(p, "/run") {
				t.Errorf("%q is not in /run", p)
			}
		}
	})
}

// FuzzAnswer: whatever an init answers, who asked takes it, or says why not.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"report":{"config":{"id":8},"wanted":[{"name":"a","command":["x"]}],"services":[{"name":"a","state":"running","pid":7,"since":"2026-01-02T03:04:05Z"}]},"killed":["a"]}` + "\n"))
	f.Add([]byte(`{"error":"no"}` + "\n"))
	f.Add([]byte(`{"report":null`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		us, them := os.NewFile(uintptr(fds[0]), "us"), os.NewFile(uintptr(fds[1]), "them")
		var all sync.WaitGroup
		defer all.Wait()
		defer us.Close()
		all.Go(func() {
			defer them.Close()
			bufio.NewReader(them).ReadBytes('\n')
			them.Write(answer)
		})
		a, err := roundTrip(t.Context(), us, request{Op: opStatus})
		if whole := bytes.Contains(answer, []byte("\n")); err == nil && !whole {
			t.Errorf("%q is an answer", answer)
		}
		if err != nil || a.Report == nil {
			return
		}
		a.Report.Config.Same(Config{})
		Validate(a.Report.Wanted)
		chain(a.Report.Wanted, func(s Service) time.Duration { return s.Stop.Within() })
	})
}

// Whatever the starter writes is a whole configuration, or none.
func FuzzBoot(f *testing.F) {
	f.Add(`{"Config":{"id":8,"logDir":"/l"},"Socket":"/s"}`)
	f.Fuzz(func(_ *testing.T, text string) {
		if b, err := readBoot(strings.NewReader(text)); err == nil {
			b.Config.Validate()
		}
	})
}

// What /proc says is understood, or passed over.
func FuzzProc(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000\n")
	f.Add("00400000-00401000 r--p 00000000 08:01 12 /x\nAnonymous:             0 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		if listensOn(strings.NewReader(text), 80) && !strings.Contains(text, ":") {
			t.Error("nobody listens")
		}
		for _, m := range unwritten(strings.NewReader(text)) {
			if m.from > m.to {
				t.Errorf("%x to %x", m.from, m.to)
			}
		}
		rootOfMount(strings.NewReader(text), 41)
	})
}
