package ipmd

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
)

// A Rule says what some may ask. Root always may ask everything.
type Rule struct {
	// Whose it is, one of them: a user's of /etc/passwd, a group's of /etc/group,
	// as name or number, or that of the owner of a certificate with this name.
	User        string `yaml:"user"`
	Group       string `yaml:"group"`
	Certificate string `yaml:"certificate"`

	Servers []string `yaml:"servers"` // numbers and names, or all
	Ask     []string `yaml:"ask"`     // of askable; none is all but cluster

	uid, gid uint32 // of User and Group
}

// What may be asked, as a Rule names it.
const (
	askStats   = "stats"
	askMetrics = "metrics"
	askStream  = "stream"
	askCluster = "cluster"
)

var askable = []string{askStats, askMetrics, askStream, askCluster}

// everyServer is the word for all of them in a Rule.
const everyServer = "all"

// resolve looks the names up.
func (r *Rule) resolve() error {
	var user, group error
	r.uid, user = userID(r.User)
	r.gid, group = groupID(r.Group)
	return errors.Join(user, group)
}

func (r Rule) validate(add func(path, format string, args ...any)) {
	who := 0
	for _, name := range []string{r.User, r.Group, r.Certificate} {
		if name != "" {
			who++
		}
	}
	if who != 1 {
		add("", "one of user, group and certificate is expected in a rule")
	}
	if _, err := userID(r.User); err != nil {
		add("user", "%w", err)
	}
	if _, err := groupID(r.Group); err != nil {
		add("group", "%w", err)
	}
	if len(r.Servers) == 0 {
		add("servers", "servers are missing: numbers and names, or %s", everyServer)
	}
	for k, word := range r.Ask {
		if !slices.Contains(askable, word) {
			add(fmt.Sprintf("ask[%d]", k), "%q is none of %v", word, askable)
		}
	}
}

// userID is a user's number; none has "".
func userID(name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil || name == "" {
		return uint32(id), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, unknown(err, user.UnknownUserError(name), "user", name, "/etc/passwd")
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err
}

// groupID is a group's number; none has "".
func groupID(name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil || name == "" {
		return uint32(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, unknown(err, user.UnknownGroupError(name), "group", name, "/etc/group")
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(id), err
}

func unknown(err, unknown error, kind, name, file string) error {
	if errors.Is(err, unknown) {
		return fmt.Errorf("there is no %s %q in %s: one that is elsewhere is named by number", kind, name, file)
	}
	return err
}
