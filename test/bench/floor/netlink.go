package floor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A socket is a routing socket, in the network namespace it was opened in.
type socket struct {
	fd       int
	out, in  []byte
	start    int // of the request that is being written
	requests uint32
}

func (s *socket) open() (err error) {
	s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if s.in == nil {
		s.in = make([]byte, 64<<10)
	}
	return err
}

func (s *socket) close() { unix.Close(s.fd) }

var native = binary.NativeEndian

// request begins a request (struct nlmsghdr) that has body for its header.
func (s *socket) request(kind, flags uint16, body ...byte) {
	s.end()
	s.start = len(s.out)
	s.requests++
	s.out = native.AppendUint32(s.out, 0)
	s.out = native.AppendUint16(s.out, kind)
	s.out = native.AppendUint16(s.out, flags|unix.NLM_F_REQUEST)
	s.out = native.AppendUint32(s.out, s.requests)
	s.out = native.AppendUint32(s.out, 0)
	s.out = append(s.out, body...)
}

func (s *socket) end() {
	if len(s.out) > 0 {
		native.PutUint32(s.out[s.start:], uint32(len(s.out)-s.start))
	}
}

// link begins a request about a link (struct ifinfomsg).
func (s *socket) link(kind, flags uint16, index, up int) {
	var body [unix.SizeofIfInfomsg]byte
	native.PutUint32(body[4:], uint32(index))
	native.PutUint32(body[8:], uint32(up))
	native.PutUint32(body[12:], uint32(up))
	s.request(kind, flags, body[:]...)
}

// put adds an attribute (struct nlattr).
func (s *socket) put(kind uint16, value ...byte) {
	s.out = native.AppendUint16(s.out, uint16(4+len(value)))
	s.out = native.AppendUint16(s.out, kind)
	s.out = append(s.out, value...)
	for len(s.out)%4 != 0 {
		s.out = append(s.out, 0)
	}
}

func (s *socket) putInt(kind uint16, value int) {
	s.put(kind, native.AppendUint32(nil, uint32(value))...)
}

// nest begins an attribute that holds those which are added until end is called.
func (s *socket) nest(kind uint16) (end func()) {
	at := len(s.out)
	s.put(kind)
	return func() { native.PutUint16(s.out[at:], uint16(len(s.out)-at)) }
}

// send sends all requests at once and waits for the last one's acknowledgement, or for
// the first refusal.
func (s *socket) send() error {
	s.end()
	flags := native.Uint16(s.out[s.start+6:])
	native.PutUint16(s.out[s.start+6:], flags|unix.NLM_F_ACK)
	return s.exchange(nil)
}

// exchange sends what was written, and gives each message of the answer to each.
func (s *socket) exchange(each func(body []byte)) error {
	s.end()
	err := unix.Sendto(s.fd, s.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	s.out, s.start = s.out[:0], 0
	if err != nil {
		return err
	}
	for {
		n, err := unix.Read(s.fd, s.in)
		if err != nil {
			return err
		}
		for b := s.in[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := native.Uint32(b)
			body := b[unix.NLMSG_HDRLEN:size]
			switch native.Uint16(b[4:]) {
			case unix.NLMSG_ERROR:
				if code := int32(native.Uint32(body)); code != 0 {
					return unix.Errno(-code)
				}
				return nil
			case unix.NLMSG_DONE:
				return nil
			}
			if each != nil {
				each(body)
			}
			b = b[min(int(size+3)&^3, len(b)):]
		}
	}
}

// dump asks for a list and gives each entry's body to each.
func (s *socket) dump(kind uint16, each func(body []byte), header ...byte) error {
	s.request(kind, unix.NLM_F_DUMP, header...)
	return s.exchange(each)
}

// attribute finds one in a list of them.
func attribute(b []byte, kind uint16) []byte {
	for len(b) >= 4 {
		size := native.Uint16(b)
		if native.Uint16(b[2:])&^unix.NLA_F_NESTED == kind {
			return b[4:size]
		}
		b = b[min(int(size+3)&^3, len(b)):]
	}
	return nil
}
