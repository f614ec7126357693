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
