package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and the versions of Istio that are supported",
		Example: `  istio-plugins version`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "istio-plugins %s\nIstio %s to %s\n", version(), snapshot.Oldest, snapshot.Newest)
			return err
		},
	}
}

// version is what the Go toolchain noted when it built the program: the module's version, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "of unknown origin"
	}
	return info.Main.Version
}
