package service

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever is asked of an init in whatever order, and whoever dies meanwhile,
// in the end what should run does, once, and nothing else.
func TestRandomOrders(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	v := up(t)
	ctx := t.Context()
	halted := map[string]bool{} // the names that were set last, and whether by hand stopped
	names := []string{"a", "b", "c", "d", "e"}
	var list []Service
	for range 400 {
		name := names[random.IntN(len(names))]
		_, there := halted[name]
		want, err := there, error(nil) // an order for a service that is not there is refused
		switch random.IntN(5) {
		case 0:
			list = randomServices(random, names)
			now := map[string]bool{}
			for _, s := range list {
				now[s.Name] = halted[s.Name]
			}
			halted = now
			want, err = true, v.Set(ctx, list)
		case 1:
			if err = v.StartService(ctx, name); there {
				halted[name] = false
			}
		case 2:
			if err = v.StopService(ctx, name); there {
				halted[name] = true
			}
		case 3:
			if err = v.RestartService(ctx, name); there {
				halted[name] = false
			}
		case 4:
			want = true
			if there && !halted[name] {
				if pid := v.unit(name).Pid; pid != 0 {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		if want != (err == nil) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	eventually(t, "what should run does", func() bool {
		got, err := v.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return slices.EqualFunc(got, list, func(s Status, w Service) bool {
			want := Running
			if halted[w.Name] {
				want = Stopped
			}
			return s.Name == w.Name && s.State == want
		})
	})
	want := []string{"vs-init"}
	for _, s := range list {
		if !halted[s.Name] {
			want = append(want, strings.Join(s.Command, " "))
		}
	}
	slices.Sort(want)
	eventually(t, "nothing else does", func() bool { return slices.Equal(v.commands(), want) })
}

// commands are the command lines of all processes inside, sorted.
func (v *virtual) commands() []string {
	v.t.Helper()
	var commands []string
	for line := range strings.Lines(v.output(`for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done`)) {
		line = strings.TrimSpace(line)
		switch program, _, _ := strings.Cut(line, " "); program {
		case "", "sh", "tr": // the look-up itself
		case "vs-init":
			commands = append(commands, program)
		default:
			commands = append(commands, line)
		}
	}
	slices.Sort(commands)
	return commands
}

func randomServices(random *rand.Rand, names []string) []Service {
	var list []Service
	for _, i := range random.Perm(len(names))[:random.IntN(len(names)+1)] {
		seconds := fmt.Sprint(5000 + 10*i + random.IntN(2))
		list = append(list, Service{Name: names[i], Command: []string{"sleep", seconds}})
	}
	return list
}
