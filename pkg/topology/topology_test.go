package topology

import (
	"slices"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// What istiod makes of names, hosts and delegates is tested against istiod itself, in e2e/topology. Here is what istiod
// learns from pods, which are not known here.

func gateway(name string, selector map[string]string, ports ...uint32) *networkingv1.Gateway {
	g := &networkingv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: name}, Spec: networking.Gateway{Selector: selector}}
	for _, p := range ports {
		g.Spec.Servers = append(g.Spec.Servers, &networking.Server{Port: &networking.Port{Number: p, Protocol: "HTTP"}, Hosts: []string{"*"}})
	}
	return g
}

func service(selector map[string]string, port int32, target intstr.IntOrString) *corev1.Service {
	return &corev1.Service{Spec: corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Port: port, TargetPort: target}}}}
}

func TestPortsFollowServicesThatMaySelectTheGateway(t *testing.T) {
	ingress := map[string]string{"istio": "ingressgateway"}
	tests := map[string]struct {
		services []*corev1.Service
		want     []string
	}{
		"no Service":                   {nil, []string{"80", "443"}},
		"a target port":                {[]*corev1.Service{service(ingress, 80, intstr.FromInt32(8080))}, []string{"80", "443", "8080"}},
		"more labels than the Gateway": {[]*corev1.Service{service(map[string]string{"istio": "ingressgateway", "app": "x"}, 443, intstr.FromInt32(8443))}, []string{"80", "443", "8443"}},
		"another gateway's":            {[]*corev1.Service{service(map[string]string{"istio": "other"}, 80, intstr.FromInt32(8080))}, []string{"80", "443"}},
		"no label in common":           {[]*corev1.Service{service(map[string]string{"app": "x"}, 80, intstr.FromInt32(8080))}, []string{"80", "443"}},
		"no selector":                  {[]*corev1.Service{service(nil, 80, intstr.FromInt32(8080))}, []string{"80", "443"}},
		"another port":                 {[]*corev1.Service{service(ingress, 81, intstr.FromInt32(8080))}, []string{"80", "443"}},
		"a named target":               {[]*corev1.Service{service(ingress, 80, intstr.FromString("web"))}, []string{"80", "443"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			topo := Build(&snapshot.Snapshot{Gateways: []*networkingv1.Gateway{gateway("g", ingress, 80, 443)}, Services: tt.services})
			if got := topo.Gateways[0].Ports; !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWorkloads(t *testing.T) {
	topo := Build(&snapshot.Snapshot{Gateways: []*networkingv1.Gateway{
		gateway("a", map[string]string{"istio": "ingressgateway"}, 80),
		gateway("b", map[string]string{"istio": "ingressgateway"}, 81),
		gateway("c", map[string]string{"istio": "ingressgateway", "tier": "edge"}, 82),
		gateway("d", map[string]string{"istio": "internal"}, 80),
		gateway("e", nil, 83),
	}})
	at := map[string]*Workload{}
	for _, g := range topo.Gateways {
		at[g.Name] = g.Workload
	}
	if at["a"] != at["b"] {
		t.Error("equal selectors are two workloads")
	}
	meets := func(x, y string) bool { return slices.Contains(at[x].Overlapping, at[y]) }
	for pair, want := range map[[2]string]bool{
		{"a", "c"}: true, {"a", "d"}: false, {"c", "d"}: false, {"e", "a"}: true, {"e", "d"}: true, {"a", "b"}: false,
	} {
		if meets(pair[0], pair[1]) != want || meets(pair[1], pair[0]) != want {
			t.Errorf("%v may select the same pods: %v, want %v", pair, !want, want)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"*", "a.test", true}, {"a.test", "a.test", true}, {"*.test", "a.test", true}, {"*.test", "a.b.test", true},
		{"*.test", "*.b.test", true}, {"*.b.test", "*.test", false}, {"*.test", "test", false}, {"a.test", "b.test", false},
		{"a.test", "*.test", false}, {"*.test", "atest", false},
	} {
		if got := covers(tt.a, tt.b); got != tt.want {
			t.Errorf("%s covers %s: %v", tt.a, tt.b, got)
		}
	}
}
