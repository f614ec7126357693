#!/bin/bash
# Shows what vsrun does: two virtual servers on one port of a throw-away host, file
# servers in them, and a client that reads from each. KEEP=1 leaves all of it there
# to play with.
set -euo pipefail

bin=$(cd "$(dirname "$0")/.." && pwd)/bin
here=$bin/../test/$(basename "$0")

bold= green= plain=
if [ -t 1 ]; then
	bold=$'\033[1m' green=$'\033[32m' plain=$'\033[0m'
fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# show prints a command as a user types it, and runs it.
show() {
	local word line='$'
	for word; do
		case $word in *[\ \;\'\(\|]*) line="$line '$word'" ;; *) line="$line $word" ;; esac
	done
	printf '%s%s%s\n' "$green" "$line" "$plain"
	"$@"
}

fail() {
	echo "demo: $*" >&2
	exit 1
}

outside() {
	say 'A throw-away host: its own network, mounts and processes. This machine is not touched.'
	local user=()
	[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
	exec unshare "${user[@]}" --net --mount --uts --ipc --pid --fork --kill-child bash "$here" inside
}

# host makes a port, eth1, and a client at the other end of its wire.
host() {
	# As this machine counts; the /proc is still its own.
	entry=$(cut -d ' ' -f 4 /proc/self/stat)
	mount --make-rprivate /
	mount -t proc proc /proc
	mount -t tmpfs tmpfs /run
	mount -t tmpfs tmpfs /srv # virtual servers see it, which have a /run and /tmp of their own
	mount -t sysfs sysfs /sys
	mkdir -p /run/netns /srv/demo
	mount --bind /run/netns /run/netns
	mount --make-shared /run/netns
	hostname demo
	export PATH=$bin:$PATH VSRUN_STATE_DIR=/srv/demo/state
	ip link set lo up
	ip netns add client
	ip link add eth1 type veth peer name eth0 netns client
	ip link set eth1 up
	ip -n client link set lo up
	ip -n client link set eth0 up
	ip -n client address add 192.0.2.100/24 dev eth0
	ip -n client address add 2001:db8::100/64 dev eth0 nodad
}

# data writes what the virtual servers serve, and their servers' configuration.
data() {
	local vs
	for vs in vs8 vs9; do
		mkdir -p /srv/demo/$vs/files /srv/demo/$vs/nginx /srv/demo/$vs/samba
		chmod 755 /srv/demo/$vs
		head -c 1000000 /dev/urandom >/srv/demo/$vs/files/report
		cat >/srv/demo/$vs/nginx.conf <<-END
			user root;
			worker_processes 1;
			error_log stderr;
			pid /srv/demo/$vs/nginx/pid;
			events {}
			http {
			    access_log off;
			    client_body_temp_path /srv/demo/$vs/nginx/body;
			    proxy_temp_path /srv/demo/$vs/nginx/proxy;
			    fastcgi_temp_path /srv/demo/$vs/nginx/fastcgi;
			    uwsgi_temp_path /srv/demo/$vs/nginx/uwsgi;
			    scgi_temp_path /srv/demo/$vs/nginx/scgi;
			    server {
			        listen 80;
			        listen [::]:80;
			        root /srv/demo/$vs/files;
			    }
			}
		END
	done
	cat >/srv/demo/vs9/smb.conf <<-END
		[global]
		    server role = standalone server
		    map to guest = bad user
		    guest account = nobody
		    disable netbios = yes
		    smb ports = 445
		    load printers = no
		    disable spoolss = yes
		    log file = /srv/demo/vs9/samba/log
		    pid directory = /srv/demo/vs9/samba
		    lock directory = /srv/demo/vs9/samba
		    state directory = /srv/demo/vs9/samba
		    cache directory = /srv/demo/vs9/samba
		    private dir = /srv/demo/vs9/samba
		    ncalrpc dir = /srv/demo/vs9/samba/ncalrpc
		[files]
		    path = /srv/demo/vs9/files
		    guest ok = yes
		    read only = yes
	END
	cat >/srv/demo/sales.yaml <<-END
		id: 9
		name: sales
		interfaces:
		  - name: eth0
		    port: eth1
		    addresses: [192.0.2.9/24, "2001:db8::9/64"]
		    gateways: [192.0.2.1]
		services:
		  - name: web
		    command: [nginx, -c, /srv/demo/vs9/nginx.conf, -g, daemon off;]
		    capabilities: [nginx]
		    ready: {tcp: 80}
	END
	# A user namespace with one user has nobody for Samba's guests to be.
	if [ "$samba" = yes ]; then
		cat >>/srv/demo/sales.yaml <<-END
			  - name: smbd
			    command: [smbd, --foreground, --no-process-group, -s, /srv/demo/vs9/smb.conf]
			    capabilities: [samba]
			    ready: {tcp: 445}
		END
	fi
}

# same compares what the client got with what the server has.
same() {
	cmp -s "$1" "$2" || fail "$1 and $2 differ"
	(cd /srv/demo && sha256sum "${1#/srv/demo/}" "${2#/srv/demo/}")
}

create() {
	say 'One virtual server by flags, with nginx in it:'
	show vsrun create 8 --name finance --port eth1 --address 192.0.2.8/24 --address 2001:db8::8/64 --gateway 192.0.2.1
	show vsrun service add 8 web --capability nginx --ready-tcp 80 -- nginx -c /srv/demo/vs8/nginx.conf -g 'daemon off;'
	say 'Another by a document:'
	show cat /srv/demo/sales.yaml
	show vsrun create -f /srv/demo/sales.yaml
}

client() {
	say 'The client reads a file from each, on the same port of two addresses:'
	local in='ip netns exec client'
	show $in curl -sS -o /srv/demo/from-8 http://192.0.2.8/report
	show $in curl -sS -o /srv/demo/from-9 'http://[2001:db8::9]/report'
	same /srv/demo/vs8/files/report /srv/demo/from-8
	same /srv/demo/vs9/files/report /srv/demo/from-9
	if [ "$samba" = yes ]; then
		show $in smbclient -N //192.0.2.9/files -c 'get report /srv/demo/from-9-by-smb'
		same /srv/demo/vs9/files/report /srv/demo/from-9-by-smb
	else
		echo 'Samba is left out: it needs root (its guests are another user).'
	fi
}

look() {
	say 'What runs:'
	show vsrun ls
	show vsrun show 8
	show vsrun exec 9 -- ss -tlnp
	show vsrun stats
	say 'The same counters through ipmd, for Prometheus:'
	ipmd 2>/srv/demo/ipmd.log &
	daemon=$!
	local tries=0
	until [ -S /run/vsrun/ipmd.sock ]; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || fail "ipmd does not start: $(cat /srv/demo/ipmd.log)"
		sleep 0.1
	done
	curl -sS --unix-socket /run/vsrun/ipmd.sock http://ipmd/metrics >/srv/demo/metrics
	show grep -E 'bytes_total|netstat_Tcp_(In|Out)Segs' /srv/demo/metrics
	kill $daemon
	wait $daemon || fail "ipmd ended badly: $(cat /srv/demo/ipmd.log)"
}

keep() {
	say "The host is kept until you press Enter here. Enter it from another terminal with:"
	echo "  ${sudo}nsenter --target $entry --all env PATH=$bin:\$PATH VSRUN_STATE_DIR=$VSRUN_STATE_DIR bash"
	echo '  vsrun ls'
	read -r _ || sleep infinity
}

# left is everything that a virtual server could leave behind.
left() {
	ip netns list | sort
	ip -brief link | cut -d ' ' -f 1 | sort
	cut -d ' ' -f 4,5,9 /proc/self/mountinfo | sort
	find /run/vsrun /srv/demo/state ! -type d ! -name lock 2>/dev/null || true
	find /proc -maxdepth 1 -name '[0-9]*' -exec cat {}/comm \; 2>/dev/null | grep -vxE 'bash|demo.sh|find|cat|grep|sort|ip|cut' | sort || true
}

clean() {
	say 'Gone, without a trace:'
	show vsrun destroy --all
	left >/srv/demo/after
	diff /srv/demo/before /srv/demo/after || fail 'something is left'
	echo 'no namespace, interface, mount, process or file is left'
}

inside() {
	samba=yes sudo='sudo '
	grep -q 4294967295 /proc/self/uid_map || samba=no sudo=
	host
	data
	left >/srv/demo/before
	create
	client
	look
	[ -z "${KEEP-}" ] || keep
	clean
}

if [ "${1-}" = inside ]; then inside; else outside; fi
