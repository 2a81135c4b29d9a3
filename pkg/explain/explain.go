// Package explain says what a route runs and why: the chains of a compilation in words and as a value with a stable JSON
// shape. It decides nothing itself, so it cannot disagree with what was compiled, and it shows no secret.
package explain

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/compile"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
	"github.com/istio-plugins/istio-plugins/pkg/topology"
)

// Explanation is what the routes of one object run. As JSON it is API: fields are added, never changed.
type Explanation struct {
	Object Object `json:"object"`
	// Source is `file:line` of the object; such fields are empty for what came from no file.
	Source string `json:"source,omitempty"`
	// Note says why there is nothing to show, or what else to look at.
	Note string `json:"note,omitempty"`
	// Paths are the ways on which requests reach the routes.
	Paths []Path `json:"paths,omitempty"`
}

// Object names a Kubernetes object.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (o Object) String() string { return finding.Object(o).String() }

// Path is a set of gateways, and listener ports of theirs.
type Path struct {
	Gateways []Object `json:"gateways"`
	// Ports where they matter: on others, the path without ports holds.
	Ports []string `json:"ports,omitempty"`
	// Routes that run the same are together.
	Routes []Routes `json:"routes"`
}

// Routes are routes that run the same chain.
type Routes struct {
	// Names in Envoy, as access logs have them. An unnamed route is "".
	Names []string `json:"names"`
	// All says that these are all routes of the object.
	All bool `json:"all,omitempty"`
	// Refused are the reasons for which the routes answer 503; the steps are then what they would run.
	Refused []Reason `json:"refused,omitempty"`
	Steps   []Step   `json:"steps"`
}

// Reason is a finding in short.
type Reason struct {
	Reason  finding.Reason `json:"reason"`
	Object  Object         `json:"object"`
	Source  string         `json:"source,omitempty"`
	Message string         `json:"message"`
}

// Step is one plugin of a chain.
type Step struct {
	// Plugin is the name, and Type what it is: a built-in's name, Lua, Wasm or Envoy.
	Plugin string `json:"plugin"`
	Type   string `json:"type"`
	// Object is the Plugin or ClusterPlugin; nil for a built-in by its bare name.
	Object        *Object `json:"object,omitempty"`
	Source        string  `json:"source,omitempty"`
	Priority      int32   `json:"priority"`
	FailurePolicy string  `json:"failurePolicy"`
	// AttachedBy is the entry that gave the step its place, MergedFrom those whose config was merged into it, in order.
	AttachedBy Entry   `json:"attachedBy"`
	MergedFrom []Entry `json:"mergedFrom,omitempty"`
	// Config is the merged config. Secrets in it read (hidden).
	Config map[string]any `json:"config"`
	// Secrets that parts of the Plugin's own config come from.
	Secrets []Secret `json:"secrets,omitempty"`
	// Skipped says that the step is unusable and not run.
	Skipped bool `json:"skipped,omitempty"`
	// Place says why it is at this place, OnFailure what requests get when it fails.
	Place     string `json:"place"`
	OnFailure string `json:"onFailure"`
}

// Secret says that a field of a Plugin's config comes from a key of a Secret.
type Secret struct {
	// Field is empty where all of the config does.
	Field string `json:"field,omitempty"`
	// Secret is written namespace/name.
	Secret string `json:"secret"`
	Key    string `json:"key"`
}

// Entry is an entry of an annotation.
type Entry struct {
	Object Object `json:"object"`
	Source string `json:"source,omitempty"`
	// Number of the entry in its annotation, from 1.
	Number   int  `json:"number"`
	Override bool `json:"override,omitempty"`
}

// VirtualService explains a VirtualService. With a route, only routes of that name are shown: the http route's own, a
// delegate's, or the one that Envoy has. False if there is no such object or route.
func VirtualService(s *snapshot.Snapshot, r *compile.Result, name types.NamespacedName, route string) (Explanation, bool) {
	for _, v := range r.Topology.VirtualServices {
		if v.NamespacedName == name {
			x := explainer{s}
			out := x.about(v.Ref())
			out.Paths = x.paths(r.Of(name), route)
			if len(out.Paths) == 0 {
				out.Note = "no Gateway that is there serves it, so its plugins run nowhere"
			}
			return out, route == "" || slices.ContainsFunc(v.Routes, func(r topology.Route) bool { return called(r, route) })
		}
	}
	return delegate(s, r, name, route)
}

// delegate points to the VirtualServices through which a delegate is reached.
func delegate(s *snapshot.Snapshot, r *compile.Result, name types.NamespacedName, route string) (Explanation, bool) {
	for _, vs := range s.VirtualServices {
		if vs.Namespace != name.Namespace || vs.Name != name.Name {
			continue
		}
		out := explainer{s}.about(topology.ObjectOf(vs))
		out.Note = "it has no hosts, and no VirtualService delegates to it"
		for _, v := range r.Topology.VirtualServices {
			if slices.ContainsFunc(v.Routes, func(r topology.Route) bool { return r.Delegate == vs }) {
				out.Note = fmt.Sprintf("it is reached as a delegate: explain %s", v.Ref())
				break
			}
		}
		return out, route == ""
	}
	return Explanation{}, false
}

// Gateway explains what a Gateway attaches to every route that is reached through it.
func Gateway(s *snapshot.Snapshot, r *compile.Result, name types.NamespacedName) (Explanation, bool) {
	for _, g := range r.Topology.Gateways {
		if g.NamespacedName != name {
			continue
		}
		x := explainer{s}
		out := x.about(g.Ref())
		chain := resolve.Chain{}
		if text, ok := g.Object.Annotations[annotation.Key]; ok {
			level := resolve.NewLevel(resolve.NewLibrary(s, catalog.Names()), g.Ref(), text, nil)
			chain = resolve.Compose(chain, []resolve.Covered{{Level: level}}, &resolve.Notes{})
		}
		out.Paths = []Path{{
			Gateways: []Object{Object(g.Ref())},
			Routes:   []Routes{x.routes(compile.RouteChain{Chain: chain}, nil, true)},
		}}
		out.Note = fmt.Sprintf("this is what it attaches; VirtualServices bound to it, which may add to it or opt out: %d", len(g.Bound))
		return out, true
	}
	return Explanation{}, false
}

// explainer knows where objects were read.
type explainer struct{ snapshot *snapshot.Snapshot }

func (x explainer) about(o finding.Object) Explanation {
	return Explanation{Object: Object(o), Source: x.snapshot.Where(o, "")}
}

// called says whether a route goes by a name.
func called(r topology.Route, name string) bool {
	return r.Name == name || r.Root == name || r.Delegate != nil && r.DelegateRoute == name
}

// paths shows the ways to a VirtualService's routes. Workloads that may share pods have them in common.
func (x explainer) paths(services []compile.Service, route string) []Path {
	var out []Path
	for _, s := range services {
		for _, g := range s.Groups {
			p := Path{Ports: g.Ports, Routes: x.group(s.VirtualService, g, route)}
			for _, gateway := range g.Gateways {
				p.Gateways = append(p.Gateways, Object(gateway.Ref()))
			}
			same := func(o Path) bool { return slices.Equal(o.Gateways, p.Gateways) && slices.Equal(o.Ports, p.Ports) }
			if len(p.Gateways) > 0 && !slices.ContainsFunc(out, same) {
				out = append(out, p)
			}
		}
	}
	// What is true of all other ports comes last.
	slices.SortStableFunc(out, func(a, b Path) int { return cmp.Compare(min(len(b.Ports), 1), min(len(a.Ports), 1)) })
	return out
}

// group puts routes that run the same together, in the order of the first of each.
func (x explainer) group(v *topology.VirtualService, g compile.Group, only string) []Routes {
	var chains []compile.RouteChain
	var names [][]string
	for _, route := range v.Routes {
		if only != "" && !called(route, only) || !servedByAny(route, g.Gateways) {
			continue
		}
		chain := g.Route(route.Name)
		at := slices.IndexFunc(chains, func(c compile.RouteChain) bool {
			return c.Refused == chain.Refused && c.Chain.Equal(chain.Chain)
		})
		if at < 0 {
			at = len(chains)
			chains, names = append(chains, chain), append(names, nil)
		}
		if !slices.Contains(names[at], route.Name) {
			names[at] = append(names[at], route.Name)
		}
	}
	out := make([]Routes, len(chains))
	for i, chain := range chains {
		out[i] = x.routes(chain, names[i], len(chains) == 1 && only == "")
	}
	return out
}

func servedByAny(r topology.Route, gateways []*topology.Gateway) bool {
	return slices.ContainsFunc(gateways, r.ServedBy)
}

func (x explainer) routes(c compile.RouteChain, names []string, all bool) Routes {
	out := Routes{Names: names, All: all, Steps: []Step{}}
	if names == nil {
		out.Names = []string{}
	}
	for _, r := range c.Chain.Refusals {
		out.Refused = append(out.Refused, x.reason(r.Issue))
	}
	if c.Refused != nil && len(c.Chain.Refusals) == 0 {
		out.Refused = append(out.Refused, x.reason(c.Refused))
	}
	for _, step := range c.Chain.Steps {
		skipped := slices.ContainsFunc(c.Skipped, func(s resolve.Step) bool { return s.Entry == step.Entry && slices.Equal(s.Merged, step.Merged) })
		out.Steps = append(out.Steps, x.step(step, c.Chain, skipped))
	}
	return out
}

func (x explainer) reason(i *resolve.Issue) Reason {
	return Reason{
		Reason: i.Reason, Object: Object(i.Object), Source: x.snapshot.Where(i.Object, i.Place), Message: i.Message(),
	}
}

func (x explainer) entry(e *resolve.Entry) Entry {
	return Entry{
		Object: Object(e.Level.Object), Source: x.snapshot.Where(e.Level.Object, e.Place),
		Number: slices.Index(e.Level.Entries, e) + 1, Override: e.Override,
	}
}
