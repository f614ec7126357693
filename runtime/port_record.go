package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsrun/vsrun/plumbing"
)

// A portRecord is what the store keeps of a port: what it should be, and how its
// members were before, which they are to be again.
type portRecord struct {
	plumbing.Bond
	Before  map[string]plumbing.Before `json:"before,omitempty"`
	Leaving bool                       `json:"leaving,omitempty"` // its destruction has begun
}

func (s *Store) portPath(name string) string { return filepath.Join(s.dir, "port-"+name+".json") }

func (s *Store) freshPort(name string) string {
	return filepath.Join(s.dir, ".port-"+name+".json.new")
}

func (s *Store) loadPort(name string) (portRecord, error) {
	var p portRecord
	if err := plumbing.CheckIfname(name); err != nil { // it is part of the path
		return p, err
	}
	text, err := readRecord(s.portPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("%w: %s", ErrNoPort, name)
	}
	if err == nil {
		p, err = decodePortRecord(text)
	}
	if err == nil && p.Name != name {
		err = fmt.Errorf("it is the record of %s", p.Name)
	}
	if err != nil {
		return p, &plumbing.Refusal{
			Err:  fmt.Errorf("cannot use the record %s: %w", s.portPath(name), err),
			Cure: "it is left as it is: mend it, or move it away and create the port again",
		}
	}
	return p, nil
}

func decodePortRecord(text []byte) (p portRecord, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err = dec.Decode(&p)
	if _, more := dec.Token(); err == nil && more != io.EOF {
		err = errors.New("something follows the record")
	}
	if problems := p.Validate(); err == nil && len(problems) > 0 {
		err = problems[0].Err
	}
	if err == nil {
		err = p.checkBefore()
	}
	return p, err
}

// checkBefore reports what nothing can have had.
func (p portRecord) checkBefore() error {
	for name, b := range p.Before {
		if err := plumbing.CheckIfname(name); err != nil {
			return err
		}
		for _, a := range b.Addresses {
			family := a.Prefix.Addr().BitLen()
			other := a.Peer.IsValid() && a.Peer.Addr().BitLen() != family || a.Broadcast.IsValid() && a.Broadcast.BitLen() != family
			if !a.Prefix.IsValid() || other {
				return fmt.Errorf("before: %s has had an impossible address, %s", name, a.Prefix)
			}
		}
	}
	return nil
}

func (s *Store) savePort(p portRecord) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		panic(err) // all of its types can be marshalled
	}
	return s.write("port "+p.Name, s.freshPort(p.Name), s.portPath(p.Name), append(text, '\n'))
}

// Ports are the names of the ports that the store has.
func (s *Store) Ports() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the state directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, port := RecordOf(e.Name()); port != "" {
			names = append(names, port)
		}
	}
	return names, nil
}

func sameBond(a, b plumbing.Bond) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// forget drops what has been given back, and reports whether there was something.
func (p *portRecord) forget() bool {
	before := len(p.Before)
	maps.DeleteFunc(p.Before, func(name string, _ plumbing.Before) bool { return !slices.Contains(p.Members, name) })
	return len(p.Before) < before
}

// Port is what a port should be, or ErrNoPort.
func (s *Store) Port(name string) (plumbing.Bond, error) {
	p, err := s.loadPort(name)
	return p.Bond, err
}

// All is everything that the store has, as documents.
func (s *Store) All() (Documents, error) {
	servers, err := s.List()
	if err != nil {
		return Documents{}, err
	}
	names, err := s.Ports()
	if err != nil {
		return Documents{}, err
	}
	docs := Documents{Servers: servers}
	for _, name := range names {
		p, err := s.loadPort(name)
		if err != nil {
			return Documents{}, err
		}
		docs.Ports = append(docs.Ports, p.Bond)
	}
	return docs, nil
}
