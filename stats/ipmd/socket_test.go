package ipmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

func TestClientAndServer(t *testing.T) {
	s := three(t)
	configure(t, s, "maxAge: 0s")
	client, stop := start(t, s)
	samples, err := client.Stats(t.Context())
	if err != nil || len(samples) != 2 || samples[0].Name != "finance" || samples[0].Interfaces[0].Name != "eth0" {
		t.Errorf("%+v, %v", samples, err)
	}
	if v, ok := samples[0].MIB.Lookup("Tcp", "MaxConn"); v != -1 || !ok {
		t.Errorf("MaxConn is %d, %v", v, ok)
	}
	samples, err = client.Stats(t.Context(), "finance", "9")
	if err != nil || len(samples) != 2 || samples[1].ID != 9 {
		t.Errorf("%+v, %v", samples, err)
	}
	_, err = client.Stats(t.Context(), "8", "a&b=c")
	if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotRunning) || err.Error() != `no such virtual server: "a&b=c"` {
		t.Errorf("%v", err)
	}
	breakNamespace(t, 8)
	_, err = client.Stats(t.Context(), "8")
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotRunning) || !strings.HasPrefix(err.Error(), "cannot read the counters of vs8: ") {
		t.Errorf("%v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("%v", err)
	}
	_, err = client.Stats(t.Context())
	if !errors.Is(err, ErrNotRunning) || err.Error() != "ipmd is not running on "+client.Socket {
		t.Errorf("%v", err)
	}
}

func TestClientsAtOnce(t *testing.T) {
	client, _ := start(t, three(t))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if samples, err := client.Stats(t.Context()); err != nil || len(samples) != 2 {
				t.Errorf("%d samples, %v", len(samples), err)
			}
		})
	}
	wg.Wait()
}

func TestClientOnStaleSocket(t *testing.T) {
	socket := staleSocket(t)
	if _, err := (Client{Socket: socket}).Stats(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

func TestClientOfSomethingElse(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"another service":  http.NotFound,
		"not JSON":         func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"bad name":         func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`[{"mib":{"Ip":{"a b":1}}}]`)) },
		"error without it": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", http.StatusInternalServerError) },
		"hangs up":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		socket := socketPath(t)
		l, err := Listen(socket)
		must(t, err)
		server := &http.Server{Handler: handler}
		go server.Serve(l)
		_, err = Client{Socket: socket}.Stats(t.Context())
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotRunning) ||
			!strings.Contains(err.Error(), "ipmd on "+socket) || strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}

func TestClientGivesUp(t *testing.T) {
	socket := socketPath(t)
	l, err := Listen(socket) // connections wait in its queue
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := (Client{Socket: socket}).Stats(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

func TestListen(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, umask := range []int{0, 0o022, 0o077} {
		syscall.Umask(umask)
		socket := filepath.Join(t.TempDir(), "new", "ipmd.sock")
		l, err := Listen(socket)
		must(t, err)
		fi, err := os.Stat(socket)
		must(t, err)
		if fi.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("umask %o: mode %v", umask, fi.Mode())
		}
		must(t, l.Close())
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket stays: %v", err)
		}
	}
}

// Before the mode is set, too: bind makes the file with it.
func TestSocketIsNeverOpenToOthers(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	socket := socketPath(t)
	l, err := bind(socket)
	must(t, err)
	defer l.Close()
	fi, err := os.Stat(socket)
	must(t, err)
	if fi.Mode().Perm() != socketMode {
		t.Errorf("mode %v", fi.Mode())
	}
}

func TestListenReplacesStale(t *testing.T) {
	socket := staleSocket(t)
	l, err := Listen(socket)
	must(t, err)
	must(t, l.Close())
}

func TestListenRefuses(t *testing.T) {
	live := socketPath(t)
	l, err := Listen(live)
	must(t, err)
	defer l.Close()
	file := socketPath(t)
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	link := socketPath(t)
	must(t, os.Symlink(staleSocket(t), link))
	datagram := socketPath(t)
	d, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagram, Net: "unixgram"})
	must(t, err)
	defer d.Close()
	long := "/" + strings.Repeat("x", 107)

	for path, want := range map[string]string{
		live:        "cannot listen: ipmd is already running on " + live,
		file:        "cannot listen: " + file + " is there, and is not a socket",
		link:        "cannot listen: " + link + " is there, and is not a socket",
		datagram:    "cannot listen: dial unix " + datagram + ": connect: protocol wrong type for socket",
		long:        "cannot listen: " + long + " is longer than the 107 bytes that a socket's name may have",
		"ipmd.sock": `cannot listen: "ipmd.sock" is not an absolute path`,
		"@abstract": `cannot listen: "@abstract" is not an absolute path`,
		"":          `cannot listen: "" is not an absolute path`,
	} {
		l, err := Listen(path)
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err == nil {
			l.Close()
		}
	}
	for _, path := range []string{live, file, link, datagram} {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// A queue that is full is a listener, too, though it cannot be connected to.
func TestListenBesideBusyListener(t *testing.T) {
	socket := socketPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}))
	must(t, syscall.Listen(fd, 0))
	c, err := net.Dial("unix", socket)
	must(t, err)
	defer c.Close()
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "ipmd is already running on ") {
		t.Errorf("%v", err)
	}
}

// Of many that start over a stale socket at once, one wins, and keeps it.
func TestListenAtOnce(t *testing.T) {
	for range 20 {
		socket := staleSocket(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []net.Listener
		for range 8 {
			wg.Go(func() {
				l, err := Listen(socket)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, l)
				} else if !strings.Contains(err.Error(), "already running") {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listen", len(won))
		}
		c, err := net.Dial("unix", socket)
		must(t, err)
		c.Close()
		won[0].Close()
	}
}

func TestListenAndServeFinishesRequests(t *testing.T) {
	asked, answer := make(chan bool), make(chan bool)
	s := &Server{Sources: func(context.Context) ([]stats.Source, error) {
		asked <- true
		<-answer
		return nil, nil
	}}
	client, stop := start(t, s)
	got := make(chan error)
	go func() {
		samples, err := client.Stats(context.Background())
		if err == nil && samples == nil {
			err = fmt.Errorf("no answer")
		}
		got <- err
	}()
	<-asked
	stopped := make(chan error)
	go func() { stopped <- stop() }()
	for { // the socket goes at once, so that a new ipmd can start
		if _, err := os.Lstat(client.Socket); errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	answer <- true
	if err := <-got; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("%v", err)
	}
}

func TestListenAndServeTwice(t *testing.T) {
	client, _ := start(t, serverOf())
	err := serverOf().ListenAndServe(t.Context(), client.Socket)
	if err == nil || err.Error() != "cannot listen: ipmd is already running on "+client.Socket {
		t.Errorf("%v", err)
	}
	if _, err := client.Stats(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

// start runs a server until stop, which returns its error, or the test ends.
func start(t *testing.T, s *Server) (c Client, stop func() error) {
	t.Helper()
	c = Client{Socket: socketPath(t)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe(ctx, c.Socket) }()
	for {
		conn, err := net.Dial("unix", c.Socket)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return c, stop
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "ipmd.sock") }

// staleSocket is what a process that was killed leaves.
func staleSocket(t *testing.T) string {
	t.Helper()
	socket := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	return socket
}
