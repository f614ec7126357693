package ipmd

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A question is what a request asks for.
type question struct {
	ids        []string // none: all
	interfaces []string // none: all
	bare       bool     // without the MIB
	age        time.Duration
	since      string // a cursor, or ""
	absent     bool   // those that are not there may be left out

	// watching is asking again and again: what is not there may come, and what
	// cannot be read takes nothing else away.
	watching bool
}

// longestAge bounds what may be asked for.
const longestAge = time.Hour

// ask understands a request. Parameters that it does not know are ignored.
func (c Config) ask(r *http.Request) (question, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return question{}, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	q := question{ids: query["id"], interfaces: query["interface"], age: c.MaxAge, since: query.Get("since"), absent: query.Get("absent") == "omit", bare: query.Get("mib") == "no"}
	if age, ok := cachedAge(r.Header.Values("Cache-Control")); ok {
		q.age = age
	}
	if query.Has("maxAge") {
		q.age, err = duration("maxAge", query.Get("maxAge"), 0, longestAge)
	}
	return q, err
}

// duration is a parameter's: 1.5s, 500ms, or a number of seconds.
func duration(name, text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, ok := strconv.ParseUint(text, 10, 32); ok == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %s %q is not a time, such as 500ms or 2s", errBadRequest, name, text)
	case d < least || d > most:
		return 0, fmt.Errorf("%w: %s %s is out of range: %s to %s", errBadRequest, name, d, least, most)
	}
	return d, nil
}

// cachedAge is what Cache-Control says of an answer's age (RFC 9111, section 5.2.1).
// Directives that it does not know, or cannot read, are to be ignored.
func cachedAge(headers []string) (age time.Duration, ok bool) {
	for directive := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-cache", "no-store":
			return 0, true
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				age, ok = min(time.Duration(seconds)*time.Second, longestAge), true
			}
		}
	}
	return age, ok
}

// A cursor tells changes until a moment from those since: the life of the ipmd that
// gave it, and how many there had been.
func (s *Server) cursor() string {
	return s.life + "-" + strconv.FormatUint(s.sampler.changes.Load(), 10)
}

// since is how many changes there had been at a cursor; false when everything has to
// be told, because the cursor is none of this ipmd's, or a virtual server has gone
// since.
func (s *Server) since(cursor string) (uint64, bool) {
	text, ours := strings.CutPrefix(cursor, s.life+"-")
	n, err := strconv.ParseUint(text, 10, 64)
	return n, ours && err == nil && n >= s.sampler.gone.Load() && n <= s.sampler.changes.Load()
}
