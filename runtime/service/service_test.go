package service

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	ok := Service{Name: "web", Command: []string{"nginx"}}
	with := func(change func(*Service)) Service { s := ok; change(&s); return s }
	for name, c := range map[string]struct {
		service Service
		want    []string // the paths of the problems
	}{
		"good":              {ok, nil},
		"all its letters":   {with(func(s *Service) { s.Name = "9.A-z_" }), nil},
		"longest name":      {with(func(s *Service) { s.Name = strings.Repeat("a", 63) }), nil},
		"empty":             {Service{}, []string{"name", "command"}},
		"too long":          {with(func(s *Service) { s.Name = strings.Repeat("a", 64) }), []string{"name"}},
		"dot first":         {with(func(s *Service) { s.Name = ".web" }), []string{"name"}},
		"slash":             {with(func(s *Service) { s.Name = "a/b" }), []string{"name"}},
		"umlaut":            {with(func(s *Service) { s.Name = "aä" }), []string{"name"}},
		"init":              {with(func(s *Service) { s.Name = "init" }), []string{"name"}},
		"empty command":     {with(func(s *Service) { s.Command = []string{""} }), []string{"command[0]"}},
		"empty argument":    {with(func(s *Service) { s.Command = []string{"x", ""} }), nil},
		"NUL":               {with(func(s *Service) { s.Command = []string{"x", "a\x00b"} }), []string{"command[1]"}},
		"restart":           {with(func(s *Service) { s.Restart = 3 }), []string{"restart"}},
		"private":           {with(func(s *Service) { s.Private = []string{"/run/samba", "/sysroot"} }), nil},
		"private, all bad":  {with(func(s *Service) { s.Private = []string{"", "a", "/", "/a/", "/a/../b", "/a\x00"} }), []string{"private[0]", "private[1]", "private[2]", "private[3]", "private[4]", "private[5]"}},
		"private, reserved": {with(func(s *Service) { s.Private = []string{"/proc", "/sys/fs"} }), []string{"private[0]", "private[1]"}},
		"ready":             {with(func(s *Service) { s.Ready = Ready{Output: "x"} }), nil},
		"ready, bad":        {with(func(s *Service) { s.Ready = Ready{Output: "a\nb", Notify: true} }), []string{"ready", "ready.output"}},
		"ready, two signs":  {with(func(s *Service) { s.Ready = Ready{Output: "a", TCP: 1} }), nil},
		"sockets": {with(func(s *Service) {
			s.Sockets = []Socket{{Stream: "80", Name: "http"}, {Datagram: "80"}, {Stream: "[::1]:443"}, {Stream: "/run/a.sock"}}
			s.Ready.TCP = 81
		}), nil},
		"sockets, bad": {with(func(s *Service) {
			s.Sockets = []Socket{{}, {Stream: "80", Datagram: "80"}, {Stream: "x"}, {Stream: "1", Name: "a:b"}, {Stream: "2"}, {Stream: "2", Name: "b"}, {Stream: "192.0.2.1:3"}}
			s.Ready.TCP = 3
		}), []string{"sockets[0]", "sockets[1]", "sockets[2]", "sockets[3]", "sockets[5]", "sockets[6]"}},
		"reload, bad":      {with(func(s *Service) { s.Reload = Reload{"HUP", []string{""}} }), []string{"reload.command", "reload"}},
		"start limit":      {with(func(s *Service) { s.StartLimit = StartLimit{1000, Duration(24 * time.Hour)} }), nil},
		"start limit, bad": {with(func(s *Service) { s.StartLimit = StartLimit{-1, -1} }), []string{"startLimit.burst", "startLimit.interval"}},
		"interval alone":   {with(func(s *Service) { s.StartLimit.Interval = 1 }), []string{"startLimit"}},
		"health":           {with(func(s *Service) { s.Health = Health{TCP: 80, Interval: 1} }), nil},
		"health, no sign":  {with(func(s *Service) { s.Health = Health{Failures: 1} }), []string{"health"}},
		"health, bad": {with(func(s *Service) {
			s.Health = Health{TCP: -1, Command: []string{""}, Timeout: -1, Interval: -1, Failures: -1}
		}), []string{"health", "health.tcp", "health.command", "health.interval", "health.timeout", "health.failures"}},
	} {
		var got []string
		for _, p := range c.service.Validate() {
			got = append(got, p.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: problems at %q, want %q: %v", name, got, c.want, c.service.Validate())
		}
	}
}

func TestValidateList(t *testing.T) {
	problems := Validate([]Service{{Name: "a", Command: []string{"x"}}, {Name: "a"}})
	want := []string{
		"services[1].command: is missing",
		`services[1].name: "a" is there twice`,
	}
	for i, p := range problems {
		if i >= len(want) || p.Error() != want[i] {
			t.Errorf("problem %d: %v", i, p)
		}
	}
	if len(problems) != len(want) {
		t.Errorf("%d problems, want %d", len(problems), len(want))
	}
}

func TestServiceJSON(t *testing.T) {
	in := `{"name":"smbd","command":["smbd","-F"],"restart":"on-failure","private":["/run/samba"]}`
	var s Service
	if err := json.Unmarshal([]byte(in), &s); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(s)
	if err != nil || string(out) != in {
		t.Errorf("%s, %v", out, err)
	}
	if out, _ := json.Marshal(Service{}); string(out) != "{}" {
		t.Errorf("zero value: %s", out)
	}
	err = json.Unmarshal([]byte(`{"restart":"sometimes"}`), &s)
	if err == nil || !strings.Contains(err.Error(), `"sometimes" is none of always, on-failure, never`) {
		t.Errorf("sometimes: %v", err)
	}
}

// A signal is a word, to inits too that know nothing else.
func TestReloadJSON(t *testing.T) {
	for text, want := range map[string]Reload{
		`"HUP"`:                   {Signal: "HUP"},
		`{"command":["a","HUP"]}`: {Command: []string{"a", "HUP"}},
	} {
		var r Reload
		if err := json.Unmarshal([]byte(text), &r); err != nil || !r.equal(want) {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		if out, err := json.Marshal(r); err != nil || string(out) != text {
			t.Errorf("%s becomes %s, %v", text, out, err)
		}
	}
	for _, text := range []string{`["HUP"]`, `{"signals":"HUP"}`, `{"signal":"HUP","command":1}`} {
		var r Reload
		if err := json.Unmarshal([]byte(text), &r); err == nil {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{ID: 8, NetnsDir: "/run/netns", LogDir: "/l", PrivateDir: "/p"}
	if p := good.Validate(); p != nil {
		t.Errorf("good: %v", p)
	}
	bad := Config{Hostname: strings.Repeat("h", 65), LogDir: "l", PrivateDir: "/p/",
		DNS: DNS{Servers: []netip.Addr{{}}, Search: []string{"a\nnameserver 192.0.2.1"}}}
	var got []string
	for _, p := range bad.Validate() {
		got = append(got, p.Path)
	}
	want := []string{"id", "hostname", "netnsDir", "logDir", "privateDir", "dns.servers[0]", "dns.search[0]"}
	if !slices.Equal(got, want) {
		t.Errorf("problems at %q, want %q", got, want)
	}
}

func TestResolvConf(t *testing.T) {
	dns := DNS{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::1")},
		Search: []string{"a.test", "b.test"}}
	want := "# made by vsrun\nsearch a.test b.test\nnameserver 192.0.2.53\nnameserver 2001:db8::1\n"
	if got := dns.resolvConf(); got != want {
		t.Errorf("%q", got)
	}
}

// A field that Equal forgets would never be changed in a service that runs.
func TestEqualLooksAtEveryField(t *testing.T) {
	var s Service
	var try func(name string, v reflect.Value)
	try = func(name string, v reflect.Value) {
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				try(name+"."+v.Type().Field(i).Name, v.Field(i))
			}
			return
		}
		switch v.Kind() {
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Map:
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Uint8:
			v.SetUint(1)
		default:
			v.SetInt(1)
		}
		if s.Equal(Service{}) {
			t.Errorf("%s makes no difference", name)
		}
		v.SetZero()
	}
	try("Service", reflect.ValueOf(&s).Elem())
	if !s.Equal(Service{}) {
		t.Error("two of the same differ")
	}
}
