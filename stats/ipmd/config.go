package ipmd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vsrun/vsrun/document"
	"github.com/vsrun/vsrun/stats/push"
)

// A Config is ipmd's configuration file. What it leaves out is as in
// DefaultConfig.
type Config struct {
	// MaxAge is how old a sample may be that an asker is given who does not say.
	MaxAge time.Duration `yaml:"maxAge"`

	// Reader is how counters are read: ReadAuto, ReadProc or ReadEBPF.
	Reader string `yaml:"reader"`

	Access []Rule `yaml:"access"`
	Limits Limits `yaml:"limits"`

	Listen Endpoint `yaml:"listen"` // zero: nobody is answered over TCP
	Node   string   `yaml:"node"`   // this one's name; "" is the host's
	Peers  []Peer   `yaml:"peers"`  // the other nodes

	Push push.Config `yaml:"push"` // zero: metrics are sent nowhere
}

// The ways to read counters.
const (
	ReadAuto = "auto" // by eBPF where that can be, otherwise from /proc
	ReadProc = "proc" // from /proc
	ReadEBPF = "ebpf" // by eBPF: ipmd does not start without it
)

// Limits bound what those who ask can make ipmd hold and do.
type Limits struct {
	Connections        int `yaml:"connections"`        // open at once
	ConnectionsPerPeer int `yaml:"connectionsPerPeer"` // of those, by one user or address
	Requests           int `yaml:"requests"`           // answered at once
	Watchers           int `yaml:"watchers"`           // of the stream, at once

	Interval time.Duration `yaml:"interval"` // the shortest between two events of a stream
}

// DefaultConfig is that of an empty file.
func DefaultConfig() Config {
	return Config{
		MaxAge: time.Second,
		Reader: ReadAuto,
		Limits: Limits{Connections: 4096, ConnectionsPerPeer: 2048, Requests: 2048, Watchers: 1024, Interval: 200 * time.Millisecond},
	}
}

// A ConfigError is everything wrong with a configuration file, in order.
type ConfigError struct{ document.Errors }

// Hint is where the file is explained.
func (e *ConfigError) Hint() string { return "ipmd --help explains the file's fields" }

var dialect = document.Dialect{Expected: map[string]string{
	"ipmd.Config":   "ipmd's fields are expected here",
	"ipmd.Endpoint": "fields of listen are expected here",
	"ipmd.Limits":   "limits' fields are expected here",
	"ipmd.Peer":     "a peer's fields are expected here",
	"ipmd.Rule":     "a rule's fields are expected here",
	"push.Config":   "fields of push are expected here",
}}

// ReadConfig reads YAML. Everything that is wrong is reported at once, each with
// name, line and column.
func ReadConfig(r io.Reader, name string) (Config, error) {
	config, seen := DefaultConfig(), false
	errs, err := dialect.Read(r, name, func(doc document.Document) []error {
		if seen {
			return []error{fmt.Errorf("%s: there is more than one document in it", name)}
		}
		seen = true
		return doc.Decode(&config, func(bool) []document.Problem { return config.Validate() })
	})
	if err != nil {
		return Config{}, err
	}
	if len(errs) > 0 {
		return Config{}, &ConfigError{errs}
	}
	return config, nil
}

// Validate reports everything that is wrong with it.
func (c Config) Validate() []document.Problem {
	var problems []document.Problem
	add := func(path, format string, args ...any) {
		problems = append(problems, document.Problem{Path: path, Err: fmt.Errorf(format, args...)})
	}
	if c.MaxAge < 0 || c.MaxAge > time.Hour {
		add("maxAge", "%s is out of range: 0 to 1h", c.MaxAge)
	}
	if !slices.Contains([]string{ReadAuto, ReadProc, ReadEBPF}, c.Reader) {
		add("reader", "%q is none of auto, proc and ebpf", c.Reader)
	}
	for k, r := range c.Access {
		r.validate(func(path, format string, args ...any) {
			add(strings.TrimSuffix(fmt.Sprintf("access[%d].%s", k, path), "."), format, args...)
		})
	}
	c.Limits.validate(add)
	for _, p := range c.Push.Validate() {
		problems = append(problems, document.Problem{Path: "push." + p.Path, Err: p.Err})
	}
	c.Listen.validate(add)
	c.validatePeers(add)
	return problems
}

func (l Limits) validate(add func(path, format string, args ...any)) {
	for _, limit := range []struct {
		name  string
		value int
	}{
		{"connections", l.Connections},
		{"connectionsPerPeer", l.ConnectionsPerPeer},
		{"requests", l.Requests},
		{"watchers", l.Watchers},
	} {
		if limit.value < 1 || limit.value > 1_000_000 {
			add("limits."+limit.name, "%d is out of range: 1 to 1000000", limit.value)
		}
	}
	if l.Interval < time.Millisecond || l.Interval > standardInterval {
		add("limits.interval", "%s is out of range: 1ms to %s", l.Interval, standardInterval)
	}
}
