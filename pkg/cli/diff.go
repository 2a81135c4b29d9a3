package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/difference"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/lint"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func newDiff() *cobra.Command {
	var in input
	var output string
	var objects bool
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what a change in files would do to a cluster's routes",
		Long: `diff compiles what a cluster has, and what it would have with the objects of the
files: each replaces the one of the same kind, namespace and name as a whole, or
is new. Nothing is removed, and nothing is written. It prints
  the routes that would run something else: plugins added (+), removed (-),
  changed (~) or moved (>), and what begins or ceases to answer 503
  the findings of lint that would appear or go away
  the generated objects that would change, by entry
Values that may be secrets are hidden there. --objects adds unified diffs of the
generated objects, which show them, as compile does.

As JSON it is
  {routes: [{routes, paths, before, after, steps}],
   findings: {appear, vanish}, objects: [{change, object, entries}]}
with findings as lint has them.

The exit code is that of kubectl diff, not that of the other commands: 0 if
nothing would change, 1 if something would, 2 for errors. Objects in files that
Kubernetes would refuse are errors. What lint calls errors is not: they are
among the differences if they are new.

` + clusterHelp,
		Example: `  istio-plugins diff -f shop.yaml
  istio-plugins diff -f manifests/ --context staging -o json
  istio-plugins diff -f shop.yaml --objects

  # fail if a route would begin to answer 503
  istio-plugins diff -f manifests/ -o json | jq -e 'all(.routes[]; .after.serves != "refuses")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print := difference.Text
			switch output {
			case "text":
			case "json":
				print = printJSONDifference
			default:
				return fmt.Errorf("--output: %q is neither text nor json", output)
			}
			before, after, err := in.change(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			d := difference.Compare(sideOf(before), sideOf(after), objects)
			if err := print(cmd.OutOrStdout(), d); err != nil {
				return err
			}
			if !d.Empty() {
				return errDifferences
			}
			return nil
		},
	}
	in.flags(cmd)
	choice(cmd, &output, "o", "output", "format: text or json", "text", "json")
	cmd.Flags().BoolVar(&objects, "objects", false, "print unified diffs of the generated objects, too; they show secrets")
	return cmd
}

// change reads a cluster as it is, and as it would be with the files.
func (in *input) change(ctx context.Context, stdin io.Reader) (before, after *snapshot.Snapshot, err error) {
	if len(in.paths) == 0 {
		return nil, nil, errors.New("nothing to compare: name the files that change with -f, or -f - for stdin")
	}
	options, err := in.options()
	if err != nil {
		return nil, nil, err
	}
	r, err := in.cluster()
	if err != nil {
		return nil, nil, err
	}
	changed, err := files.Load(options, in.namespace, in.paths, stdin)
	if err != nil {
		return nil, nil, err
	}
	if err := acceptable(changed); err != nil {
		return nil, nil, err
	}
	if before, err = cluster.Read(ctx, r, options); err != nil {
		return nil, nil, wordy(err)
	}
	after, err = cluster.With(ctx, r, before, changed)
	return before, after, wordy(err)
}

// acceptable says which objects Kubernetes would refuse, so that applying the files would not do what is compared.
func acceptable(s *snapshot.Snapshot) error {
	var errs []error
	for _, m := range s.Malformed {
		errs = append(errs, fmt.Errorf("%s: Kubernetes would refuse %s: %s: %s", s.Where(m.Object, m.Place), m.Object, m.Place, m.Error))
	}
	return errors.Join(errs...)
}

func sideOf(s *snapshot.Snapshot) difference.Side {
	r := compile.Compile(s)
	return difference.Side{Snapshot: s, Result: r, Findings: allFindings(s, r)}
}

// allFindings are those of the compilation and of lint.
func allFindings(s *snapshot.Snapshot, r *compile.Result) []finding.Finding {
	return finding.Sort(append(r.Findings, lint.Check(s, r)...))
}

// differenceJSON is a difference as scripts see it. It is API: fields are added, never changed.
type differenceJSON struct {
	Routes   []difference.RouteChange `json:"routes"`
	Findings struct {
		Appear []findingJSON `json:"appear"`
		Vanish []findingJSON `json:"vanish"`
	} `json:"findings"`
	Objects []difference.ObjectChange `json:"objects"`
}

func printJSONDifference(w io.Writer, d difference.Difference) error {
	out := differenceJSON{Routes: d.Routes, Objects: d.Objects}
	out.Findings.Appear, out.Findings.Vanish = findingsJSON(d.Appear), findingsJSON(d.Vanish)
	return printJSON(w, out)
}
