package stats

import (
	"strings"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// account reads what the virtual server and its services use, if it has a cgroup:
// one in which nothing was started has none.
func (ns *namespace) account(s *Sample, groups *cgroup.Tree, p *parser) {
	if groups == nil {
		s.Use, s.Services = nil, s.Services[:0]
		return
	}
	if ns.meter == nil || !ns.meter.Of(groups) {
		ns.meter.Close()
		ns.meter = groups.Meter(cgroup.Name(s.ID))
	}
	ns.meter.Read(p.buffer, &s.Use, &s.Services)
}

// A useFamily is one figure of Use in all virtual servers, or in all services, named
// as cAdvisor names a container's.
type useFamily struct {
	name, help, kind string
	value            func(*cgroup.Use) *int64
}

var useFamilies = []useFamily{
	{"memory_usage_bytes", "Memory in use, files that are kept in memory included.", gauge, func(u *cgroup.Use) *int64 { return u.Memory }},
	{"memory_max_usage_bytes", "The most memory that was in use.", gauge, func(u *cgroup.Use) *int64 { return u.MemoryPeak }},
	{"tasks", "Processes and threads.", gauge, func(u *cgroup.Use) *int64 { return u.Tasks }},
	{"cpu_usage_seconds", "Processor time.", counter, func(u *cgroup.Use) *int64 { return u.CPU }},
	{"cpu_user_seconds", "Processor time outside of the kernel.", counter, func(u *cgroup.Use) *int64 { return u.CPUUser }},
	{"cpu_system_seconds", "Processor time in the kernel.", counter, func(u *cgroup.Use) *int64 { return u.CPUSystem }},
	{"cpu_cfs_throttled_seconds", "Time kept from running by the limit.", counter, func(u *cgroup.Use) *int64 { return u.Throttled }},
	{"fs_reads_bytes", "Bytes read from block devices.", counter, func(u *cgroup.Use) *int64 { return u.ReadBytes }},
	{"fs_writes_bytes", "Bytes written to block devices.", counter, func(u *cgroup.Use) *int64 { return u.WriteBytes }},
	{"fs_reads", "Reads from block devices.", counter, func(u *cgroup.Use) *int64 { return u.ReadOps }},
	{"fs_writes", "Writes to block devices.", counter, func(u *cgroup.Use) *int64 { return u.WriteOps }},
	{"oom_events", "Processes killed for want of memory.", counter, func(u *cgroup.Use) *int64 { return u.OOMKills }},
}

func (m *metricsWriter) use() {
	services := partLabels(m.samples, `,service="`,
		func(s *Sample) int { return len(s.Services) }, func(s *Sample, i int) string { return s.Services[i].Name })
	for _, f := range useFamilies {
		m.family(f.kind, phrase{"vsrun_", f.name}, phrase{f.help})
		for i := range m.samples {
			if use := m.samples[i].Use; use != nil {
				m.used(f, m.servers.at(i), use)
			}
		}
		m.family(f.kind, phrase{"vsrun_service_", f.name}, phrase{f.help})
		next := 0
		for i := range m.samples {
			for n := range m.samples[i].Services {
				m.used(f, services.at(next), &m.samples[i].Services[n].Use)
				next++
			}
		}
	}
}

func (m *metricsWriter) used(f useFamily, labels []byte, u *cgroup.Use) {
	switch n := f.value(u); {
	case n == nil:
	case strings.HasSuffix(f.name, "_seconds"):
		m.seconds(labels, *n)
	default:
		m.integer(labels, *n)
	}
}
