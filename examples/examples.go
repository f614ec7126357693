// Package examples holds documents of virtual servers to start from, README.md
// tells about each, a configuration of ipmd, and what watches nodes with Prometheus and
// Grafana.
package examples

import "embed"

// Documents are the files, such as samba.yaml.
//
//go:embed *.yaml grafana-dashboard.json
var Documents embed.FS
