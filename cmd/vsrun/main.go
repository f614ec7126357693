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

// The work is done by another goroutine, since the main one has a thread of its own
// (see nsutil): each of its waits would be two threads waking each other.
func main() {
	code := make(chan int)
	go func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second one ends it whatever it waits for
		status := run(ctx, os.Args[1:])
		stop()
		code <- status
	}()
	os.Exit(<-code)
}
