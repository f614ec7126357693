package plumbing

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Only what others on the port can be the reason of is waited for, and told as that.
func TestTakenPort(t *testing.T) {
	for _, tt := range []struct {
		kind  Kind
		err   error
		taken bool
	}{
		{Macvlan, &kernelError{errno: unix.EINVAL}, true},
		{Macvlan, &kernelError{errno: unix.EINVAL, text: "MTU greater than device maximum"}, false},
		{Macvlan, &kernelError{errno: unix.EBUSY}, true},
		{Macvlan, &kernelError{errno: unix.ENOMEM}, false},
		{Macvlan, unix.EINVAL, false}, // of no request
		{Vlan, &kernelError{errno: unix.EINVAL}, false},
		{Macvlan, nil, false},
	} {
		if taken := (addLink{form: form{Kind: tt.kind}}).taken(tt.err); taken != tt.taken {
			t.Errorf("%s: %v: %t", tt.kind, tt.err, taken)
		}
	}
}
