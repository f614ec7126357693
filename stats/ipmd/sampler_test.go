package ipmd

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// However many ask while one is read, it is read once more at the most: for those who
// asked after that reading began.
func TestSamplesAreShared(t *testing.T) {
	begun, end := make(chan bool, 10), make(chan bool)
	p := newSampler(func(stats.Source, *stats.Sample) error {
		begun <- true
		<-end
		return nil
	})
	e := newEntry(stats.Source{ID: 8})
	var asking, done sync.WaitGroup
	for range 1000 {
		asking.Add(1)
		done.Go(func() {
			b := noOlder(0)
			asking.Done()
			if err := p.refresh(t.Context(), e, b); err != nil {
				t.Error(err)
			}
		})
	}
	<-begun
	asking.Wait()
	end <- true
	select {
	case end <- true:
	case <-waited(&done):
	}
	done.Wait()
	if n := p.taken.Load(); n > 2 || n+p.reused.Load() != 1000 {
		t.Errorf("%d readings, %d shared", n, p.reused.Load())
	}

	// Old enough is good enough, and costs nothing; too old is not.
	if err := p.refresh(t.Context(), e, noOlder(time.Hour)); err != nil || len(begun) > 1 {
		t.Errorf("%d readings, %v", len(begun)+1, err)
	}
	go func() { end <- true }()
	before := p.taken.Load()
	if err := p.refresh(t.Context(), e, noOlder(0)); err != nil || p.taken.Load() != before+1 {
		t.Errorf("%d readings, %v", p.taken.Load()-before, err)
	}

	// Who cannot wait does not.
	ctx, cancel := context.WithCancel(t.Context())
	go p.refresh(t.Context(), e, noOlder(0))
	for len(begun) < 3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := p.refresh(ctx, e, noOlder(0)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	end <- true
}

func waited(g *sync.WaitGroup) <-chan bool {
	c := make(chan bool)
	go func() { g.Wait(); close(c) }()
	return c
}

// A failure is for those who waited for it, and does not stay.
func TestFailuresAreNotKept(t *testing.T) {
	fail := errors.New("broken")
	p := newSampler(func(stats.Source, *stats.Sample) error { return fail })
	e := newEntry(stats.Source{ID: 8})
	for _, want := range []error{fail, fs.ErrNotExist, nil} {
		fail = want
		if err := p.refresh(t.Context(), e, noOlder(time.Hour)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// What somebody holds stays as it is, and what nobody holds is used again.
func TestSamplesStayAsLongAsTheyAreHeld(t *testing.T) {
	s := three(t)
	s.Reader = new(stats.Reader)
	t.Cleanup(func() { s.Reader.Close() })
	s.prepare()
	list, err := s.list(t.Context())
	must(t, err)
	e := list.find("8")
	must(t, s.sampler.refresh(t.Context(), e, noOlder(0)))
	held, _ := e.take()
	text := string(held.text())
	for range 100 {
		must(t, s.sampler.refresh(t.Context(), e, noOlder(0)))
		s, _ := e.take()
		s.text()
		s.release()
	}
	if now := string(held.sample.AppendJSON(nil)); now != text || string(held.text()) != text {
		t.Errorf("was\n%s\nis\n%s", text, now)
	}
	if n := s.sampler.held.Load(); n != 2 {
		t.Errorf("%d samples are held", n)
	}
	held.release()
	allocations := testing.AllocsPerRun(200, func() {
		if err := s.sampler.refresh(t.Context(), e, noOlder(0)); err != nil {
			t.Error(err)
		}
	})
	if allocations > 12 { // the comparison of what is rare
		t.Errorf("%v allocations for a reading", allocations)
	}
}

// A virtual server that is in the list no more is told of to nobody, not even to who
// has the old list, and holds no sample.
func TestWhatLeavesTheListIsRetired(t *testing.T) {
	s := three(t)
	s.prepare()
	old, err := s.list(t.Context())
	must(t, err)
	e := old.find("8")
	must(t, s.sampler.refresh(t.Context(), e, noOlder(0)))
	s.Sources = func(context.Context) ([]stats.Source, error) { return nil, nil }
	_, err = s.list(t.Context())
	must(t, err)
	if n := s.sampler.held.Load(); n != 0 {
		t.Errorf("%d samples are held", n)
	}
	if err := s.sampler.refresh(t.Context(), e, noOlder(time.Hour)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if last, _ := e.take(); last != nil {
		t.Error("its last sample is still told")
	}
}

// Who gets a cursor of after a going has been told everything with it.
func TestCursorsFollowTheGoing(t *testing.T) {
	var p sampler
	var goings sync.WaitGroup
	for range 4 {
		goings.Go(func() {
			for range 200_000 {
				p.forget()
			}
		})
	}
	ended := waited(&goings)
	for {
		if cursor, gone := p.changes.Load(), p.gone.Load(); gone < cursor {
			t.Fatalf("the cursor is at %d, the last going at %d", cursor, gone)
		}
		select {
		case <-ended:
			return
		default:
		}
	}
}

// A sample is as old as is asked for.
func TestMaxAge(t *testing.T) {
	s := three(t)
	for i, test := range []struct {
		query  string
		header http.Header
		taken  uint64 // readings until then
		status int
	}{
		{"?id=8", nil, 1, 200},
		{"?id=8", nil, 1, 200}, // 1 s
		{"?id=8&maxAge=1h", nil, 1, 200},
		{"?id=8&maxAge=0", nil, 2, 200},
		{"?id=8", http.Header{"Cache-Control": {"no-cache"}}, 3, 200},
		{"?id=8", http.Header{"Cache-Control": {"max-stale, Max-Age=\"0\""}}, 4, 200},
		{"?id=8", http.Header{"Cache-Control": {"max-age=99999999999", "max-age=10"}}, 4, 200},
		{"?id=8&maxAge=1", http.Header{"Cache-Control": {"no-store"}}, 4, 200},
		{"?id=8&maxAge=soon", nil, 4, 400},
		{"?id=8&maxAge=-1s", nil, 4, 400},
		{"?id=8&maxAge=61m", nil, 4, 400},
		{"?id=8&maxAge=%zz", nil, 4, 400},
	} {
		w := get(s, "/stats"+test.query, test.header)
		if w.Code != test.status || s.sampler.taken.Load() != test.taken {
			t.Errorf("%d: %s, %v: %d after %d readings %s", i, test.query, test.header, w.Code, s.sampler.taken.Load(), w.Body)
		}
	}
}
