// It has one processor, by its environment: the runtime need not watch the host's
// cgroups for another number.
//go:debug containermaxprocs=0

// Command vs-init is the first process of a virtual server. It is started by
// vsrun and vsd, never by hand.
package main

import "github.com/vsrun/vsrun/runtime/service"

func main() { service.InitMain() }
