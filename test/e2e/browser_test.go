package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

// A browser is a Chromium without a window, with one page open. It is told what to
// do by the DevTools protocol on a pipe (https://chromedevtools.github.io/devtools-protocol).
type browser struct {
	t       *testing.T
	to      io.Writer
	session string // the page's

	mu      sync.Mutex
	last    int
	waiting map[int]chan toldBack
	faults  []string // what scripts and the browser complained of
}

type toldBack struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// openBrowser starts a Chromium that knows nobody and keeps nothing. Its own sandbox
// makes namespaces, which it may not here: the host that it is in is thrown away.
func openBrowser(t *testing.T, url string) *browser {
	t.Helper()
	lab.Require(t, "chromium-headless-shell")
	in, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("chromium-headless-shell", "--no-sandbox", "--remote-debugging-pipe", "--user-data-dir="+dir,
		"--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.ExtraFiles = []*os.File{in, out} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	b := &browser{t: t, to: to, waiting: map[int]chan toldBack{}}
	read := make(chan struct{})
	go func() { defer close(read); b.read(from) }()
	t.Cleanup(func() {
		json.NewEncoder(to).Encode(nil) // nothing: the pipe's end ends it
		to.Close()
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		<-read
		from.Close()
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	b.call("Page.enable", nil, nil)
	b.call("Runtime.enable", nil, nil)
	b.call("Log.enable", nil, nil)
	b.size(1280, 800)
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	return b
}

// read takes in what the browser says: JSON texts with a NUL behind each.
func (b *browser) read(from io.Reader) {
	messages := bufio.NewReader(from)
	for {
		text, err := messages.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			Params json.RawMessage
			toldBack
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if waiting := b.waiting[m.ID]; waiting != nil {
			waiting <- m.toldBack
			delete(b.waiting, m.ID)
		}
		if m.Method == "Runtime.exceptionThrown" || m.Method == "Log.entryAdded" {
			b.faults = append(b.faults, string(m.Params))
		}
		b.mu.Unlock()
	}
}

// call has the browser do something, and decodes its answer.
func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	if err := b.try(method, params, result); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

func (b *browser) try(method string, params map[string]any, result any) error {
	got := make(chan toldBack, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	b.waiting[id] = got
	message := map[string]any{"id": id, "method": method, "params": params}
	if params == nil {
		message["params"] = map[string]any{}
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a := <-got:
		if a.Error != nil {
			return errors.New(a.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-time.After(20 * time.Second):
		return errors.New("no answer for 20 s")
	}
}

// eval is what an expression of JavaScript is in the page.
func eval[T any](b *browser, expression string) (v T) {
	b.t.Helper()
	var got struct {
		Result           struct{ Value T }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got)
	if got.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, got.ExceptionDetails)
	}
	return got.Result.Value
}

// until waits until an expression is true, and needs nothing that is not there.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); !eval[bool](b, "(() => { try { return Boolean("+expression+") } catch { return false } })()"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("still not %s:\n%s\n%v", what, eval[string](b, "document.body.innerText"), b.faults)
		}
	}
}

func (b *browser) size(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

func (b *browser) colors(scheme string) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// press presses a key, by its name in JavaScript.
func (b *browser) press(key string) {
	b.t.Helper()
	text := map[string]string{"Enter": "\r"}[key]
	if len(key) == 1 {
		text = key
	}
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": key, "code": key, "text": text, "windowsVirtualKeyCode": map[string]int{"Enter": 13, "Escape": 27, "ArrowDown": 40}[key]}, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key}, nil)
}

// click clicks in the middle of what a selector finds.
func (b *browser) click(selector string) {
	b.t.Helper()
	at := eval[[2]float64](b, fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`, selector))
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

// shoot keeps a picture of the page where VSRUN_SCREENSHOTS says, to be looked at.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("VSRUN_SCREENSHOTS")
	if dir == "" {
		return
	}
	var picture struct{ Data []byte }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &picture)
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// forward is what ssh -L does: it listens on loopback, and each connection leads to
// the unix socket.
func forward(t *testing.T, socket string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{})
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer near.Close()
				far, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer far.Close()
				done := make(chan struct{}, 2)
				go func() { io.Copy(far, near); done <- struct{}{} }()
				go func() { io.Copy(near, far); done <- struct{}{} }()
				select {
				case <-done:
				case <-ended:
				}
			})
		}
	})
	t.Cleanup(func() { close(ended); l.Close(); all.Wait() })
	return fmt.Sprintf("http://localhost:%d/", l.Addr().(*net.TCPAddr).Port)
}
