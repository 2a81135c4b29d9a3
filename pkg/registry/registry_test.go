package registry_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/registry"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

func kubernetes(namespace, name, export string, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{Ports: ports}}
	if export != "" {
		s.Annotations = map[string]string{"networking.istio.io/exportTo": export}
	}
	return s
}

func entry(namespace, host string, port uint32, protocol string, exportTo ...string) *networkingv1.ServiceEntry {
	return &networkingv1.ServiceEntry{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "e"},
		Spec: networking.ServiceEntry{
			Hosts: []string{host}, ExportTo: exportTo,
			Ports: []*networking.ServicePort{{Number: port, Protocol: protocol}},
		},
	}
}

func TestFind(t *testing.T) {
	h2c := "kubernetes.io/h2c"
	external := kubernetes("auth", "outside", "")
	external.Spec.Type, external.Spec.ExternalName = corev1.ServiceTypeExternalName, "a.example.com"
	x := registry.New(&snapshot.Snapshot{
		Services: []*corev1.Service{
			kubernetes("auth", "authz", "", corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "grpc-check", Port: 9000}),
			kubernetes("auth", "typed", "", corev1.ServicePort{Name: "http", Port: 80, AppProtocol: &h2c}, corev1.ServicePort{Name: "GRPC", Port: 81}),
			kubernetes("auth", "own", ".", corev1.ServicePort{Port: 80}),
			kubernetes("auth", "some", "istio-system, shop", corev1.ServicePort{Port: 80}),
			kubernetes("auth", "hidden", "~", corev1.ServicePort{Port: 80}),
			external,
		},
		ServiceEntries: []*networkingv1.ServiceEntry{
			entry("b", "Check.Example.com", 443, "HTTPS"),
			entry("a", "check.example.com", 9000, "grpc", "."),
			entry("a", "typed.auth", 80, "HTTP"),
			entry("a", "authz", 80, "HTTP2"),
		},
	})
	const authz = "authz.auth.svc.cluster.local"
	for _, c := range []struct {
		namespace, host string
		port            uint32
		want            builtin.Service
	}{
		{"auth", "authz", 80, builtin.Service{Host: authz}},
		{"auth", "AUTHZ", 9000, builtin.Service{Host: authz, HTTP2: true}},
		{"shop", "authz.auth", 9000, builtin.Service{Host: authz, HTTP2: true}},
		{"shop", "authz.auth.svc", 80, builtin.Service{Host: authz}},
		{"shop", authz, 80, builtin.Service{Host: authz}},
		{"shop", "authz.auth.svc.corp.internal", 80, builtin.Service{Host: "authz.auth.svc.corp.internal"}},
		{"shop", "authz", 80, builtin.Service{Host: "authz", HTTP2: true}},
		{"", "authz", 80, builtin.Service{Host: "authz", HTTP2: true}},
		{"shop", "typed.auth", 80, builtin.Service{Host: "typed.auth"}},
		{"auth", "typed", 80, builtin.Service{Host: "typed.auth.svc.cluster.local", HTTP2: true}},
		{"auth", "typed", 81, builtin.Service{Host: "typed.auth.svc.cluster.local", HTTP2: true}},
		{"shop", "check.example.com", 443, builtin.Service{Host: "check.example.com"}},
		{"shop", "check.example.com", 9000, builtin.Service{Host: "check.example.com", HTTP2: true, ExportedTo: "a"}},
		{"auth", "own", 80, builtin.Service{Host: "own.auth.svc.cluster.local", ExportedTo: "auth"}},
		{"auth", "some", 80, builtin.Service{Host: "some.auth.svc.cluster.local", ExportedTo: "istio-system, shop"}},
		{"auth", "hidden", 80, builtin.Service{Host: "hidden.auth.svc.cluster.local", ExportedTo: "none"}},
		{"auth", "authz", 81, builtin.Service{Missing: "Service auth/authz has no port 81; its ports: 80, 9000"}},
		{"auth", "check.example.com", 80, builtin.Service{Missing: "ServiceEntry a/e has no port 80; its ports: 9000, 443"}},
		{"auth", "outside", 80, builtin.Service{Missing: "Service auth/outside is an ExternalName, which has no cluster in a gateway: write a ServiceEntry for a.example.com"}},
		{"shop", "gone", 80, builtin.Service{Missing: `there is no Service shop/gone, nor a ServiceEntry with the host "gone"`}},
		{"", "gone", 80, builtin.Service{Missing: `there is no ServiceEntry with the host "gone"; a Service is written with its namespace here, as gone.NAMESPACE`}},
		{"shop", "gone.auth", 80, builtin.Service{Missing: `there is no Service auth/gone, nor a ServiceEntry with the host "gone.auth"`}},
		{"shop", "a.b.c", 80, builtin.Service{Missing: `there is no ServiceEntry with the host "a.b.c"; a Service is written name.namespace.svc.cluster.local`}},
	} {
		if diff := cmp.Diff(c.want, x.Find(c.namespace, c.host, c.port)); diff != "" {
			t.Errorf("%s:%d in %q (-want +got):\n%s", c.host, c.port, c.namespace, diff)
		}
	}
}
