package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	yaml "go.yaml.in/yaml/v4"
)

// outputFlag is -o, for commands that list or show.
func outputFlag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", "table", "table, wide, json or yaml")
	c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// print writes v as asked for; table writes it for people.
func (a *app) print(format string, v any, table func(w io.Writer, wide bool)) error {
	switch format {
	case "table", "wide":
		w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
		table(w, format == "wide")
		return w.Flush()
	case "json", "yaml":
		text, err := json.MarshalIndent(v, "", "  ")
		if err == nil && format == "yaml" {
			text, err = asYAML(text)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, strings.TrimSpace(string(text)))
		return err
	}
	return usagef("output %q is unknown: table, wide, json or yaml", format)
}

// asYAML writes JSON as YAML, so that both have the same names in the same
// order.
func asYAML(text []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, err
	}
	blockStyle(&node)
	return yaml.Marshal(&node)
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// row writes the cells of a table's line; an empty one is a dash.
func row(w io.Writer, cells ...any) {
	words := make([]string, len(cells))
	for k, c := range cells {
		if words[k] = fmt.Sprint(c); words[k] == "" {
			words[k] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(words, "\t"))
}
