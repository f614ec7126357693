package stats

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Whatever fields a Sample has, both ways to write it say the same.
func TestAppendJSON(t *testing.T) {
	var full Sample
	fill(reflect.ValueOf(&full).Elem(), new(int64))
	full.MIB = MIB{{"Tcp", []Counter{{"InSegs", 5}, {"MaxConn", -1}}}, {"Udp", nil}}
	for _, s := range []Sample{full, {}, {ID: 8, Name: "a\"<b>\xff\n", Interfaces: []Interface{{Name: "eth0\\"}, {Name: "é"}}, MIB: MIB{}}} {
		if s.Interfaces == nil {
			s.Interfaces = []Interface{} // as in a sample that was read
		}
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got := s.AppendJSON([]byte("x"))[1:]
		if d := cmp.Diff(decoded(t, want), decoded(t, got)); d != "" {
			t.Errorf("(-json.Marshal +AppendJSON):\n%s", d)
		}
	}
}

func TestAppendInterfacesJSON(t *testing.T) {
	s := Sample{ID: 8, Name: "web", MIB: MIB{{"Tcp", []Counter{{"InSegs", 5}}}}}
	for k, name := range []string{"eth0", "eth1", "eth2"} {
		s.Interfaces = append(s.Interfaces, Interface{name, Counters{RxBytes: uint64(k + 1), TxDropped: 10}})
	}
	for _, test := range []struct {
		names []string
		want  []Interface
		total Counters
	}{
		{[]string{"eth2", "eth0", "eth9"}, []Interface{s.Interfaces[0], s.Interfaces[2]}, Counters{RxBytes: 4, TxDropped: 20}},
		{[]string{"eth9"}, []Interface{}, Counters{}},
	} {
		b, ok := s.AppendInterfacesJSON(nil, test.names)
		var got Sample
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(Sample{ID: 8, Name: "web", Interfaces: test.want, Total: test.total}, got); d != "" || ok != (len(test.want) > 0) {
			t.Errorf("%v: %v\n%s", test.names, ok, d)
		}
	}
}

// A change of any figure is one, and another time is none.
func TestSame(t *testing.T) {
	filled := func() *Sample {
		var s Sample
		fill(reflect.ValueOf(&s).Elem(), new(int64))
		return &s
	}
	later := filled()
	later.Time = later.Time.Add(time.Hour)
	if !filled().Same(later) {
		t.Error("a sample differs from one of another time")
	}
	for n := 0; ; n++ {
		s, at := filled(), n
		path := change(reflect.ValueOf(s).Elem(), &at, "Sample")
		if path == "" {
			if n < 20 {
				t.Errorf("only %d figures", n)
			}
			return
		}
		if s.Same(filled()) {
			t.Errorf("%s differs, and goes unnoticed", path)
		}
	}
}

// fill gives every field a value of its own.
func fill(v reflect.Value, n *int64) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(*n, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.String:
		v.SetString("s" + time.Duration(*n).String())
	case reflect.Float64:
		v.SetFloat(float64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64, reflect.Uint32, reflect.Uint:
		v.SetUint(uint64(*n))
	default:
		v.SetInt(*n)
	}
}

// change changes the figure that n counts down to, and returns where that is; ""
// when there are fewer.
func change(v reflect.Value, n *int, path string) string {
	var parts []reflect.Value
	var names []string
	switch {
	case v.Type() == reflect.TypeFor[time.Time]() && path == "Sample.Time":
		return ""
	case v.Type() == reflect.TypeFor[time.Time]():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			parts, names = append(parts, v.Field(i)), append(names, v.Type().Field(i).Name)
		}
	case v.Kind() == reflect.Pointer:
		return change(v.Elem(), n, path)
	case v.Kind() == reflect.Slice:
		parts, names = []reflect.Value{v.Index(1)}, []string{"1"}
	}
	for i, p := range parts {
		if at := change(p, n, path+"."+names[i]); at != "" {
			return at
		}
	}
	if len(parts) > 0 {
		return ""
	}
	if *n--; *n >= 0 {
		return ""
	}
	next := int64(1 << 20)
	fill(v, &next)
	if v.Kind() == reflect.Bool {
		v.SetBool(false)
	}
	return path
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func BenchmarkAppendJSON(b *testing.B) {
	var s Sample
	s.Interfaces = make([]Interface, 2)
	for g := range 10 {
		group := Group{Name: "Group"}
		for c := range 35 {
			group.Counters = append(group.Counters, Counter{"CounterOfThis", int64(c * g * 1000)})
		}
		s.MIB = append(s.MIB, group)
	}
	b.Run("append", func(b *testing.B) {
		var text []byte
		for b.Loop() {
			text = s.AppendJSON(text[:0])
		}
	})
	b.Run("marshal", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(s); err != nil {
				b.Fatal(err)
			}
		}
	})
}
