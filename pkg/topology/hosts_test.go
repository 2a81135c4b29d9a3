package topology_test

import (
	"fmt"
	"slices"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// A Gateway finds the servers of a VirtualService without asking each; it must find those that would say yes.
func TestServersOfAreThoseThatServe(t *testing.T) {
	hosts := []string{"*", "*.test", "a.test", "B.test", "*.x.test", "shop/a.test", "./b.test", "other/*", "c.example"}
	s := &snapshot.Snapshot{Gateways: []*networkingv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "g"}}}}
	spec := &s.Gateways[0].Spec
	for i, h := range hosts {
		server := &networking.Server{Port: &networking.Port{Number: 80, Name: fmt.Sprint(i), Protocol: "HTTP"}, Hosts: []string{h, hosts[(i+4)%len(hosts)]}}
		spec.Servers = append(spec.Servers, server)
	}
	for i, h := range []string{"*", "*.test", "a.test", "b.TEST", "a.x.test", "*.x.test", "c.example", "nowhere"} {
		for j, other := range []string{"", "a.test", "*.example"} {
			vs := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("v-%d-%d", i, j)}}
			vs.Spec.Gateways, vs.Spec.Hosts = []string{"g"}, slices.DeleteFunc([]string{h, other}, func(h string) bool { return h == "" })
			s.VirtualServices = append(s.VirtualServices, vs)
		}
	}
	gateway := topology.Build(s).Gateways[0]
	if len(gateway.Bound) != len(s.VirtualServices) {
		t.Fatalf("%d VirtualServices are bound", len(gateway.Bound))
	}
	for _, v := range gateway.Bound {
		var want []int
		for i, server := range gateway.Servers {
			if server.Serves(v) {
				want = append(want, i)
			}
		}
		got := slices.Sorted(gateway.ServersOf(v))
		if got = slices.Compact(got); !slices.Equal(got, want) || gateway.Serves(v) != (len(want) > 0) {
			t.Errorf("hosts %v: servers %v, want %v; served: %v", v.Object.Spec.Hosts, got, want, gateway.Serves(v))
		}
	}
}
