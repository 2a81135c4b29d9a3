package compile_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// servers is a gateway with n TLS servers, and a VirtualService with a plugin for each.
func servers(n int) *snapshot.Snapshot {
	gateway := &networkingv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: "public", Namespace: "istio-system"},
		Spec:       networking.Gateway{Selector: map[string]string{"istio": "ingressgateway"}},
	}
	s := &snapshot.Snapshot{Gateways: []*networkingv1.Gateway{gateway}}
	for i := range n {
		host := fmt.Sprintf("host-%d.example.com", i)
		gateway.Spec.Servers = append(gateway.Spec.Servers, &networking.Server{
			Port:  &networking.Port{Number: 443, Name: fmt.Sprintf("https-%d", i), Protocol: "HTTPS"},
			Hosts: []string{host},
			Tls:   &networking.ServerTLSSettings{Mode: networking.ServerTLSSettings_SIMPLE, CredentialName: "certificate"},
		})
		s.VirtualServices = append(s.VirtualServices, &networkingv1.VirtualService{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("service-%d", i), Namespace: "shop", Annotations: map[string]string{"istio.io/plugins": "correlation-id"},
			},
			Spec: networking.VirtualService{
				Hosts: []string{host}, Gateways: []string{"istio-system/public"},
				Http: []*networking.HTTPRoute{{Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: "service"}}}}},
			},
		})
	}
	return s
}

// etcd refuses requests above 1.5 MiB, so no object may grow with the number of TLS servers.
func TestObjectsStaySmallWithManyServers(t *testing.T) {
	for _, n := range []int{8, 9, 50} {
		for _, o := range compile.Compile(servers(n)).Objects {
			text, err := json.Marshal(o.EnvoyFilter)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > emit.MaxObject {
				t.Errorf("%d servers: %s has %d bytes, which is more than %d", n, o.Name(), len(text), emit.MaxObject)
			}
		}
	}
}

// What replaces a filter must be applied after what inserts it.
func TestReplacementsComeAfterInsertions(t *testing.T) {
	inserted, replaced := int32(-1), int32(-1)
	for _, o := range compile.Compile(servers(9)).Objects {
		for _, p := range o.EnvoyFilter.Spec.ConfigPatches {
			switch p.Patch.Operation {
			case networking.EnvoyFilter_Patch_INSERT_BEFORE:
				inserted = max(inserted, o.EnvoyFilter.Spec.Priority)
			case networking.EnvoyFilter_Patch_REPLACE:
				if replaced < 0 || o.EnvoyFilter.Spec.Priority < replaced {
					replaced = o.EnvoyFilter.Spec.Priority
				}
			}
		}
	}
	if inserted < 0 || replaced <= inserted {
		t.Errorf("filters are inserted at priority %d and replaced at %d; the second must be there, and higher", inserted, replaced)
	}
}

// A set of filters that denies unknown VirtualServices must know those of another Gateway that may be on the same pod,
// also in the tables of a TLS server: a server of that Gateway may have the same host.
func TestServersKnowStrangers(t *testing.T) {
	s := servers(9)
	s.Options.UnknownRoutes = snapshot.DenyUnknown
	other := servers(1)
	other.Gateways[0].Name = "edge"
	other.Gateways[0].Spec.Selector["tier"] = "edge"
	stranger := other.VirtualServices[0]
	stranger.Name, stranger.Spec.Gateways = "stranger", []string{"istio-system/edge"}
	s.Gateways = append(s.Gateways, other.Gateways...)
	s.VirtualServices = append(s.VirtualServices, stranger)
	r := compile.Compile(s)
	key := r.Of(types.NamespacedName{Namespace: stranger.Namespace, Name: stranger.Name})[0].VirtualService.Key
	tables := 0
	for _, o := range r.Origins() {
		if o.Entry == "" && strings.Contains(o.Resource, ".tls-") && strings.Contains(o.Resource, ".bindings.") {
			tables++
			if !slices.ContainsFunc(r.Origins(), func(p compile.Origin) bool { return p.Resource == o.Resource && p.Entry == key }) {
				t.Errorf("%s does not know %s", o.Resource, key)
			}
		}
	}
	if tables != 9 {
		t.Errorf("%d TLS servers have tables of their own, not 9", tables)
	}
}
