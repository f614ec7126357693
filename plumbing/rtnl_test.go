package plumbing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
	"github.com/vsrun/vsrun/test/lab"
)

// nlmsg is a message as the kernel sends it, padded.
func nlmsg(kind, flags uint16, seq uint32, body ...[]byte) []byte {
	return message{kind: kind, body: slices.Concat(body...)}.append(nil, seq, flags)
}

func words32(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

// nlerr is struct nlmsgerr: a negative errno, and the header of the request.
func nlerr(errno unix.Errno, requestLen uint32) []byte {
	return words32(uint32(-int32(errno)), requestLen, 0, 0, 0)
}

func nlattr(typ uint16, value []byte) []byte {
	var m message
	m.put(typ, value)
	return m.body
}

// A told is a reply in words.
type told struct {
	Seq     uint32
	Payload string
	Err     string
}

func tell(replies []reply) []told {
	var list []told
	for _, r := range replies {
		l := told{Seq: r.seq}
		if r.payload != nil {
			l.Payload = fmt.Sprintf("%d bytes", len(r.payload))
		}
		if r.err != nil {
			l.Err = r.err.Error()
		}
		list = append(list, l)
	}
	return list
}

const capped, texts = unix.NLM_F_CAPPED, unix.NLM_F_ACK_TLVS

var replyCases = []struct {
	name string
	in   []byte
	want []told
	err  error
}{
	{name: "nothing"},
	{name: "less than a header", in: make([]byte, 15)},
	{
		name: "an acknowledgement",
		in:   nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(0, 32)),
		want: []told{{Seq: 5}},
	}, {
		name: "a refusal without text",
		in:   nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(unix.EEXIST, 32)),
		want: []told{{Seq: 5, Err: "file exists"}},
	}, {
		name: "a refusal with text",
		in:   nlmsg(unix.NLMSG_ERROR, capped|texts, 5, nlerr(unix.EINVAL, 32), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("Bad prefix\x00"))),
		want: []told{{Seq: 5, Err: "bad prefix"}},
	}, {
		name: "the text is not the first attribute",
		in: nlmsg(unix.NLMSG_ERROR, capped|texts, 5, nlerr(unix.EINVAL, 32),
			nlattr(unix.NLMSGERR_ATTR_OFFS, words32(20)), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("MTU too big\x00"))),
		want: []told{{Seq: 5, Err: "MTU too big"}},
	}, {
		name: "the request is repeated, and not mistaken for the text",
		in: nlmsg(unix.NLMSG_ERROR, texts, 5, nlerr(unix.EINVAL, 16+14),
			nlattr(unix.NLMSGERR_ATTR_MSG, []byte("request\x00\x00")), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("Bad prefix\x00"))),
		want: []told{{Seq: 5, Err: "bad prefix"}},
	}, {
		name: "text that nobody announced",
		in:   nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(unix.EINVAL, 32), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("Bad prefix\x00"))),
		want: []told{{Seq: 5, Err: "invalid argument"}},
	}, {
		name: "the repeated request is longer than the reply",
		in:   nlmsg(unix.NLMSG_ERROR, texts, 5, nlerr(unix.EINVAL, 0xffffffff), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("x\x00"))),
		want: []told{{Seq: 5, Err: "invalid argument"}},
	}, {
		name: "the repeated request is shorter than its header",
		in:   nlmsg(unix.NLMSG_ERROR, texts, 5, nlerr(unix.EINVAL, 15), nlattr(unix.NLMSGERR_ATTR_MSG, []byte("x\x00"))),
		want: []told{{Seq: 5, Err: "invalid argument"}},
	}, {
		name: "an empty text",
		in:   nlmsg(unix.NLMSG_ERROR, capped|texts, 5, nlerr(unix.EINVAL, 32), nlattr(unix.NLMSGERR_ATTR_MSG, nil)),
		want: []told{{Seq: 5, Err: "invalid argument"}},
	}, {
		name: "an error that is no errno",
		in:   nlmsg(unix.NLMSG_ERROR, capped, 5, words32(1<<31, 32, 0, 0, 0)),
		want: []told{{Seq: 5, Err: "errno -2147483648"}},
	}, {
		name: "the end of a dump",
		in:   nlmsg(unix.NLMSG_DONE, unix.NLM_F_MULTI, 5, words32(0)),
		want: []told{{Seq: 5}},
	}, {
		name: "answers, one of them empty, and an acknowledgement",
		in: slices.Concat(nlmsg(unix.RTM_NEWLINK, 0, 5, make([]byte, 5)), nlmsg(unix.RTM_NEWLINK, 0, 5),
			nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(0, 32))),
		want: []told{{Seq: 5, Payload: "5 bytes"}, {Seq: 5, Payload: "0 bytes"}, {Seq: 5}},
	}, {
		name: "the last message lacks its padding",
		in:   nlmsg(unix.RTM_NEWLINK, 0, 5, make([]byte, 5))[:16+5],
		want: []told{{Seq: 5, Payload: "5 bytes"}},
	},
	{name: "a message longer than the datagram", in: nlmsg(unix.RTM_NEWLINK, 0, 5, make([]byte, 8))[:16+7], err: errMalformed},
	{name: "a message shorter than its header", in: words32(15, 0, 5, 0), err: errMalformed},
	{name: "a message of no length, which would never end", in: words32(0, 0, 5, 0), err: errMalformed},
	{name: "a message of the greatest length", in: words32(0xffffffff, 0, 5, 0), err: errMalformed},
	{name: "an error without the request's header", in: nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(unix.EEXIST, 32)[:16]), err: errMalformed},
	{name: "an error without an errno", in: nlmsg(unix.NLMSG_ERROR, capped, 5), err: errMalformed},
	{
		name: "nothing is believed of a datagram that ends badly",
		in:   append(nlmsg(unix.NLMSG_ERROR, capped, 5, nlerr(0, 32)), words32(7, 0, 6, 0)...),
		err:  errMalformed,
	},
}

func TestParseReplies(t *testing.T) {
	for _, tt := range replyCases {
		t.Run(tt.name, func(t *testing.T) {
			replies, err := parseReplies(tt.in)
			if d := cmp.Diff(tt.want, tell(replies)); d != "" || !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v; replies (-want +got):\n%s", err, tt.err, d)
			}
		})
	}
}

// A refusal is recognised by its errno, whatever its words.
func TestRefusalIsItsErrno(t *testing.T) {
	replies, err := parseReplies(nlmsg(unix.NLMSG_ERROR, capped|texts, 5, nlerr(unix.EEXIST, 32),
		nlattr(unix.NLMSGERR_ATTR_MSG, []byte("Address already assigned\x00"))))
	if err != nil || len(replies) != 1 || !errors.Is(replies[0].err, unix.EEXIST) {
		t.Errorf("got %v, %v; want EEXIST", replies, err)
	}
}

func FuzzParseReplies(f *testing.F) {
	for _, tt := range replyCases {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		replies, err := parseReplies(b)
		if err != nil && replies != nil {
			t.Errorf("%d replies beside the error %v", len(replies), err)
		}
		if len(replies) > len(b)/unix.NLMSG_HDRLEN {
			t.Errorf("%d replies in %d bytes", len(replies), len(b))
		}
		size := 0
		for _, r := range replies {
			size += unix.NLMSG_HDRLEN + len(r.payload)
			if r.err != nil && (r.payload != nil || r.err.Error() == "" || errors.Unwrap(r.err) == unix.Errno(0)) {
				t.Errorf("a refusal that is none: %#v", r)
			}
		}
		if size > len(b) {
			t.Errorf("%d bytes of replies in %d", size, len(b))
		}
	})
}

func TestEachAttr(t *testing.T) {
	lab.Require(t, "cpu:little-endian") // the bytes are of one
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"two, the first padded", "0500 0300 41000000 0800 0400 01000000", "3:41 4:01000000 "},
		{"an empty one", "0400 0700", "7: "},
		{"the flag of a nest is not the type's", "0400 1280", "18: "},
		{"the last lacks its padding", "0500 0300 41", "3:41 "},
		{"less than a header", "040007", ""},
		{"shorter than its header: all after it is left", "0400 0700 0300 0800 0400 0900", "7: "},
		{"of no length, which would never end", "0000 0700", ""},
		{"longer than what is there", "0800 0700 000000", ""},
	} {
		var got strings.Builder
		eachAttr(golden(t, tt.in), func(typ uint16, value []byte) { fmt.Fprintf(&got, "%d:%x ", typ, value) })
		if got.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got.String(), tt.want)
		}
	}
}

// namespace is a new one, without a name.
func namespace(t *testing.T) *nsutil.Namespace {
	t.Helper()
	ns, err := nsutil.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func socketIn(t *testing.T, ns *nsutil.Namespace) *netlinkSocket {
	t.Helper()
	var s *netlinkSocket
	err := ns.Do(func() (err error) {
		s, err = dialNetlink(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// runIn runs a command in a namespace and returns its output.
func runIn(t *testing.T, ns *nsutil.Namespace, argv ...string) string {
	t.Helper()
	path := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	out, err := exec.Command("nsenter", append([]string{path}, argv...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

const add = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// newAddress gives the loopback an address that can be used at once.
func newAddress(p netip.Prefix) message {
	m := address(unix.RTM_NEWADDR, add, 1, p)
	m.putUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	return m
}

// The kernel goes on after a request that it refuses. Each refusal must come to
// the request that it is for, in the kernel's words.
func TestBatchTellsWhichFailed(t *testing.T) {
	lab.New(t)
	ns := namespace(t)
	s := socketIn(t, ns)
	batch := []message{
		linkUp(1),
		newAddress(netip.MustParsePrefix("192.0.2.8/24")),
		newAddress(netip.MustParsePrefix("192.0.2.8/24")),
		newAddress(netip.MustParsePrefix("192.0.2.9/24")),
		route(unix.RTM_NEWROUTE, add, 1, Route{To: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("198.51.100.1")}),
		linkMTU(1, -1),
		linkUp(77),
		newAddress(netip.MustParsePrefix("192.0.2.10/24")),
	}
	want := map[int]struct {
		errno unix.Errno
		text  string
	}{
		2: {unix.EEXIST, ""}, // its words came with Linux 6.4
		4: {unix.ENETUNREACH, "nexthop has invalid gateway"},
		5: {unix.EINVAL, "mtu less than device minimum"},
		6: {unix.ENODEV, ""},
	}
	errs := s.do(batch...)
	for k, got := range errs {
		w, fails := want[k]
		if fails != (got != nil) || fails && !errors.Is(got, w.errno) || w.text != "" && got.Error() != w.text {
			t.Errorf("request %d: got %v, want %v", k, got, w)
		}
	}
	out := runIn(t, ns, "ip", "-o", "-4", "addr", "show", "dev", "lo")
	for _, a := range []string{"192.0.2.8/24", "192.0.2.9/24", "192.0.2.10/24"} {
		if strings.Count(out, a+" ") != 1 {
			t.Errorf("%s was not added once:\n%s", a, out)
		}
	}
	if out := runIn(t, ns, "ip", "link", "show", "dev", "lo"); !strings.Contains(out, "<LOOPBACK,UP") || !strings.Contains(out, "mtu 65536") {
		t.Errorf("the first request is lost: %s", out)
	}
}

// manyAddresses are more than one send can hold.
func manyAddresses(n int) []message {
	list := make([]message, n)
	for k := range list {
		a := netip.MustParseAddr("2001:db8::").As16()
		binary.BigEndian.PutUint16(a[14:], uint16(k+1))
		list[k] = newAddress(netip.PrefixFrom(netip.AddrFrom16(a), 128))
	}
	return list
}

func TestBatchLargerThanASend(t *testing.T) {
	lab.New(t)
	ns := namespace(t)
	s := socketIn(t, ns)
	batch := append([]message{linkUp(1)}, manyAddresses(3000)...)
	size := 0
	for _, m := range batch {
		size += m.size()
	}
	if size < 3*maxSend {
		t.Fatalf("%d bytes are no test of sends of %d", size, maxSend)
	}
	// One in forty is refused: all over the sends, and the last of all.
	for k := 40; k < len(batch); k += 40 {
		batch[k] = batch[k-1]
	}
	errs := s.do(batch...)
	for k, got := range errs {
		if refused := k > 0 && k%40 == 0; refused && !errors.Is(got, unix.EEXIST) || !refused && got != nil {
			t.Fatalf("request %d: %v", k, got)
		}
	}
	out := runIn(t, ns, "ip", "-o", "-6", "addr", "show", "dev", "lo", "to", "2001:db8::/32")
	if got := strings.Count(out, "\n"); got != 3000-75 {
		t.Errorf("%d addresses are there, want %d", got, 3000-75)
	}
}

func TestManyRoutes(t *testing.T) {
	lab.New(t)
	ns := namespace(t)
	s := socketIn(t, ns)
	batch := []message{linkUp(1)}
	for k := range 3000 {
		a := netip.MustParseAddr("2001:db8::").As16()
		binary.BigEndian.PutUint16(a[4:], uint16(k+1))
		batch = append(batch, route(unix.RTM_NEWROUTE, add, 1, Route{To: netip.PrefixFrom(netip.AddrFrom16(a), 48), Table: 7}))
	}
	if err := errors.Join(s.do(batch...)...); err != nil {
		t.Fatal(err)
	}
	out := runIn(t, ns, "ip", "-6", "route", "show", "table", "7", "proto", fmt.Sprint(routeProtocol))
	if got := strings.Count(out, "\n"); got != 3000 {
		t.Errorf("%d routes are there, want 3000", got)
	}
}

// What cannot be sent has failed, each of them.
func TestSendFails(t *testing.T) {
	lab.New(t)
	s := socketIn(t, namespace(t))
	fd := s.fd
	s.fd = -1
	for k, err := range s.do(linkUp(1), linkUp(1)) {
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("request %d on a closed socket: %v", k, err)
		}
	}
	s.fd = fd
}

// After a refusal the socket is as good as new.
func TestGet(t *testing.T) {
	lab.New(t)
	s := socketIn(t, namespace(t))
	for range 2 {
		called := 0
		err := s.get(linkGet("nothing"), func([]byte) { called++ })
		if !errors.Is(err, unix.ENODEV) || called != 0 {
			t.Errorf("got %v and %d answers, want ENODEV", err, called)
		}
		err = s.get(linkGet("lo"), func(b []byte) {
			called++
			if index := binary.NativeEndian.Uint32(b[4:]); index != 1 {
				t.Errorf("lo has index %d", index)
			}
		})
		if err != nil || called != 1 {
			t.Errorf("got %v and %d answers, want one", err, called)
		}
		if err := s.one(linkUp(1)); err != nil {
			t.Error(err)
		}
	}
}
