// Command vsd is the node agent: it keeps virtual servers as they should be.
// Package runtime/agent says how.
//
// Virtual servers and their networks do not depend on it: it may be killed, started,
// replaced and absent at any time.
package main

import "github.com/vsrun/vsrun/cmd/daemon"

func main() { daemon.Main(newCommand()) }
