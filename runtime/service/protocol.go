package service

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// The protocol: a connection carries requests and responses in turn, each a
// JSON object on a line. An init may be older than who talks to it. It refuses
// operations and fields that it does not know, because to ignore a field could
// mean to run a service with more rights than it should have.

const (
	opStatus   = "status"
	opSet      = "set"
	opStart    = "start"
	opStop     = "stop"
	opRestart  = "restart"
	opReload   = "reload"
	opFiles    = "files"
	opShutdown = "shutdown"
)

// maxLine bounds a request in bytes, and maxAnswer an answer, which repeats the latest
// of some of them.
const (
	maxLine   = 1 << 20
	maxAnswer = 16 << 20
)

type request struct {
	Op       string        `json:"op"`
	Name     string        `json:"name,omitempty"`     // start, stop, restart, reload
	Services []Service     `json:"services,omitempty"` // set
	Timeout  time.Duration `json:"timeout,omitempty"`  // shutdown, in nanoseconds
	Files    []File        `json:"files,omitempty"`    // files
}

type response struct {
	Error  string   `json:"error,omitempty"`
	Report *Report  `json:"report,omitempty"` // status
	Killed []string `json:"killed,omitempty"` // shutdown, start, stop, restart
}

// A Report is what an init tells about itself.
type Report struct {
	Config   Config     `json:"config"`          // as it was started with
	Wanted   []Service  `json:"wanted"`          // the list of the latest Set
	Services []Status   `json:"services"`        // in the same order, then those that are still ending
	Files    []File     `json:"files,omitempty"` // the Digests of those of the latest Lay
	Use      cgroup.Use `json:"use,omitzero"`
	// Limits are those that all processes together have, Changed the controllers by which a
	// service has other limits than it was given. Nil: this init does not look.
	Limits  *cgroup.Limits      `json:"limits,omitempty"`
	Changed map[string][]string `json:"changed,omitempty"`
}

// Status is how a service stands.
type Status struct {
	Name     string     `json:"name"`
	State    State      `json:"state"`
	Pid      int        `json:"pid"`              // of the main process, as the host counts; 0: none
	Restarts int        `json:"restarts"`         // how often it was started again unasked
	Since    time.Time  `json:"since"`            // when it came into State
	Last     string     `json:"last,omitempty"`   // why it ended the last time, or was not started
	Health   string     `json:"health,omitempty"` // healthy, or why not; nothing when it is not checked
	Use      cgroup.Use `json:"use"`              // of all its processes together
}

var errTooLong = errors.New("a request is longer than 1 MiB")

// decodeRequest reads one line and refuses everything that cannot be done
// whatever the state of the services.
func decodeRequest(line []byte) (request, error) {
	var r request
	if err := decodeStrictly(line, &r); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			err = fmt.Errorf("%w: this init is older than who asks", err)
		}
		return request{}, fmt.Errorf("cannot understand the request: %w", err)
	}
	return r, r.check()
}

// decodeStrictly refuses fields that the value does not have, and what follows it.
func decodeStrictly(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows it")
	}
	return nil
}

func (r request) check() error {
	switch r.Op {
	case opStatus:
		return nil
	case opSet:
		return joined(Validate(r.Services))
	case opStart, opStop, opRestart, opReload:
		return checkName(r.Name)
	case opFiles:
		return joined(ValidateFiles(r.Files, nil))
	case opShutdown:
		if r.Timeout < 0 {
			return errors.New("the timeout is negative")
		}
		return nil
	}
	return fmt.Errorf("cannot do %q: this init does not know how", r.Op)
}

// idle is how long a connection may be silent.
const idle = time.Minute

// serve answers requests until the other end hangs up. The answer to each is
// had from ask.
func serve(conn *os.File, ask func(request) *call) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for {
		conn.SetReadDeadline(time.Now().Add(idle))
		if !lines.Scan() {
			break
		}
		req, err := decodeRequest(lines.Bytes())
		if err != nil {
			if writeLine(conn, response{Error: err.Error()}) != nil {
				return
			}
			continue
		}
		c := ask(req)
		err = writeLine(conn, <-c.answer)
		close(c.written)
		if err != nil {
			return
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		writeLine(conn, response{Error: errTooLong.Error()})
	}
}

func writeLine(conn *os.File, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, ok := v.(request); ok && len(line) >= maxLine {
		return errTooLong
	}
	conn.SetWriteDeadline(time.Now().Add(idle))
	_, err = conn.Write(append(line, '\n'))
	return err
}
