package ipmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// The headers of an answer: what to ask with next time, and whether this answer is
// everything or what has changed.
const (
	cursorHeader = "Ipmd-Cursor"
	answerHeader = "Ipmd-Answer"

	everything = "all"
	changes    = "changes"
)

// An answer is what a question is answered with. What it writes is each sample as it is
// when it is written, so that a slow reader holds one of them, and not all.
type answer struct {
	question
	entries []*entry
	kind    string // everything or changes
	since   uint64 // the change since which they are
	cursor  string
}

// answer has everything that a question is about sampled.
func (s *Server) answer(ctx context.Context, g grant, q question) (answer, error) {
	entries, err := s.sampled(ctx, g, q)
	if err != nil {
		return answer{}, err
	}
	a := answer{question: q, entries: entries, kind: everything}
	a.cursor = s.cursor() // before anything is taken: what changes from now on is told again
	if since, ok := s.since(q.since); ok {
		a.kind, a.since = changes, since
	}
	return a, nil
}

// sampled are the virtual servers that a question is about, with a sample that is
// young enough. Those that have no namespace are left out, or an error if they were
// asked for by name.
func (s *Server) sampled(ctx context.Context, g grant, q question) ([]*entry, error) {
	b := noOlder(q.age)
	entries, many, err := s.pick(ctx, g, q)
	if err != nil {
		return nil, err
	}
	b.many = many
	running := make([]*entry, 0, len(entries))
	for _, e := range entries {
		err := s.sampler.refresh(ctx, e, b)
		switch {
		case err == nil:
			running = append(running, e)
		case q.watching && ctx.Err() == nil:
			s.report(e.src, err)
			running = append(running, e) // its last figures stay
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case len(q.ids) > 0 && !q.absent: // who asks for this one must not take nothing for an answer
			return nil, fmt.Errorf("%w: vs%d is not running", ErrNotFound, e.src.ID)
		}
	}
	if len(q.ids) > 0 && len(q.interfaces) > 0 && !q.watching && !q.absent {
		return running, haveInterfaces(running, q.interfaces)
	}
	return running, nil
}

func haveInterfaces(entries []*entry, names []string) error {
	for _, e := range entries {
		s, _ := e.take()
		if s == nil {
			continue
		}
		ok := slices.ContainsFunc(s.sample.Interfaces, func(i stats.Interface) bool { return slices.Contains(names, i.Name) })
		s.release()
		if !ok {
			return fmt.Errorf("%w: vs%d has no interface %q", ErrNotFound, e.src.ID, names)
		}
	}
	return nil
}

// each calls write for every sample of the answer, in JSON, until it fails.
func (a answer) each(write func([]byte) error) error {
	var scratch []byte
	for _, e := range a.entries {
		s, changed := e.take()
		if s == nil {
			continue
		}
		var err error
		if a.kind != changes || changed > a.since {
			var text []byte
			if text, scratch = a.text(s, scratch); text != nil {
				err = write(text)
			}
		}
		s.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// text is a sample in JSON, as far as it is asked for; nil when nothing of it is. It
// may be in scratch, which is returned to be used again.
func (q question) text(s *shared, scratch []byte) (text, buffer []byte) {
	switch {
	case len(q.interfaces) > 0:
		scratch, has := s.sample.AppendInterfacesJSON(scratch[:0], q.interfaces)
		if !has {
			return nil, scratch
		}
		return scratch, scratch
	case q.bare:
		bare := s.sample.WithoutMIB()
		scratch = bare.AppendJSON(scratch[:0])
		return scratch, scratch
	}
	return s.text(), scratch
}

// writers are buffers for answers: without them, each sample would be a system call.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 16<<10) }}

// buffered has fn write to w through a buffer.
func buffered(w io.Writer, fn func(*bufio.Writer) error) error {
	b := writers.Get().(*bufio.Writer)
	defer writers.Put(b)
	defer b.Reset(nil)
	b.Reset(w)
	if err := fn(b); err != nil {
		return err
	}
	return b.Flush()
}

// write writes the answer as a JSON array.
func (a answer) write(b *bufio.Writer) error {
	b.WriteByte('[')
	first := true
	err := a.each(func(sample []byte) error {
		if !first {
			b.WriteByte(',')
		}
		first = false
		_, err := b.Write(sample)
		return err
	})
	b.WriteString("]\n")
	return err
}

func (s *Server) serveStats(w http.ResponseWriter, r *http.Request, g grant) {
	q, err := s.configuration().ask(r)
	if err != nil {
		refuse(w, err)
		return
	}
	a, err := s.answer(r.Context(), g, q)
	if err != nil {
		refuse(w, s.elsewhere(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // it is shared here already
	h.Set(cursorHeader, a.cursor)
	h.Set(answerHeader, a.kind)
	h.Set(timeHeader, time.Now().UTC().Format(time.RFC3339Nano))
	buffered(w, a.write) // fails only when the client is gone
}
