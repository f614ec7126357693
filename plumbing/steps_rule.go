package plumbing

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// addRule adds a rule after those of its priority.
type addRule struct{ Rule }

func (s addRule) String() string         { return "add rule " + s.Rule.String() }
func (s addRule) Command(p Place) string { return s.Rule.command(p, "add", fmt.Sprint(routeProtocol)) }
func (s addRule) undo() Step             { return delRule(s) }

func (s addRule) message(*Handle) (message, error) {
	return rule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Rule, routeProtocol), nil
}

func (s addRule) apply(_ context.Context, h *Handle) error { return send(s, h) }

func (s addRule) explain(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return refuse("use a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES, or one gateway", "this kernel has one routing table alone")
	}
	return err
}

// delRule takes a rule away.
type delRule addRule

func (s delRule) String() string { return "delete rule " + s.Rule.String() }
func (s delRule) Command(p Place) string {
	return s.Rule.command(p, "delete", fmt.Sprint(routeProtocol))
}
func (s delRule) undo() Step { return addRule(s) }

func (s delRule) apply(_ context.Context, h *Handle) error {
	return unlessGone(h.inside.one(rule(unix.RTM_DELRULE, 0, s.Rule, routeProtocol)))
}
