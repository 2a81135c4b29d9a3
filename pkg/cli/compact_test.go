package cli

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
	"github.com/istio-plugins/istio-plugins/pkg/manifest"
)

// compact is what a reviewer wants to see of generated objects: the entries of tables without the messages that are the
// same in all of them, the sources of Lua runtimes without the runtime, Wasm plugins, and how many of the fixed filters
// there are. Empty tables and free places are left out.
func compact(r *compile.Result) map[string]any {
	sources := map[string][]any{}
	for _, o := range r.Origins() {
		if o.Entry != "" {
			sources[o.Resource] = append(sources[o.Resource], causesText(o.Causes))
		}
	}
	for _, causes := range sources {
		slices.SortFunc(causes, func(a, b any) int { return cmp.Compare(a.(string), b.(string)) })
	}
	out := map[string]any{}
	for _, o := range r.Objects {
		fields := manifest.Of(o)
		spec := fields["spec"].(map[string]any)
		if o.WasmPlugin != nil {
			out["WasmPlugin "+o.Name()] = spec
			continue
		}
		shown := map[string]any{}
		fixed := map[string]int{}
		pulled := pullPlaces(o)
		patches, _ := spec["configPatches"].([]any)
		for _, p := range patches {
			patch := p.(map[string]any)
			value := patch["patch"].(map[string]any)["value"].(map[string]any)
			name := value["name"].(string)
			if patch["applyTo"] == "HTTP_FILTER" {
				fixed["fixed filters, "+patch["patch"].(map[string]any)["operation"].(string)]++
				continue
			}
			if content := compactFilter(value["typed_config"].(map[string]any), sources[name]); content != nil {
				shown[name] = content
			}
		}
		for filter, n := range fixed {
			shown[filter] = n
		}
		if len(pulled) > 0 && slices.ContainsFunc(r.Objects, func(o emit.Object) bool { return o.WasmPlugin != nil }) {
			shown["places of Wasm plugins with a pull secret"] = pulled
		}
		if len(shown) > 0 {
			out[strings.Join([]string{o.EnvoyFilter.Kind, o.Name()}, " ")] = shown
		}
	}
	return out
}

// pullPlaces are the names under which fixed filters ask istiod for WasmPlugins.
func pullPlaces(o emit.Object) []string {
	if !strings.HasSuffix(o.Name(), ".skeleton") {
		return nil
	}
	var text strings.Builder
	_ = manifest.JSON(&text, []emit.Object{o})
	found := pullPlace.FindAllString(text.String(), -1)
	slices.Sort(found)
	return slices.Compact(found)
}

var pullPlace = regexp.MustCompile(`extensions\.istio\.io/[^"]+`)

func causesText(causes []compile.Cause) string {
	var out []string
	for _, c := range causes {
		out = append(out, strings.TrimSuffix(c.Object.String()+" "+c.Place, " "))
	}
	return strings.Join(out, ", ")
}

// compactFilter shows a filter; nil for one that stands at an unused place.
func compactFilter(config map[string]any, sources []any) any {
	switch typeName(config) {
	case "ExtensionWithMatcher":
		return compactMatcher(config["xds_matcher"].(map[string]any))
	case "Lua":
		if len(sources) == 0 {
			return "Lua that refuses"
		}
		return map[string]any{"Lua sources of": sources}
	case "RBAC":
		if _, rules := config["rules"].(map[string]any)["policies"]; !rules {
			return nil
		}
	}
	return map[string]any{typeName(config): without(config, "@type")}
}

func compactMatcher(m map[string]any) any {
	out := map[string]any{}
	if tree, ok := m["matcher_tree"].(map[string]any); ok {
		exact, _ := tree["exact_match_map"].(map[string]any)
		entries, _ := exact["map"].(map[string]any)
		for key, match := range entries {
			if key != "-" {
				out[key] = compactMatch(match.(map[string]any))
			}
		}
	}
	if otherwise, ok := m["on_no_match"].(map[string]any); ok && len(out) > 0 {
		out["(otherwise)"] = compactMatch(otherwise)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func compactMatch(match map[string]any) any {
	if m, ok := match["matcher"].(map[string]any); ok {
		return compactMatcher(m)
	}
	action := match["action"].(map[string]any)["typed_config"].(map[string]any)
	if typeName(action) == "SkipFilter" {
		return "nothing"
	}
	inner, ok := action["typed_config"].(map[string]any)
	if !ok {
		return without(action, "@type")
	}
	config := inner["typed_config"].(map[string]any)
	switch typeName(config) {
	case "Config": // set_filter_state
		return compactStates(config)
	case "HTTPFault":
		return "503"
	}
	return map[string]any{inner["name"].(string): without(config, "@type")}
}

// sourceID is the name of a Lua source, a hash of its text. What stands beside it says which plugin it is.
var sourceID = regexp.MustCompile(`"[A-Za-z0-9_-]{22}",`)

func compactStates(config map[string]any) any {
	out := map[string]any{}
	states, _ := config["on_request_headers"].([]any)
	for _, s := range states {
		state := s.(map[string]any)
		text := state["format_string"].(map[string]any)["text_format_source"].(map[string]any)["inline_string"].(string)
		out[state["object_key"].(string)] = sourceID.ReplaceAllString(text, "")
	}
	return out
}

func typeName(config map[string]any) string {
	full, _ := config["@type"].(string)
	return full[strings.LastIndexByte(full, '.')+1:]
}

func without(m map[string]any, key string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}
