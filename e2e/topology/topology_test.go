// Package topology holds package pkg/topology against istiod: every route that the real istiod makes must be one that
// the compiler knows, under the same key and name, through the same gateway, or its plugins would not run.
package topology

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/istio-plugins/istio-plugins/e2e/istiod"
	"github.com/istio-plugins/istio-plugins/e2e/suite"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// seen is one route on one port of a gateway.
type seen struct{ port, key, name string }

func TestEveryRouteOfIstiodIsKnown(t *testing.T) {
	text, err := os.ReadFile("input.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := suite.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	server := istiod.Start(t)
	if err := server.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	s, err := files.Load(snapshot.Options{}.Defaults(), "default", []string{"input.yaml"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	topo := topology.Build(s)

	for _, labels := range []map[string]string{{"istio": "ingressgateway"}, {"istio": "ingressgateway", "tier": "edge"}, {"istio": "internal"}} {
		t.Run(topology.SelectorText(labels), func(t *testing.T) {
			known := knownHere(topo, labels)
			var missing, excess []seen
			// istiod takes objects into its routes some time after it has them.
			err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
				made := madeByIstiod(server, labels)
				missing = without(made, known)
				// Names too many are harmless, but each should have a reason.
				excess = slices.DeleteFunc(without(known, made), func(r seen) bool { return leftOut[r.name] })
				return len(made) > 0 && len(missing) == 0 && len(excess) == 0, nil
			})
			for _, r := range missing {
				t.Errorf("istiod has the route %q of %s on port %s, which is not known here", r.name, r.key, r.port)
			}
			for _, r := range excess {
				t.Errorf("the route %q of %s on port %s is known here, but istiod has none", r.name, r.key, r.port)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// without are those of a that are not in b.
func without(a, b []seen) []seen {
	return slices.DeleteFunc(slices.Clone(a), func(r seen) bool { return slices.Contains(b, r) })
}

// leftOut are names that are known though istiod makes no such route: the delegate's match contradicts every root's.
var leftOut = map[string]bool{"named-c": true, "named-c.rm": true, "c": true}

func madeByIstiod(server *istiod.Server, labels map[string]string) []seen {
	var out []seen
	for _, config := range server.Routes("istio-system", labels) {
		for _, host := range config.VirtualHosts {
			for _, r := range host.Routes {
				key := r.GetMetadata().GetFilterMetadata()["istio"].GetFields()["config"].GetStringValue()
				if key != "" {
					out = append(out, seen{strings.TrimPrefix(config.Name, "http."), key, r.Name})
				}
			}
		}
	}
	return sorted(out)
}

func knownHere(topo *topology.Topology, labels map[string]string) []seen {
	var out []seen
	for _, v := range topo.VirtualServices {
		for _, g := range v.Gateways {
			if !selects(g.Workload.Selector, labels) || !g.Serves(v) || !v.ExportedTo("istio-system") {
				continue
			}
			for _, r := range v.Routes {
				if r.ServedBy(g) {
					out = append(out, seen{g.Ports[0], v.Key, r.Name})
				}
			}
		}
	}
	return sorted(out)
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func sorted(s []seen) []seen {
	slices.SortFunc(s, func(a, b seen) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return slices.Compact(s)
}
