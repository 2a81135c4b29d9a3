package controller_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/e2e/controller"
)

// sealed are Plugins with values from Secrets.
const sealed = `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: whole, namespace: shop}
spec:
  lua: {inline: "local config = ...\nreturn {response = function(h) h:headers():add('x-value', config.value) end}"}
  configFrom: {secretKeyRef: {name: values, key: config}}
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: patched, namespace: shop}
spec:
  builtin: rate-limiting
  config: {limit_by: ip, error_message: {secretKeyRef: {name: values, key: text}}}
  configPatches: [{path: /minute, valueFrom: {secretKeyRef: {name: values, key: minute}}}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: ClusterPlugin
metadata: {name: common}
spec:
  lua: {inline: "local config = ...\nreturn {response = function(h) h:headers():add('x-common', config.value) end}"}
  config: {value: {secretKeyRef: {name: values, key: text}}}
`

// values is the Secret, with what is to be kept as a secret in every value.
func values(text, config, minute string) string {
	const each = "---\n{apiVersion: v1, kind: Secret, metadata: {name: values, namespace: %s}, stringData: {text: %q, config: %q, minute: %q}}\n"
	return fmt.Sprintf(each, "shop", text, config, minute) + fmt.Sprintf(each, "istio-system", text, config, minute)
}

// TestSecrets: configs that come from Secrets take effect when these come, change, break and are mended, without a restart.
// What they hold is in the generated objects, and in nothing that the controller says: no status, Event, log and metric.
func TestSecrets(t *testing.T) {
	b := newBed(t)
	c, err := b.StartWith(t.Context(), controller.Options{Webhooks: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	routes := controller.Route("whole", "whole") + controller.Route("patched", "patched") + controller.Route("common", "common")
	apply(t, b, sealed)
	apply(t, b, routes)
	await(t, b, "whole.test", http.StatusServiceUnavailable)
	await(t, b, "patched.test", http.StatusServiceUnavailable)
	await(t, b, "common.test", http.StatusServiceUnavailable)
	awaitConditions(t, b, map[string]string{"whole": "False RefNotFound, False NotAccepted", "patched": "False RefNotFound, False NotAccepted"})

	good := values(secret+"-1", "value: "+secret+"-1", "1000000")
	apply(t, b, good)
	awaitHeader(t, b, "whole.test", http.StatusOK, "x-value", secret+"-1")
	awaitHeader(t, b, "patched.test", http.StatusOK, "ratelimit-limit", "1000000")
	awaitHeader(t, b, "common.test", http.StatusOK, "x-common", secret+"-1")
	awaitConditions(t, b, map[string]string{"whole": "True Accepted, True Programmed", "patched": "True Accepted, True Programmed"})

	apply(t, b, values(secret+"-2", "{\"value\": \""+secret+"-2\"}", "2000000"))
	awaitHeader(t, b, "whole.test", http.StatusOK, "x-value", secret+"-2")
	awaitHeader(t, b, "patched.test", http.StatusOK, "ratelimit-limit", "2000000")
	awaitHeader(t, b, "common.test", http.StatusOK, "x-common", secret+"-2")
	keepsSecret(t, b, c)
	if objects := kubectl(t, b, "get", "envoyfilters", "-n", "istio-system", "-o", "yaml"); !strings.Contains(objects, secret+"-2") {
		t.Error("the value is not in the generated objects, so that this shows nothing")
	}

	apply(t, b, values(secret, secret+": ["+secret, secret))
	await(t, b, "whole.test", http.StatusServiceUnavailable)
	await(t, b, "patched.test", http.StatusServiceUnavailable)
	awaitConditions(t, b, map[string]string{"whole": "False InvalidConfig, False NotAccepted", "patched": "False InvalidConfig, False NotAccepted"})
	awaitText(t, b, `key "minute" of Secret shop/values: minute must be an integer, not a string`, "get", "events", "-n", "shop", "-o", "jsonpath={.items[*].message}")
	// The webhooks see it now, too, and warn.
	apply(t, b, strings.ReplaceAll(sealed, "spec:\n", "spec:\n  priority: 1\n"))
	keepsSecret(t, b, c)

	apply(t, b, good)
	awaitHeader(t, b, "whole.test", http.StatusOK, "x-value", secret+"-1")
	awaitHeader(t, b, "patched.test", http.StatusOK, "ratelimit-limit", "1000000")
	remove(t, b, good)
	await(t, b, "whole.test", http.StatusServiceUnavailable)
	await(t, b, "common.test", http.StatusServiceUnavailable)

	// What a gateway says when it refuses something.
	apply(t, b, `
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: refused, namespace: shop}
spec:
  envoy: {typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication}}
  configFrom: {secretKeyRef: {name: refused, key: config}}
---
apiVersion: v1
kind: Secret
metadata: {name: refused, namespace: shop}
stringData: {config: "providers: {`+secret+`: {issuer: i, local_jwks: {inline_string: no keys}}}"}
`+controller.Route("refused", "refused"))
	awaitConditions(t, b, map[string]string{"refused": "True Accepted, False Rejected"})
	keepsSecret(t, b, c)
}

// keepsSecret looks through everything that the controller says.
func keepsSecret(t *testing.T, b *controller.Bed, c *controller.Controller) {
	t.Helper()
	log, err := os.ReadFile(c.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + c.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"the log": string(log), "the metrics": string(metrics),
		"the status of objects": kubectl(t, b, "get", "plugins,clusterplugins,consumers,virtualservices,gateways", "-A", "-o", "yaml"),
		"Events":                kubectl(t, b, "get", "events", "-A", "-o", "yaml"),
	} {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret is in %s: %s", name, text[max(0, at-300):at])
		}
	}
}
