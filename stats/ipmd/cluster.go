package ipmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	ask  func(context.Context) ([]ClusterSample, error)
}

// nodes are those with names, or all without. Only the peers are asked by query.
func (s *Server) nodes(names []string, query url.Values) ([]node, error) {
	now := s.configuration()
	all := []node{{now.node(), func(ctx context.Context) ([]ClusterSample, error) { return s.own(ctx, query) }}}
	for _, p := range now.Peers {
		all = append(all, node{p.Name, func(ctx context.Context) ([]ClusterSample, error) {
			return s.cluster.link(p, s.credentials.current.Load()).ask(ctx, query)
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

// ErrNoNode is the error for a node that there is none of.
var ErrNoNode = errors.New("no such node")

// An asked is a node that was asked, and what came of it.
type asked struct {
	NodeAnswer
	samples []ClusterSample
	err     error
}

// askAll asks all nodes at once, and returns when the last one has answered, or
// ctx ends.
func askAll(ctx context.Context, nodes []node) []asked {
	all := make([]asked, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			a, begun := &all[i], time.Now()
			a.samples, a.err = n.ask(ctx)
			a.NodeAnswer = NodeAnswer{Name: n.name, Answered: a.err == nil, Took: time.Since(begun).Seconds()}
			if a.err != nil {
				a.Error = shorten(a.err.Error())
			}
		})
	}
	wg.Wait()
	return all
}

// merge makes one answer of all. The status is 404 for a virtual server that no
// node has, but 504 or 502 when one that did not answer may have it.
func merge(all []asked, ids []string) (ClusterAnswer, int) {
	answer := ClusterAnswer{Samples: []ClusterSample{}}
	var silent []string
	tooLate := false
	for _, a := range all {
		answer.Nodes = append(answer.Nodes, a.NodeAnswer)
		answer.Samples = append(answer.Samples, a.samples...)
		if a.err != nil {
			silent = append(silent, a.Name)
			tooLate = tooLate || errors.Is(a.err, errTooLate)
		}
	}
	slices.SortStableFunc(answer.Samples, func(a, b ClusterSample) int { return cmp.Compare(a.ID, b.ID) })
	answer.Conflicts = conflicts(answer.Samples)
	missing := missing(answer.Samples, ids)
	status := http.StatusOK
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
	return answer, status
}

// conflicts are the virtual servers that are in sorted samples several times.
func conflicts(samples []ClusterSample) (all []Conflict) {
	for i := 0; i < len(samples); {
		c := Conflict{ID: samples[i].ID}
		for ; i < len(samples) && samples[i].ID == c.ID; i++ {
			c.Nodes = append(c.Nodes, samples[i].Node)
		}
		if len(c.Nodes) > 1 {
			all = append(all, c)
		}
	}
	return all
}

// missing is which ids no sample is of.
func missing(samples []ClusterSample, ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(samples, func(s ClusterSample) bool {
			return strconv.Itoa(s.ID) == id || s.Name == id
		})
	})
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}

// age is how many seconds old a sample is.
func age(s stats.Sample, now time.Time) float64 { return max(0, now.Sub(s.Time).Seconds()) }

// own is what this node itself has of what is asked for.
func (s *Server) own(ctx context.Context, query url.Values) ([]ClusterSample, error) {
	samples, err := s.samples(ctx, grant{all: true}, query["id"], true)
	all := make([]ClusterSample, len(samples))
	for i, one := range samples {
		all[i] = ClusterSample{Node: s.configuration().node(), Age: age(one, time.Now()), Sample: one}
	}
	return all, err
}

// serveCluster answers for all nodes. They are asked for their own alone, so no
// question goes in circles; and for more than the asker may see, since it is here
// that he is known.
func (s *Server) serveCluster(w http.ResponseWriter, r *http.Request, g grant) {
	query := r.URL.Query()
	wait, err := waiting(query.Get("timeout"))
	if err != nil {
		refuse(w, err)
		return
	}
	nodes, err := s.nodes(query["node"], url.Values{"id": query["id"], "absent": {"omit"}})
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
		all[i].samples = slices.DeleteFunc(all[i].samples, func(s ClusterSample) bool {
			return !g.sees(stats.Source{ID: s.ID, Name: s.Name})
		})
	}
	answer, status := merge(all, query["id"])
	if hidden := missing(answer.Samples, query["id"]); len(hidden) > 0 && !g.all { // nor whether there is one
		refuse(w, &forbidden{g.who, fmt.Sprintf("virtual server %q", hidden[0])})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

// waiting is how long peers may take.
func waiting(s string) (time.Duration, error) {
	if s == "" {
		return peerTimeout, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > timeout {
		return 0, fmt.Errorf("%w: timeout %q is no time up to %v", errBadQuery, s, timeout)
	}
	return d, nil
}

// errBadQuery is the error for what cannot be understood.
var errBadQuery = errors.New("cannot understand the request")
