package validate

import (
	"cmp"
	"slices"

	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matching "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	composite "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	wasm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/emit"
)

// item is one filter configuration that a gateway gets, and where it comes from.
type item struct {
	config *anypb.Any
	causes []compile.Cause
	// whole says that it is a whole resource, in which there may be something of any plugin.
	whole bool
}

// items are the filter configurations in generated objects, each different one once, in a stable order. Entries of the
// slots' tables are taken apart, since each comes from a plugin of its own; other resources are whole.
func items(r *compile.Result) ([]item, error) {
	causes := map[place][]compile.Cause{}
	for _, o := range r.Origins() {
		causes[place{o.Resource, o.Entry}] = o.Causes
	}
	var out []item
	known := map[string]bool{}
	add := func(a *anypb.Any, at place) {
		if id := a.GetTypeUrl() + "\x00" + string(a.GetValue()); !known[id] && !a.MessageIs(&wasm.Wasm{}) {
			known[id] = true
			out = append(out, item{config: a, causes: causes[at], whole: at.entry == ""})
		}
	}
	for _, o := range r.Objects {
		for _, resource := range resources(o) {
			typed, err := decode(resource)
			if err != nil {
				return nil, err
			}
			entries, err := entriesOf(typed.GetTypedConfig())
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				add(e.config, place{typed.GetName(), e.key})
			}
			if len(entries) == 0 {
				add(typed.GetTypedConfig(), place{resource: typed.GetName()})
			}
		}
	}
	return out, nil
}

// place names an entry of a resource.
type place struct{ resource, entry string }

func resources(o emit.Object) []*networking.EnvoyFilter_EnvoyConfigObjectPatch {
	if o.EnvoyFilter == nil {
		return nil // a Wasm plugin: its module is not here
	}
	return slices.DeleteFunc(slices.Clone(o.EnvoyFilter.Spec.ConfigPatches), func(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) bool {
		return p.ApplyTo != networking.EnvoyFilter_EXTENSION_CONFIG
	})
}

// decode reads a resource back from the object, so that what is validated is what is applied.
func decode(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) (*core.TypedExtensionConfig, error) {
	text, err := protojson.Marshal(p.GetPatch().GetValue())
	if err != nil {
		return nil, err
	}
	typed := &core.TypedExtensionConfig{}
	return typed, protojson.Unmarshal(text, typed)
}

// entry is a filter configuration in a table.
type entry struct {
	key    string
	config *anypb.Any
}

// entriesOf are the filters that a table's matcher leads to at once; none for what is no table, or leads elsewhere.
func entriesOf(a *anypb.Any) ([]entry, error) {
	table := &matching.ExtensionWithMatcher{}
	if !a.MessageIs(table) {
		return nil, nil
	}
	if err := a.UnmarshalTo(table); err != nil {
		return nil, err
	}
	var out []entry
	for key, match := range table.GetXdsMatcher().GetMatcherTree().GetExactMatchMap().GetMap() {
		config, err := filterOf(match)
		if err != nil {
			return nil, err
		}
		if config != nil {
			out = append(out, entry{key, config})
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return out, nil
}

func filterOf(match *xdsmatcher.Matcher_OnMatch) (*anypb.Any, error) {
	action := &composite.ExecuteFilterAction{}
	if a := match.GetAction().GetTypedConfig(); a == nil || !a.MessageIs(action) {
		return nil, nil
	} else if err := proto.Unmarshal(a.GetValue(), action); err != nil {
		return nil, err
	}
	return action.GetTypedConfig().GetTypedConfig(), nil
}
