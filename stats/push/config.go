package push

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vsrun/vsrun/document"
)

// A Config is the section push of ipmd's configuration. Without a URL nothing is
// pushed.
type Config struct {
	URL      string        `yaml:"url"`
	Interval time.Duration `yaml:"interval"` // 0 is DefaultInterval

	// Labels are added to every series. job is vsrun and instance the host's name
	// where they are not given: what a scrape would add.
	Labels map[string]string `yaml:"labels"`

	Headers         map[string]string `yaml:"headers"`
	BearerTokenFile string            `yaml:"bearerTokenFile"`
	User            string            `yaml:"user"`
	PasswordFile    string            `yaml:"passwordFile"`

	// PEM files: whom to believe instead of the system's authorities, and who this is.
	Authorities string `yaml:"authorities"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// DefaultInterval is the time from one push to the next where none is given.
const DefaultInterval = 15 * time.Second

const minInterval, maxInterval = time.Second, time.Hour

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// ours are the labels that series have.
var ours = []string{"vs", "name", "device", "service"}

// Validate reports everything that is wrong with it.
func (c Config) Validate() []document.Problem {
	var problems []document.Problem
	add := func(path, format string, args ...any) {
		problems = append(problems, document.Problem{Path: path, Err: fmt.Errorf(format, args...)})
	}
	if c.URL == "" {
		if !c.isZero() {
			add("url", "the URL to push to is missing")
		}
		return problems
	}
	if u, err := url.Parse(c.URL); err != nil {
		add("url", "%w", err)
	} else if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		add("url", "%q is no URL of http or https", c.URL)
	} else if u.User != nil { // which would be logged
		add("url", "a URL with a user is not accepted: user and passwordFile are for that")
	}
	if c.Interval != 0 && (c.Interval < minInterval || c.Interval > maxInterval) {
		add("interval", "%s is out of range: %s to %s", c.Interval, minInterval, maxInterval)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		switch {
		case !labelName.MatchString(name) || strings.HasPrefix(name, "__"):
			add("labels", "%q is no name of a label: letters, digits and single underscores", name)
		case slices.Contains(ours, name):
			add("labels", "%s is a label that series have", name)
		}
	}
	c.validateIdentity(add)
	return problems
}

func (c Config) validateIdentity(add func(path, format string, args ...any)) {
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if slices.ContainsFunc(reservedHeaders, func(h string) bool { return strings.EqualFold(h, name) }) {
			add("headers", "%s is set already", name)
		} else if !headerName.MatchString(name) || strings.ContainsAny(c.Headers[name], "\r\n\x00") {
			add("headers", "%q with %q is no header", name, c.Headers[name])
		}
	}
	if (c.User == "") != (c.PasswordFile == "") {
		add("user", "user and passwordFile go together")
	}
	if c.User != "" && c.BearerTokenFile != "" {
		add("bearerTokenFile", "either a bearer token or a user with a password is expected")
	}
	if (c.Certificate == "") != (c.Key == "") {
		add("certificate", "certificate and key go together")
	}
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, token

// reservedHeaders are those that the protocol has, and the one that has fields of
// its own.
var reservedHeaders = append(slices.Collect(maps.Keys(protocol)), "Authorization", "Host", "Content-Length")

// protocol is how remote write 1.0 calls what is sent.
var protocol = map[string]string{
	"Content-Type":                      "application/x-protobuf",
	"Content-Encoding":                  "snappy",
	"X-Prometheus-Remote-Write-Version": "0.1.0",
	"User-Agent":                        "ipmd (vsrun)",
}

func (c Config) isZero() bool {
	return c.Interval == 0 && c.BearerTokenFile+c.User+c.PasswordFile+c.Authorities+c.Certificate+c.Key == "" &&
		len(c.Labels)+len(c.Headers) == 0
}
