// Vsrun runs virtual servers on one Linux kernel: each a network namespace with
// its own interfaces, addresses, routes and services.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends it whatever it waits for
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
