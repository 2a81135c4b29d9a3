package compile_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Two Gateways on two ports, the first of which a Service of the gateway's pods maps to another.
const mapped = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: one, namespace: istio-system, annotations: {istio.io/plugins: correlation-id}}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: two, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 81, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: istio-system}
spec:
  selector: {istio: ingressgateway, app: ingress}
  ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81}]
---
apiVersion: v1
kind: Service
metadata: {name: egress, namespace: istio-system}
spec:
  selector: {istio: egressgateway}
  ports: [{name: a, port: 81, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.test]
  gateways: [istio-system/one, istio-system/two]
  http: [{route: [{destination: {host: shop}}]}]
`

// Envoy knows the port that it listens on, which is a Service's target port.
func TestPortsAreThoseThatEnvoyListensOn(t *testing.T) {
	checkPorts(t, mapped, map[string]int{"80 8080": 1, "81": 0, "": 1})
}

// A target port with a name may be any, so the plugins of its Gateway run on all: rather too much than too little.
func TestAPortWithANameMayBeAny(t *testing.T) {
	checkPorts(t, strings.Replace(mapped, "targetPort: 8080}, {name: b", "targetPort: named}, {name: b", 1), map[string]int{"80": 1, "81": 1, "": 1})
}

// checkPorts says how many plugins run on which ports; "" are all others.
func checkPorts(t *testing.T, objects string, want map[string]int) {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(objects))
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]int{}
	for _, g := range compile.Compile(s).Of(types.NamespacedName{Namespace: "shop", Name: "shop"})[0].Groups {
		runs[strings.Join(slices.Sorted(slices.Values(g.Ports)), " ")] = len(g.Default.Chain.Steps)
	}
	for ports, steps := range want {
		if got, ok := runs[ports]; !ok || got != steps {
			t.Errorf("on ports %q run %d plugins (known: %v), not %d", ports, got, ok, steps)
		}
	}
	if len(runs) != len(want) {
		t.Errorf("ports are %v", runs)
	}
}
