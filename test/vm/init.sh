#!/bin/busybox sh
# The first program of the guest, in its initrd: it finds the disks (the image,
# the kernel's modules, and a tar of what to run) and hands over to them.
set -e
PATH=/bin
run() { busybox "$@"; }

run mount -t devtmpfs dev /dev
run mount -t proc proc /proc
run mount -t sysfs sys /sys
while read -r module; do
	run insmod "/modules/$module"
done </modules/order

run mount -t ext4 -o noatime /dev/vda /root
run mount -t ext4 -o ro /dev/vdb /root/lib/modules
for dir in run tmp vm; do
	run mount -t tmpfs -o mode=755 tmpfs "/root/$dir"
done
run chmod 1777 /root/tmp
run mkdir -p /root/run/lock
run tar -x -f /dev/vdc -C /root
for dir in dev proc sys; do
	run mount --move "/$dir" "/root/$dir"
done
run mkdir -p /root/dev/pts /root/dev/shm
run mount -t devpts -o gid=5,mode=620 devpts /root/dev/pts
run mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm

echo 0123456789abcdef0123456789abcdef >/root/etc/machine-id
echo vm >/root/etc/hostname
run hostname -F /root/etc/hostname

# systemd does the rest itself, and switches off in order when the program ends.
if run grep -qw vm.systemd /root/proc/cmdline; then
	unit=/root/run/systemd/system/vm.service
	run mkdir -p "${unit%/*}/multi-user.target.wants"
	run ln -s ../vm.service "${unit%/*}/multi-user.target.wants/vm.service"
	run cat >"$unit" <<-'END'
		[Unit]
		After=multi-user.target
		SuccessAction=poweroff
		FailureAction=poweroff
		[Service]
		Type=exec
		ExecStart=/vm/agent
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/console
	END
	exec busybox switch_root /root /lib/systemd/systemd
fi

# As an init does: all controllers for everybody.
run mount -t cgroup2 -o nsdelegate cgroup2 /root/sys/fs/cgroup
for controller in $(run cat /root/sys/fs/cgroup/cgroup.controllers); do
	echo "+$controller" >/root/sys/fs/cgroup/cgroup.subtree_control
done
run mknod /root/dev/loop-control c 10 237 # opened, it loads the module (kmod, static-nodes)
run ip link set lo up

# The shell stays, to reap orphans; without it the kernel would panic. What the
# agent said last may still be on its way when it ends: the outside switches off.
exec busybox switch_root /root /bin/sh -c '
	/vm/agent && sleep 60
	echo o >/proc/sysrq-trigger
	sleep 60'
