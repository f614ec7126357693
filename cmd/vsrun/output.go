package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

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
		if err != nil {
			return err
		}
		if text = escaped(text, format); format == "yaml" {
			if text, err = asYAML(text); err != nil {
				return err
			}
			text = escaped(text, format)
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
	if strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		n.Style = yaml.DoubleQuotedStyle // where it can be escaped
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// escaped escapes what a terminal would obey, and the format may leave as it is in
// quotes: names may be another node's.
func escaped(text []byte, format string) []byte {
	var b []byte
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		case format == "yaml":
			b = fmt.Appendf(b, `\U%08x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		}
	}
	return b
}

// row writes the cells of a table's line; an empty one is a dash.
func row(w io.Writer, cells ...any) {
	words := make([]string, len(cells))
	for k, c := range cells {
		if words[k] = strings.Map(printable, fmt.Sprint(c)); words[k] == "" {
			words[k] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(words, "\t"))
}
