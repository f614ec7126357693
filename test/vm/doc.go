// Command vm runs a program as root in a virtual machine with another kernel,
// and behaves like it: the same output, as it comes, and the same exit status.
//
//	go test -exec "$PWD/bin/vm -kernel 6.12" ./plumbing
//	bin/vm -kernel 6.1 sh script.sh
//	bin/vm -kernel 6.1 -shell
//	bin/vm -systemd -boots 2 sh script.sh
//
// The program gets the testdata directory of the current directory, those of its
// arguments that are files (with a relative path, or in the directory for
// temporary files), the programs in VSRUN_BIN, or else those beside this one, and
// the variables VSRUN_*. Its stdin is empty; its stdout and stderr come back as one. Of the
// files it writes only -test.coverprofile comes back. Kernels and the image are
// made from the Debian packages that the machine's own apt knows, and kept in
// .cache/vm beside the directory the command is in.
//
// With -systemd the guest is booted by systemd, and the program is run as a unit of
// its own once the system is up. It can be run again after a reboot (-boots): systemd
// then stops all units and switches off, and the same disk is booted; what the guest
// keeps in memory, /tmp too, is gone. The variable VSRUN_VM_BOOT counts the boots.
//
// It does not need KVM, does not give the machine a network, does not install
// anything, and knows no processor but amd64.
//
// Contract: an exit status below 125 is the program's own; 125 says that the
// virtual machine failed, and the end of its console is on stderr.
package main
