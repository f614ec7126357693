package plumbing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A netlinkSocket sends requests to the kernel and reads its answers, in the
// network namespace it was opened in. It is for one goroutine.
type netlinkSocket struct {
	fd  int
	seq uint32
	buf []byte
}

// dialNetlink opens a socket in the calling thread's network namespace.
func dialNetlink(family int) (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	// The kernel's own words for what it refuses (Linux 4.12), and replies that
	// do not repeat the request.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &netlinkSocket{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (s *netlinkSocket) close() {
	if s != nil {
		unix.Close(s.fd)
	}
}

// A kernelError is a request that the kernel refused.
type kernelError struct {
	errno unix.Errno
	text  string // the extended acknowledgement, often empty
}

func (e *kernelError) Error() string {
	if e.text != "" {
		return lowerFirst(e.text)
	}
	return e.errno.Error()
}

func (e *kernelError) Unwrap() error { return e.errno }

func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}

// Below the default send buffer (net.core.wmem_default), with room for what the
// kernel charges for each packet.
const maxSend = 32 << 10

// What the receive buffer holds of refusals, should every request get one.
const maxRequests = 64

// do sends the requests, as many as fit at a time, and gives each one's error.
// The kernel goes on after a refused request, so several can have failed. Where one
// cannot be said, none is sent.
func (s *netlinkSocket) do(requests ...message) []error {
	errs := make([]error, len(requests))
	for _, m := range requests {
		if m.err != nil {
			return slices.Repeat([]error{m.err}, len(requests))
		}
	}
	for start := 0; start < len(requests); {
		end := start + fitting(requests[start:])
		if err := s.send(requests[start:end], errs[start:end]); err != nil {
			for k := start; k < len(errs); k++ {
				errs[k] = err
			}
			break
		}
		start = end
	}
	return errs
}

// fitting is how many requests go in one send: one at least.
func fitting(requests []message) int {
	size := 0
	for k, m := range requests {
		if size += m.size(); size > maxSend || k == maxRequests {
			return max(k, 1)
		}
	}
	return len(requests)
}

// send sends requests together, and puts each one's refusal into errs. Only the
// last is acknowledged: a refusal is always told.
func (s *netlinkSocket) send(requests []message, errs []error) error {
	var out []byte
	first := s.seq + 1
	for k, m := range requests {
		s.seq++
		flags := uint16(0)
		if k == len(requests)-1 {
			flags = unix.NLM_F_ACK
		}
		out = m.append(out, s.seq, flags)
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot send to the kernel: %w", err)
	}
	return s.read(s.seq, func(seq uint32, err error) {
		if k := int(seq - first); k >= 0 && k < len(errs) {
			errs[k] = err
		}
	}, nil)
}

// one sends a single request.
func (s *netlinkSocket) one(m message) error { return s.do(m)[0] }

// get sends a request and hands the answer's payload to each.
func (s *netlinkSocket) get(m message, each func(payload []byte)) error {
	s.seq++
	out := m.append(nil, s.seq, unix.NLM_F_ACK)
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot send to the kernel: %w", err)
	}
	var refused error
	err := s.read(s.seq, func(_ uint32, e error) { refused = e }, each)
	return errors.Join(err, refused)
}

// read takes replies until the one that ends request last: its acknowledgement
// or its refusal.
func (s *netlinkSocket) read(last uint32, answered func(seq uint32, err error), each func([]byte)) error {
	var interrupted error
	for {
		n, err := s.receive()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read the kernel's reply: %w", err)
		}
		replies, err := parseReplies(s.buf[:n])
		if err != nil {
			return err
		}
		for _, r := range replies {
			if r.interrupted {
				interrupted = errInterrupted
			}
			if r.payload != nil {
				if each != nil && r.seq == last {
					each(r.payload)
				}
				continue
			}
			answered(r.seq, r.err)
			if r.seq == last {
				return interrupted
			}
		}
	}
}

// receive takes one datagram into the buffer, and makes that larger for one that would not
// fit: somebody inside can give a link more attributes than one thinks (sources of a macvlan).
func (s *netlinkSocket) receive() (n int, err error) {
	n, _, err = unix.Recvfrom(s.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil {
		return 0, err
	}
	if n > len(s.buf) {
		s.buf = make([]byte, n)
	}
	n, _, err = unix.Recvfrom(s.fd, s.buf, 0)
	return n, err
}

// A reply is one netlink message from the kernel: an answer with a payload, or
// the end of a request, with its error.
type reply struct {
	kind    uint16 // RTM_…
	seq     uint32
	payload []byte
	err     error

	interrupted bool // it is of a list that has changed meanwhile (NLM_F_DUMP_INTR)
}

var errInterrupted = errors.New("the kernel's list has changed while it was read")

// all is get for a list, which is read again when it has changed meanwhile.
func (s *netlinkSocket) all(m message, each func(payload []byte)) error {
	for range interruptions {
		var list [][]byte
		err := s.get(m, func(b []byte) { list = append(list, bytes.Clone(b)) })
		if errors.Is(err, errInterrupted) {
			continue
		}
		for _, b := range list {
			each(b)
		}
		return err
	}
	return errInterrupted
}

// interruptions is how often a list is begun anew, as package netlinksafe does.
const interruptions = 5

var errMalformed = errors.New("the kernel's reply is malformed")

// parseReplies splits a datagram. struct nlmsghdr and struct nlmsgerr are those
// of include/uapi/linux/netlink.h.
func parseReplies(b []byte) ([]reply, error) {
	var replies []reply
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, errMalformed
		}
		flags := binary.NativeEndian.Uint16(b[6:])
		r := reply{kind: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:]), interrupted: flags&unix.NLM_F_DUMP_INTR != 0}
		body := b[unix.NLMSG_HDRLEN:size]
		switch r.kind {
		case unix.NLMSG_ERROR:
			if len(body) < 4+unix.NLMSG_HDRLEN {
				return nil, errMalformed
			}
			r.err = refusal(body, flags)
		case unix.NLMSG_DONE:
		default:
			r.payload = body
		}
		replies = append(replies, r)
		b = b[min(align(size), len(b)):]
	}
	return replies, nil
}

// refusal decodes struct nlmsgerr; nil for an acknowledgement.
func refusal(body []byte, flags uint16) error {
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	e := &kernelError{errno: syscall.Errno(-code)}
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	rest := body[4+unix.NLMSG_HDRLEN:]
	if flags&unix.NLM_F_CAPPED == 0 { // the request is repeated in front
		request := int(binary.NativeEndian.Uint32(body[4:])) - unix.NLMSG_HDRLEN
		if request < 0 || align(request) > len(rest) {
			return e
		}
		rest = rest[align(request):]
	}
	eachAttr(rest, func(typ uint16, value []byte) {
		if typ == unix.NLMSGERR_ATTR_MSG && len(value) > 0 {
			e.text = string(value[:len(value)-1])
		}
	})
	return e
}

// eachAttr walks struct nlattr. It stops at the first that does not fit.
func eachAttr(b []byte, f func(typ uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[4:size])
		b = b[min(align(size), len(b)):]
	}
}

// align rounds up to NLMSG_ALIGNTO, which is also NLA_ALIGNTO.
func align(n int) int { return (n + 3) &^ 3 }
