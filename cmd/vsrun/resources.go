package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime/service"
)

// resourceFlags are what processes may use, on the command line.
type resourceFlags struct {
	service.Resources
	io []string
}

// register adds the flags; whose is whose processes they limit.
func (f *resourceFlags) register(c *cobra.Command, whose string) {
	flags := c.Flags()
	flags.StringVar(&f.Memory, "memory", "", "how much memory "+whose+" processes may have, such as 512M")
	flags.StringVar(&f.CPU, "cpu", "", "how much of the processors they may have: 50%, 200%")
	flags.IntVar(&f.Tasks, "tasks", 0, "how many processes and threads they may be")
	flags.StringArrayVar(&f.io, "io", nil, `"PATH [read BYTES] [write BYTES] [readops N] [writeops N]", a second, of the disk that the path is on; repeatable`)
}

// over are the limits of a document where the flags do not say otherwise.
func (f *resourceFlags) over(r service.Resources) (service.Resources, error) {
	r.Memory, r.CPU, r.Tasks = cmp.Or(f.Memory, r.Memory), cmp.Or(f.CPU, r.CPU), cmp.Or(f.Tasks, r.Tasks)
	for _, s := range f.io {
		rate, err := parseIO(s)
		if err != nil {
			return r, err
		}
		r.IO = append(r.IO, rate)
	}
	return r, nil
}

func parseIO(s string) (service.IORate, error) {
	words := strings.Fields(s)
	if len(words)%2 == 0 {
		return service.IORate{}, usagef("io %q is not \"PATH [read BYTES] [write BYTES] [readops N] [writeops N]\"", s)
	}
	rate := service.IORate{Path: words[0]}
	bytes := map[string]*string{"read": &rate.Read, "write": &rate.Write}
	numbers := map[string]*int{"readops": &rate.ReadOps, "writeops": &rate.WriteOps}
	for k := 1; k < len(words); k += 2 {
		word, value := words[k], words[k+1]
		var err error
		switch {
		case bytes[word] != nil:
			*bytes[word] = value
		case numbers[word] != nil:
			*numbers[word], err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return rate, usagef("io %q: %w", s, err)
		}
	}
	return rate, nil
}

// limitsOf writes limits as the flags are written.
func limitsOf(r service.Resources) string {
	var words []string
	add := func(word, value string) {
		if value != "" && value != "0" {
			words = append(words, word+" "+value)
		}
	}
	add("memory", r.Memory)
	add("cpu", r.CPU)
	add("tasks", strconv.Itoa(r.Tasks))
	for _, io := range r.IO {
		add("io", io.Path)
		add("read", io.Read)
		add("write", io.Write)
		add("readops", strconv.Itoa(io.ReadOps))
		add("writeops", strconv.Itoa(io.WriteOps))
	}
	return strings.Join(words, "  ")
}
