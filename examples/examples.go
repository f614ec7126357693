// Package examples holds documents of virtual servers to start from, README.md
// tells about each, and a configuration of ipmd.
package examples

import "embed"

// Documents are the files, such as samba.yaml.
//
//go:embed *.yaml
var Documents embed.FS
