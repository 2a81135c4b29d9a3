package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
)

func newCompile() *cobra.Command {
	var in input
	var output string
	cmd := &cobra.Command{
		Use:   "compile [-f FILE]",
		Short: "Print the objects that make gateways run the plugins",
		Long: `compile reads VirtualServices, Gateways, Plugins and what belongs to them from
files, or from a cluster if none are given, and prints the objects to apply:
EnvoyFilters, and WasmPlugins for images with a pull secret. Objects of other
kinds are passed by.

Findings go to stderr, one to a line:
  severity reason kind/namespace/name[:place]: message
The objects are printed even if there are errors: a route with an error answers
503, or skips the plugin if its failurePolicy is FailOpen.

` + clusterHelp,
		Example: `  # compile a folder and apply the result
  istio-plugins compile -f manifests/ | kubectl apply -f -

  # what the controller would apply to the cluster
  istio-plugins compile --context staging

  # for an older Istio, with its control plane in another namespace
  istio-plugins compile -f shop.yaml --istio-version 1.29 --root-namespace istio`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := manifest.YAML
			switch output {
			case "yaml":
			case "json":
				write = manifest.JSON
			default:
				return fmt.Errorf("--output: %q is neither yaml nor json", output)
			}
			s, err := in.load(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			r := compile.Compile(s)
			if err := write(cmd.OutOrStdout(), r.Objects); err != nil {
				return err
			}
			return printFindings(cmd.ErrOrStderr(), r.Findings)
		},
	}
	in.flags(cmd)
	choice(cmd, &output, "o", "output", "format of the objects: yaml or json", "yaml", "json")
	return cmd
}
