package stats

import (
	"strconv"

	"github.com/vsrun/vsrun/nsutil/cgroup"
)

// account reads what the virtual server and its services use, if it has a cgroup:
// one in which nothing was started has none.
func (s *Sample) account(groups *cgroup.Tree) {
	if groups == nil {
		return
	}
	g := groups.Open(cgroup.Name(s.ID))
	if g == nil {
		return
	}
	defer g.Close()
	use := g.Use()
	s.Use, s.Services = &use, g.Services()
}

// A useFamily is one figure of Use in all virtual servers, or in all services, named
// as cAdvisor names a container's.
type useFamily struct {
	name, help, kind, unit string
	value                  func(cgroup.Use) *int64
}

var useFamilies = []useFamily{
	{"memory_usage_bytes", "Memory in use, files that are kept in memory included.", "gauge", "bytes", func(u cgroup.Use) *int64 { return u.Memory }},
	{"memory_max_usage_bytes", "The most memory that was in use.", "gauge", "bytes", func(u cgroup.Use) *int64 { return u.MemoryPeak }},
	{"tasks", "Processes and threads.", "gauge", "", func(u cgroup.Use) *int64 { return u.Tasks }},
	{"cpu_usage_seconds", "Processor time.", "counter", "seconds", func(u cgroup.Use) *int64 { return u.CPU }},
	{"cpu_user_seconds", "Processor time outside of the kernel.", "counter", "seconds", func(u cgroup.Use) *int64 { return u.CPUUser }},
	{"cpu_system_seconds", "Processor time in the kernel.", "counter", "seconds", func(u cgroup.Use) *int64 { return u.CPUSystem }},
	{"cpu_cfs_throttled_seconds", "Time kept from running by the limit.", "counter", "seconds", func(u cgroup.Use) *int64 { return u.Throttled }},
	{"fs_reads_bytes", "Bytes read from block devices.", "counter", "bytes", func(u cgroup.Use) *int64 { return u.ReadBytes }},
	{"fs_writes_bytes", "Bytes written to block devices.", "counter", "bytes", func(u cgroup.Use) *int64 { return u.WriteBytes }},
	{"fs_reads", "Reads from block devices.", "counter", "", func(u cgroup.Use) *int64 { return u.ReadOps }},
	{"fs_writes", "Writes to block devices.", "counter", "", func(u cgroup.Use) *int64 { return u.WriteOps }},
	{"oom_events", "Processes killed for want of memory.", "counter", "", func(u cgroup.Use) *int64 { return u.OOMKills }},
}

func (m metricsWriter) use(samples []Sample, labels []string) {
	for _, f := range useFamilies {
		w := useWriter{metricsWriter: m, useFamily: f, metric: "vsrun_" + f.name}
		for i, s := range samples {
			if s.Use != nil {
				w.figure(labels[i], *s.Use)
			}
		}
		w = useWriter{metricsWriter: m, useFamily: f, metric: "vsrun_service_" + f.name}
		for i, s := range samples {
			for _, one := range s.Services {
				w.figure(labels[i]+`,service="`+escapeLabel(one.Name)+`"`, one.Use)
			}
		}
	}
}

// A useWriter writes a family; its head comes with the first figure, if there is one.
type useWriter struct {
	metricsWriter
	useFamily
	metric string
	begun  bool
}

func (w *useWriter) figure(labels string, u cgroup.Use) {
	n := w.value(u)
	if n == nil {
		return
	}
	if !w.begun {
		w.begun = true
		w.head(w.metric, w.help, w.kind)
	}
	name := w.metric
	if w.kind == "counter" {
		name += "_total"
	}
	w.sample(name, labels)
	if w.unit == "seconds" {
		w.Write(strconv.AppendFloat(w.AvailableBuffer(), float64(*n)/1e6, 'f', -1, 64))
	} else {
		w.Write(strconv.AppendInt(w.AvailableBuffer(), *n, 10))
	}
	w.WriteByte('\n')
}
