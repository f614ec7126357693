package plumbing

// A Topic is what a change is about: a step of a plan, or a notice of the kernel's.
type Topic string

// The topics.
const (
	OfNamespace Topic = "namespace"
	OfLink      Topic = "link"
	OfMTU       Topic = "mtu"
	OfMark      Topic = "mark" // whose something is
	OfAddress   Topic = "address"
	OfRoute     Topic = "route"
	OfRule      Topic = "rule"
	OfSysctl    Topic = "sysctl"
	OfHost      Topic = "host" // a VLAN device or a bond of ours
)

// About is what a step changes.
func About(s Step) Topic {
	switch s.(type) {
	case makeNamespace, dropNamespace, publish, republish, withdraw, unpublish, destroySockets:
		return OfNamespace
	case setMTU:
		return OfMTU
	case markLink:
		return OfMark
	case addAddress, delAddress, setPrimary:
		return OfAddress
	case setRoute, delRoute, delRouter:
		return OfRoute
	case addRule, delRule, restoreRule:
		return OfRule
	case setSysctls:
		return OfSysctl
	case addLink, delLink, renameLink, awaitCarrier, moveIn, moveBack, setMAC, setSources, upLink, upLoopback, downLink, silence:
		return OfLink
	}
	return OfHost
}
