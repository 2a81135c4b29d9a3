package compile

import (
	"reflect"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// A service that comes, changes or goes is noticed by a Compiler that has seen the plugin before.
func TestServicesComeAndGo(t *testing.T) {
	const (
		plugin = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: check, namespace: shop}
spec: {extProc: {service: {host: proc, port: 80}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop, annotations: {istio.io/plugins: check}}
spec:
  hosts: [a.test]
  gateways: [istio-system/public]
  http: [{route: [{destination: {host: shop}}]}]
`
		service = `
---
apiVersion: v1
kind: Service
metadata: {name: proc, namespace: shop}
spec: {ports: [{port: 80, name: `
	)
	compiler := new(Compiler)
	for _, step := range []struct {
		text string
		want finding.Reason // none for the empty one
	}{
		{plugin, finding.RefNotFound},
		{plugin + service + "grpc}]}", ""},
		{plugin + service + "http}]}", finding.ConfigWarning},
		{plugin, finding.RefNotFound},
	} {
		s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(step.text))
		if err != nil {
			t.Fatal(err)
		}
		r := compiler.Compile(s)
		var got finding.Reason
		if len(r.Findings) > 0 {
			got = r.Findings[0].Reason
		}
		if got != step.want || len(r.Findings) > 1 {
			t.Errorf("%v, want %q", r.Findings, step.want)
		}
		if full := Compile(s); !reflect.DeepEqual(full.Findings, r.Findings) || len(full.Objects) != len(r.Objects) {
			t.Errorf("a full compile finds %v and makes %d objects, not %d", full.Findings, len(full.Objects), len(r.Objects))
		}
	}
}
