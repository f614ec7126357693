package runtime

import (
	"sync"

	"github.com/vsrun/vsrun/nsutil/cgroup"
	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/stats"
)

// A Listing is what Store.Sources lists, for those who ask often: what was written
// before a call is in its answer.
type Listing struct {
	netnsDir string

	mu      sync.Mutex
	records records
	groups  *cgroup.Tree
	sources []stats.Source
	err     error
}

// Listing lists the store's virtual servers, which are published in netnsDir.
func (s *Store) Listing(netnsDir string) *Listing {
	return &Listing{records: newRecords(s), netnsDir: netnsDir}
}

// Sources are those of Store.Sources. It is the same slice until something changes.
func (l *Listing) Sources() ([]stats.Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.records.watched
	changed, err := l.records.update()
	if err != nil {
		return nil, err
	}
	if l.groups == nil || l.records.watched != before {
		l.groups = cgroup.Find()
	} else if len(changed) == 0 {
		return l.sources, l.err
	}
	var list []VirtualServer
	list, l.err = l.records.list()
	l.sources = l.records.store.sources(list, l.netnsDir, l.groups)
	return l.sources, l.err
}

// Close ends the watch.
func (l *Listing) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records.unwatch()
}

func (s *Store) sources(list []VirtualServer, netnsDir string, groups *cgroup.Tree) (sources []stats.Source) {
	for _, vs := range list {
		if !vs.Disabled {
			sources = append(sources, s.source(vs, netnsDir, groups))
		}
	}
	return sources
}

func (s *Store) source(vs VirtualServer, netnsDir string, groups *cgroup.Tree) stats.Source {
	place := plumbing.Place{Dir: netnsDir, Name: vs.Namespace()}
	return stats.Source{ID: vs.ID, Name: vs.Title(), Path: place.Path(), Groups: groups}
}
