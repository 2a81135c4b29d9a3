package main

import (
	"encoding/json"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
)

// step is one plugin of a chain. Whatever its kind and however it is attached, it does the same: it sets a request
// header of its own place in the chain.
type step int

const (
	luaStep step = iota
	nativeStep
)

func repeat(n int, steps ...step) []step {
	var chain []step
	for range n {
		chain = append(chain, steps...)
	}
	return chain
}

// header is what the step at this place sets.
func header(place int) string { return fmt.Sprintf("x-bench-%d", place) }

// common is the value on all routes, where routes have none of their own.
const common = "common"

// own is the value of one route.
func own(route int) string { return fmt.Sprintf("route-%d", route) }

// pluginName is the ClusterPlugin for a place.
func pluginName(place int) string { return fmt.Sprintf("step-%d", place) }

// pluginSource is a Lua plugin.
const pluginSource = `local config = ...
return {request = function(handle) handle:headers():replace(config.header, config.value) end}
`

// plugins are those that a chain is made of.
func plugins(chain []step) []*pluginsv1alpha1.ClusterPlugin {
	var out []*pluginsv1alpha1.ClusterPlugin
	for place, s := range chain {
		p := &pluginsv1alpha1.ClusterPlugin{ObjectMeta: metav1.ObjectMeta{Name: pluginName(place)}}
		switch s {
		case luaStep:
			p.Spec.Lua = &pluginsv1alpha1.LuaPlugin{Inline: pluginSource}
			p.Spec.Config = raw(map[string]any{"header": header(place), "value": common})
		case nativeStep:
			p.Spec.Envoy = &pluginsv1alpha1.EnvoyPlugin{TypedConfig: raw(map[string]any{
				"@type":     "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
				"mutations": mutations(place),
			})}
		}
		out = append(out, p)
	}
	return out
}

// mutations is what a native step does.
func mutations(place int) map[string]any {
	return map[string]any{"request_mutations": []any{map[string]any{"append": map[string]any{
		"header":        map[string]any{"key": header(place), "value": common},
		"append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
	}}}}
}

// annotation attaches a chain. With values of their own, each route changes the config of the Lua plugins.
func annotation(chain []step, ownValues bool, route int) string {
	if !ownValues {
		names := make([]string, len(chain))
		for place := range chain {
			names[place] = pluginName(place)
		}
		return strings.Join(names, ", ")
	}
	var entries []map[string]any
	for place, s := range chain {
		entry := map[string]any{"name": pluginName(place)}
		if s == luaStep {
			entry["config"] = map[string]any{"value": own(route)}
		}
		entries = append(entries, entry)
	}
	return string(raw(entries).Raw)
}

func raw(v any) *apiextensionsv1.JSON {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings can be written
	}
	return &apiextensionsv1.JSON{Raw: text}
}
