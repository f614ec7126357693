package units

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vsrun/vsrun/runtime/service"
)

// restarts are systemd's words. RemainAfterExit= tells one that has ended well from one
// that is not there, but would keep it from being started again.
var restarts = map[service.Restart][]string{
	service.RestartAlways:    {"Restart=always"},
	service.RestartOnFailure: {"Restart=on-failure", "RemainAfterExit=yes"},
	service.RestartNever:     {"Restart=no", "RemainAfterExit=yes"},
}

// command is the command line of systemd-run that starts a service; its unit's
// description ends with the digest of all the rest.
func (v Server) command(s service.Service) []string {
	args := []string{"--quiet", "--unit=" + v.unit(s.Name), "--slice=" + v.slice()}
	for _, p := range v.properties(s) {
		args = append(args, "--property="+p)
	}
	for _, e := range v.environment(s) {
		args = append(args, "--setenv="+e)
	}
	args = append(append(args, "--"), s.Command...)
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00")))
	return append([]string{fmt.Sprintf("--description=%s of %s [%x]", s.Name, v.title(), sum[:8])}, args...)
}

func (v Server) properties(s service.Service) []string {
	list := slices.Concat(v.place(s), v.life(s), fence(s), limits(s))
	for _, dir := range s.Private {
		list = append(list, "BindPaths="+v.PrivateAt(dir)+":"+dir)
	}
	return list
}

// place is where the unit is: what it sees, and what it does not.
func (v Server) place(s service.Service) []string {
	return []string{
		"NetworkNamespacePath=" + filepath.Join(v.NetnsDir, v.name()),
		"TemporaryFileSystem=/run:mode=0755 /tmp:mode=1777 /var/tmp:mode=1777 /dev/shm:mode=1777",
		"InaccessiblePaths=-" + strings.Join(append([]string{v.NetnsDir}, v.Hide...), " -"),
		"SyslogIdentifier=" + v.name() + "/" + s.Name,
		fmt.Sprintf("LogExtraFields=VSRUN_ID=%d", v.ID),
		"LogExtraFields=VSRUN_NAME=" + v.title(),
		"LogExtraFields=VSRUN_SERVICE=" + s.Name,
	}
}

// life is how it is started, stopped, and started again. There is no After= of others:
// systemd keeps what others name loaded, and then refuses to be asked for it anew.
func (v Server) life(s service.Service) []string {
	list := append([]string{"Type=exec", "RestartSec=1s", "KillMode=mixed", "After=network.target"}, restarts[s.Restart]...)
	if s.Ready.Notify {
		list[0] = "Type=notify"
		list = append(list, "NotifyAccess=all", "BindPaths=/run/systemd/notify")
	}
	if l := s.StartLimit; l.Burst > 0 {
		list = append(list, "StartLimitIntervalSec="+span(l.Within()), fmt.Sprintf("StartLimitBurst=%d", l.Burst))
	} else {
		list = append(list, "StartLimitIntervalSec=0")
	}
	return append(list,
		"TimeoutStartSec="+span(s.Ready.Within()),
		"TimeoutStopSec="+span(s.Stop.Within()),
		"KillSignal="+signal(s.Stop.Signal))
}

func signal(name string) string {
	if name == "" {
		name = "TERM"
	}
	return "SIG" + strings.TrimPrefix(name, "SIG")
}

// span is a time as systemd reads it (systemd.time(7)).
func span(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

// fence is what keeps it from what is not its own.
func fence(s service.Service) []string {
	var caps []string
	for _, c := range s.Sandbox().Capabilities {
		caps = append(caps, "CAP_"+strings.TrimPrefix(c, "CAP_"))
	}
	bounds := strings.Join(caps, " ")
	list := []string{
		"CapabilityBoundingSet=" + bounds, "NoNewPrivileges=yes",
		"PrivateDevices=yes", "PrivateIPC=yes", "ProtectHostname=yes", "ProtectProc=invisible",
		"ProtectKernelTunables=yes", "ProtectControlGroups=yes", "ProtectSystem=full", "ReadOnlyPaths=-/root",
	}
	if s.ReadOnly {
		list = append(list, "ProtectSystem=strict")
	}
	if len(s.Writable) > 0 {
		list = append(list, "ReadWritePaths="+strings.Join(s.Writable, " "))
	}
	if s.User != "" {
		list = append(list, "User="+s.User, "AmbientCapabilities="+bounds)
	}
	if s.Group != "" {
		list = append(list, "Group="+s.Group)
	}
	// systemd 252 writes RestrictNamespaces=yes down so that it means no when it reads it
	// again. To make a namespace of cgroups takes CAP_SYS_ADMIN.
	if s.Syscalls == "" {
		list = append(list, "SystemCallFilter=~"+strings.Join(service.RefusedSyscalls(), " "), "SystemCallErrorNumber=EPERM", "SystemCallArchitectures=native",
			"RestrictNamespaces=cgroup", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET")
	}
	return list
}

func limits(s service.Service) []string {
	list := []string{fmt.Sprintf("Nice=%d", s.Nice), fmt.Sprintf("OOMScoreAdjust=%d", s.OOMScore), "UMask=0022", "WorkingDirectory=/"}
	if s.Umask != "" {
		list = append(list, "UMask="+s.Umask)
	}
	if s.Directory != "" {
		list = append(list, "WorkingDirectory="+s.Directory)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Limits)) {
		list = append(list, "Limit"+strings.ToUpper(name)+"="+strings.ReplaceAll(s.Limits[name], "unlimited", "infinity"))
	}
	if r := s.Resources; r.Memory != "" {
		list = append(list, "MemoryMax="+r.Memory)
	}
	if r := s.Resources; r.CPU != "" {
		list = append(list, "CPUQuota="+r.CPU)
	}
	if r := s.Resources; r.Tasks != 0 {
		list = append(list, fmt.Sprintf("TasksMax=%d", r.Tasks))
	}
	return list
}

func (v Server) environment(s service.Service) []string {
	list := []string{"LANG=C.UTF-8", fmt.Sprintf("VSRUN_ID=%d", v.ID)}
	if s.User == "" { // else systemd sets the user's
		list = append(list, "HOME=/")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		list = append(list, name+"="+s.Environment[name])
	}
	return list
}
