package ipmd

import (
	"encoding/json"
	"testing"

	"github.com/vsrun/vsrun/stats"
)

// A sample keeps all that it has when it gets a node and an age.
func TestClusterSampleInJSON(t *testing.T) {
	want := ClusterSample{Node: "b", Age: 0.5, Sample: stats.Sample{ID: 8, Name: "web", Interfaces: []stats.Interface{}}}
	text, err := json.Marshal(want)
	must(t, err)
	var got ClusterSample
	must(t, json.Unmarshal(text, &got))
	if got.Node != "b" || got.Age != 0.5 || got.ID != 8 || got.Name != "web" || got.Interfaces == nil {
		t.Errorf("%s", text)
	}
}

// What a request to a cluster is answered with, by what its nodes know.
func TestMerge(t *testing.T) {
	sample := func(node string, id int, name string) finding {
		return finding{node: node, src: stats.Source{ID: id, Name: name}}
	}
	a := asked{NodeAnswer: NodeAnswer{Name: "a", Answered: true}, found: []finding{sample("a", 9, ""), sample("a", 8, "web")}}
	b := asked{NodeAnswer: NodeAnswer{Name: "b", Answered: true}, found: []finding{sample("b", 7, ""), sample("b", 8, "web")}}
	refused := asked{NodeAnswer: NodeAnswer{Name: "c"}, err: ErrForbidden}
	late := asked{NodeAnswer: NodeAnswer{Name: "d"}, err: errTooLate}
	for _, test := range []struct {
		all     []asked
		ids     []string
		status  int
		samples int
		err     string
	}{
		{[]asked{a}, nil, 200, 2, ""},
		{[]asked{a, b}, []string{"8", "web", "7"}, 200, 4, ""},
		{[]asked{a, late, refused}, nil, 200, 2, ""},
		{[]asked{a, late}, []string{"web"}, 200, 2, ""},
		{[]asked{a, b}, []string{"8", "x"}, 404, 4, `no such virtual server on any node: "x"`},
		{[]asked{a, refused}, []string{"x", "y\n"}, 502, 2, `"x", "y\n" may be on a node that does not answer (c)`},
		{[]asked{a, refused, late}, []string{"8", "x"}, 504, 2, `"x" may be on a node that does not answer (c, d)`},
		{[]asked{refused}, nil, 502, 0, "no node answers (c)"},
		{[]asked{late, refused}, nil, 504, 0, "no node answers (d, c)"},
	} {
		found, got, status := merge(test.all, test.ids)
		if status != test.status || len(found) != test.samples || got.Error != test.err || len(got.Nodes) != len(test.all) {
			t.Errorf("%v: %d, %+v, %+v", test, status, found, got)
		}
	}
	found, both, _ := merge([]asked{a, b}, nil)
	if c := both.Conflicts; len(c) != 1 || c[0].ID != 8 || len(c[0].Nodes) != 2 || c[0].Nodes[0] != "a" || c[0].Nodes[1] != "b" {
		t.Errorf("%+v", c)
	}
	for i, id := range []int{7, 8, 8, 9} {
		if found[i].src.ID != id {
			t.Errorf("%+v", found)
		}
	}
}
