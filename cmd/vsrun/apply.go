package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/plumbing"
	"github.com/vsrun/vsrun/runtime"
)

func (a *app) applyCommand() *cobra.Command {
	var file string
	var prune, dryRun, noProbe bool
	c := &cobra.Command{
		Use:        "apply -f FILE|DIR",
		Short:      "Make ports and virtual servers what documents say",
		SuggestFor: []string{"edit", "update"},
		Long: `Make ports and virtual servers what documents say: those that are not there are
created, those that differ changed, the others left alone. A document is one
virtual server (vsrun create --help) or a list of ports (vsrun port --help).

Virtual servers that are applied together may take from each other, or swap, what only one
can have: addresses, MACs, names. Its holders give it up before anybody takes it.`,
		Args: arguments(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("which document? vsrun apply -f FILE|DIR")
			}
			docs, err := readAll(file)
			if err != nil {
				return err
			}
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot apply %s: %w", file, err)
			}
			r.NoProbe = noProbe
			defer r.Keep()()
			return a.apply(c, r, docs, prune, dryRun)
		},
	}
	flags := c.Flags()
	flags.StringVarP(&file, "file", "f", "", "a document, a directory of them, or - for standard input")
	flags.BoolVar(&prune, "prune", false, "destroy the virtual servers and ports that no document describes")
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be done, as lines for a root shell")
	flags.BoolVar(&noProbe, "no-probe", false, "do not ask the segment whether the addresses are free")
	return c
}

func (a *app) apply(c *cobra.Command, r *runtime.Runtime, docs runtime.Documents, prune, dryRun bool) error {
	var errs []error
	for _, bond := range docs.Ports {
		errs = append(errs, a.applyPort(c, r, bond, dryRun))
	}
	errs = append(errs, a.applyServers(c, r, docs.Servers, dryRun)...)
	if err := errors.Join(errs...); err != nil || !prune {
		return err // what could not be applied may be why something else is kept
	}
	return errors.Join(a.prune(c, r, docs.Servers, dryRun), a.prunePorts(c, r, docs.Ports, dryRun))
}

func (a *app) applyPort(c *cobra.Command, r *runtime.Runtime, bond plumbing.Bond, dryRun bool) error {
	if dryRun {
		return a.dryRunPort(r.PlanPort, bond)
	}
	did, err := r.ApplyPort(c.Context(), bond)
	if err != nil {
		return fmt.Errorf("cannot apply port %s: %w", bond.Name, err)
	}
	a.did("port %s %s", bond.Name, did)
	return nil
}

func (a *app) applyServers(c *cobra.Command, r *runtime.Runtime, list []runtime.VirtualServer, dryRun bool) []error {
	room := r.Room(list)
	errs := make([]error, len(list))
	if dryRun {
		room.Planned(func(vs runtime.VirtualServer, planned func(runtime.VirtualServer) (plumbing.Plan, error)) {
			errs = append(errs, a.dryRun(r, vs, planned))
		})
		return errs
	}
	q := queueOf(len(list))
	room.Apply(c.Context(), func(k int, did string, err error) {
		q.put(k, func() {
			if err != nil {
				errs[k] = fmt.Errorf("cannot apply %s: %w", list[k], err)
				return
			}
			a.did("%s %s", list[k], did)
		})
	})
	return errs
}

func (a *app) prunePorts(c *cobra.Command, r *runtime.Runtime, keep []plumbing.Bond, dryRun bool) error {
	names, err := r.Store.Ports()
	if err != nil {
		return fmt.Errorf("cannot prune: %w", err)
	}
	var errs []error
	for _, name := range names {
		if slices.ContainsFunc(keep, func(b plumbing.Bond) bool { return b.Name == name }) {
			continue
		}
		errs = append(errs, a.destroyPort(c, r, name, dryRun))
	}
	return errors.Join(errs...)
}

func (a *app) prune(c *cobra.Command, r *runtime.Runtime, keep []runtime.VirtualServer, dryRun bool) error {
	stored, err := r.Store.List()
	if err != nil {
		return fmt.Errorf("cannot prune: %w", err)
	}
	var errs []error
	var ids []int
	for _, vs := range stored {
		if slices.ContainsFunc(keep, func(k runtime.VirtualServer) bool { return k.ID == vs.ID }) {
			continue
		}
		if dryRun {
			vs.Disabled = true
			errs = append(errs, a.dryRun(r, vs, r.Plan))
			continue
		}
		ids = append(ids, vs.ID)
	}
	r.DestroyAll(c.Context(), ids, runtime.OwnTimeout, func(vs runtime.VirtualServer, _ bool, _ []string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot destroy %s: %w", vs, err))
			return
		}
		a.did("%s destroyed", vs)
	})
	return errors.Join(errs...)
}

// readAll reads a file, or every document of a directory.
func readAll(name string) (runtime.Documents, error) {
	if fi, err := os.Stat(name); name == "-" || err != nil || !fi.IsDir() {
		docs, err := readFile(name)
		if err != nil {
			return docs, err
		}
		return docs, twice(docs)
	}
	var docs runtime.Documents
	entries, err := os.ReadDir(name)
	if err != nil {
		return docs, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		more, err := readFile(filepath.Join(name, e.Name()))
		if err != nil {
			return docs, err
		}
		docs.Ports, docs.Servers = append(docs.Ports, more.Ports...), append(docs.Servers, more.Servers...)
	}
	if len(docs.Ports)+len(docs.Servers) == 0 {
		return docs, usagef("%s holds no .yaml, .yml or .json document", name)
	}
	return docs, twice(docs)
}

func twice(docs runtime.Documents) error {
	seen := map[string]bool{}
	check := func(what string) error {
		if seen[what] {
			return usagef("%s is described twice", what)
		}
		seen[what] = true
		return nil
	}
	var errs []error
	for _, vs := range docs.Servers {
		errs = append(errs, check(vs.Namespace()))
	}
	for _, b := range docs.Ports {
		errs = append(errs, check("port "+b.Name))
	}
	return errors.Join(errs...)
}

func (a *app) diffCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "diff [ID…] [-f FILE|DIR]",
		Short: "Show what differs between what should be and what is (exit status 1 when something does)",
		Long: `Show what differs between what should be and what is, a line each: what vsrun enable would
mend, or what keeps it from that (exit status 1 when something does). Links, addresses,
routes and rules that somebody has added inside are shown as foreign: they are left alone,
and differ from nothing. vsrun enable --prune deletes them.`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.runtime()
			if err != nil {
				return fmt.Errorf("cannot compare: %w", err)
			}
			defer r.Keep()()
			docs, err := a.toCompare(r, file, args)
			if err != nil {
				return fmt.Errorf("cannot compare: %w", err)
			}
			differs, err := a.compare(c, r, docs)
			if err == nil && differs {
				err = exitError(exitFailed)
			}
			return err
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "compare with documents instead of what is stored")
	return c
}

// compare tells what differs, and whether anything does.
func (a *app) compare(c *cobra.Command, r *runtime.Runtime, docs runtime.Documents) (differs bool, err error) {
	var errs []error
	tell := func(what string, drift []runtime.Drift, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot compare %s: %w", what, err))
		}
		for _, d := range drift {
			a.did("%s: %s", what, d)
		}
		differs = differs || len(drift) > 0
	}
	for _, b := range docs.Ports {
		drift, err := r.DiffPort(b)
		tell("port "+b.Name, drift, err)
	}
	q := queueOf(len(docs.Servers))
	runtime.AtOnce(len(docs.Servers), func(k int) {
		vs := docs.Servers[k]
		drift, foreign, err := r.Diff(c.Context(), vs)
		q.put(k, func() {
			tell(vs.Namespace(), drift, err)
			for _, f := range foreign {
				a.did("%s: foreign %s", vs.Namespace(), f)
			}
		})
	})
	return differs, errors.Join(errs...)
}

// toCompare is what was asked about: the virtual servers named, or all there is, of
// the documents or stored.
func (a *app) toCompare(r *runtime.Runtime, file string, words []string) (docs runtime.Documents, err error) {
	load := r.Store.Load
	switch {
	case file != "":
		docs, err = readAll(file)
		load = func(id int) (runtime.VirtualServer, error) {
			k := slices.IndexFunc(docs.Servers, func(vs runtime.VirtualServer) bool { return vs.ID == id })
			if k < 0 {
				return runtime.VirtualServer{}, runtime.ErrNotFound
			}
			return docs.Servers[k], nil
		}
	case len(words) == 0:
		docs, err = r.Store.All()
	}
	if err != nil || len(words) == 0 {
		return docs, err
	}
	var chosen runtime.Documents
	for _, word := range words {
		id, err := find(r, word)
		if err != nil {
			return chosen, err
		}
		vs, err := load(id)
		if errors.Is(err, runtime.ErrNotFound) {
			err = fmt.Errorf("%w: %s", runtime.ErrNotFound, word)
		}
		if err != nil {
			return chosen, err
		}
		chosen.Servers = append(chosen.Servers, vs)
	}
	return chosen, nil
}
