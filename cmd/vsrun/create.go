package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
	"github.com/vsrun/vsrun/runtime/service"
)

func (a *app) createCommand() *cobra.Command {
	var iface interfaceFlags
	var name, file, supervisor string
	var share, volumes []string
	var resources resourceFlags
	var disabled, dryRun, noProbe bool
	c := &cobra.Command{
		Use:   "create ID",
		Short: "Create a virtual server and enable it",
		Long: `Create a virtual server and enable it: all of it, or nothing. Without interface
flags and without -f it has loopback alone, ready for vsrun attach.

A document (-f) is YAML or JSON:

  id: 8
  name: finance
  disabled: false
  supervisor: systemd          # services are units of the host's, as below; an init of its own when left out
  interfaces:
    - name: eth0               # inside
      port: eth1               # on the host
      vlan: 10                 # or [100, 10]: outer and inner (802.1ad)
      kind: macvlan            # or vlan: the VLAN is its alone; device: the port itself, until it is detached
      mode: bridge             # whom on the port it reaches: all in this mode; private: none; vepa: by the switch;
                               # source: who is in sources; passthru: it is alone there, and has its MAC
      sources: [02:00:5e:10:00:01]  # with mode source: receive from these alone, at most 1024
      mac: 02:00:5e:10:00:08   # derived when left out
      mtu: 1500                # the port's when left out
      addresses: [192.0.2.8/24, "2001:db8::8/64"]
      gateways: [192.0.2.1, "2001:db8::1"]  # where several interfaces have one, each answers by its own
      ra: false                # true: IPv6 addresses (EUI-64) from routers there, too, and their default
                               # route, unless there is an IPv6 gateway
      metric: 0                # the order among gateways for what is sent first; that of interfaces when left out
      table: 101               # its own routing table, and rules from and to its addresses; when left
                               # out, one is made, with rules from them, where several have gateways
      realm: 8                 # counts what its IPv4 addresses receive (vsrun stats); no two servers' the same
  routes:
    - {to: 198.51.100.0/24, via: 192.0.2.7, dev: eth0, src: 192.0.2.8, table: 254, metric: 50, realm: 3}
  dns: {servers: [192.0.2.53], search: [example.test]}
  share: [/run/dbus, /tmp/exchange]  # the host's; all else in /run, /tmp, /var/tmp, /dev is its own
  files:                       # seen in place of the host's, read-only
    - {path: /etc/nginx/nginx.conf, mode: "644", content: "events {}"}
  volumes:                     # filesystems of its own, kept until it is destroyed
    - {path: /srv, size: 10G, type: ext4}  # or xfs, btrfs; tmpfs is in memory
    - {path: /var/spool, type: xfs, device: /dev/vg0/finance}  # one that has a filesystem
  services:
    - name: web
      command: [nginx, -g, daemon off;]
      restart: always          # or on-failure, never; after a pause, longer each time
      startLimit: {burst: 5, interval: 1m}  # left failed then; any number when left out
      private: [/var/lib/nginx]  # kept until it is destroyed
      after: [auth]            # started when these are ready, stopped before them
      ready: {tcp: 80, timeout: 30s}  # or notify: true (sd_notify), command: […],
                               # output: "ready to serve" (in a line that it writes), also before tcp or command
      sockets:                 # opened for it, held while it restarts; it takes them as
        - {stream: "80", name: http}  # sd_listen_fds(3) tells; or 192.0.2.8:80, [2001:db8::8]:80,
        - {datagram: /run/web.sock}   # /run/web.sock, @web
      health: {command: [curl, -sf, "http://127.0.0.1/"], interval: 30s, timeout: 10s, failures: 3}
                               # or tcp: 80; one that fails so often in a row is restarted
      stop: {signal: TERM, timeout: 10s}
      reload: HUP              # or {command: […]}, with MAINPID in its environment
      user: root               # and group
      capabilities: [nginx]    # none when left out; NET_BIND_SERVICE, …, or a daemon's name
      syscalls: ""             # all: without the filter of system calls
      unsafeExports: false     # true: an NFS server may export what is no volume or device
      readOnly: true           # it writes only to these, what is private, and what is in memory;
      writable: [/srv/finance] # else to all but /usr, /etc, /boot, /root, /proc, /sys, and these
      environment: {TZ: UTC}
      directory: /
      umask: "022"
      limits: {nofile: 4096}   # setrlimit(2); soft:hard
      nice: 0
      oomScore: 0
      resources: {memory: 512M, cpu: 150%, tasks: 100}  # of all its processes; and io, as below
    - {name: auth, command: [/usr/local/sbin/auth]}
  resources: {memory: 2G, io: [{path: /srv, read: 50M, write: 20M}]}  # of the whole virtual server; a second

With supervisor: systemd, on a host that systemd has booted, services are transient
units, vsrun-vs8-web.service in vsrun-vs8.slice, for systemctl, the journal and slices.
It is the weaker fence: they are among the host's processes, and one that runs as root
can end the host's. Each has /run, /tmp, /var/tmp and /dev/shm for itself. What systemd
cannot hold is refused: dns, share, files, volumes, resources of the whole, health,
sockets, ready but notify, reload but a signal, ; and $ in a command, resources.io.`,
		Example: `  vsrun create 8
  vsrun create 8 --port eth1 --address 192.0.2.8/24 --gateway 192.0.2.1
  vsrun create 8 --port eth1 --vlan 10 --address 192.0.2.8/24 --gateway 192.0.2.1
  vsrun create 8 --port eth1 --address 192.0.2.8/24 --volume /srv=10G
  vsrun create 8 -f finance.yaml
  vsrun create 8 --share /run/dbus --share /tmp/exchange
  vsrun create 8 --port eth1 --address 192.0.2.8/24 --dry-run`,
		Args: arguments(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			vs, err := a.newServer(args, name, file, &iface)
			if err != nil {
				return err
			}
			vs.Share = append(vs.Share, share...)
			if vs.Resources, err = resources.over(vs.Resources); err != nil {
				return err
			}
			for _, word := range volumes {
				path, size, _ := strings.Cut(word, "=")
				vs.Volumes = append(vs.Volumes, service.Volume{Path: path, Size: size})
			}
			if supervisor != "" {
				vs.Supervisor = supervisor
			}
			if err := valid(vs); err != nil {
				return err
			}
			vs.Disabled = vs.Disabled || disabled
			return a.create(c, vs, dryRun, noProbe)
		},
	}
	iface.register(c)
	resources.register(c, "all its")
	flags := c.Flags()
	flags.StringVar(&name, "name", "", "a name beside the number, also the host name inside")
	flags.StringVarP(&file, "file", "f", "", "read it from a YAML or JSON document; - is standard input")
	flags.StringArrayVar(&share, "share", nil, "a file, socket or directory below the host's /run, /tmp, /var/tmp or /dev that it sees; repeatable")
	flags.StringArrayVar(&volumes, "volume", nil, "a directory with a filesystem of its own, `PATH=SIZE`, as /srv=10G (more in a document); repeatable")
	flags.StringVar(&supervisor, "supervisor", "", "systemd: its services are units of the host's, less fenced in (default an init of its own)")
	flags.BoolVar(&disabled, "disabled", false, "create it, but do not enable it")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be done to the network, as lines for a root shell")
	flags.BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	return c
}

// newServer is the virtual server that the command line describes.
func (a *app) newServer(args []string, name, file string, iface *interfaceFlags) (runtime.VirtualServer, error) {
	var vs runtime.VirtualServer
	switch {
	case file != "":
		docs, err := readFile(file)
		if err != nil {
			return vs, err
		}
		switch {
		case len(docs.Ports) > 0:
			return vs, usagef("%s holds ports: create takes one virtual server, vsrun apply takes all", file)
		case len(docs.Servers) != 1:
			return vs, usagef("%s holds %d virtual servers: create takes one, vsrun apply takes all", file, len(docs.Servers))
		}
		vs = docs.Servers[0]
	case len(args) == 0:
		return vs, usagef("which number shall it have? vsrun create ID")
	}
	if len(args) == 1 {
		id, err := strconv.Atoi(strings.TrimPrefix(args[0], "vs"))
		if err != nil {
			return vs, usagef("%q is not a number from 1 to %d (a name goes with --name)", args[0], runtime.MaxID)
		}
		if file != "" && vs.ID != id {
			return vs, usagef("%s describes vs%d, not vs%d", file, vs.ID, id)
		}
		vs.ID = id
	}
	if name != "" {
		vs.Name = name
	}
	interfaces, routes, err := iface.parse(vs.Network)
	if err != nil {
		return vs, err
	}
	vs.Interfaces, vs.Routes = append(vs.Interfaces, interfaces...), append(vs.Routes, routes...)
	return vs, nil
}

// valid reports everything that is wrong with what the command line describes.
func valid(vs runtime.VirtualServer) error {
	if problems := vs.Validate(); len(problems) > 0 {
		return &runtime.InvalidError{Problems: problems}
	}
	return nil
}

func (a *app) create(c *cobra.Command, vs runtime.VirtualServer, dryRun, noProbe bool) error {
	did := ""
	r, err := a.runtime()
	if err == nil {
		r.NoProbe = noProbe
		if dryRun {
			return a.dryRun(r, vs, r.PlanCreate)
		}
		did, err = r.Create(c.Context(), vs)
	}
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", vs, err)
	}
	a.did("%s %s%s", vs, did, summary(vs))
	return nil
}

// dryRun prints the plan that would be applied.
func (a *app) dryRun(r *runtime.Runtime, vs runtime.VirtualServer, planned func(runtime.VirtualServer) (plumbing.Plan, error)) error {
	plan, err := planned(vs)
	if err != nil {
		return fmt.Errorf("cannot plan %s: %w", vs, err)
	}
	fmt.Fprint(a.out, r.Script(vs, plan))
	return nil
}

// summary says in a few words what a virtual server has.
func summary(vs runtime.VirtualServer) string {
	if vs.Disabled {
		return ", disabled"
	}
	var parts []string
	for _, i := range vs.Interfaces {
		words := []string{i.Name}
		for _, p := range i.Addresses {
			words = append(words, p.String())
		}
		parts = append(parts, strings.Join(append(words, "on", where(i.Port, i.VLAN)), " "))
	}
	if len(parts) == 0 {
		parts = []string{"loopback alone"}
	}
	for _, s := range vs.Services {
		parts = append(parts, "service "+s.Name)
	}
	return ": " + strings.Join(parts, ", ")
}

// where is what an interface is on: eth1, or eth1 vlan 10.
func where(port string, vlan plumbing.VLAN) string {
	if len(vlan) == 0 {
		return port
	}
	return fmt.Sprintf("%s vlan %s", port, vlan)
}

// readFile reads the documents of a file, or of standard input for "-".
func readFile(name string) (runtime.Documents, error) {
	if name == "-" {
		return runtime.ReadDocuments(io.Reader(os.Stdin), "stdin")
	}
	f, err := os.Open(name)
	if err != nil {
		return runtime.Documents{}, fmt.Errorf("cannot read the document: %w", err)
	}
	defer f.Close()
	return runtime.ReadDocuments(f, name)
}
