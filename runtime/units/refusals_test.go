package units_test

import (
	"strings"
	"testing"

	"github.com/vsrun/vsrun/runtime/service"
	"github.com/vsrun/vsrun/runtime/units"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*service.Service)
		want   string // paths
	}{
		{func(s *service.Service) {}, ""},
		{func(s *service.Service) { s.Health.TCP = 80 }, "health"},
		{func(s *service.Service) { s.Ready.TCP = 80 }, "ready.tcp"},
		{func(s *service.Service) { s.Ready.Command = []string{"true"} }, "ready.command"},
		{func(s *service.Service) { s.Ready.Output = "up" }, "ready.output"},
		{func(s *service.Service) { s.Ready.Notify = true }, ""},
		{func(s *service.Service) { s.Sockets = []service.Socket{{Stream: "80"}} }, "sockets"},
		{func(s *service.Service) { s.Reload.Command = []string{"true"} }, "reload.command"},
		{func(s *service.Service) { s.Reload.Signal = "HUP" }, ""},
		{func(s *service.Service) { s.Resources.IO = []service.IORate{{Path: "/", ReadOps: 1}} }, "resources.io"},
		{func(s *service.Service) { s.Capabilities = []string{"nginx", "MKNOD"} }, "capabilities[1]"},
		{func(s *service.Service) { s.Command = []string{"nginx", "-g", "daemon off;"} }, "command[2]"},
		{func(s *service.Service) { s.Command = []string{"ganesha.nfsd"} }, "unsafeExports"},
		{func(s *service.Service) { s.Directory = "/a b" }, "directory"},
		{func(s *service.Service) { s.Private = []string{"/srv/a", "/srv/ab", "/srv/a/b"} }, "private[2]"},
		{func(s *service.Service) { s.Private = []string{"/srv/a:b"} }, "private[0]"},
		{func(s *service.Service) { s.Writable = []string{"/etc/a"} }, ""},
		{func(s *service.Service) { s.Writable = []string{"/srv/a"} }, "writable[0]"},
		{func(s *service.Service) { s.ReadOnly, s.Writable = true, []string{"/srv/a", "/srv/a/b"} }, "writable[1]"},
		{func(s *service.Service) { s.ReadOnly, s.Writable = true, []string{"/proc/sys"} }, "writable[0]"},
	} {
		s := service.Service{Name: "web", Command: []string{"nginx"}}
		c.change(&s)
		var got []string
		for _, p := range units.Validate([]service.Service{s}) {
			got = append(got, strings.TrimPrefix(p.Path, "services[0]."))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v is refused for %q, not %q", s, got, c.want)
		}
	}
}
