// Package systemd_test tries the installed programs and units on a machine that
// systemd has booted, and that is switched off and booted again in between: the
// tests of the first boot are run in the first, the others in the second.
//
// It runs in a virtual machine alone, see test/on-kernels, and is that machine's root.
package systemd_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vsrun/vsrun/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("VSRUN_VM_BOOT") == "2" {
		flag.Set("test.run", "^Test(AfterReboot|Clock)$")
	} else {
		flag.Set("test.skip", "^Test(AfterReboot|Clock)$")
	}
	os.Exit(m.Run())
}

// sh runs a script of the shell, which ends with the first command that fails, and
// returns what it prints, without the last newline.
func sh(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s%s", err, script, out, errs.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

// expect fails the test unless the script prints this.
func expect(t *testing.T, want, script string) {
	t.Helper()
	if got := sh(t, script); got != want {
		t.Errorf("%s\nprints:  %q\nand not: %q", script, got, want)
	}
}

// segment is a unit that makes the port eth1, and a client on it in a namespace.
const segment = `
[Unit]
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip netns add client
ExecStart=ip link add eth1 up type veth peer name wire netns client
ExecStart=ip -n client address add 192.0.2.100/24 dev wire
ExecStart=ip -n client link set wire up
[Install]
WantedBy=multi-user.target
`

// host makes the machine one that vsrun is installed on, once.
func host(t *testing.T) {
	t.Helper()
	lab.Require(t, "systemd")
	if _, err := os.Stat("/usr/local/sbin/vsrun"); err == nil {
		return
	}
	if err := os.WriteFile("/etc/systemd/system/segment.service", []byte(segment), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, "", `
		cp -a "$VSRUN_BIN"/. /
		mkdir -p /var/log/journal /srv/www
		echo 'of vs8' >/srv/www/index.html
		echo 'events {} http { access_log off; server { listen 80; root /srv/www; } }' >/srv/nginx.conf
		journalctl --flush
		systemctl daemon-reload
		systemd-analyze verify vsrun.service vsrun-shutdown.service vsd.service ipmd.service 2>&1
		systemctl --quiet enable --now segment vsrun vsd ipmd`)
}

// page is what a client gets.
const page = `ip netns exec client curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://192.0.2.8/`

// pids are those of the inits and of nginx.
const pids = `pgrep -x 'vs-init|nginx' | sort`

// asked is what ipmd answers for.
const asked = `curl -sS --retry 20 --retry-connrefused --unix-socket /run/vsrun/ipmd.sock http://ipmd/stats | grep -o '"id":[0-9]*' | cut -d: -f2`

func TestUnits(t *testing.T) {
	host(t)
	sh(t, `
		vsrun create 8 --port eth1 --address 192.0.2.8/24
		vsrun service add 8 web --capability nginx -- nginx -c /srv/nginx.conf -g 'daemon off;'
		vsrun create 9
		vsrun service add 9 slow -- sh -c 'trap "sleep 1; echo has ended in order; exit" TERM; while :; do sleep 0.1; done'
		vsrun create 10 --port eth1 --address 192.0.2.10/24
		vsrun disable 10`)
	expect(t, "of vs8", page)
	before := sh(t, pids)

	sh(t, `systemctl stop vsrun vsd ipmd`)
	expect(t, before, pids)
	expect(t, "of vs8", page)
	sh(t, `systemctl start vsrun vsd ipmd; systemctl reload vsrun vsd`)
	expect(t, before, pids)
	expect(t, "active\nactive\nactive\nactive", `systemctl is-active vsrun vsrun-shutdown vsd ipmd`)
	expect(t, "", `systemctl --failed --plain --no-legend`)
	expect(t, "8\n9", asked)
}

// vsd starts again what is killed, and that is not its own: it survives vsd.
func TestAgent(t *testing.T) {
	host(t)
	sh(t, `
		vsrun create 16
		vsrun service add 16 idle -- sleep 1600
		pkill -KILL -f '^vs-init vs16$'
		until vsrun events | grep 'vs16 *mended in .*: start service idle'; do sleep 0.1; done`)
	const survives = `pgrep -fx 'sleep 1600'`
	idle := sh(t, survives)
	sh(t, `
		old=$(systemctl show -P MainPID vsd)
		kill -KILL $old
		until systemctl is-active --quiet vsd && [ $(systemctl show -P MainPID vsd) != $old ]; do sleep 0.1; done`)
	expect(t, idle, survives)
	sh(t, `systemctl restart vsd; vsrun destroy 16`)
	expect(t, "", `systemctl --failed --plain --no-legend`)
}

// A port that comes late finds the virtual servers on it waiting, and keeps no other.
func TestLatePort(t *testing.T) {
	host(t)
	const port = `ip link add eth2 up type veth peer name wire2 netns client`
	sh(t, port+`
		vsrun create 13 --port eth2 --no-probe --address 198.51.100.13/24
		ip link del eth2
		mkdir -p /run/systemd/system/vsrun.service.d
		printf '[Service]\nRestartSec=1s\n' >/run/systemd/system/vsrun.service.d/soon.conf
		systemctl daemon-reload`)
	expect(t, "failed to start, activating", `systemctl restart vsrun 2>/dev/null || echo "failed to start, $(systemctl is-active vsrun)"`)
	sh(t, port+`
		until systemctl is-active --quiet vsrun; do sleep 0.2; done
		ip -n vs13 -o address show dev eth0 | grep 198.51.100.13
		vsrun destroy 13
		rm -r /run/systemd/system/vsrun.service.d
		systemctl daemon-reload`)
	expect(t, "", `systemctl --failed --plain --no-legend`)
}

// systemd is asked for the cgroups, and finds nothing in its tree that it does not know.
func TestScope(t *testing.T) {
	host(t)
	sh(t, `
		vsrun create 12
		vsrun service add 12 idle --memory 32M -- sleep 1000`)
	const cgroup = "/vsrun.slice/vsrun-vs12.scope/vs12"
	expect(t, "0::"+cgroup+"/idle.service", `cat /proc/$(pgrep -fx 'sleep 1000')/cgroup`)
	sh(t, `systemctl daemon-reload`)
	expect(t, "33554432", `cat /sys/fs/cgroup`+cgroup+`/idle.service/memory.max`)
	expect(t, "active", `systemctl is-active vsrun-vs12.scope`)
	expect(t, "", `find /sys/fs/cgroup -maxdepth 1 -name vsrun`)

	// Down and up at once, and an init that is killed: nothing is left to be in the way.
	sh(t, `
		for k in 1 2 3; do vsrun disable 12; vsrun enable 12; done
		pkill -KILL -f '^vs-init vs12$'
		vsrun enable 12
		vsrun ps 12 | grep 'idle *running'
		vsrun destroy 12`)
	expect(t, "", `systemctl list-units --all --plain --no-legend 'vsrun-vs12*'; systemctl --failed --plain --no-legend`)
}

// The host's journal gets what services write, can be asked for it by virtual server
// and service, and keeps no service waiting.
func TestJournal(t *testing.T) {
	host(t)
	sh(t, `
		mkfifo /srv/say
		vsrun create 11 --name finance
		vsrun service add 11 parrot -- sh -c 'exec cat <>/srv/say'
		echo one >/srv/say`)
	// kept waits until a line is in the file, and so was offered to the journal.
	kept := func(line string) {
		sh(t, `until vsrun logs 11 parrot | grep -x `+line+` >/dev/null; do sleep 0.1; done`)
	}
	kept("one")
	expect(t, "one", `journalctl --sync; journalctl VSRUN_ID=11 VSRUN_SERVICE=parrot -o cat`)
	expect(t, "one", `journalctl VSRUN_NAME=finance -t vs11/parrot -o cat`)
	expect(t, "ready for virtual server 11", `journalctl VSRUN_ID=11 -t vs11/init -o cat | head -n 1`)

	sh(t, `pkill -STOP systemd-journal; seq 1000 >/srv/say`)
	kept("1000")
	sh(t, `pkill -CONT systemd-journal; systemctl restart systemd-journald.socket systemd-journald; echo two >/srv/say`)
	kept("two")
	expect(t, "two", `journalctl --sync; journalctl VSRUN_ID=11 VSRUN_SERVICE=parrot -o cat -n 1`)
	sh(t, `vsrun destroy 11`)
}

// Services that are systemd's units have what their virtual server's document says.
func TestSupervisor(t *testing.T) {
	host(t)
	sh(t, `
		mkdir -p /srv/www14 /var/lib/own
		echo 'of vs14' >/srv/www14/index.html
		sed 's,/srv/www,/srv/www14,; s,^,daemon off; ,' /srv/nginx.conf >/srv/nginx14.conf
		sed 's,^,daemon off; ,' /srv/nginx.conf >/srv/nginx15.conf
		echo 'systemd-notify --ready; echo "$A $HOME $*"; exec sleep 1000' >/srv/other.sh
		echo 'trap "" TERM; systemd-notify --ready; while :; do sleep 0.1; done' >/srv/stub.sh
		for id in 14 15; do
			vsrun create $id --supervisor systemd --port eth1 --no-probe --address 192.0.2.$id/24
		done
		vsrun service add 14 web --capability nginx --memory 64M --cpu 50% --tasks 20 --limit nofile=4096 --umask 027 \
			--reload HUP -- nginx -c /srv/nginx14.conf
		vsrun service add 15 web --capability nginx -- nginx -c /srv/nginx15.conf
		vsrun service add 15 other --after web --ready-notify --user www-data --private /var/lib/own --env 'A=a $b; c' \
			-- bash /srv/other.sh '"100%"' "it's \\"`)
	const pages = `for id in 14 15; do ip netns exec client curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://192.0.2.$id/; done`
	expect(t, "of vs14\nof vs8", pages)
	expect(t, "a $b; c /var/www \"100%\" it's \\", `journalctl --sync; vsrun logs 15 other`)
	expect(t, "a $b; c /var/www \"100%\" it's \\", `journalctl VSRUN_ID=15 VSRUN_SERVICE=other -o cat`)

	const slice = "/vsrun.slice/vsrun-vs14.slice"
	const main = `systemctl show -P MainPID vsrun-vs14-web`
	expect(t, "0::"+slice+"/vsrun-vs14-web.service", `cat /proc/$(`+main+`)/cgroup`)
	expect(t, "67108864\n50000 100000\n20", `cd /sys/fs/cgroup`+slice+`/vsrun-vs14-web.service; cat memory.max cpu.max pids.max`)
	expect(t, "CapBnd: 00000000000004c1\nNoNewPrivs: 1\nSeccomp: 2\nUmask: 0027",
		`grep -E '^(CapBnd|NoNewPrivs|Seccomp|Umask):' /proc/$(`+main+`)/status | tr '\t' ' ' | sort`)
	expect(t, "4096 4096", `awk '/Max open files/ { print $4, $5 }' /proc/$(`+main+`)/limits`)
	expect(t, "CapBnd: 0000000000000000", `grep CapBnd: /proc/$(systemctl show -P MainPID vsrun-vs15-other)/status | tr '\t' ' '`)
	expect(t, "nginx.pid", `nsenter -m -t $(`+main+`) sh -c 'cd /tmp; ls /run --ignore=systemd; ls /tmp; ls /var/lib/vsrun'`)

	// It is started again, also as systemd has read it again, and does what it is told.
	sh(t, `
		systemctl daemon-reload
		systemctl kill --signal=KILL vsrun-vs15-other
		old=$(`+main+`)
		kill -KILL $old
		until vsrun ps 15 | grep -E '^other +running +[0-9]+ +1 '; do sleep 0.2; done
		until vsrun ps 14 | grep -E '^web +running +[0-9]+ +1 '; do sleep 0.2; done
		[ $(`+main+`) != $old ]`)
	expect(t, "", `vsrun diff`)
	expect(t, "a $b; c /var/www \"100%\" it's \\", `journalctl --sync; vsrun logs 15 other -n 1`)
	expect(t, "CapBnd: 00000000000004c1\nNoNewPrivs: 1\nSeccomp: 2\nUmask: 0027",
		`grep -E '^(CapBnd|NoNewPrivs|Seccomp|Umask):' /proc/$(`+main+`)/status | tr '\t' ' ' | sort`)
	expect(t, "vs14 service web told to read its configuration again\nvs14 service web stopped\nvs14 service web started\nvs14 service web restarted",
		`for verb in reload stop start restart; do vsrun service $verb 14 web; done`)
	expect(t, "of vs14\nof vs8", pages)

	// A unit that somebody has stopped stays so when vsd mends something else.
	sh(t, `vsrun service stop 14 web
		ip -n vs14 link set dev eth0 mtu 1400
		until ip -n vs14 link show dev eth0 | grep 'mtu 1500' >/dev/null; do sleep 0.1; done
		vsrun events | grep 'vs14 *mended .*mtu' >/dev/null`)
	expect(t, "vs14: start service web", `vsrun diff 14 || true`)
	sh(t, `vsrun enable 14`)
	expect(t, "of vs14\nof vs8", pages)

	// What cannot be started, or does not end, is said.
	expect(t, "failed: 1", `vsrun service add 15 bad -- /nonexistent 2>/dev/null || echo "failed: $?"`)
	expect(t, "health is not to be had with supervisor: systemd",
		`vsrun service add 15 bad --health-tcp 80 -- sleep 1 2>&1 | grep -o 'health is.*' | head -n 1 || true`)
	sh(t, `vsrun service add 15 stub --ready-notify -- sh /srv/stub.sh`)
	expect(t, "vs15 disabled, had to kill stub", `vsrun disable 15 --timeout 1s`)
	const left = `systemctl list-units --all --plain --no-legend 'vsrun-vs15*'; find /sys/fs/cgroup -name '*vs15*'; ls /run/systemd/transient | grep vs15 || true`
	expect(t, "", left)
	sh(t, `vsrun service rm 15 stub; vsrun enable 15`)
	expect(t, "of vs14\nof vs8", pages)

	// Without its name, and its units, a namespace is made again.
	sh(t, `ip netns del vs15; vsrun enable 15`)
	expect(t, "of vs14\nof vs8", pages)
	sh(t, `vsrun destroy 15`)
	expect(t, "", left)
	expect(t, "", `systemctl --failed --plain --no-legend`)
}

// where is what a virtual server keeps over a reboot: MACs, link-local and other addresses,
// and services.
const where = `for vs in $(ls /run/netns | grep ^vs); do
		echo $vs
		ip -n $vs -o address show | awk '{ print $2, $3, $4 }' | sort
		ip -n $vs -o link show | grep -o 'link/ether [^ ]*' || true
		vsrun ps ${vs#vs} | awk 'NR > 1 { print $1, $2 }'
	done`

// The totals of vs8, with a reboot between.
func TestLedger(t *testing.T) {
	host(t)
	sh(t, `
		vsrun show 8 >/dev/null || vsrun create 8 --port eth1 --address 192.0.2.8/24
		ip netns exec client ping -q -c 20 -i 0.01 -s 1000 192.0.2.8
		vsrun ledger ls | awk '$1 == 8 { print $3, $4, $5 }' >/srv/ledger`)
	sh(t, `(`+where+`) >/srv/where; sync`)
}

func TestAfterReboot(t *testing.T) {
	host(t)
	expect(t, "running", `systemctl is-system-running --wait`)
	expect(t, "of vs8", page)
	expect(t, sh(t, `cat /srv/where`), where)
	expect(t, "counts on", `
		read -r day time bytes </srv/ledger
		vsrun ledger ls | awk -v day=$day -v time=$time -v bytes=$bytes '
			$1 == 8 && $3 == day && $4 == time && bytes > 20000 && $5 > bytes { print "counts on" }'`)
	expect(t, "0", `vsrun ledger ls | awk 'NR > 1 { print $9 }' | sort -u`)
	expect(t, "client\nvs14\nvs8\nvs9", `ls /run/netns`)
	expect(t, "8\n9\n14", asked)
	expect(t, "of vs14", `ip netns exec client curl -sS http://192.0.2.14/`)

	expect(t, "has ended in order", `vsrun logs 9 slow | grep -o 'has ended in order'`)
	expect(t, "vs14 is down\nvs8 is down\nvs9 is down", `journalctl -b -1 -u vsrun-shutdown -o cat | grep -E '^vs(8|9|14) ' | sort`)

	sh(t, `vsrun destroy --all`)
	expect(t, "client", `ls /run/netns`)
	expect(t, "", `pgrep -x vs-init || true; find /sys/fs/cgroup -name '*vs[0-9]*'`)
}

// A clock that is set, forward or back, by an hour or a year, changes nothing of what runs:
// no service is started again or gives up, what differs is mended at once, and what is counted
// counts on.
func TestClock(t *testing.T) {
	host(t)
	sh(t, `
		vsrun create 17 --port eth1 --no-probe --address 192.0.2.17/24
		vsrun service add 17 idle -- sleep 1700
		vsrun service add 17 often --restart always -- sleep 2
		systemctl stop systemd-timesyncd chrony 2>/dev/null || true`)
	const running = `pgrep -fx 'sleep 1700'; systemctl show -P MainPID vsd; systemctl show -P MainPID ipmd; pgrep -x vs-init | sort`
	const bytes = `vsrun ledger ls | awk '$1 == 17 { print $5 }'`
	const gaps = `vsrun ledger ls | awk '$1 == 17 { print $9 }'`
	before := sh(t, running)
	real := time.Now()
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 365 * 24 * time.Hour, -2 * 365 * 24 * time.Hour} {
		counted := sh(t, bytes)
		restarts := sh(t, `vsrun ps 17 | awk '$1 == "often" { print $4 }'`)
		now := time.Now().Add(jump)
		sh(t, now.UTC().Format(`date -u -s '2006-01-02 15:04:05' >/dev/null`))
		sh(t, `
			ip -n vs17 address delete 192.0.2.17/24 dev eth0
			timeout 20 sh -c 'until ip -n vs17 address show dev eth0 | grep -q 192.0.2.17/24; do sleep 0.1; done'
			ip netns exec client ping -q -c 20 -i 0.01 -s 1000 192.0.2.17 >/dev/null
			timeout 20 sh -c 'until [ "$(vsrun ps 17 | awk '"'"'$1 == "often" { print $4 }'"'"')" -gt `+restarts+` ]; do sleep 0.2; done'`)
		expect(t, before, running)
		expect(t, "counts on", bytes+` | awk -v was=`+counted+` '$1 >= was + 20000 { print "counts on" }'`)
		expect(t, "0", gaps)
		expect(t, "", `curl -sS --unix-socket /run/vsrun/ipmd.sock http://ipmd/stats | grep -oE '"[a-zA-Z]*":-[0-9.]+' | grep -v MaxConn || true`)
		expect(t, "17", asked+` | grep -x 17`)
		expect(t, "", `vsrun diff 17 | grep -v 'service often: exit status 0' || true`) // it is paused, perhaps
	}
	sh(t, real.Add(time.Minute).UTC().Format(`date -u -s '2006-01-02 15:04:05' >/dev/null`))
	sh(t, `vsrun destroy 17`)
	expect(t, "", `systemctl --failed --plain --no-legend`)
}
