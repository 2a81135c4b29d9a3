package mechanism_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/internal/catalogtest"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

func envoySpec(text string) *pluginsv1alpha1.EnvoyPlugin {
	return &pluginsv1alpha1.EnvoyPlugin{TypedConfig: &apiextensionsv1.JSON{Raw: []byte(text)}}
}

func TestBuild(t *testing.T) {
	world := &mechanism.World{
		Builtins:   catalog.Find,
		Services:   catalogtest.Services("authz.test"),
		ConfigMaps: map[string]*corev1.ConfigMap{"shop/code": {Data: map[string]string{"a.lua": "return {}", "empty": ""}}},
	}
	const buffer = `{"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 10}`
	type spec = pluginsv1alpha1.PluginSpec
	lua := func(l pluginsv1alpha1.LuaPlugin) spec { return spec{Lua: &l} }
	wasm := func(w pluginsv1alpha1.WasmPlugin) spec { return spec{Wasm: &w} }
	ref := func(name, key string) *pluginsv1alpha1.KeyRef { return &pluginsv1alpha1.KeyRef{Name: name, Key: key} }

	luaCalls := func(ports ...pluginsv1alpha1.ServicePort) spec {
		l := pluginsv1alpha1.LuaPlugin{Inline: "return {}"}
		for i, p := range ports {
			l.Services = append(l.Services, pluginsv1alpha1.LuaService{Name: fmt.Sprint("s", i), ServicePort: p})
		}
		return spec{Lua: &l}
	}

	authz := pluginsv1alpha1.ServicePort{Host: "authz.test", Port: 81}

	tests := map[string]struct {
		spec   spec
		config string
		parts  string // their types
		want   string // the first problem: reason place message
	}{
		"nothing":                     {spec: spec{}, want: "InvalidPlugin spec exactly one of"},
		"two kinds":                   {spec: spec{Builtin: "cors", Lua: &pluginsv1alpha1.LuaPlugin{Inline: "x"}}, want: "not builtin and lua"},
		"a built-in":                  {spec: spec{Builtin: "correlation-id"}, parts: "Lua"},
		"no such built-in":            {spec: spec{Builtin: "korrelation"}, want: "InvalidPlugin spec.builtin there is no built-in"},
		"a wrong config":              {spec: spec{Builtin: "correlation-id"}, config: `{"header_nam": "x"}`, want: `InvalidConfig config:header_nam unknown field, did you mean "header_name"?`},
		"Lua":                         {spec: lua(pluginsv1alpha1.LuaPlugin{Inline: "return {}"}), parts: "Lua"},
		"Lua that does not parse":     {spec: lua(pluginsv1alpha1.LuaPlugin{Inline: "return {"}), want: "InvalidLua spec.lua.inline"},
		"Lua in a ConfigMap":          {spec: lua(pluginsv1alpha1.LuaPlugin{ConfigMapRef: ref("code", "a.lua")}), parts: "Lua"},
		"no such ConfigMap":           {spec: lua(pluginsv1alpha1.LuaPlugin{ConfigMapRef: ref("gone", "a.lua")}), want: "RefNotFound spec.lua.configMapRef there is no ConfigMap shop/gone"},
		"no such key":                 {spec: lua(pluginsv1alpha1.LuaPlugin{ConfigMapRef: ref("code", "b.lua")}), want: `RefNotFound spec.lua.configMapRef ConfigMap shop/code has no key "b.lua"`},
		"an empty source":             {spec: lua(pluginsv1alpha1.LuaPlugin{ConfigMapRef: ref("code", "empty")}), want: "the source is empty"},
		"an Envoy filter":             {spec: spec{Envoy: envoySpec(buffer)}, parts: "Native stateless"},
		"its config is merged":        {spec: spec{Envoy: envoySpec(buffer)}, config: `{"max_request_bytes": 20}`, parts: "Native stateless"},
		"its type stays":              {spec: spec{Envoy: envoySpec(buffer)}, config: `{"@type": "x"}`, want: "InvalidConfig config:@type"},
		"an Envoy filter with state":  {spec: spec{Envoy: envoySpec(`{"@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "a"}`)}, parts: "Native per attachment"},
		"a bad merged config":         {spec: spec{Envoy: envoySpec(buffer)}, config: `{"max_request_bytes": "x"}`, want: "InvalidEnvoyConfig spec.envoy.typedConfig"},
		"a service that is asked":     {spec: spec{ExtAuth: &pluginsv1alpha1.ExtAuthPlugin{Service: authz}}, parts: "Lua, Native stateless, Native stateless"},
		"a service that processes":    {spec: spec{ExtProc: &pluginsv1alpha1.ExtProcPlugin{Service: authz}}, config: `{"message_timeout": "1s"}`, parts: "Lua, Native stateless, Native stateless"},
		"a service that stays":        {spec: spec{ExtAuth: &pluginsv1alpha1.ExtAuthPlugin{Service: authz}}, config: `{"service": {"host": "x"}}`, want: "InvalidConfig config:service is set by spec.extAuth and cannot be changed by config"},
		"a protocol that stays":       {spec: spec{ExtAuth: &pluginsv1alpha1.ExtAuthPlugin{Service: authz}}, config: `{"protocol": "http"}`, want: "InvalidConfig config:protocol is set by spec.extAuth"},
		"no such service":             {spec: spec{ExtProc: &pluginsv1alpha1.ExtProcPlugin{Service: pluginsv1alpha1.ServicePort{Host: "gone", Port: 1}}}, want: "RefNotFound spec.extProc.service there is no Service shop/gone"},
		"an unknown field for one":    {spec: spec{ExtAuth: &pluginsv1alpha1.ExtAuthPlugin{Service: authz}}, config: `{"timout": "1s"}`, want: `InvalidConfig config:timout unknown field, did you mean "timeout"?`},
		"Lua that calls":              {spec: luaCalls(authz), parts: "Lua outbound|81||authz.test"},
		"Lua that calls nothing":      {spec: luaCalls(authz, pluginsv1alpha1.ServicePort{Host: "gone", Port: 1}), want: "RefNotFound spec.lua.services[1] there is no Service shop/gone"},
		"Lua that calls another port": {spec: luaCalls(pluginsv1alpha1.ServicePort{Host: "authz.test", Port: 1}), want: "RefNotFound spec.lua.services[0] ServiceEntry / has no port 1"},
		"Wasm":                        {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "oci://registry.test/waf:1"}), parts: "Wasm oci://registry.test/waf:1 FAIL_RELOAD"},
		"Wasm without a scheme":       {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "registry.test/waf:1"}), parts: "Wasm oci://registry.test/waf:1 FAIL_RELOAD"},
		"Wasm on a port":              {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "127.0.0.1:5000/waf:1"}), parts: "Wasm oci://127.0.0.1:5000/waf:1 FAIL_RELOAD"},
		"Wasm that stays down":        {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "registry.test/waf", FailStrategy: "FAIL_CLOSE"}), parts: "Wasm oci://registry.test/waf FAIL_CLOSE"},
		"a tag for a port":            {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "waf:1.2"}), want: `"waf:1.2" is no URL`},
		"capital letters":             {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "oci://registry.test/Org/a:1"}), want: `"oci://registry.test/Org/a:1" names no image: `},
		"no image":                    {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "oci://"}), want: `"oci://" names no image: `},
		"Wasm that may fail":          {spec: spec{FailurePolicy: "FailOpen", Wasm: &pluginsv1alpha1.WasmPlugin{URL: "https://a.test/a"}}, parts: "Wasm https://a.test/a FAIL_OPEN"},
		"Wasm by ftp":                 {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "ftp://a/b"}), want: `InvalidPlugin spec.wasm.url scheme "ftp"`},
		"a relative file":             {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "file://a/b"}), want: "file:///absolute/path"},
		"no host":                     {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "https:///b"}), want: "has no host"},
		"a pull secret for a file":    {spec: wasm(pluginsv1alpha1.WasmPlugin{URL: "file:///a", ImagePullSecret: "s"}), want: "a pull secret needs an oci:// url"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := config.Decode([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			parts, problems := world.Build(mechanism.Use{Identity: "plugin/shop/x", Name: "x", Spec: &tt.spec, Namespace: "shop", User: "shop", Config: c})
			var kinds []string
			for _, p := range parts {
				kinds = append(kinds, kind(p))
			}
			if got := strings.Join(kinds, ", "); got != tt.parts {
				t.Errorf("parts %s, want %s", got, tt.parts)
			}
			first := ""
			if len(problems) > 0 {
				p := problems[0]
				place := p.Spec
				if p.InConfig {
					place = "config:" + p.Config
				}
				first = fmt.Sprintf("%s %s %s", p.Reason, place, p.Message)
			}
			if tt.want == "" && first != "" || !strings.Contains(first, tt.want) {
				t.Errorf("problem %q, want %q", first, tt.want)
			}
		})
	}
}

func kind(p part.Part) string {
	switch p := p.(type) {
	case part.Lua:
		if p.SourceID == "" {
			return "Lua without the source's name"
		}
		text := "Lua"
		for _, name := range slices.Sorted(maps.Keys(p.Services)) {
			text += " " + p.Services[name].Cluster()
		}
		return text
	case part.Native:
		return map[part.State]string{part.Stateless: "Native stateless", part.PerAttachment: "Native per attachment", part.PerPlugin: "Native per plugin"}[p.State]
	case part.Wasm:
		return "Wasm " + p.URL + " " + p.FailStrategy
	}
	return "?"
}

// One filter serves all namespaces that use a plugin, so it must not matter from which of them it was made, and what Lua
// and filter say to each other must be the same everywhere.
func TestNativeFiltersDoNotDependOnTheUser(t *testing.T) {
	world := &mechanism.World{Builtins: catalog.Find}
	for name, text := range map[string]string{
		"ip-restriction": `{"deny": ["10.0.0.0/8"]}`,
		"cors":           `{"origins": ["https://.*[.]a[.]test"]}`,
		"rate-limiting":  `{"minute": 10, "hour": 100, "limit_by": "ip"}`,
	} {
		c, err := config.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		build := func(user string) []part.Part {
			parts, problems := world.Build(mechanism.Use{
				Identity: "clusterplugin/x", Name: "x", Spec: &pluginsv1alpha1.PluginSpec{Builtin: name}, User: user, Config: c,
			})
			if len(parts) == 0 {
				t.Fatalf("%s: %v", name, problems)
			}
			return parts
		}
		natives := 0
		a, b := build("shop"), build("bank")
		for i := range a {
			switch p := a[i].(type) {
			case part.Native:
				natives++
				if !proto.Equal(p.Config, b[i].(part.Native).Config) {
					t.Errorf("%s: the filter of one namespace is not that of another", name)
				}
			case part.Lua:
				if x, y := string(p.Config.JSON()), string(b[i].(part.Lua).Config.JSON()); x != y {
					t.Errorf("%s: Lua looks for %s in one namespace, for %s in another", name, x, y)
				}
			}
		}
		if natives == 0 {
			t.Errorf("%s has no native filter, so this tests nothing", name)
		}
	}
}
