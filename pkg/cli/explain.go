package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func newExplain() *cobra.Command {
	var in input
	var output, route string
	cmd := &cobra.Command{
		Use:   "explain [-f FILE] OBJECT",
		Short: "Say what a route runs, in which order, and why",
		Long: `explain reads files, or a cluster if none are given. It prints the chain of
each route of a VirtualService, or what a Gateway attaches: each plugin, where
it comes from (object, file and line), its merged config, why it is at its
place, and what requests get when it fails. Values that may be secrets are
hidden.

OBJECT is virtualservice/NAME.NAMESPACE, virtualservice/NAMESPACE/NAME or
NAMESPACE/NAME, and the same with gateway. NAME alone is in the namespace of -n.
NAME/ROUTE is a VirtualService of that namespace and one of its routes.

The exit code is 1 if a route of it answers 503.

` + clusterHelp,
		Example: `  istio-plugins explain shop/api
  istio-plugins explain --context staging gateway/istio-system/public
  istio-plugins explain -f manifests/ virtualservice/shop.demo
  istio-plugins explain -f manifests/ demo/shop --route api
  istio-plugins explain -f manifests/ gateway/istio-system/public -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output: %q is neither text nor json", output)
			}
			s, err := in.load(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			x, err := explainObject(s, compile.Compile(s), args[0], in.namespace, route)
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), x)
			} else {
				err = explain.Text(cmd.OutOrStdout(), x)
			}
			if err == nil && refused(x) {
				return errFindings
			}
			return err
		},
	}
	in.flags(cmd)
	cmd.Flags().StringVar(&route, "route", "", "only the http route of this name")
	choice(cmd, &output, "o", "output", "format: text or json", "text", "json")
	return cmd
}

// explainObject finds the object that the user means. Names may hold dots and nothing else that is used here, so each
// reading is tried, the one that is documented first.
func explainObject(s *snapshot.Snapshot, r *compile.Result, text, namespace, route string) (explain.Explanation, error) {
	for _, m := range readings(text, namespace, route) {
		var x explain.Explanation
		ok := false
		if m.gateway {
			x, ok = explain.Gateway(s, r, m.name)
		} else {
			x, ok = explain.VirtualService(s, r, m.name, m.route)
		}
		if ok {
			return x, nil
		}
		if x.Object.Name != "" && m.route != "" && route != "" {
			return x, fmt.Errorf("%s has no route %q", x.Object, m.route)
		}
	}
	return explain.Explanation{}, fmt.Errorf("there is no %s%s", text, nearestObject(r, text))
}

// meaning is one reading of an argument.
type meaning struct {
	gateway bool
	name    types.NamespacedName
	route   string
}

func readings(text, namespace, route string) []meaning {
	kind, rest, typed := strings.Cut(text, "/")
	gateway := false
	switch strings.ToLower(kind) {
	case "virtualservice", "virtualservices", "vs":
	case "gateway", "gateways", "gw":
		gateway = true
	default:
		typed = false
	}
	if !typed {
		rest = text
	}
	var out []meaning
	add := func(namespace, name, route string) {
		out = append(out, meaning{gateway, types.NamespacedName{Namespace: namespace, Name: name}, route})
	}
	if before, after, ok := strings.Cut(rest, "/"); ok {
		add(before, after, route)
		if route == "" && !gateway {
			add(namespace, before, after)
		}
		return out
	}
	if dot := strings.LastIndexByte(rest, '.'); dot >= 0 {
		add(rest[dot+1:], rest[:dot], route)
	}
	add(namespace, rest, route)
	return out
}

// nearestObject suggests an object whose name looks like the one that is not there.
func nearestObject(r *compile.Result, text string) string {
	var known []string
	for _, v := range r.Topology.VirtualServices {
		known = append(known, v.Ref().String())
	}
	for _, g := range r.Topology.Gateways {
		known = append(known, g.Ref().String())
	}
	if near, ok := finding.Nearest(text, known); ok {
		return fmt.Sprintf(", did you mean %s?", near)
	}
	return ""
}

func refused(x explain.Explanation) bool {
	for _, p := range x.Paths {
		for _, r := range p.Routes {
			if len(r.Refused) > 0 {
				return true
			}
		}
	}
	return false
}
