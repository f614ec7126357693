package e2e_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
func TestRandomKills(t *testing.T) { randomKills(t, "vsrun", "vsrun", "init") }

// The same with a vsd at work beside them, which may be killed as well.
func TestRandomKillsBesideVSD(t *testing.T) { randomKills(t, "vsrun", "init", "vsd") }

func randomKills(t *testing.T, victims ...string) {
	lab.Require(t, "cgroup2")
	s := newSite(t)
	kills, err := strconv.Atoi(os.Getenv(killsVar))
	if err != nil {
		kills = 8
	}
	vsd := 0
	if slices.Contains(victims, "vsd") {
		vsd = keepVSD(t, s)
	}
	matrices := map[int]*matrix{}
	took := map[int]time.Duration{}
	killed := map[string]int{}
	for range kills {
		k := rand.IntN(len(operations))
		if matrices[k] == nil {
			matrices[k] = &matrix{site: s, operation: operations[k], vsd: vsd}
			matrices[k].record(t)
			matrices[k].prepare(t)
			took[k] = matrices[k].kill(t, time.Minute, "vsrun").after
			matrices[k].remove(t, "timed")
		}
		m := matrices[k]
		victim := victims[rand.IntN(len(victims))]
		m.prepare(t)
		r := m.kill(t, rand.N(took[k]), victim)
		if r.killed {
			killed[victim]++
		}
		m.again(t, fmt.Sprintf("%s\n%s killed after %v: %s\n", m.args, victim, r.after, r.output), victim == "init" || vsd > 0)
		if t.Failed() {
			break
		}
	}
	t.Logf("killed during %d commands: %v", kills, killed)
}

// keepVSD has a vsd run, and another one whenever it has ended. It returns the process
// that starts them.
func keepVSD(t *testing.T, s *site) int {
	t.Helper()
	vsd := filepath.Join(lab.Programs(t), "vsd")
	cmd := exec.Command("sh", "-c", "while :; do "+vsd+" --checkpoint 1s; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGSTOP) // it starts no other one
		list := childrenOf(cmd.Process.Pid)
		cmd.Process.Kill()
		cmd.Wait()
		for _, pid := range list {
			syscall.Kill(pid, syscall.SIGTERM)
			soon(t, func() error {
				if syscall.Kill(pid, 0) == nil {
					return errors.New("vsd has not ended")
				}
				return nil
			})
		}
		os.Remove(filepath.Join(s.RunDir, "vsd.sock")) // of one that was killed
	})
	return cmd.Process.Pid
}

func childrenOf(pid int) (list []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for word := range strings.FieldsSeq(string(text)) {
		child, _ := strconv.Atoi(word)
		list = append(list, child)
	}
	return list
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
		switch victim {
		case "vsrun":
			done <- cmd.Process.Kill() == nil
			return
		case "vsd":
			vsd := childrenOf(m.vsd)
			done <- len(vsd) == 1 && syscall.Kill(vsd[0], syscall.SIGKILL) == nil
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
