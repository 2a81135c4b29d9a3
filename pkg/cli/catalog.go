package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
)

func newCatalog() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "List the built-in plugins",
		Example: `  istio-plugins catalog
  istio-plugins catalog show rate-limiting`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			width := 0
			for _, b := range catalog.All() {
				width = max(width, len(b.Name))
			}
			for _, b := range catalog.All() {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-*s  %s\n", width, b.Name, firstSentence(b.Schema.Description())); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.AddCommand(newCatalogShow())
	return cmd
}

// firstSentence is the start of a description, on one line.
func firstSentence(text string) string {
	paragraph, _, _ := strings.Cut(text, "\n\n")
	line := strings.Join(strings.Fields(paragraph), " ")
	if sentence, _, more := strings.Cut(line, ". "); more {
		return sentence + "."
	}
	return line
}

func newCatalogShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Print what a built-in plugin does and how it is configured",
		Example:           `  istio-plugins catalog show key-auth`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(catalog.Names(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, ok := catalog.Find(args[0])
			if !ok {
				hint := "`istio-plugins catalog` lists them"
				if near, ok := finding.Nearest(args[0], catalog.Names()); ok {
					hint = fmt.Sprintf("did you mean %q?", near)
				}
				return fmt.Errorf("there is no built-in plugin %q, %s", args[0], hint)
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), catalog.Reference(b))
			return err
		},
	}
}
