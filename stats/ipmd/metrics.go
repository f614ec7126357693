package ipmd

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/vsrun/vsrun/stats"
)

// A scrape is what /metrics is made of: samples that stay as they are until all of
// them are written.
type scrape struct {
	held    []*shared
	samples []stats.Sample
}

func (c *scrape) add(s *shared) {
	c.held = append(c.held, s)
	c.samples = append(c.samples, s.sample)
}

func (c *scrape) release() {
	for _, s := range c.held {
		s.release()
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, g grant) {
	q, err := s.configuration().ask(r)
	if err != nil {
		refuse(w, err)
		return
	}
	c, err := s.scrape(r.Context(), g, q)
	if err != nil {
		refuse(w, err)
		return
	}
	defer c.release()
	format := acceptedFormat(r.Header.Values("Accept"))
	w.Header().Set("Content-Type", format.ContentType())
	w.Header().Set("Vary", "Accept")
	if g.all && len(q.ids) == 0 {
		w.Write(s.ownMetrics(format))
	}
	stats.WriteMetrics(w, c.samples, format) // fails only when the client is gone
}

// scrape leaves out what cannot be read, and logs it.
func (s *Server) scrape(ctx context.Context, g grant, q question) (*scrape, error) {
	b := noOlder(q.age)
	entries, many, err := s.pick(ctx, g, q)
	if err != nil {
		return nil, err
	}
	b.many = many
	c := &scrape{make([]*shared, 0, len(entries)), make([]stats.Sample, 0, len(entries))}
	for _, e := range entries {
		err := s.sampler.refresh(ctx, e, b)
		if late := ctx.Err(); err != nil && late != nil {
			c.release()
			return nil, err
		}
		s.report(e.src, err)
		if err != nil {
			continue
		}
		if s, _ := e.take(); s != nil {
			c.add(s)
		}
	}
	return c, nil
}

// report logs that a virtual server cannot be read, once and not at each scrape,
// until it can be read again or fails for another reason.
func (s *Server) report(src stats.Source, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		delete(s.failing, src.ID)
		return
	}
	if s.failing[src.ID] == err.Error() {
		return
	}
	if s.failing == nil {
		s.failing = make(map[int]string)
	}
	s.failing[src.ID] = err.Error()
	s.log().Error(err.Error())
}
