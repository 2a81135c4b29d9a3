package emit

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
)

// Change is one thing in an object that another version of it has not, or has otherwise.
type Change struct {
	// Resource is the ECDS name, or a fixed filter's; empty for what is around them: selector, labels, annotations. Key is
	// the entry of a table, or the name of a Lua source or shared table; empty for the whole resource.
	Resource, Key string
	// Before and After say which version has it.
	Before, After bool
}

// Changes between two versions of an object, sorted. A zero Object is one that is not there.
func Changes(before, after Object) []Change {
	was, is := contents(before), contents(after)
	var out []Change
	for at := range union(was, is) {
		if !slices.EqualFunc(was[at], is[at], proto.Equal) {
			out = append(out, Change{at.resource, at.key, was[at] != nil, is[at] != nil})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Key, b.Key)) })
	return out
}

func union[K comparable, V any](a, b map[K]V) map[K]V {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// place is where something stands in an object.
type place struct{ resource, key string }

// contents is everything that an object holds, by where it stands. A fixed filter stands there once for each server.
func contents(o Object) map[place][]proto.Message {
	out := map[place][]proto.Message{}
	add := func(resource, key string, m proto.Message) {
		at := place{resource, key}
		out[at] = append(out[at], m)
	}
	switch {
	case o.WasmPlugin != nil:
		add("", "", metadata(o.WasmPlugin.Labels, o.WasmPlugin.Annotations))
		add(o.Name(), "", &o.WasmPlugin.Spec)
	case o.EnvoyFilter != nil:
		spec := &o.EnvoyFilter.Spec
		add("", "", metadata(o.EnvoyFilter.Labels, o.EnvoyFilter.Annotations))
		add("", "", &networking.EnvoyFilter{WorkloadSelector: spec.WorkloadSelector, Priority: spec.Priority})
		for _, p := range spec.ConfigPatches {
			name := resourceName(p)
			entries, around := entriesOf(p)
			for key, m := range entries {
				add(name, key, m)
			}
			add(name, "", around)
		}
	}
	return out
}

func metadata(labels, annotations map[string]string) proto.Message {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, value := range labels {
		out.Fields["label "+key] = structpb.NewStringValue(value)
	}
	for key, value := range annotations {
		out.Fields["annotation "+key] = structpb.NewStringValue(value)
	}
	return out
}

// entriesOf takes a patch apart: the entries of its table or Lua runtime, if it is one, and the rest.
func entriesOf(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) (map[string]proto.Message, proto.Message) {
	value := p.GetPatch().GetValue()
	entries := map[string]proto.Message{}
	if p.ApplyTo != networking.EnvoyFilter_EXTENSION_CONFIG {
		return entries, p
	}
	switch config := typed(value); {
	case tableOf(config) != nil:
		for key, v := range tableOf(config) {
			if key != dispatch.NoEntry {
				entries[key] = v
			}
		}
		return entries, with(value, structpb.NewNullValue(), append([]string{configField}, tablePath...)...)
	case source(config) != "":
		texts, around := lua.Entries(source(config))
		for name, text := range texts {
			entries[name] = structpb.NewStringValue(text)
		}
		return entries, with(value, structpb.NewStringValue(around), append([]string{configField}, sourcePath...)...)
	}
	return entries, p
}
