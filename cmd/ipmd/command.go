package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/cmd/daemon"
	"github.com/vsrun/vsrun/stats/ipmd"
)

// version is set when a release is linked.
var version string

// options are the command line's.
type options struct {
	daemon.Dirs
	socket string // "" is ipmd.sock in runDir
	config string
}

const about = `ipmd answers stats requests on a unix socket: what each virtual server received
and sent, by interface and in total, and its IP, ICMP, TCP and UDP counters.

  GET /stats               all virtual servers, as JSON
  GET /stats?id=8&id=web   those, by number or name; interface=eth0: those alone;
                           maxAge=0: read now; since=CURSOR: what has changed since
                           the answer with that Ipmd-Cursor
  GET /stats/stream        the same as server-sent events, every interval=1s
  GET /cluster/stats       those of all nodes of the cluster, likewise
  GET /metrics             all, for Prometheus
  GET /healthz             ok
  GET /openapi.yaml        all of this, described in full
  GET /                    a web page that shows them

The configuration file is YAML. It need not be there; all of its fields, as they are
without it:

` + fields + `
A file with anything wrong in it is refused, with line and column of all that is.
SIGHUP reads it again, and a bad one changes nothing.

The socket is root's, until there are rules under access: then everybody may connect,
and each request is judged by the asker's user and groups. One that systemd passes
(a .socket unit) is used as it is.
SIGTERM and SIGINT end ipmd once the requests under way are answered; a second
one ends it at once.`

const fields = `  maxAge: 1s                  # how old a shared sample may be, for askers that do not say
  reader: auto                # how counters are read: ebpf, proc, or auto: of many by eBPF if it can be had
  access: []                  # who else than root may ask what: see examples/ipmd.yaml
  limits:
    connections: 4096         # open at once
    connectionsPerPeer: 2048  # of those, by one user or address
    requests: 2048            # answered at once
    watchers: 1024            # of the stream, at once
    interval: 200ms           # the shortest between two events of a stream
  listen: {}                  # TLS for others: address, certificate, key, authorities
  node: ""                    # this node's name in a cluster, the host's if left out
  peers: []                   # the other nodes: name, address
  push: {}                    # where metrics are sent by Prometheus' remote write: see examples/ipmd.yaml
`

const examples = `  ipmd
  ipmd --socket /run/ipmd-test.sock
  curl --unix-socket /run/vsrun/ipmd.sock 'http://ipmd/stats?id=8'
  ssh -N -L 9118:/run/vsrun/ipmd.sock root@host    and http://localhost:9118 in a browser`

func newCommand() *cobra.Command {
	var o options
	cmd := daemon.Command(&cobra.Command{
		Use:     "ipmd",
		Short:   "Answer stats requests for the virtual servers of this host",
		Long:    about,
		Example: examples,
		RunE:    func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}, version, &o.Dirs)
	flags := cmd.Flags()
	flags.StringVar(&o.config, "config", defaultConfig, "configuration `file`; the default one may be missing")
	flags.StringVar(&o.socket, "socket", "", "`path` to answer on (default ipmd.sock in the run directory)")
	return cmd
}

func serve(ctx context.Context, o options) error {
	socket, err := filepath.Abs(cmp.Or(o.socket, filepath.Join(o.Run, "ipmd.sock")))
	if err != nil {
		return fmt.Errorf("cannot find the socket's directory: %w", err)
	}
	config, err := o.readConfig()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	reader, err := keep(ctx, o, log)
	if err != nil {
		return err
	}
	reading := &reading{reader: reader, log: log}
	server := &ipmd.Server{Sources: sources(o, log), Reader: reader, ReadBy: reading.by, Log: log}
	pushing := &pushing{ctx: ctx}
	if err := configure(server, reading, pushing, config, log); err != nil {
		return err
	}
	defer pushing.start(nil)
	defer onHangup(func() { o.reload(server, reading, pushing, log) })()
	return server.ListenAndServe(ctx, socket)
}
