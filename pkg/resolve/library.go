// Package resolve turns annotations into chains: references to Plugins, grants, merging of configs over the levels
// (Gateway, VirtualService, delegate), opt-outs and order. Its values speak of plugins and routes, not of Envoy.
package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/finding"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// Plugin is what a name resolves to: a Plugin, a ClusterPlugin, or a built-in by its bare name.
type Plugin struct {
	// ID is its identity: entries mean the same plugin if their IDs are equal.
	ID string
	// Name for messages.
	Name string
	// Object is the Plugin or ClusterPlugin; zero for a bare built-in.
	Object finding.Object
	// Namespace in which the plugin's own references (ConfigMaps) are looked up.
	Namespace string
	// Spec of the plugin; for a bare built-in it only names it.
	Spec *pluginsv1alpha1.PluginSpec
	// Config is the plugin's own config. Public is the same as far as everybody may know it: what comes from Secrets reads
	// config.Hidden there, or is left out.
	Config, Public config.Value
	// Secrets are where parts of Config come from, and Wrong is what is wrong with them. Unless all of that are warnings the
	// plugin is unusable.
	Secrets []config.Source
	Wrong   []finding.Finding
	// readings are what the Secrets gave.
	readings []reading
	// Malformed is set if the object could not be decoded; routes that name it are refused.
	Malformed *Issue
}

// sameAs says whether newPlugin would come to the same Plugin. It compares content, since an object has a new version
// whenever its status is written. What is malformed is read again.
func (p *Plugin) sameAs(namespace string, spec *pluginsv1alpha1.PluginSpec, all secrets) bool {
	return p.Malformed == nil && p.Namespace == namespace && reflect.DeepEqual(p.Spec, spec) &&
		!slices.ContainsFunc(p.readings, func(r reading) bool { return !r.holds(all) })
}

// FailOpen says whether routes skip the plugin when it is invalid or fails.
func (p *Plugin) FailOpen() bool { return p.Spec.FailurePolicy == pluginsv1alpha1.FailOpen }

// Issue is a finding whose effect on traffic is known only when all routes have been looked at.
type Issue struct {
	finding.Finding
	// Skips says that the routes concerned skip the plugin; otherwise they answer 503.
	Skips bool
}

// Library finds plugins by name.
type Library struct {
	plugins  map[string]*Plugin // by "namespace/name"
	cluster  map[string]*Plugin
	builtins map[string]*Plugin
	grants   []*gatewayv1.ReferenceGrant
}

// NewLibrary indexes the Plugins, ClusterPlugins and grants of a snapshot, and the built-ins of these names.
// rootNamespace is where a ClusterPlugin's references are looked up.
func NewLibrary(s *snapshot.Snapshot, builtins []string) *Library {
	l := &Library{builtins: make(map[string]*Plugin, len(builtins))}
	for _, name := range builtins {
		l.builtins[name] = &Plugin{ID: "builtin/" + name, Name: name, Spec: &pluginsv1alpha1.PluginSpec{Builtin: name}, Config: config.Value{}, Public: config.Value{}}
	}
	return l.Next(s)
}

// Next is the library of a later snapshot: where nothing has changed the same one, and else one in which what is the same
// in both is the same Plugin.
func (l *Library) Next(s *snapshot.Snapshot) *Library {
	next := &Library{
		plugins:  make(map[string]*Plugin, len(s.Plugins)),
		cluster:  make(map[string]*Plugin, len(s.ClusterPlugins)),
		builtins: l.builtins,
		grants:   s.ReferenceGrants,
	}
	all := secretsOf(s)
	for _, p := range s.Plugins {
		object := finding.Object{Kind: "Plugin", Namespace: p.Namespace, Name: p.Name}
		key := p.Namespace + "/" + p.Name
		next.plugins[key] = renewed(l.plugins[key], object, p.Namespace, &p.Spec, all)
	}
	for _, p := range s.ClusterPlugins {
		object := finding.Object{Kind: "ClusterPlugin", Name: p.Name}
		next.cluster[p.Name] = renewed(l.cluster[p.Name], object, s.Options.RootNamespace, &p.Spec, all)
	}
	if len(s.Malformed) == 0 && maps.Equal(l.plugins, next.plugins) && maps.Equal(l.cluster, next.cluster) && snapshot.SameObjects(l.grants, next.grants, snapshot.Same) {
		return l
	}
	next.addMalformed(s.Malformed)
	return next
}

// addMalformed puts what could not be decoded in its place, so that who names it is refused.
func (l *Library) addMalformed(malformed []snapshot.Malformed) {
	for _, m := range byPlace(malformed) {
		var known map[string]*Plugin
		key := m.Object.Name
		switch m.Object.Kind {
		case "Plugin":
			known, key = l.plugins, m.Object.Namespace+"/"+key
		case "ClusterPlugin":
			known = l.cluster
		default:
			continue
		}
		if p := known[key]; p != nil && p.Malformed != nil {
			p, issue := *p, *p.Malformed // an earlier library may have it, too
			issue.Problem += fmt.Sprintf("; %s: %s", m.Place, m.Error)
			p.Malformed = &issue
			known[key] = &p
			continue
		}
		known[key] = &Plugin{
			ID: m.Object.String(), Name: m.Object.Name, Object: m.Object, Spec: &pluginsv1alpha1.PluginSpec{},
			Malformed: &Issue{Finding: finding.Finding{
				Reason: finding.InvalidPlugin, Object: m.Object, Place: m.Place, Problem: m.Error, Remedy: "correct the object",
			}},
		}
	}
}

// byPlace sorts mistakes, the deepest first: it is most often the cause of the others.
func byPlace(malformed []snapshot.Malformed) []snapshot.Malformed {
	return slices.SortedFunc(slices.Values(malformed), func(a, b snapshot.Malformed) int {
		return cmp.Or(cmp.Compare(b.Place, a.Place), cmp.Compare(a.Error, b.Error))
	})
}

// renewed is a Plugin as it was if it still is, or else a new one.
func renewed(was *Plugin, object finding.Object, namespace string, spec *pluginsv1alpha1.PluginSpec, all secrets) *Plugin {
	if was != nil && was.sameAs(namespace, spec, all) {
		return was
	}
	return newPlugin(object, namespace, spec, all)
}

func newPlugin(object finding.Object, namespace string, spec *pluginsv1alpha1.PluginSpec, all secrets) *Plugin {
	p := &Plugin{ID: object.String(), Name: object.Name, Object: object, Namespace: namespace, Spec: spec}
	if spec.Config != nil {
		c, err := config.Decode(spec.Config.Raw)
		if err != nil {
			p.Malformed = &Issue{Finding: finding.Finding{
				Reason: finding.InvalidPlugin, Object: object, Place: "spec.config", Problem: err.Error(), Remedy: "make spec.config a map",
			}}
		}
		p.Config, p.Public = c, c
	}
	if p.Malformed == nil && refers(spec) {
		p.readSecrets(all)
	}
	return p
}

// All returns the Plugins and ClusterPlugins, malformed ones included, in a stable order.
func (l *Library) All() []*Plugin {
	var out []*Plugin
	for _, k := range slices.Sorted(maps.Keys(l.plugins)) {
		out = append(out, l.plugins[k])
	}
	for _, k := range slices.Sorted(maps.Keys(l.cluster)) {
		out = append(out, l.cluster[k])
	}
	return out
}

// Find resolves a name as an object of this kind and namespace writes it. Without a namespace it means a Plugin of
// the same namespace, then a ClusterPlugin, then a built-in. The Issue says why nothing may be used; its object and
// place are the caller's to fill in.
func (l *Library) Find(name, kind, namespace string) (*Plugin, *Issue) {
	if ns, bare, ok := strings.Cut(name, "/"); ok {
		p := l.plugins[name]
		switch {
		case ns == namespace && p != nil:
			return p, nil
		case ns != namespace && !l.granted(ns, bare, kind, namespace):
			// The same words whether or not the Plugin exists: who may not use it need not learn that it is there.
			return nil, &Issue{Finding: finding.Finding{
				Reason:  finding.RefNotPermitted,
				Problem: fmt.Sprintf("plugin %q is in another namespace, and no ReferenceGrant there permits a %s of namespace %s to use it", name, kind, namespace),
				Remedy:  fmt.Sprintf("ask for a ReferenceGrant in %s from networking.istio.io %s of %s to plugins.istio.io Plugin", ns, kind, namespace),
			}}
		case p != nil:
			return p, nil
		}
		return nil, &Issue{Finding: finding.Finding{
			Reason:  finding.PluginNotFound,
			Problem: fmt.Sprintf("namespace %s has no Plugin %q", ns, bare),
			Remedy:  l.suggest(bare, ns),
		}}
	}
	if p := l.plugins[namespace+"/"+name]; p != nil {
		return p, nil
	}
	if p := l.cluster[name]; p != nil {
		return p, nil
	}
	if p := l.builtins[name]; p != nil {
		return p, nil
	}
	return nil, &Issue{Finding: finding.Finding{
		Reason:  finding.PluginNotFound,
		Problem: fmt.Sprintf("no Plugin in namespace %s, no ClusterPlugin and no built-in is called %q", namespace, name),
		Remedy:  l.suggest(name, namespace),
	}}
}

func (l *Library) suggest(name, namespace string) string {
	var known []string
	for key := range l.plugins {
		if ns, bare, _ := strings.Cut(key, "/"); ns == namespace {
			known = append(known, bare)
		}
	}
	known = append(known, slices.Collect(maps.Keys(l.cluster))...)
	known = append(known, slices.Collect(maps.Keys(l.builtins))...)
	slices.Sort(known)
	if near, ok := finding.Nearest(name, known); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Sprintf("create the Plugin in namespace %s, or name another one", namespace)
}

// granted says whether a ReferenceGrant in namespace `in` lets objects of a kind and namespace use a Plugin there.
func (l *Library) granted(in, name, kind, from string) bool {
	return slices.ContainsFunc(l.grants, func(g *gatewayv1.ReferenceGrant) bool {
		return g.Namespace == in &&
			slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
				return f.Group == "networking.istio.io" && string(f.Kind) == kind && string(f.Namespace) == from
			}) &&
			slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
				return t.Group == "plugins.istio.io" && t.Kind == "Plugin" && (t.Name == nil || *t.Name == "" || string(*t.Name) == name)
			})
	})
}
