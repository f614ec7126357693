// Command ipmd answers stats requests: the counters of every virtual server, on
// a unix socket, as JSON and as metrics. Package stats/ipmd says how.
//
// It only reads. Virtual servers and their networks do not depend on it, and it
// may be killed and started at any time.
package main

import "github.com/vsrun/vsrun/cmd/daemon"

func main() { daemon.Main(newCommand()) }
