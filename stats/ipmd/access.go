package ipmd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/vsrun/vsrun/stats"
)

// ErrForbidden is the error for what the asker may not ask.
var ErrForbidden = errors.New("no rule allows it")

// A forbidden is an ErrForbidden that says who asked for what.
type forbidden struct {
	who  Identity
	what string
}

func (e *forbidden) Error() string        { return fmt.Sprintf("%s may not ask for %s", e.who, e.what) }
func (e *forbidden) Is(target error) bool { return target == ErrForbidden }
func (e *forbidden) Hint() string {
	return "let it by a rule under access: in ipmd's configuration file, and reload ipmd"
}

// A grant is what one who asks may be told of: all virtual servers, or those with
// the numbers and names in words.
type grant struct {
	who   Identity
	all   bool
	words []string
}

// grant is what somebody may be told when he asks for one of askable; ErrForbidden
// when that is nothing. A peer may ask everything. Without rules, so may whoever
// could connect to the socket, but for those who could only because of some.
func (c Config) grant(who Identity, what string) (grant, error) {
	g := grant{who: who, all: who.root() || c.isPeer(who) || len(c.Access) == 0 && who.Local && !who.stray}
	for _, r := range c.Access {
		if r.covers(who) && r.allows(what) {
			g.words = append(g.words, r.Servers...)
		}
	}
	g.all = g.all || slices.Contains(g.words, everyServer)
	if !g.all && len(g.words) == 0 {
		return g, &forbidden{who, what}
	}
	return g, nil
}

func (c Config) isPeer(who Identity) bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return slices.Contains(who.hosts, p.Name) })
}

func (g grant) sees(src stats.Source) bool {
	return g.all || slices.ContainsFunc(g.words, func(word string) bool { return names(word, src) })
}

// names tells whether a word in a rule is a virtual server's: a number is an ID and
// nobody's name.
func names(word string, src stats.Source) bool {
	if id, err := strconv.Atoi(word); err == nil {
		return id == src.ID
	}
	return word == src.Name
}

func (r Rule) covers(who Identity) bool {
	if r.Certificate != "" {
		return slices.Contains(who.Certificates, r.Certificate)
	}
	return who.Local && (r.User != "" && r.uid == who.UID || r.Group != "" && slices.Contains(who.GIDs, r.gid))
}

func (r Rule) allows(what string) bool {
	return slices.Contains(r.Ask, what) || len(r.Ask) == 0 && what != askCluster
}
