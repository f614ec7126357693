// Command vs-init is the first process of a virtual server. It is started by
// vsrun and vsd, never by hand.
package main

import "github.com/vsrun/vsrun/runtime/service"

func main() { service.InitMain() }
