// The program bare does once what package floor does, to be compared with commands:
//
//	bare create|destroy|look DIR PORT NUMBER
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/vsrun/vsrun/test/bench/floor"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("create|destroy|look DIR PORT NUMBER")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	h, err := floor.Open(args[1], args[2])
	if err != nil {
		return err
	}
	defer h.Close()
	switch args[0] {
	case "create":
		return h.Create(floor.Number(n))
	case "destroy":
		return h.Destroy(floor.Number(n))
	case "look":
		_, err := h.Look(floor.Number(n))
		return err
	}
	return fmt.Errorf("no such work: %s", args[0])
}
