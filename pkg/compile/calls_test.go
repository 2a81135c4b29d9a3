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

// The services that Lua plugins declare are kept in gateways, and one that is not there makes only its users unavailable.
func TestLuaCalls(t *testing.T) {
	const text = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: stock, namespace: shop}
spec:
  lua:
    inline: return {}
    services: [{name: stock, host: stock, port: 80}, {name: web, host: Web.test, port: 443}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: gone, namespace: shop}
spec:
  lua:
    inline: return {}
    services: [{name: stock, host: stock, port: 80}, {name: gone, host: gone.test, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop, annotations: {istio.io/plugins: "[{name: stock, routes: [a]}, {name: gone, routes: [b]}]"}}
spec:
  hosts: [a.test]
  gateways: [istio-system/public]
  http:
  - {name: a, match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}
  - {name: b, route: [{destination: {host: shop}}]}
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: other}
spec: {hosts: [web.test], ports: [{number: 443, name: https, protocol: HTTPS}]}
`
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r := Compile(s)
	if len(r.Findings) != 1 || r.Findings[0].Reason != finding.RefNotFound || r.Findings[0].Place != "spec.lua.services[1]" || !strings.Contains(r.Findings[0].Traffic, "virtualservice/shop/a:b") {
		t.Errorf("%+v", r.Findings)
	}
	var kept []string
	for _, o := range r.Objects {
		if hosts := o.EnvoyFilter.Annotations["envoyfilter.istio.io/referenced-services"]; hosts != "" {
			kept = append(kept, hosts)
		}
	}
	if got := strings.Join(kept, " "); got != "stock.shop.svc.cluster.local,web.test" {
		t.Errorf("kept are %q", got)
	}
}
