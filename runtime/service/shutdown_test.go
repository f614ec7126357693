package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestShutdown(t *testing.T) {
	v := plan(t)
	order := filepath.Join(v.dir, "order")
	v.begin()
	polite := func(name string) Service {
		return sh(name, fmt.Sprintf(`trap "echo %s >>%s; exit" TERM; echo ready; while :; do sleep 0.01; done`, name, order))
	}
	stubborn := sh("stubborn", `trap "" TERM; echo ready; while :; do sleep 0.01; done`)
	if err := v.Set(t.Context(), []Service{polite("one"), stubborn, polite("two")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "stubborn", "two"} {
		waitForLog(v, name, "ready\n")
	}
	begin := time.Now()
	killed, err := v.Shutdown(t.Context(), 300*time.Millisecond)
	if err != nil || !slices.Equal(killed, []string{"stubborn"}) {
		t.Errorf("killed %q, %v", killed, err)
	}
	if took := time.Since(begin); took < 300*time.Millisecond || took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	if got := strings.Fields(read(t, order)); !slices.Contains(got, "one") || !slices.Contains(got, "two") {
		t.Errorf("asked to end: %q", got)
	}
	for range 2 {
		if killed, err := v.Shutdown(t.Context(), 0); err != nil || killed != nil {
			t.Errorf("again: %q, %v", killed, err)
		}
	}
	if _, err := Dial(v.socket); err != ErrNotRunning {
		t.Errorf("Dial: %v", err)
	}
}

func TestShutdownOrder(t *testing.T) {
	v := up(t, sh("one", "exec sleep 1000"), sh("two", "exec sleep 1000"), sh("three", "exec sleep 1000"))
	if killed, err := v.Shutdown(t.Context(), time.Second); err != nil || killed != nil {
		t.Errorf("%q, %v", killed, err)
	}
	var asked []string
	for line := range strings.Lines(read(t, filepath.Join(v.cfg.LogDir, "init.log"))) {
		if before, ok := strings.CutSuffix(line, " is asked to end\n"); ok {
			asked = append(asked, before[strings.LastIndexByte(before, ' ')+1:])
		}
	}
	if !slices.Equal(asked, []string{"three", "two", "one"}) {
		t.Errorf("asked to end: %q", asked)
	}
}

// An init that does not answer is killed.
func TestShutdownOfStoppedInit(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	pid := v.unit("a").Pid
	if err := unix.Kill(v.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if _, err := v.Shutdown(ctx, 0); err != context.DeadlineExceeded {
		t.Errorf("with a short wish: %v", err)
	}
	cancel()
	killed, err := v.Shutdown(t.Context(), 0)
	if err != nil || !slices.Equal(killed, []string{"init"}) {
		t.Errorf("killed %q, %v", killed, err)
	}
	if exists(pid) {
		t.Error("a service lives on")
	}
}

// Somebody who empties the run directory takes the way to ask away, not the way
// to end.
func TestShutdownWithoutSocket(t *testing.T) {
	v := up(t, sh("a", "exec sleep 1000"))
	if err := os.Remove(v.socket); err != nil {
		t.Fatal(err)
	}
	if killed, err := v.Shutdown(t.Context(), 2*time.Second); err != nil || killed != nil {
		t.Errorf("killed %q, %v", killed, err)
	}
}
