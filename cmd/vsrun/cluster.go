package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsrun/vsrun/stats"
	"github.com/vsrun/vsrun/stats/ipmd"
)

// A clusterQuestion is which nodes are asked.
type clusterQuestion struct {
	all   bool
	nodes []string
}

func (k *clusterQuestion) flags(c *cobra.Command) {
	c.Flags().BoolVar(&k.all, "cluster", false, "on all nodes of the cluster")
	c.Flags().StringArrayVar(&k.nodes, "node", nil, "on this `NODE` of the cluster; may be given again")
}

func (k *clusterQuestion) asked() bool { return k.all || len(k.nodes) > 0 }

func (k *clusterQuestion) check(watched, direct bool) error {
	switch {
	case !k.asked():
	case k.all && len(k.nodes) > 0:
		return usagef("--cluster is all nodes, --node is some")
	case watched:
		return usagef("--watch is of this node alone")
	case direct:
		return usagef("--direct is of this node alone: ipmd asks the others")
	}
	return nil
}

// clusterStats prints what the nodes have that answer, and says which do not.
func (a *app) clusterStats(ctx context.Context, args []string, k clusterQuestion, o statsOutput) error {
	client, err := a.ipmd()
	if err != nil {
		return err
	}
	answer, err := client.ClusterStats(ctx, k.nodes, args...)
	if err == nil || len(answer.Samples) > 0 {
		if printed := a.printCluster(answer, o); printed != nil {
			return printed
		}
	}
	complete := true
	for _, n := range answer.Nodes {
		if !n.Answered {
			complete = false
			a.warn("node %s does not answer: %s", n.Name, oneLine(errors.New(n.Error)))
		}
	}
	for _, c := range answer.Conflicts {
		a.warn("vs%d runs on several nodes at once: %s", c.ID, strings.Join(c.Nodes, ", "))
	}
	if err == nil && !complete {
		return exitError(exitFailed)
	}
	return err
}

func (a *app) printCluster(answer ipmd.ClusterAnswer, o statsOutput) error {
	return a.print(o.format, answer.Samples, func(w io.Writer, _ bool) {
		o.nodes = []string{}
		var samples []stats.Sample
		for _, s := range answer.Samples {
			o.nodes, samples = append(o.nodes, s.Node), append(samples, s.Sample)
		}
		o.table(w, samples)
	})
}
