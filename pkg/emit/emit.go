// Package emit wraps the Envoy configuration of package dispatch into objects that istiod reads: EnvoyFilters, and
// WasmPlugins for images with a pull secret. All live in the root namespace, because only EnvoyFilters there select
// gateways in every namespace, as a Gateway does.
package emit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	extensionsv1alpha1 "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	networkingv1alpha3 "istio.io/client-go/pkg/apis/networking/v1alpha3"

	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	matching "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-plugins/istio-plugins/pkg/dispatch"
	"github.com/istio-plugins/istio-plugins/pkg/internal/memo"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

const (
	// priority of the EnvoyFilters. It is not 0, because a relative operation at priority 0 depends on the age of
	// objects (istioctl analyze IST0151), and above 0 they come after those of users who left it unset.
	priority = 10
	// serverPriority is that of objects that change what an object with the other priority has inserted.
	serverPriority = priority + 1
	// MaxObject is the most bytes of an object: etcd refuses requests above 1.5 MiB, and server-side apply keeps the
	// names of fields beside their values.
	MaxObject = 1 << 20
)

// Keys of labels and annotations. None contains "istio.io": istiod pushes on any touch of an object that has such a key.
const (
	workloadLabel     = "istio-plugins/workload"
	numbersAnnotation = "istio-plugins/wasm-numbers"
)

// Object is one generated object: one of the two is set.
type Object struct {
	EnvoyFilter *networkingv1alpha3.EnvoyFilter
	WasmPlugin  *extensionsv1alpha1.WasmPlugin
	// Resources are the ECDS names that it carries, in order, and Size is about how many bytes it has as JSON.
	Resources []string
	Size      int
}

// Name of the object.
func (o Object) Name() string {
	if o.WasmPlugin != nil {
		return o.WasmPlugin.Name
	}
	return o.EnvoyFilter.Name
}

// Workload is what is emitted for one gateway workload.
type Workload struct {
	Workload *topology.Workload
	// Unit is the gateway's own, Servers those of single TLS servers, by the SNI hosts that choose them.
	Unit    dispatch.Compiled
	Servers []Server
	Pool    *dispatch.Pool
	// Services are the hosts of the services that filters call.
	Services []string
}

// Server is the unit of a TLS server.
type Server struct {
	// Name of the unit.
	Name string
	// Hosts are one SNI host for each of the server's filter chains.
	Hosts []string
	Unit  dispatch.Compiled
}

// Emitter makes objects. It keeps them, and what is in them, for the pass after: what is made of the same messages is the
// same object. Nothing that it returns may be modified.
type Emitter struct {
	Options snapshot.Options
	structs *structWriter

	resources memo.Map[string, emitted]            // by ECDS name
	filters   memo.Map[filterAt, patch]            // fixed ones
	equal     memo.Map[[2]*dispatch.Filter, *bool] // whether they say the same
	objects   memo.Map[string, made]               // by name
}

// patch is one patch of an object, with about how many bytes it has there.
type patch struct {
	*networking.EnvoyFilter_EnvoyConfigObjectPatch
	size int
}

// emitted is a resource's patch, and the message that it was made of.
type emitted struct {
	config proto.Message
	patch  patch
}

// made is an object, and the patches that it was made of.
type made struct {
	Object
	patches []patch
}

// New returns an Emitter.
func New(o snapshot.Options) *Emitter { return &Emitter{Options: o, structs: newStructWriter()} }

// Next ends a pass. What it did not emit is forgotten.
func (e *Emitter) Next() {
	e.structs = newStructWriter()
	e.resources.Next()
	e.filters.Next()
	e.equal.Next()
	e.objects.Next()
}

// Objects of a workload, sorted by name.
func (e *Emitter) Objects(w Workload) []Object {
	var out []Object
	add := func(name string, patches ...patch) {
		out = append(out, e.envoyFilter(w.Workload, name, priority, nil, patches))
	}
	add("skeleton", e.skeleton(w.Unit)...)
	for _, b := range w.Unit.Bindings {
		add(lastOf(b.Name, 2), e.resource(b))
	}
	var long, runtimes []patch
	for slot := range w.Unit.Slots {
		patches := e.patches(w.Unit.Slots[slot])
		switch {
		case len(patches) == 0:
			continue
		case len(patches) == 2: // one table of each kind: a long slot
			long = append(long, patches...)
		default:
			e.grouped(fmt.Sprintf("slot.%d", slot), patches, add)
		}
		runtimes = append(runtimes, e.resource(w.Unit.Lua[slot]))
	}
	e.grouped("slots", long, add)
	e.grouped("lua", runtimes, add)
	for _, s := range w.Servers {
		out = append(out, e.envoyFilter(w.Workload, s.Name, serverPriority, nil, e.server(s, w.Unit)))
	}
	out = append(out, e.pool(w)...)
	out = append(out, e.services(w)...)
	slices.SortFunc(out, func(a, b Object) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// grouped puts resources into one object or, where they would be too large, into one each.
func (e *Emitter) grouped(name string, patches []patch, add func(string, ...patch)) {
	if sizeOf(patches) < MaxObject*9/10 {
		add(name, patches...)
		return
	}
	for _, p := range patches {
		add(name+"."+lastOf(p.name(), 3), p)
	}
}

// server is everything of a TLS server: its tables, and the filters that use them, each in the place of the gateway's own.
// They are in one object because a filter is of some 100 KB, and there may be hundreds of servers.
func (e *Emitter) server(s Server, own dispatch.Compiled) []patch {
	out := e.patches(s.Unit.Bindings)
	for slot := range s.Unit.Slots {
		if len(s.Unit.Slots[slot]) > 0 {
			out = append(out, e.patches(s.Unit.Slots[slot])...)
			out = append(out, e.resource(s.Unit.Lua[slot]))
		}
	}
	for _, host := range s.Hosts {
		for i, f := range s.Unit.Filters {
			if !e.alike(f, own.Filters[i]) {
				out = append(out, e.filter(filterAt{networking.EnvoyFilter_Patch_REPLACE, f.Name, host, f}))
			}
		}
	}
	return out
}

// alike says whether two fixed filters say the same.
func (e *Emitter) alike(f, g *dispatch.Filter) bool {
	at := e.equal.At([2]*dispatch.Filter{f, g})
	if *at == nil {
		equal := proto.Equal(f.Config, g.Config)
		*at = &equal
	}
	return **at
}

// ServerSize is about how many bytes the object of a TLS server has, on a gateway with these own filters.
func (e *Emitter) ServerSize(s Server, own dispatch.Compiled) int { return sizeOf(e.server(s, own)) }

// ResourceSize is about how many bytes a resource has in its object.
func (e *Emitter) ResourceSize(r dispatch.Resource) int { return e.resource(r).size }

// EntrySizes is about how many bytes each entry of a table, or source of a Lua runtime, has.
func (e *Emitter) EntrySizes(r dispatch.Resource) map[string]int {
	if r.Sizes != nil {
		return r.Sizes
	}
	out := map[string]int{}
	for key, match := range matches(r.Config) {
		out[key] = e.structs.entrySize(key, e.structs.write(match.ProtoReflect()))
	}
	return out
}

// matches are the entries of a table, and otherwise what is for all else; nil for what is no table.
func matches(config proto.Message) map[string]*xdsmatcher.Matcher_OnMatch {
	m, _ := config.(*matching.ExtensionWithMatcher)
	return m.GetXdsMatcher().GetMatcherTree().GetExactMatchMap().GetMap()
}

func otherwise(config proto.Message) *xdsmatcher.Matcher_OnMatch {
	m, _ := config.(*matching.ExtensionWithMatcher)
	return m.GetXdsMatcher().GetOnNoMatch()
}

// SkeletonName is the name of the object with a workload's fixed filters.
func SkeletonName(w *topology.Workload) string { return "istio-plugins." + w.ID + ".skeleton" }

// lastOf is the end of a dotted name.
func lastOf(name string, parts int) string {
	all := strings.Split(name, ".")
	return strings.Join(all[max(0, len(all)-parts):], ".")
}

// skeleton inserts the fixed filters before the router of every HTTP connection manager.
func (e *Emitter) skeleton(own dispatch.Compiled) []patch {
	var out []patch
	for _, f := range own.Filters {
		out = append(out, e.filter(filterAt{networking.EnvoyFilter_Patch_INSERT_BEFORE, "envoy.filters.http.router", "", f}))
	}
	return out
}

// filterAt is a fixed filter, and its place in a listener.
type filterAt struct {
	op      networking.EnvoyFilter_Patch_Operation
	at, sni string
	filter  *dispatch.Filter
}

func (e *Emitter) filter(f filterAt) patch {
	at := e.filters.At(f)
	if at.EnvoyFilter_EnvoyConfigObjectPatch != nil {
		return *at
	}
	value := e.structs.extension(f.filter.Name, f.filter.Config)
	*at = patch{&networking.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networking.EnvoyFilter_HTTP_FILTER,
		Match: &networking.EnvoyFilter_EnvoyConfigObjectMatch{
			Context: networking.EnvoyFilter_GATEWAY,
			ObjectTypes: &networking.EnvoyFilter_EnvoyConfigObjectMatch_Listener{Listener: &networking.EnvoyFilter_ListenerMatch{
				FilterChain: &networking.EnvoyFilter_ListenerMatch_FilterChainMatch{
					Sni: f.sni,
					Filter: &networking.EnvoyFilter_ListenerMatch_FilterMatch{
						Name:      "envoy.filters.network.http_connection_manager",
						SubFilter: &networking.EnvoyFilter_ListenerMatch_SubFilterMatch{Name: f.at},
					},
				},
			}},
		},
		Patch: &networking.EnvoyFilter_Patch{Operation: f.op, Value: value},
	}, around + e.structs.structSize(value)}
	return *at
}

func (e *Emitter) patches(rs []dispatch.Resource) []patch {
	out := make([]patch, len(rs))
	for i, r := range rs {
		out[i] = e.resource(r)
	}
	return out
}

// resource is the patch that makes istiod serve a resource by ECDS.
func (e *Emitter) resource(r dispatch.Resource) patch {
	was := e.resources.At(r.Name)
	if was.config == r.Config || was.config != nil && matches(r.Config) == nil && proto.Equal(was.config, r.Config) {
		return was.patch
	}
	value, size := e.edited(was, r.Config)
	if value == nil {
		value = e.structs.extension(r.Name, r.Config)
		size = around + e.structs.structSize(value)
	}
	*was = emitted{r.Config, patch{&networking.EnvoyFilter_EnvoyConfigObjectPatch{
		ApplyTo: networking.EnvoyFilter_EXTENSION_CONFIG,
		Match:   &networking.EnvoyFilter_EnvoyConfigObjectMatch{Context: networking.EnvoyFilter_GATEWAY},
		Patch:   &networking.EnvoyFilter_Patch{Operation: networking.EnvoyFilter_Patch_ADD, Value: value},
	}, size}}
	return was.patch
}

// around is about how many bytes a patch has besides its value: applyTo, match, operation.
const around = 80

// edited is the value of a table, made of an earlier one and the entries that have changed; nil where it cannot be. Tables
// are large, and an edit changes few of their entries.
func (e *Emitter) edited(was *emitted, config proto.Message) (*structpb.Struct, int) {
	before, after := matches(was.config), matches(config)
	if before == nil || after == nil || otherwise(was.config) != otherwise(config) {
		return nil, 0
	}
	old := was.patch.GetPatch().GetValue()
	values, size := tableOf(typed(old)), was.patch.size
	for key, match := range before {
		e.structs.messages[match] = values[key] // it may stand under another key now
		if after[key] != match {
			size -= e.structs.entrySize(key, values[key])
		}
	}
	entries := make(map[string]*structpb.Value, len(after))
	for key, match := range after {
		if before[key] == match {
			entries[key] = values[key]
			continue
		}
		entries[key] = e.structs.write(match.ProtoReflect())
		size += e.structs.entrySize(key, entries[key])
	}
	return with(old, structpb.NewStructValue(&structpb.Struct{Fields: entries}), append([]string{configField}, tablePath...)...), size
}

func (p patch) name() string { return resourceName(p.EnvoyFilter_EnvoyConfigObjectPatch) }

func resourceName(p *networking.EnvoyFilter_EnvoyConfigObjectPatch) string {
	return p.GetPatch().GetValue().GetFields()["name"].GetStringValue()
}

func sizeOf(patches []patch) int {
	n := 0
	for _, p := range patches {
		n += p.size
	}
	return n
}

// envoyFilter is one object for the pods of a workload.
func (e *Emitter) envoyFilter(w *topology.Workload, name string, priority int32, annotations map[string]string, patches []patch) Object {
	meta := e.meta(w, fmt.Sprintf("istio-plugins.%s.%s", w.ID, name))
	meta.Annotations = annotations
	was := e.objects.At(meta.Name)
	if was.EnvoyFilter != nil && slices.Equal(was.patches, patches) && maps.Equal(was.EnvoyFilter.Annotations, annotations) &&
		was.EnvoyFilter.Spec.Priority == priority && maps.Equal(was.EnvoyFilter.Spec.GetWorkloadSelector().GetLabels(), w.Selector) {
		return was.Object
	}
	o := Object{
		EnvoyFilter: &networkingv1alpha3.EnvoyFilter{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.istio.io/v1alpha3", Kind: "EnvoyFilter"},
			ObjectMeta: meta,
		},
		Size: sizeOf(patches),
	}
	spec := &o.EnvoyFilter.Spec
	spec.Priority = priority
	if len(w.Selector) > 0 {
		spec.WorkloadSelector = &networking.WorkloadSelector{Labels: w.Selector}
	}
	for _, p := range patches {
		spec.ConfigPatches = append(spec.ConfigPatches, p.EnvoyFilter_EnvoyConfigObjectPatch)
		if p.ApplyTo == networking.EnvoyFilter_EXTENSION_CONFIG {
			o.Resources = append(o.Resources, p.name())
		}
	}
	*was = made{o, patches}
	return o
}

func (e *Emitter) meta(w *topology.Workload, name string) metav1.ObjectMeta {
	labels := Labels(e.Options.Revision)
	labels[workloadLabel] = w.ID
	return metav1.ObjectMeta{Name: name, Namespace: e.Options.RootNamespace, Labels: labels}
}

// Labels of everything that is generated for a revision of Istio's control plane.
func Labels(revision string) map[string]string {
	labels := map[string]string{
		"app.kubernetes.io/managed-by": "istio-plugins",
		snapshot.GeneratedLabel:        "true",
	}
	if revision != "" {
		labels[snapshot.RevisionLabel] = revision
	}
	return labels
}
