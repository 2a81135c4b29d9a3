package catalog

import (
	"fmt"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
)

// Reference is the page about a built-in plugin, in Markdown. It says what the plugin's schema says, and nothing else.
func Reference(b *builtin.Builtin) string {
	var page strings.Builder
	fmt.Fprintf(&page, "# %s\n\n%s\n\n## Configuration\n\n", b.Name, b.Schema.Description())
	fields := b.Schema.Fields()
	if len(fields) == 0 {
		page.WriteString("There is nothing to configure.\n")
		return page.String()
	}
	page.WriteString("| field | type | default | meaning |\n|---|---|---|---|\n")
	for _, f := range fields {
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", f.Path, cell(f.Type), cell(defaultOf(f)), cell(f.Description))
	}
	if ignored := b.Schema.Ignored(); len(ignored) > 0 {
		fmt.Fprintf(&page, "\nFields of Kong that are accepted and have no effect: `%s`.\n", strings.Join(ignored, "`, `"))
	}
	return page.String()
}

// defaultOf shows values as code and words as words.
func defaultOf(f builtin.Field) string {
	switch {
	case f.Required:
		return "required"
	case f.Default == "":
		return "none"
	case f.DefaultInWords:
		return f.Default
	}
	return "`" + f.Default + "`"
}

// cell makes text fit into one cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
