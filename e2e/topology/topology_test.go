// Package topology holds package pkg/topology against istiod: every route that the real istiod makes must be one that
// the compiler knows, under the same key and name, through the same gateway, or its plugins would not run.
package topology

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

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
			made := madeByIstiod(server, labels)
			known := knownHere(topo, labels)
			if len(made) == 0 {
				t.Fatal("istiod made no routes")
			}
			for _, r := range made {
				if !slices.Contains(known, r) {
					t.Errorf("istiod has the route %q of %s on port %s, which is not known here", r.name, r.key, r.port)
				}
			}
			// Names too many are harmless, but each should have a reason.
			for _, r := range known {
				if !slices.Contains(made, r) && !leftOut[r.name] {
					t.Errorf("the route %q of %s on port %s is known here, but istiod has none", r.name, r.key, r.port)
				}
			}
		})
	}
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
