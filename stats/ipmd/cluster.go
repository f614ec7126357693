package ipmd

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// A ClusterAnswer is what the nodes of a cluster answer together.
type ClusterAnswer struct {
	// Samples are sorted by ID, then by node.
	Samples []ClusterSample `json:"samples"`

	// Nodes are all that were asked, in the order of their names.
	Nodes []NodeAnswer `json:"nodes"`

	// Conflicts are virtual servers that several nodes have.
	Conflicts []Conflict `json:"conflicts,omitempty"`

	// Error says what is not known; "" when all is.
	Error string `json:"error,omitempty"`
}

// A ClusterSample is a sample, and the node whose virtual server it is.
type ClusterSample struct {
	Node string `json:"node"`

	// Age is how many seconds ago the counters were read when their node answered,
	// by that node's own clock.
	Age float64 `json:"age"`

	stats.Sample
}

// A finding is a sample of some node, in JSON: most of a question's work would
// otherwise be to decode counters and to encode them again.
type finding struct {
	node string
	age  float64
	src  stats.Source // its ID and name
	text []byte
}

// A NodeAnswer is whether, and how, a node has answered.
type NodeAnswer struct {
	Name     string  `json:"name"`
	Answered bool    `json:"answered"`
	Took     float64 `json:"took"`            // seconds
	Error    string  `json:"error,omitempty"` // why it has not
}

// A Conflict is a virtual server that runs on several nodes at once.
type Conflict struct {
	ID    int      `json:"id"`
	Nodes []string `json:"nodes"`
}

const (
	// peerTimeout is how long peers have when the asker does not say. Less than
	// the asker waits.
	peerTimeout = 3 * time.Second

	// maxQuestions are answered at a time, since each may hold the counters of
	// the whole cluster in memory; others wait.
	maxQuestions = 4

	// writeTimeout is how long it may take to write an answer.
	writeTimeout = 5 * time.Second

	// timeHeader says what time it is where an answer comes from, so that the age
	// of its samples can be told without comparing clocks.
	timeHeader = "Ipmd-Time"
)

// A cluster is how a node asks the others. The zero value is ready.
type cluster struct {
	once      sync.Once
	questions chan struct{} // has one of each that is being answered

	mu    sync.Mutex
	links map[string]*link // by the peer's name
}

// begin waits for its turn.
func (c *cluster) begin(ctx context.Context) (end func(), err error) {
	c.once.Do(func() { c.questions = make(chan struct{}, maxQuestions) })
	select {
	case c.questions <- struct{}{}:
		return func() { <-c.questions }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("too many questions to the cluster at once: %w", context.Cause(ctx))
	}
}

// forget closes the connections to those who are no peers any more.
func (c *cluster) forget(but []Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.links {
		if !slices.Contains(but, l.peer) {
			l.close()
			delete(c.links, name)
		}
	}
}

// link is how to ask a peer now.
func (c *cluster) link(p Peer, keys *keySet) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[p.Name]
	if l != nil && l.peer == p && l.keys == keys {
		return l
	}
	if l != nil {
		l.close()
	}
	if c.links == nil {
		c.links = map[string]*link{}
	}
	c.links[p.Name] = newLink(p, keys)
	return c.links[p.Name]
}

// A node is one that can be asked.
type node struct {
	name string
	ask  func(context.Context) ([]finding, error)
}

// nodes are those with names, or all without, each to be asked for its own.
func (s *Server) nodes(names []string, q question) ([]node, error) {
	now := s.configuration()
	all := []node{{now.node(), func(ctx context.Context) ([]finding, error) { return s.own(ctx, q) }}}
	for _, p := range now.Peers {
		all = append(all, node{p.Name, func(ctx context.Context) ([]finding, error) {
			return s.cluster.link(p, s.credentials.current.Load()).ask(ctx, q.toPeer())
		}})
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(n node) bool { return n.name == name }) {
			return nil, fmt.Errorf("%w: %q", ErrNoNode, name)
		}
	}
	all = slices.DeleteFunc(all, func(n node) bool { return len(names) > 0 && !slices.Contains(names, n.name) })
	slices.SortFunc(all, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// ErrNoNode is the error for a node that is neither this one nor a peer.
var ErrNoNode = errors.New("no such node")

// An asked is a node that was asked, and what came of it.
type asked struct {
	NodeAnswer
	found []finding
	err   error
}

// askAll asks all nodes at once, and returns when the last one has answered, or
// ctx ends.
func askAll(ctx context.Context, nodes []node) []asked {
	all := make([]asked, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			a, begun := &all[i], time.Now()
			a.found, a.err = n.ask(ctx)
			a.NodeAnswer = NodeAnswer{Name: n.name, Answered: a.err == nil, Took: time.Since(begun).Seconds()}
			if a.err != nil {
				a.Error = shorten(a.err.Error())
			}
		})
	}
	wg.Wait()
	return all
}

// merge makes one answer of all, but for the samples, which it returns as they are
// found. The status is 404 for a virtual server that no node has, but 504 or 502
// when one that did not answer may have it.
func merge(all []asked, ids []string) (found []finding, answer ClusterAnswer, status int) {
	var silent []string
	tooLate := false
	for _, a := range all {
		answer.Nodes = append(answer.Nodes, a.NodeAnswer)
		found = append(found, a.found...)
		if a.err != nil {
			silent = append(silent, a.Name)
			tooLate = tooLate || errors.Is(a.err, errTooLate)
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.src.ID, b.src.ID) })
	answer.Conflicts = conflicts(found)
	missing := missing(found, ids)
	status = http.StatusOK
	switch {
	case len(silent) == len(all):
		answer.Error = fmt.Sprintf("no node answers (%s)", strings.Join(silent, ", "))
		status = http.StatusBadGateway
	case len(missing) > 0 && len(silent) > 0:
		answer.Error = fmt.Sprintf("%s may be on a node that does not answer (%s)", quoted(missing), strings.Join(silent, ", "))
		status = http.StatusBadGateway
	case len(missing) > 0:
		answer.Error = fmt.Sprintf("%v on any node: %s", ErrNotFound, quoted(missing))
		status = http.StatusNotFound
	}
	if status == http.StatusBadGateway && tooLate {
		status = http.StatusGatewayTimeout
	}
	return found, answer, status
}

// conflicts are the virtual servers of which there are several among sorted
// findings.
func conflicts(found []finding) (all []Conflict) {
	for i := 0; i < len(found); {
		c := Conflict{ID: found[i].src.ID}
		for ; i < len(found) && found[i].src.ID == c.ID; i++ {
			c.Nodes = append(c.Nodes, found[i].node)
		}
		if len(c.Nodes) > 1 {
			all = append(all, c)
		}
	}
	return all
}

// missing is which ids nothing was found of.
func missing(found []finding, ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(found, func(f finding) bool { return strconv.Itoa(f.src.ID) == id || f.src.Name == id })
	})
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}

// age is how many seconds old what was read then is.
func age(then, now time.Time) float64 { return max(0, now.Sub(then).Seconds()) }

// own is what this node itself has of what is asked for.
func (s *Server) own(ctx context.Context, q question) ([]finding, error) {
	entries, err := s.sampled(ctx, grant{all: true}, q)
	if err != nil {
		return nil, err
	}
	var all []finding
	for _, e := range entries {
		last, _ := e.take()
		if last == nil {
			continue
		}
		if text, _ := q.text(last, nil); text != nil {
			all = append(all, finding{s.configuration().node(), age(last.sample.Time, time.Now()), e.src, slices.Clone(text)})
		}
		last.release()
	}
	return all, nil
}

// toPeer is how a peer is asked for what it has itself of what is asked for.
func (q question) toPeer() url.Values {
	v := url.Values{"id": q.ids, "interface": q.interfaces, "maxAge": {q.age.String()}, "absent": {"omit"}}
	if q.bare {
		v.Set("mib", "no")
	}
	return v
}

// elsewhere says of what is not there that it may be on another node.
func (s *Server) elsewhere(err error) error {
	if errors.Is(err, ErrNotFound) && len(s.configuration().Peers) > 0 {
		return onOtherNode{err}
	}
	return err
}

type onOtherNode struct{ error }

func (e onOtherNode) Unwrap() error { return e.error }
func (e onOtherNode) Hint() string  { return "it may be on another node: vsrun stats --cluster" }

// serveCluster answers for all nodes. They are asked for their own alone, so no
// question goes in circles; and for more than the asker may see, since it is here
// that he is known.
func (s *Server) serveCluster(w http.ResponseWriter, r *http.Request, g grant) {
	q, err := s.configuration().ask(r)
	if err != nil {
		refuse(w, err)
		return
	}
	q.since, q.absent = "", true
	wait, query := peerTimeout, r.URL.Query()
	if query.Has("timeout") {
		if wait, err = duration("timeout", query.Get("timeout"), time.Millisecond, timeout); err != nil {
			refuse(w, err)
			return
		}
	}
	nodes, err := s.nodes(query["node"], q)
	if err != nil {
		refuse(w, err)
		return
	}
	end, err := s.cluster.begin(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	defer end()
	ctx, cancel := context.WithTimeoutCause(r.Context(), wait, errTooLate)
	defer cancel()
	all := askAll(ctx, nodes)
	for i := range all {
		all[i].found = slices.DeleteFunc(all[i].found, func(f finding) bool { return !g.sees(f.src) })
	}
	found, answer, status := merge(all, q.ids)
	if hidden := missing(found, q.ids); len(hidden) > 0 && !g.all { // nor whether there is one
		refuse(w, &forbidden{g.who, fmt.Sprintf("virtual server %q", hidden[0])})
		return
	}
	// A slow reader must not keep others from their turn. Only a test's connection
	// has no deadline.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeCluster(w, found, answer)
}

// writeCluster writes an answer in JSON. It fails only when the client is gone.
func writeCluster(w io.Writer, found []finding, answer ClusterAnswer) error {
	b := bufio.NewWriter(w)
	b.WriteString(`{"samples":[`)
	for i, f := range found {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"node":%q,"age":%.6f,`, f.node, f.age)
		b.Write(f.text[1:]) // after the brace
	}
	rest, err := json.Marshal(struct {
		Nodes     []NodeAnswer `json:"nodes"`
		Conflicts []Conflict   `json:"conflicts,omitempty"`
		Error     string       `json:"error,omitempty"`
	}{answer.Nodes, answer.Conflicts, answer.Error})
	if err != nil {
		return err
	}
	b.WriteString("],")
	b.Write(rest[1:])
	b.WriteByte('\n')
	return b.Flush()
}

// errBadRequest is the error for what cannot be understood.
var errBadRequest = errors.New("cannot understand the request")
