package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/istio-plugins/istio-plugins/pkg/cluster"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// input are the flags that say what is compiled, files or a cluster, and for which installation.
type input struct {
	installation
	connection
	paths []string
	// namespace of objects that name none; load fills it in.
	namespace string
}

func (in *input) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVarP(&in.paths, "filename", "f", nil, "file or folder with objects, - for stdin; repeatable")
	f.StringVarP(&in.namespace, "namespace", "n", "", "namespace of objects that name none (default \"default\", or the context's with a cluster)")
	must(cmd.MarkFlagFilename("filename", "yaml", "yml", "json"))
	in.connection.flags(cmd)
	in.installation.flags(cmd)
}

// installation are the flags that say how Istio is installed, and what follows from it.
type installation struct {
	istioVersion, istioRevision  string
	rootNamespace, unknownRoutes string
}

func (in *installation) flags(cmd *cobra.Command) {
	defaults := snapshot.Options{}.Defaults()
	f := cmd.Flags()
	f.StringVar(&in.istioVersion, "istio-version", defaults.IstioVersion.String(), "version of Istio, for example 1.31")
	f.StringVar(&in.istioRevision, "istio-revision", "", "revision of Istio's control plane, where there are several")
	f.StringVar(&in.rootNamespace, "root-namespace", defaults.RootNamespace, "Istio's root namespace, where generated objects live")
	f.StringVar(&in.unknownRoutes, "unknown-routes", string(defaults.UnknownRoutes), "what a VirtualService answers that is not compiled yet: allow (no plugins) or deny (503)")
	must(cmd.RegisterFlagCompletionFunc("istio-version", cobra.FixedCompletions([]string{"1.29", "1.30", "1.31"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("unknown-routes", cobra.FixedCompletions([]string{"allow", "deny"}, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for registrations that fail only where a flag's name is misspelt in the source.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// load reads files if there are any, or else a cluster.
func (in *input) load(ctx context.Context, stdin io.Reader) (*snapshot.Snapshot, error) {
	options, err := in.options()
	if err != nil {
		return nil, err
	}
	if len(in.paths) > 0 {
		if in.given() {
			return nil, errors.New("-f reads files, --kubeconfig and --context a cluster: give one of them")
		}
		in.namespace = cmp.Or(in.namespace, metav1.NamespaceDefault)
		return files.Load(options, in.namespace, in.paths, stdin)
	}
	r, err := in.cluster()
	if err != nil {
		return nil, err
	}
	s, err := cluster.Read(ctx, r, options)
	return s, wordy(err)
}

// cluster is what to read the cluster from.
func (in *input) cluster() (client.Reader, error) {
	if in.namespace == "" {
		var err error
		if in.namespace, err = in.contextNamespace(); err != nil {
			return nil, err
		}
	}
	return in.reader()
}

func (in *installation) options() (snapshot.Options, error) {
	version, err := snapshot.ParseVersion(in.istioVersion)
	if err != nil {
		return snapshot.Options{}, fmt.Errorf("--istio-version: %w", err)
	}
	unknown := snapshot.UnknownRoutes(in.unknownRoutes)
	if unknown != snapshot.AllowUnknown && unknown != snapshot.DenyUnknown {
		return snapshot.Options{}, fmt.Errorf("--unknown-routes: %q is neither allow nor deny", in.unknownRoutes)
	}
	return snapshot.Options{IstioVersion: version, RootNamespace: in.rootNamespace, Revision: in.istioRevision, UnknownRoutes: unknown}, nil
}

// choice is a flag with few values.
func choice(cmd *cobra.Command, into *string, short, name, usage string, values ...string) {
	cmd.Flags().StringVarP(into, name, short, values[0], usage)
	must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// printFindings writes a line for each finding, and fails if one is an error.
func printFindings(w io.Writer, findings []finding.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return judge(findings)
}

// judge turns findings into the command's result.
func judge(findings []finding.Finding) error {
	for _, f := range findings {
		if f.Severity() == finding.Error {
			return errFindings
		}
	}
	return nil
}
