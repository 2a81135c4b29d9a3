// Package cli is the command line. A command reads its input, calls one function on values and prints the result; what
// is said about the input, and what it compiles to, is decided elsewhere and is the same for the controller.
package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every output format. Those of diff are kubectl diff's: it asks whether something changes, and
// not whether anything is wrong.
const (
	// exitFine: nothing worse than warnings; no difference.
	exitFine = 0
	// exitErrors: the input has errors, and what it compiles to is printed all the same; there are differences.
	exitErrors = 1
	// exitUsage: the command was used wrongly, or its input cannot be read.
	exitUsage = 2
)

var (
	// errFindings ends a command whose findings, already printed, have an error among them.
	errFindings = errors.New("the input has errors")
	// errDifferences ends a diff that has printed some.
	errDifferences = errors.New("there are differences")
)

// Main runs the command line and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	switch {
	case err == nil:
		return exitFine
	case errors.Is(err, errFindings), errors.Is(err, errDifferences):
		return exitErrors
	}
	_, _ = fmt.Fprintf(stderr, "istio-plugins: %v\n", err)
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "istio-plugins",
		Short: "Plugins for Istio's gateways, by annotation",
		Long: `istio-plugins gives plain Istio the plugin experience of Kong: a VirtualService
or Gateway annotated "istio.io/plugins: cors, key-auth" runs exactly these
plugins, in that order, on the gateway's own Envoy.

Exit codes: 0 if nothing is worse than a warning, 1 if the input has errors,
2 if the command was used wrongly or its input cannot be read. Those of diff are
kubectl diff's: 0 if nothing would change, 1 if something would, 2 for errors.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newCompile(), newLint(), newExplain(), newDiff(), newCatalog(), newController(), newVersion())
	return root
}
