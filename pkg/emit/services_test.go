package emit_test

import (
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/emit"
)

const called = `
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: auth, namespace: shop}
spec: {hosts: [auth.test, other.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: check, namespace: shop}
spec: {extAuth: {service: {host: authz, port: 80}}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: nobody, namespace: shop}
spec: {extAuth: {service: {host: other.test, port: 80}}}
`

const callsAuth = "[{name: ext-auth, config: {service: {host: auth.test, port: 80}}}]"

// referenced are the services that istiod must keep for a workload, by an object that holds nothing else.
func referenced(t *testing.T, objects map[string]emit.Object) string {
	t.Helper()
	const key = "envoyfilter.istio.io/referenced-services"
	out := ""
	for name, o := range objects {
		for annotation, value := range o.EnvoyFilter.Annotations {
			switch {
			case annotation == key && strings.HasSuffix(name, ".services") && len(o.EnvoyFilter.Spec.ConfigPatches) == 0:
				out = value
			case strings.Contains(annotation, "istio.io"):
				t.Errorf("%s has the annotation %s: istiod pushes on any touch of it", name, annotation)
			}
		}
	}
	return out
}

func TestServicesAreReferenced(t *testing.T) {
	none := objects(t, gateway+called+route("a", "cors"))
	if got := referenced(t, none); got != "" {
		t.Errorf("nothing calls, but %q", got)
	}
	there := objects(t, gateway+called+route("a", callsAuth))
	if got := referenced(t, there); got != "auth.test" {
		t.Errorf("one service: %q", got)
	}
	wanted := objects(t, gateway+called+route("a", "check")+route("b", "check"))
	const authz = "authz.shop.svc.cluster.local"
	if got := referenced(t, wanted); got != authz {
		t.Errorf("the other service: %q", got)
	}
	for stage, want := range map[emit.Stage]string{emit.Prepare: "auth.test," + authz, emit.Switch: "auth.test," + authz, emit.Clean: authz} {
		if got := referenced(t, at(t, stage, wanted, there)); got != want {
			t.Errorf("%s: %q, want %q", stage, got, want)
		}
	}
	if got := referenced(t, at(t, emit.Prepare, wanted, none)); got != authz {
		t.Errorf("before anything asks: %q", got)
	}
	if got := referenced(t, wanted); got != authz {
		t.Errorf("the wanted object was changed: %q", got)
	}
}
