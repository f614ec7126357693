package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/runtime"
)

func (a *app) applyCommand() *cobra.Command {
	var file string
	var prune, dryRun, noProbe bool
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Make virtual servers what documents say",
		Long: `Make virtual servers what documents say: those that are not there are created,
those that differ changed, the others left alone.`,
		Args: arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("which document? vsrun apply -f FILE|DIR")
			}
			list, err := readAll(file)
			if err != nil {
				return err
			}
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot apply %s: %w", file, err)
			}
			r.NoProbe = noProbe
			return a.apply(c, r, list, prune, dryRun)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&file, "file", "f", "", "a document, a directory of them, or - for standard input")
	flags.BoolVar(&prune, "prune", false, "destroy the virtual servers that no document describes")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	flags.BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	return c
}

func (a *app) apply(c *cobra.Command, r *runtime.Runtime, list []runtime.VirtualServer, prune, dryRun bool) error {
	var errs []error
	for _, vs := range list {
		if dryRun {
			errs = append(errs, a.dryRun(r, vs, r.Plan))
			continue
		}
		did, err := r.Apply(c.Context(), vs)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot apply %s: %w", vs, err))
			continue
		}
		a.did("%s %s", vs, did)
	}
	if err := errors.Join(errs...); err != nil || !prune {
		return err // what could not be applied may be why something else is kept
	}
	return a.prune(c, r, list, dryRun)
}

func (a *app) prune(c *cobra.Command, r *runtime.Runtime, keep []runtime.VirtualServer, dryRun bool) error {
	stored, err := r.Store.List()
	if err != nil {
		return fmt.Errorf("cannot prune: %w", err)
	}
	var errs []error
	for _, vs := range stored {
		if slices.ContainsFunc(keep, func(k runtime.VirtualServer) bool { return k.ID == vs.ID }) {
			continue
		}
		if dryRun {
			vs.Disabled = true
			errs = append(errs, a.dryRun(r, vs, r.Plan))
			continue
		}
		if _, err := r.Destroy(c.Context(), vs.ID, runtime.StopTimeout); err != nil {
			errs = append(errs, fmt.Errorf("cannot destroy %s: %w", vs, err))
			continue
		}
		a.did("%s destroyed", vs)
	}
	return errors.Join(errs...)
}

// readAll reads a file, or every document of a directory.
func readAll(name string) ([]runtime.VirtualServer, error) {
	if fi, err := os.Stat(name); name == "-" || err != nil || !fi.IsDir() {
		list, err := readFile(name)
		if err != nil {
			return nil, err
		}
		return list, twice(list)
	}
	var list []runtime.VirtualServer
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		more, err := readFile(filepath.Join(name, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	if len(list) == 0 {
		return nil, usagef("%s holds no .yaml, .yml or .json document", name)
	}
	return list, twice(list)
}

func twice(list []runtime.VirtualServer) error {
	seen := map[int]bool{}
	for _, vs := range list {
		if seen[vs.ID] {
			return usagef("%s is described twice", vs)
		}
		seen[vs.ID] = true
	}
	return nil
}

func (a *app) diffCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "diff [ID…] [-f FILE|DIR]",
		Short: "Show what differs between what should be and what is (exit status 1 when something does)",
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot compare: %w", err)
			}
			list, err := a.toCompare(r, file, args)
			if err != nil {
				return fmt.Errorf("cannot compare: %w", err)
			}
			differs := false
			for _, vs := range list {
				drift, err := r.Diff(c.Context(), vs)
				if err != nil {
					return fmt.Errorf("cannot compare %s: %w", vs, err)
				}
				for _, d := range drift {
					a.did("%s: %s", vs.Namespace(), d)
				}
				differs = differs || len(drift) > 0
			}
			if differs {
				return exitError(exitFailed)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "compare with documents instead of what is stored")
	return c
}

// toCompare is the virtual servers asked about: of the documents, or stored.
func (a *app) toCompare(r *runtime.Runtime, file string, words []string) ([]runtime.VirtualServer, error) {
	list, err := r.Store.List()
	if file != "" {
		list, err = readAll(file)
	}
	if err != nil || len(words) == 0 {
		return list, err
	}
	var chosen []runtime.VirtualServer
	for _, word := range words {
		id, err := find(r, word)
		if err != nil {
			return nil, err
		}
		k := slices.IndexFunc(list, func(vs runtime.VirtualServer) bool { return vs.ID == id })
		if k < 0 {
			return nil, fmt.Errorf("%w: %s", runtime.ErrNotFound, word)
		}
		chosen = append(chosen, list[k])
	}
	return chosen, nil
}
