package main

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// patchesPerObject is how the patches of routes are packed. One EnvoyFilter for each VirtualService makes istiod slower,
// one for all would be too large for the API server.
const patchesPerObject = 100

// script is the name of a Lua step's script, where routes name it.
const script = "set"

// scoped are the objects of what everyone else does: each step is a filter of the listener that does nothing but on
// routes that configure it, by typed_per_filter_config.
func (w world) scoped() []config.Config {
	filters := &networking.EnvoyFilter{}
	for place, s := range w.chain {
		filters.ConfigPatches = append(filters.ConfigPatches, insertFilter(scopedFilter(place), w.filterConfig(place, s)))
	}
	out := []config.Config{envoyFilter("filters", filters)}
	for first := 0; first < w.routes; first += patchesPerObject {
		patches := &networking.EnvoyFilter{}
		for route := first; route < min(first+patchesPerObject, w.routes); route++ {
			patches.ConfigPatches = append(patches.ConfigPatches, w.routePatch(route))
		}
		out = append(out, envoyFilter(fmt.Sprintf("routes-%d", first), patches))
	}
	return out
}

func scopedFilter(place int) string { return fmt.Sprintf("bench.step.%d", place) }

func (w world) filterConfig(place int, s step) map[string]any {
	if s == nativeStep {
		return map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"}
	}
	lua := map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}
	switch w.attachment {
	case namedScripts:
		lua["source_codes"] = map[string]any{script: map[string]any{"inline_string": constantScript(place, common)}}
	case scriptContext:
		lua["source_codes"] = map[string]any{script: map[string]any{"inline_string": fmt.Sprintf(
			"function envoy_on_request(handle) handle:headers():replace(%q, handle:filterContext():get(\"value\")) end", header(place))}}
	}
	return lua
}

func constantScript(place int, value string) string {
	return fmt.Sprintf("function envoy_on_request(handle) handle:headers():replace(%q, %q) end", header(place), value)
}

// routeConfig is what a route says to a step's filter.
func (w world) routeConfig(place int, s step, route int) map[string]any {
	if s == nativeStep {
		return map[string]any{
			"@type":     "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
			"mutations": mutations(place),
		}
	}
	value := common
	if w.ownValues {
		value = own(route)
	}
	lua := map[string]any{"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"}
	switch w.attachment {
	case namedScripts:
		lua["name"] = script
	case scriptContext:
		lua["name"] = script
		lua["filter_context"] = map[string]any{"value": value}
	case routeScripts:
		lua["source_code"] = map[string]any{"inline_string": constantScript(place, value)}
	}
	return lua
}

func (w world) routePatch(route int) *networking.EnvoyFilter_EnvoyConfigObjectPatch {
	perFilter := map[string]any{}
	for place, s := range w.chain {
		perFilter[scopedFilter(place)] = w.routeConfig(place, s, route)
	}
	vhost := &networking.EnvoyFilter_RouteConfigurationMatch_VirtualHostMatch{Name: fmt.Sprintf("%s:%d", w.host(route), w.port)}
	applyTo := networking.EnvoyFilter_VIRTUAL_HOST
	if w.byRoute {
		applyTo = networking.EnvoyFilter_HTTP_ROUTE
		vhost.Route = &networking.EnvoyFilter_RouteConfigurationMatch_RouteMatch{Name: "main"}
	}
	return &networking.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: applyTo,
		Match: &networking.EnvoyFilter_EnvoyConfigObjectMatch{
			Context: networking.EnvoyFilter_GATEWAY,
			ObjectTypes: &networking.EnvoyFilter_EnvoyConfigObjectMatch_RouteConfiguration{
				RouteConfiguration: &networking.EnvoyFilter_RouteConfigurationMatch{Vhost: vhost},
			},
		},
		Patch: &networking.EnvoyFilter_Patch{
			Operation: networking.EnvoyFilter_Patch_MERGE,
			Value:     structOf(map[string]any{"typed_per_filter_config": perFilter}),
		},
	}
}

func insertFilter(name string, typedConfig map[string]any) *networking.EnvoyFilter_EnvoyConfigObjectPatch {
	return &networking.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networking.EnvoyFilter_HTTP_FILTER,
		Match: &networking.EnvoyFilter_EnvoyConfigObjectMatch{
			Context: networking.EnvoyFilter_GATEWAY,
			ObjectTypes: &networking.EnvoyFilter_EnvoyConfigObjectMatch_Listener{Listener: &networking.EnvoyFilter_ListenerMatch{
				FilterChain: &networking.EnvoyFilter_ListenerMatch_FilterChainMatch{Filter: &networking.EnvoyFilter_ListenerMatch_FilterMatch{
					Name:      "envoy.filters.network.http_connection_manager",
					SubFilter: &networking.EnvoyFilter_ListenerMatch_SubFilterMatch{Name: "envoy.filters.http.router"},
				}},
			}},
		},
		Patch: &networking.EnvoyFilter_Patch{
			Operation: networking.EnvoyFilter_Patch_INSERT_BEFORE,
			Value:     structOf(map[string]any{"name": name, "typed_config": typedConfig}),
		},
	}
}

func envoyFilter(name string, spec *networking.EnvoyFilter) config.Config {
	spec.Priority = 10
	spec.WorkloadSelector = &networking.WorkloadSelector{Labels: map[string]string{"istio": "ingressgateway"}}
	return config.Config{Meta: meta(gvk.EnvoyFilter, metav1.ObjectMeta{Name: name, Namespace: gatewayNamespace}), Spec: spec}
}

func structOf(v map[string]any) *structpb.Struct {
	s := &structpb.Struct{}
	if err := protojson.Unmarshal(raw(v).Raw, s); err != nil {
		panic(err) // it was written from a map
	}
	return s
}
