package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/test/lab"
)

// A terminal is vsrun on a terminal, and what that shows.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File // the keyboard's side
	vt   vt10x.Terminal
	done chan struct{} // all that it wrote was read

	mu  sync.Mutex
	raw []byte // what it wrote
}

// onTerminal starts vsrun on a terminal of 80 columns and 24 rows, in which the
// environment says UTF-8 and no more than env.
func onTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	term := &terminal{t: t, vt: vt10x.New(vt10x.WithSize(80, 24)), done: make(chan struct{})}
	term.cmd = exec.Command(filepath.Join(lab.Programs(t), "vsrun"), args...)
	term.cmd.Env = append(append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR="), env...)
	tty, err := pty.StartWithSize(term.cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	term.tty = tty
	go func() {
		defer close(term.done)
		b := make([]byte, 64<<10)
		for {
			n, err := tty.Read(b)
			if err != nil { // EIO, when its last process has closed it
				return
			}
			term.mu.Lock()
			term.raw = append(term.raw, b[:n]...)
			term.mu.Unlock()
			term.vt.Write(b[:n])
		}
	}()
	t.Cleanup(func() { term.cmd.Process.Kill(); term.cmd.Wait(); tty.Close(); <-term.done })
	return term
}

func (term *terminal) press(keys string) { term.tty.WriteString(keys) }

func (term *terminal) resize(columns, rows int) {
	term.vt.Resize(columns, rows)
	if err := pty.Setsize(term.tty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		term.t.Fatal(err)
	}
}

// rows is what the screen shows, without spaces at the ends of rows.
func (term *terminal) rows() []string {
	rows := strings.Split(strings.TrimSuffix(term.vt.String(), "\n"), "\n")
	for i := range rows {
		rows[i] = strings.TrimRight(rows[i], " ")
	}
	return rows
}

// until waits until the screen is as wanted.
func (term *terminal) until(what string, holds func(rows []string) bool) {
	term.t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(term.rows()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			term.t.Fatalf("still not %s:\n%s", what, strings.Join(term.rows(), "\n"))
		}
	}
}

// exit waits for the end, and is its status.
func (term *terminal) exit() int {
	term.t.Helper()
	ended := time.AfterFunc(10*time.Second, func() { term.cmd.Process.Kill() })
	defer ended.Stop()
	term.cmd.Wait()
	<-term.done
	return term.cmd.ProcessState.ExitCode()
}

var (
	aFigure  = regexp.MustCompile(`(^| )[<.0-9]+[KMGT]?(B/s)?( |$)`)
	past     = regexp.MustCompile(`[▁▂▃▄▅▆▇█]+`)
	tableRow = regexp.MustCompile(`^ *\d+ (\S+) `)
	spaces   = regexp.MustCompile(` +`)
)

// masked has # for each figure that may differ, ~ for the past, and single spaces.
func masked(row string) string {
	row = past.ReplaceAllString(row, "~")
	for range 2 { // two neighbours share a space
		row = aFigure.ReplaceAllString(row, "$1#$3")
	}
	return strings.TrimSpace(spaces.ReplaceAllString(row, " "))
}

func has(rows []string, pattern string) bool {
	return slices.ContainsFunc(rows, regexp.MustCompile(pattern).MatchString)
}

// order is the names in the table.
func order(rows []string) (names []string) {
	for _, row := range rows[1:] { // the first is the title
		if m := tableRow.FindStringSubmatch(row); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

// sendTo sends datagrams of 1000 bytes to an address until the test ends, so many a
// second, and nobody takes them in.
func sendTo(t *testing.T, c *lab.Client, addr string, perSecond int) {
	t.Helper()
	conn, err := c.Dial("udp", net.JoinHostPort(addr, "9"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		begin, sent := time.Now(), 0
		for {
			select {
			case <-tick.C:
			case <-ended:
				return
			}
			for due := int(time.Since(begin).Seconds() * float64(perSecond)); sent < due; sent++ {
				conn.Write(make([]byte, 1000)) // refused, as often as the answer comes
			}
		}
	})
	t.Cleanup(func() { close(ended); sender.Wait(); conn.Close() })
}

func TestTop(t *testing.T) {
	s := newSite(t)
	for id, name := range map[int]string{8: "finance", 9: "web", 10: "archive"} {
		s.MustVsrun(t, "create", fmt.Sprint(id), "--name", name, "--no-probe", "--port", "eth1", "--address", fmt.Sprintf("192.0.2.%d/24", id))
	}
	startIPMD(t, s.Host) // the other tests are without
	sendTo(t, s.client, "192.0.2.9", 200)
	sendTo(t, s.client, "192.0.2.8", 50)
	term := onTerminal(t, nil, "top", "--interval", "100ms")
	busiest := func(rows []string) bool {
		return slices.Equal(order(rows), []string{"web", "finance", "archive"}) && has(rows, `web .* [12]\d\dK .* [▁-█]{3,}$`)
	}
	term.until("the busiest first", busiest)
	rows := term.rows()
	for i := range rows {
		rows[i] = masked(rows[i])
	}
	want := append([]string{
		"# virtual servers in # out # every 100ms",
		"ID NAME RX B/s TX B/s RX p/s TX p/s LOST/s CPU % MEMORY ▼RX+TX B",
		"# web # # # # # - - ~",
		"# finance # # # # # - - ~",
		"# archive # # # # # - - ~",
	}, make([]string, 18)...)
	want = append(want, "↑↓ choose Enter look into ←→ sort r reverse / filter q quit")
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("%s", diff)
	}

	term.press("\x1b[C") // past the last column is the first
	term.until("sorted by number", func(rows []string) bool {
		return slices.Equal(order(rows), []string{"finance", "web", "archive"}) && has(rows, "▼ID")
	})
	term.press("r")
	term.until("the other way round", func(rows []string) bool {
		return slices.Equal(order(rows), []string{"archive", "web", "finance"}) && has(rows, "▲ID")
	})
	term.press("/FIN")
	term.until("filtered", func(rows []string) bool {
		return slices.Equal(order(rows), []string{"finance"}) && has(rows, "filter: FIN")
	})
	term.press("\x1b")
	term.until("all again", func(rows []string) bool { return len(order(rows)) == 3 })

	s.MustVsrun(t, "create", "11", "--name", "new")
	term.until("one more", func(rows []string) bool { return slices.Contains(order(rows), "new") })
	s.MustVsrun(t, "disable", "11")
	term.until("one less", func(rows []string) bool { return !slices.Contains(order(rows), "new") })

	term.press("j\x1b[B\r") // the second, which is web
	counters := func(rows []string) bool {
		return has(rows, `^vs9 › web`) && has(rows, `^eth0 .* [12]\d\dK `) && has(rows, `^Ip +InReceives +\d+ +1\d\d|^Ip +InReceives +\d+ +2\d\d`)
	}
	term.until("what web counts", counters)
	term.press("/noports")
	term.until("one counter", func(rows []string) bool { return has(rows, `^Udp +NoPorts +\d+ +\d+`) && !has(rows, `InReceives`) })
	term.press("\r\x1b\x1b")
	term.until("the table", func(rows []string) bool { return len(order(rows)) == 3 })

	term.resize(60, 4)
	term.until("smaller", func(rows []string) bool {
		return len(rows) == 4 && has(rows, `^3 virtual servers, \d to \d`) && len(order(rows)) == 1
	})
	term.resize(120, 30)
	term.until("larger", func(rows []string) bool {
		return len(order(rows)) == 3 && has(rows[29:], "^↑↓ choose") && has(rows, `web .* [▁-█]{20,}$`)
	})

	term.press("q")
	if code := term.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !strings.HasSuffix(string(term.raw), "\x1b[?25h\x1b[?1049l") || !strings.Contains(string(term.raw), "\x1b[36m") {
		t.Error("the terminal is not as it was, or there were no colours")
	}
}

// A virtual server that was enabled again counts from nothing: that is no rate.
func TestTopAfterEnablingAgain(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	sendTo(t, s.client, "192.0.2.8", 100)
	term := onTerminal(t, []string{"NO_COLOR=1"}, "top", "8", "--interval", "100ms")
	row := regexp.MustCompile(`^ +8 vs8 +(\S+)`)
	rate := func(rows []string) string {
		for _, r := range rows {
			if m := row.FindStringSubmatch(r); m != nil {
				return m[1]
			}
		}
		return ""
	}
	moving := func(rows []string) bool { return regexp.MustCompile(`^\d.*K$`).MatchString(rate(rows)) }
	term.until("counting", moving)
	s.MustVsrun(t, "disable", "8")
	term.until("why there is nothing", func(rows []string) bool { return has(rows, "^not now: .*vs8") })
	s.MustVsrun(t, "enable", "8")
	term.until("counting again", func(rows []string) bool {
		if r := rate(rows); regexp.MustCompile(`[MGTPE]$`).MatchString(r) {
			t.Fatalf("%s a second", r)
		}
		return moving(rows) && !has(rows, "not now")
	})
	term.press("\x03")
	if code := term.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if regexp.MustCompile(`\x1b\[3\dm`).Match(term.raw) {
		t.Error("there are colours, in spite of NO_COLOR")
	}
}

func TestTopScrollsAndSortsHundreds(t *testing.T) {
	h := bareHost(t)
	for id := 100; id < 140; id++ {
		h.MustVsrun(t, "create", fmt.Sprint(id))
	}
	term := onTerminal(t, []string{"LC_ALL=C"}, "top", "--sort", "id", "--interval", "100ms")
	term.until("the first", func(rows []string) bool { return has(rows, "^40 virtual servers, 1 to 21") && has(rows, `vID`) })
	term.press("\x1b[6~\x1b[6~")
	term.until("further ones", func(rows []string) bool {
		return has(rows, "^40 virtual servers, 20 to 40") || has(rows, " 140 ") || has(rows, " 139 ")
	})
	term.press("\x1b[H")
	term.until("the first again", func(rows []string) bool { return has(rows, "^40 virtual servers, 1 to 21") })
	for _, row := range term.rows() {
		if strings.ContainsFunc(row, func(r rune) bool { return r > 126 }) {
			t.Errorf("not ASCII: %s", row)
		}
	}
	term.cmd.Process.Signal(unix.SIGTERM)
	if code := term.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// On a terminal stats --watch is drawn in place, and what it showed last stays.
func TestWatchInPlace(t *testing.T) {
	s := newSite(t)
	s.MustVsrun(t, "create", "8", "--no-probe", "--port", "eth1", "--address", "192.0.2.8/24")
	sendTo(t, s.client, "192.0.2.8", 100)
	term := onTerminal(t, nil, "stats", "8", "--watch", "--interval", "100ms")
	line := `^8 +vs8 +total +\d\S*K +\d`
	term.until("rates", func(rows []string) bool {
		return strings.HasPrefix(rows[0], "ID  NAME  INTERFACE  RX B/s  RX p/s") && has(rows[2:3], line) && has(rows, "^every 100ms, q quits")
	})
	term.press("q")
	if code := term.exit(); code != 0 || !has(term.rows(), line) || has(term.rows(), "q quits") {
		t.Errorf("exit status %d:\n%s", code, strings.Join(term.rows(), "\n"))
	}
	dumb := onTerminal(t, []string{"TERM=dumb"}, "stats", "8", "--watch", "--interval", "100ms")
	dumb.until("one table after the other", func([]string) bool {
		dumb.mu.Lock()
		defer dumb.mu.Unlock()
		return strings.Count(string(dumb.raw), "RX BYTES/S") >= 2
	})
}
