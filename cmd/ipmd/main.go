// Command ipmd answers stats requests: the counters of every virtual server, on
// a unix socket, as JSON and as metrics. Package stats/ipmd says how.
//
// It only reads. Virtual servers and their networks do not depend on it, and it
// may be killed and started at any time.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // the second signal is the kernel's to act on
	err := newCommand().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "ipmd:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(os.Stderr, "hint: ipmd --help lists the flags")
		os.Exit(2)
	}
	if e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		fmt.Fprintln(os.Stderr, "hint:", e.Hint())
	}
	os.Exit(1)
}
