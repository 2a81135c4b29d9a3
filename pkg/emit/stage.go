package emit

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
)

// Stage is a step on the way from what gateways run to what they should run. A request must never meet a name whose
// table is still on its way, nor miss one that it still needs, so a change is made in three steps, each of which waits
// until gateways have the one before:
//
//	           tables of slots, Lua, Wasm    fixed filters             bindings
//	Prepare    what is wanted, and what      as they are; changed      as they are
//	           is no longer                  ones at the end
//	Switch     the same                      as wanted; new ones       as wanted
//	                                         at the end
//	Clean      what is wanted                as wanted                 as wanted
//
// What nothing needs is deleted in Clean: bindings first, then tables, then the fixed filters that name them.
type Stage int

// The stages, in order.
const (
	Prepare Stage = iota
	Switch
	Clean
)

func (s Stage) String() string { return [...]string{"prepare", "switch", "clean"}[s] }

// Live is what is there: the generated EnvoyFilters as they are now.
type Live struct {
	objects map[string]*networkingv1alpha3.EnvoyFilter
	// resources by their ECDS names, in whichever object they are.
	resources map[string]*networking.EnvoyFilter_EnvoyConfigObjectPatch
}

// NewLive indexes the generated EnvoyFilters that are there.
func NewLive(objects []*networkingv1alpha3.EnvoyFilter) *Live {
	l := &Live{objects: map[string]*networkingv1alpha3.EnvoyFilter{}, resources: map[string]*networking.EnvoyFilter_EnvoyConfigObjectPatch{}}
	for _, o := range objects {
		l.objects[o.Name] = o
		for _, p := range o.Spec.ConfigPatches {
			if p.ApplyTo == networking.EnvoyFilter_EXTENSION_CONFIG {
				l.resources[resourceName(p)] = p
			}
		}
	}
	return l
}

// At is what an object should be at a stage; false if it should not be there yet. An object that would be too large with
// what is no longer wanted goes without it, which may answer a few requests with 503.
func (l *Live) At(stage Stage, o Object) (Object, bool) {
	if o.EnvoyFilter == nil || stage == Clean {
		return o, true
	}
	live := l.objects[o.Name()]
	switch {
	case live == nil && stage == Prepare && (isSkeleton(o.Name()) || isBindings(o.Name())):
		return Object{}, false
	case isSkeleton(o.Name()):
		return o, true
	}
	out := o
	out.EnvoyFilter = &networkingv1alpha3.EnvoyFilter{TypeMeta: o.EnvoyFilter.TypeMeta, ObjectMeta: o.EnvoyFilter.ObjectMeta}
	spec := &out.EnvoyFilter.Spec
	spec.Priority, spec.WorkloadSelector = o.EnvoyFilter.Spec.Priority, o.EnvoyFilter.Spec.WorkloadSelector
	grown := 0
	for _, p := range o.EnvoyFilter.Spec.ConfigPatches {
		q, more := l.patchAt(stage, p)
		spec.ConfigPatches = append(spec.ConfigPatches, q)
		grown += more
	}
	if live != nil {
		keepServices(out.EnvoyFilter, live)
	}
	if stage == Prepare && live != nil {
		spec.ConfigPatches = keepFilters(spec.ConfigPatches, live.Spec.ConfigPatches)
	}
	if o.Size+grown > MaxObject {
		return o, true
	}
	return out, true
}

// patchAt is a patch at a stage, and about how many bytes it has more than the wanted one.
func (l *Live) patchAt(stage Stage, p *networking.EnvoyFilter_EnvoyConfigObjectPatch) (*networking.EnvoyFilter_EnvoyConfigObjectPatch, int) {
	live := l.resources[resourceName(p)]
	if p.ApplyTo != networking.EnvoyFilter_EXTENSION_CONFIG || live == nil || live == p {
		return p, 0
	}
	if isBindings(resourceName(p)) {
		if stage == Prepare {
			return live, 0
		}
		return p, 0
	}
	value, more := keep(p.GetPatch().GetValue(), live.GetPatch().GetValue())
	if more == 0 {
		return p, 0
	}
	return &networking.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: p.ApplyTo, Match: p.Match,
		Patch: &networking.EnvoyFilter_Patch{Operation: p.GetPatch().GetOperation(), Value: value},
	}, more
}

// keepFilters puts the fixed filters that are there in the place of those that are wanted.
func keepFilters(wanted, live []*networking.EnvoyFilter_EnvoyConfigObjectPatch) []*networking.EnvoyFilter_EnvoyConfigObjectPatch {
	isFilter := func(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) bool {
		return p.ApplyTo == networking.EnvoyFilter_HTTP_FILTER
	}
	out := slices.DeleteFunc(wanted, isFilter)
	for _, p := range live {
		if isFilter(p) {
			out = append(out, p)
		}
	}
	return out
}

func isSkeleton(object string) bool { return strings.HasSuffix(object, ".skeleton") }

// isBindings is for names of resources, and of objects that hold nothing but one.
func isBindings(name string) bool {
	parts := strings.Split(name, ".")
	return len(parts) > 2 && parts[len(parts)-2] == "bindings"
}

// Fields of a table and of the Lua filter in their structs.
const (
	configField = "typed_config"
	typeField   = "@type"
	denyType    = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
	wasmType    = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
)

// keep is the value of a resource with what only the live one has, and about how many bytes that adds. Where nothing
// stands at a name any more, the live one stays.
func keep(wanted, live *structpb.Struct) (*structpb.Struct, int) {
	is, was := typed(wanted), typed(live)
	switch {
	case is[typeField].GetStringValue() == denyType && was[typeField].GetStringValue() != denyType:
		return live, proto.Size(live)
	case tableOf(is) != nil && tableOf(was) != nil:
		return keepEntries(wanted, tableOf(is), tableOf(was))
	case source(is) != "" && source(was) != "":
		text := lua.Keep(source(is), source(was))
		if text == source(is) {
			return wanted, 0
		}
		return with(wanted, structpb.NewStringValue(text), append([]string{configField}, sourcePath...)...), len(text) - len(source(is))
	}
	return wanted, 0
}

func keepEntries(wanted *structpb.Struct, is, was map[string]*structpb.Value) (*structpb.Struct, int) {
	entries, more := is, 0
	for key, v := range was {
		if _, ok := is[key]; ok {
			continue
		}
		if more == 0 {
			entries = maps.Clone(is)
		}
		entries[key] = v
		more += len(key) + proto.Size(v)
	}
	if more == 0 {
		return wanted, 0
	}
	return with(wanted, structpb.NewStructValue(&structpb.Struct{Fields: entries}), append([]string{configField}, tablePath...)...), more
}

var (
	tablePath  = []string{"xds_matcher", "matcher_tree", "exact_match_map", "map"}
	sourcePath = []string{"default_source_code", "inline_string"}
)

func typed(s *structpb.Struct) map[string]*structpb.Value {
	return s.GetFields()[configField].GetStructValue().GetFields()
}

func tableOf(config map[string]*structpb.Value) map[string]*structpb.Value {
	return at(config, tablePath).GetStructValue().GetFields()
}

func source(config map[string]*structpb.Value) string {
	return at(config, sourcePath).GetStringValue()
}

func at(fields map[string]*structpb.Value, path []string) *structpb.Value {
	for _, name := range path[:len(path)-1] {
		fields = fields[name].GetStructValue().GetFields()
	}
	return fields[path[len(path)-1]]
}

// with is a copy of s with another value at a path. What is not on the path is shared.
func with(s *structpb.Struct, v *structpb.Value, path ...string) *structpb.Struct {
	out := &structpb.Struct{Fields: maps.Clone(s.GetFields())}
	if len(path) == 1 {
		out.Fields[path[0]] = v
	} else {
		out.Fields[path[0]] = structpb.NewStructValue(with(s.GetFields()[path[0]].GetStructValue(), v, path[1:]...))
	}
	return out
}

// Equal says whether a generated object is there as it should be. Labels and annotations that others have added do not
// count.
func Equal(wanted, there Object) bool {
	switch {
	case wanted.EnvoyFilter != nil && there.EnvoyFilter != nil:
		w, t := wanted.EnvoyFilter, there.EnvoyFilter
		return w == t || sameMeta(&w.ObjectMeta, &t.ObjectMeta) && sameFilter(&w.Spec, &t.Spec)
	case wanted.WasmPlugin != nil && there.WasmPlugin != nil:
		w, t := wanted.WasmPlugin, there.WasmPlugin
		return w == t || sameMeta(&w.ObjectMeta, &t.ObjectMeta) && proto.Equal(&w.Spec, &t.Spec)
	}
	return false
}

// sameFilter is proto.Equal, but several times as fast: the structs of patches, which are nearly all of it, are compared
// without reflection.
func sameFilter(a, b *networking.EnvoyFilter) bool {
	if a.Priority != b.Priority || len(a.ConfigPatches) != len(b.ConfigPatches) ||
		!proto.Equal(a.WorkloadSelector, b.WorkloadSelector) || len(a.TargetRefs)+len(b.TargetRefs) > 0 {
		return false
	}
	for i, p := range a.ConfigPatches {
		q := b.ConfigPatches[i]
		if p.ApplyTo != q.ApplyTo || p.GetPatch().GetOperation() != q.GetPatch().GetOperation() || p.GetPatch().GetFilterClass() != q.GetPatch().GetFilterClass() ||
			!proto.Equal(p.Match, q.Match) || !sameStruct(p.GetPatch().GetValue(), q.GetPatch().GetValue()) {
			return false
		}
	}
	return true
}

func sameStruct(a, b *structpb.Struct) bool {
	if a == b {
		return true
	}
	if len(a.GetFields()) != len(b.GetFields()) {
		return false
	}
	for name, v := range a.GetFields() {
		if w, ok := b.GetFields()[name]; !ok || !sameValue(v, w) {
			return false
		}
	}
	return true
}

func sameValue(a, b *structpb.Value) bool {
	if a == b {
		return true
	}
	switch k := a.GetKind().(type) {
	case *structpb.Value_StructValue:
		l, ok := b.GetKind().(*structpb.Value_StructValue)
		return ok && sameStruct(k.StructValue, l.StructValue)
	case *structpb.Value_ListValue:
		l, ok := b.GetKind().(*structpb.Value_ListValue)
		return ok && slices.EqualFunc(k.ListValue.GetValues(), l.ListValue.GetValues(), sameValue)
	case *structpb.Value_StringValue:
		l, ok := b.GetKind().(*structpb.Value_StringValue)
		return ok && k.StringValue == l.StringValue
	case *structpb.Value_NumberValue:
		l, ok := b.GetKind().(*structpb.Value_NumberValue)
		return ok && k.NumberValue == l.NumberValue
	case *structpb.Value_BoolValue:
		l, ok := b.GetKind().(*structpb.Value_BoolValue)
		return ok && k.BoolValue == l.BoolValue
	}
	return proto.Equal(a, b)
}

func sameMeta(wanted, there *metav1.ObjectMeta) bool {
	return contains(there.Labels, wanted.Labels) && contains(there.Annotations, wanted.Annotations) &&
		there.Annotations[numbersAnnotation] == wanted.Annotations[numbersAnnotation]
}

func contains(all, some map[string]string) bool {
	for k, v := range some {
		if w, ok := all[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// Ranks of objects: what must be there first comes first, and what must be gone last goes last.
const (
	RankTables = iota
	RankBindings
	RankFilters
)

// Rank of an object.
func Rank(o Object) int {
	switch {
	case o.EnvoyFilter == nil:
		return RankTables
	case isSkeleton(o.Name()):
		return RankFilters
	case isBindings(o.Name()):
		return RankBindings
	}
	return RankTables
}

// WorkloadID is the workload that an object is for.
func WorkloadID(labels map[string]string) string { return labels[workloadLabel] }

// Entry is one thing that gateways may refuse: a Wasm plugin of a pool, without a key, or a filter of a table.
type Entry struct{ Resource, Key string }

// Entries are the Wasm plugins and native filters of an object, with their content.
func Entries(o Object) map[Entry]proto.Message {
	out := map[Entry]proto.Message{}
	if o.EnvoyFilter == nil {
		for _, name := range o.Resources {
			out[Entry{Resource: name}] = &o.WasmPlugin.Spec
		}
		return out
	}
	for _, p := range o.EnvoyFilter.Spec.ConfigPatches {
		value := p.GetPatch().GetValue()
		name := resourceName(p)
		switch config := typed(value); {
		case p.ApplyTo != networking.EnvoyFilter_EXTENSION_CONFIG || isBindings(name):
		case config[typeField].GetStringValue() == wasmType:
			out[Entry{Resource: name}] = structpb.NewStructValue(value)
		default:
			for key, v := range tableOf(config) {
				out[Entry{name, key}] = v
			}
		}
	}
	return out
}

// WithoutModules is an object with free places where it has Wasm plugins, and whether it has any.
func WithoutModules(o Object) (Object, bool) {
	if o.EnvoyFilter == nil || !slices.ContainsFunc(o.EnvoyFilter.Spec.ConfigPatches, isModule) {
		return o, false
	}
	out := o
	out.EnvoyFilter = &networkingv1alpha3.EnvoyFilter{TypeMeta: o.EnvoyFilter.TypeMeta, ObjectMeta: o.EnvoyFilter.ObjectMeta}
	spec := &out.EnvoyFilter.Spec
	spec.Priority, spec.WorkloadSelector = o.EnvoyFilter.Spec.Priority, o.EnvoyFilter.Spec.WorkloadSelector
	structs := newStructWriter()
	for _, p := range o.EnvoyFilter.Spec.ConfigPatches {
		if isModule(p) {
			p = &networking.EnvoyFilter_EnvoyConfigObjectPatch{
				ApplyTo: p.ApplyTo, Match: p.Match,
				Patch: &networking.EnvoyFilter_Patch{Operation: p.GetPatch().GetOperation(), Value: structs.extension(resourceName(p), dispatch.DenyAll())},
			}
		}
		spec.ConfigPatches = append(spec.ConfigPatches, p)
	}
	return out, true
}

func isModule(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) bool {
	return typed(p.GetPatch().GetValue())[typeField].GetStringValue() == wasmType
}
