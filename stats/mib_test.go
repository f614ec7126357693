package stats

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// small has what is special: the order, a sign, a group without counters.
var small = MIB{
	{"Tcp", []Counter{{"MaxConn", -1}, {"InSegs", math.MaxInt64}}},
	{Name: "IcmpMsg"},
	{"Ip", []Counter{{"InReceives", math.MinInt64}}},
}

const smallJSON = `{"Tcp":{"MaxConn":-1,"InSegs":9223372036854775807},"IcmpMsg":{},"Ip":{"InReceives":-9223372036854775808}}`

func TestMIBJSON(t *testing.T) {
	b, err := json.Marshal(small)
	if err != nil || string(b) != smallJSON {
		t.Errorf("%s, %v, want %s", b, err, smallJSON)
	}
	checkJSON(t, small)
	checkJSON(t, MIB{})
	if b, err := json.Marshal(MIB(nil)); string(b) != "{}" {
		t.Errorf("nil is %s, %v", b, err)
	}
	kept := MIB{{Name: "Ip"}}
	if err := json.Unmarshal([]byte("null"), &kept); err != nil || len(kept) != 1 {
		t.Errorf("null makes it %v, %v", kept, err)
	}
}

func TestMIBJSONRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                               "cannot decode the MIB: [ where an object should be",
		`7`:                                "cannot decode the MIB: 7 where an object should be",
		`{"Ip":null}`:                      "cannot decode the MIB: <nil> where an object should be",
		`{"Ip":{"A":null}}`:                "cannot decode the MIB: null where a number should be",
		`{"Ip":{"A":"1"}}`:                 "cannot decode the MIB: json: cannot unmarshal string into Go value of type int64",
		`{"Ip":{"A":1.5}}`:                 "cannot decode the MIB: json: cannot unmarshal number 1.5 into Go value of type int64",
		`{"Ip":{"A":9223372036854775808}}`: "cannot decode the MIB: json: cannot unmarshal number 9223372036854775808 into Go value of type int64",
		`{"Ip":{"A":1,"A":2}}`:             `cannot decode the MIB: Ip: counter "A": there twice`,
		`{"Ip":{},"Ip":{}}`:                `cannot decode the MIB: group "Ip": there twice`,
		`{"Ip":{"A\n":1}}`:                 `cannot decode the MIB: Ip: counter "A\n": not a name of letters and digits`,
		`{"":{}}`:                          `cannot decode the MIB: group without a name`,
	} {
		var m MIB
		if err := json.Unmarshal([]byte(in), &m); err == nil || err.Error() != want {
			t.Errorf("%s gives %v, %v, want %s", in, m, err, want)
		}
		if m != nil {
			t.Errorf("%s changed the MIB to %v", in, m)
		}
	}
}

// A name that no parser lets through must not end its JSON string.
func TestMIBJSONWithHostileNames(t *testing.T) {
	for _, name := range []string{`a":1,"b`, "\x00", "\xff"} {
		b, err := json.Marshal(MIB{{"Ip", []Counter{{name, 1}}}})
		var read map[string]map[string]int64
		if err == nil && (json.Unmarshal(b, &read) != nil || len(read["Ip"]) != 1) {
			t.Errorf("%q became %s", name, b)
		}
	}
}

func FuzzMIBJSON(f *testing.F) {
	f.Add([]byte(smallJSON))
	f.Add([]byte(`{"Ip":{"A":1e3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m MIB
		if (&m).UnmarshalJSON(b) == nil { // not by way of json.Unmarshal, which checks first
			checkJSON(t, m)
		}
	})
}

// checkJSON checks that m is the same after JSON.
func checkJSON(t *testing.T, m MIB) {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var again MIB
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if m == nil {
		m = MIB{} // what null leaves
	}
	if diff := cmp.Diff(m, again); diff != "" {
		t.Errorf("after JSON:\n%s", diff)
	}
}
