// Command vsd is the node agent: it keeps virtual servers as they should be.
// Package agent says how.
//
// Virtual servers and their networks do not depend on it: it may be killed, started,
// replaced and absent at any time.
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
	fmt.Fprintln(os.Stderr, "vsd:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(os.Stderr, "hint: vsd --help lists the flags")
		os.Exit(2)
	}
	if cure, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && cure.Hint() != "" {
		fmt.Fprintln(os.Stderr, "hint:", cure.Hint())
	}
	os.Exit(1)
}
