// Package units runs a virtual server's services as transient units of the host's
// systemd, vsrun-vs8-web.service in vsrun-vs8.slice, in place of an init of its own.
//
// It talks to systemd by systemd-run and systemctl, and keeps nothing: what runs is
// what systemd has loaded under these names. How a unit was asked for is told by a
// digest in its description.
//
// It does not make the network namespace that the units are in, and it does not give
// services what systemd cannot: process ids, a host name and files of the virtual
// server's own. Validate refuses what asks for that.
//
// Contract: after a crash the same operation, run again, completes.
package units
