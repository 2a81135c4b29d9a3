package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/validate"
)

func newLint() *cobra.Command {
	var in input
	var output, envoy string
	cmd := &cobra.Command{
		Use:   "lint [-f FILE]",
		Short: "Say what is wrong with plugins, and what looks like a mistake",
		Long: `lint reads files, or a cluster if none are given. It prints what compile would
say, and plain mistakes: a Plugin that nothing attaches, an authentication
plugin behind one that answers, an annotated route that gets no request, a
corsPolicy beside the cors plugin.

A finding is one line:
  severity reason kind/namespace/name[:place]: message
As JSON it is a list of
  {severity, reason, object: {kind, namespace, name}, place, source, problem,
   traffic, remedy, related}
where source is file:line, traffic what requests get now, remedy what to do,
and fields that do not apply are left out.

With --envoy, that Envoy validates the filters that would be emitted. Take the
version that your Istio's proxy is made from.

` + clusterHelp,
		Example: `  # check a folder
  istio-plugins lint -f manifests/

  # check what is in the cluster
  istio-plugins lint

  # have an Envoy check the filters, too
  istio-plugins lint -f manifests/ --envoy /usr/local/bin/envoy

  # errors alone, for a script
  istio-plugins lint -f shop.yaml -o json | jq '.[] | select(.severity == "error")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print := printFindings
			switch output {
			case "text":
			case "json":
				print = printJSONFindings
			default:
				return fmt.Errorf("--output: %q is neither text nor json", output)
			}
			s, err := in.load(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			r := compile.Compile(s)
			findings := allFindings(s, r)
			if envoy != "" {
				refused, err := validate.Check(cmd.Context(), envoy, s, r)
				if err != nil {
					return fmt.Errorf("--envoy: %w", err)
				}
				findings = append(findings, refused...)
			}
			return print(cmd.OutOrStdout(), finding.Sort(findings))
		},
	}
	in.flags(cmd)
	choice(cmd, &output, "o", "output", "format of the findings: text or json", "text", "json")
	cmd.Flags().StringVar(&envoy, "envoy", "", "path of an Envoy that validates what would be emitted")
	must(cmd.MarkFlagFilename("envoy"))
	return cmd
}

// findingJSON is a finding as scripts see it. It is API: fields are added, never changed.
type findingJSON struct {
	Severity finding.Severity `json:"severity"`
	Reason   finding.Reason   `json:"reason"`
	Object   objectJSON       `json:"object"`
	Place    string           `json:"place,omitempty"`
	Source   string           `json:"source,omitempty"`
	Problem  string           `json:"problem"`
	Traffic  string           `json:"traffic,omitempty"`
	Remedy   string           `json:"remedy,omitempty"`
	Related  []objectJSON     `json:"related,omitempty"`
}

type objectJSON struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func printJSONFindings(w io.Writer, findings []finding.Finding) error {
	if err := printJSON(w, findingsJSON(findings)); err != nil {
		return err
	}
	return judge(findings)
}

func findingsJSON(findings []finding.Finding) []findingJSON {
	out := make([]findingJSON, len(findings))
	for i, f := range findings {
		out[i] = findingJSON{
			Severity: f.Severity(), Reason: f.Reason, Object: objectJSON(f.Object), Place: f.Place, Source: f.Source,
			Problem: f.Problem, Traffic: f.Traffic, Remedy: f.Remedy,
		}
		for _, o := range f.Related {
			out[i].Related = append(out[i].Related, objectJSON(o))
		}
	}
	return out
}

// printJSON writes a value for people and scripts alike.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
