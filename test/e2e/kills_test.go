package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/test/lab"
)

// killsVar is how many kills TestRandomKills tries.
const killsVar = "VSRUN_KILLS"

// At any microsecond vsrun may be killed, or the virtual server's init while vsrun is at
// work with it, and the same command completes when it is run again.
func TestRandomKills(t *testing.T) {
	lab.Require(t, "cgroup2")
	s := newSite(t)
	kills, err := strconv.Atoi(os.Getenv(killsVar))
	if err != nil {
		kills = 8
	}
	matrices := map[int]*matrix{}
	took := map[int]time.Duration{}
	killed := map[string]int{}
	for range kills {
		k := rand.IntN(len(operations))
		if matrices[k] == nil {
			matrices[k] = &matrix{site: s, operation: operations[k]}
			matrices[k].record(t)
			matrices[k].prepare(t)
			took[k] = matrices[k].kill(t, time.Minute, "vsrun").after
			matrices[k].remove(t, "timed")
		}
		m := matrices[k]
		victim := []string{"vsrun", "vsrun", "init"}[rand.IntN(3)]
		if strings.Contains(m.args, "service rm") { // without services there is no need for an init
			victim = "vsrun"
		}
		m.prepare(t)
		r := m.kill(t, rand.N(took[k]), victim)
		if r.killed {
			killed[victim]++
		}
		m.again(t, fmt.Sprintf("%s\n%s killed after %v: %s\n", m.args, victim, r.after, r.output), victim == "init")
		if t.Failed() {
			break
		}
	}
	t.Logf("killed %d commands, and %d times the init during one, of %d times", killed["vsrun"], killed["init"], kills)
}

// A killing is what became of it.
type killing struct {
	killed bool // else the victim had ended, or not begun
	after  time.Duration
	output string
}

// kill runs the operation, and kills somebody after delay.
func (m *matrix) kill(t *testing.T, delay time.Duration, victim string) (k killing) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command(filepath.Join(lab.Programs(t), "vsrun"), strings.Fields(m.args)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(m.doc), &out, &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	timer := time.AfterFunc(delay, func() {
		if victim == "vsrun" {
			done <- cmd.Process.Kill() == nil
			return
		}
		c, err := service.Dial(filepath.Join(m.RunDir, "vs8", "init.sock"))
		if err == nil {
			err = syscall.Kill(c.Pid(), syscall.SIGKILL)
			c.Close()
		}
		done <- err == nil
	})
	cmd.Wait()
	k.after = time.Since(began)
	if !timer.Stop() {
		k.killed = <-done
	}
	k.output = out.String()
	return k
}
