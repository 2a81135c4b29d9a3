package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/istio-plugins/istio-plugins/pkg/difference"
	"github.com/istio-plugins/istio-plugins/pkg/files"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// TestNothingShowsWhatASecretHolds: values from Secrets, good and bad ones, are in the generated objects and in nothing else
// that a command prints.
func TestNothingShowsWhatASecretHolds(t *testing.T) {
	const canary = "c4nary7f3a"
	const objects = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop, annotations: {istio.io/plugins: secret}}
spec:
  hosts: [shop.example.com]
  gateways: [istio-system/public]
  http: [{name: api, route: [{destination: {host: shop}}]}]
---
apiVersion: plugins.istio.io/v1alpha1
kind: Plugin
metadata: {name: secret, namespace: shop}
spec:
%s
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
stringData:
  value: %q
`
	const lua = "  lua: {inline: 'return {}'}\n"
	const limit = "  builtin: rate-limiting\n"
	const csrf = "  envoy: {typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy, filter_enabled: {default_value: {numerator: 100}}}}\n"
	const from = "  configFrom: {secretKeyRef: {name: s, key: value}}\n"
	patch := func(path string) string {
		return "  configPatches: [{path: " + path + ", valueFrom: {secretKeyRef: {name: s, key: value}}}]\n"
	}
	text := func(path string) string {
		return "  config: " + strings.Replace(path, "HERE", "{secretKeyRef: {name: s, key: value}}", 1) + "\n"
	}
	for name, c := range map[string]struct {
		spec, value string
		compiles    bool
	}{
		"Lua, the whole":               {lua + from, "a: CANARY\nCANARY: {b: [CANARY]}", true},
		"Lua, a patch":                 {lua + patch("/a/b"), "CANARY", true},
		"Lua, a map":                   {lua + patch("/a"), `{"CANARY": "CANARY"}`, true},
		"Lua, a text":                  {lua + text("{a: [1, HERE]}"), "CANARY", true},
		"Wasm":                         {"  wasm: {url: 'oci://a/b'}\n" + from, "a: CANARY", true},
		"a built-in":                   {limit + text("{minute: 5, error_message: HERE}"), "CANARY", true},
		"a built-in, the whole":        {limit + from, "minute: 5\nerror_message: CANARY", true},
		"an Envoy filter":              {csrf + patch("/additional_origins/-"), `{"exact": "CANARY"}`, true},
		"an Envoy filter, the whole":   {csrf + from, "additional_origins: [{exact: CANARY}]", true},
		"no YAML":                      {lua + from, "CANARY: CANARY: [", false},
		"no map":                       {lua + from, "CANARY", false},
		"an unknown field":             {limit + from, "minute: 5\nCANARY: 1", false},
		"a wrong type":                 {limit + patch("/minute"), "CANARY", false},
		"what is not among the known":  {limit + text("{minute: 5, limit_by: HERE}"), "CANARY", false},
		"no header":                    {"  builtin: correlation-id\n" + text("{header_name: HERE}"), "CANARY CANARY", false},
		"no address":                   {"  builtin: ip-restriction\n" + patch("/deny"), `["CANARY"]`, false},
		"an Envoy filter that is none": {csrf + patch("/filter_enabled"), "CANARY", false},
		"an unknown field of Envoy":    {csrf + from, "CANARY: CANARY", false},
		"a way into a text":            {limit + "  configPatches: [{path: /a, valueFrom: {secretKeyRef: {name: s, key: value}}}, {path: /a/b, valueFrom: {secretKeyRef: {name: s, key: value}}}]\n", "CANARY", false},
	} {
		t.Run(name, func(t *testing.T) {
			input := func(canary string) string {
				return fmt.Sprintf(objects, c.spec, strings.ReplaceAll(c.value, "CANARY", canary))
			}
			code, stdout, said := run(input(canary), "compile", "-f", "-")
			if got := code == 0; got != c.compiles || strings.Contains(stdout, canary) != c.compiles {
				t.Errorf("compile ends with %d: %s", code, said)
			}
			for _, args := range [][]string{{"lint"}, {"lint", "-o", "json"}, {"explain", "shop/shop"}, {"explain", "shop/shop", "-o", "json"}} {
				_, stdout, stderr := run(input(canary), append(args, "-f", "-")...)
				said += stdout + stderr
			}
			var out bytes.Buffer
			for _, values := range [][2]string{{canary, canary + "-new"}, {"c4nary7f3a-old", canary}, {"", canary}} {
				before, after := load(t, input(values[0])), load(t, input(values[1]))
				if values[0] == "" {
					before.Secrets = nil
				}
				d := difference.Compare(sideOf(before), sideOf(after), false)
				if err := difference.Text(&out, d); err != nil {
					t.Fatal(err)
				}
				if err := printJSONDifference(&out, d); err != nil {
					t.Fatal(err)
				}
			}
			if said += out.String(); strings.Contains(strings.ToLower(said), canary) {
				t.Errorf("the Secret is shown:\n%s", said)
			}
			if c.compiles && !strings.Contains(out.String(), "(hidden, changed)") {
				t.Errorf("no difference tells that the Secret changes:\n%s", out.String())
			}
		})
	}
}

func load(t *testing.T, text string) *snapshot.Snapshot {
	t.Helper()
	s, err := files.Load(snapshot.Options{}, "", []string{files.Stdin}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
