package difference

import (
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	pluginsv1alpha1 "github.com/istio-plugins/istio-plugins/pkg/apis/plugins/v1alpha1"
	"github.com/istio-plugins/istio-plugins/pkg/catalog"
	"github.com/istio-plugins/istio-plugins/pkg/consumer"
	"github.com/istio-plugins/istio-plugins/pkg/explain"
	"github.com/istio-plugins/istio-plugins/pkg/lua"
	"github.com/istio-plugins/istio-plugins/pkg/mechanism"
	"github.com/istio-plugins/istio-plugins/pkg/part"
	"github.com/istio-plugins/istio-plugins/pkg/registry"
	"github.com/istio-plugins/istio-plugins/pkg/resolve"
	"github.com/istio-plugins/istio-plugins/pkg/snapshot"
)

// comparer compares steps. It builds the parts of both, because what a plugin does depends on more than its config.
type comparer struct {
	before, after *mechanism.World
	// parts remembers whether parts are the same, and shared whether shared tables are, by what they are called.
	parts  map[use]bool
	shared map[string]bool
}

// use is all of two steps that their parts depend on: the Plugin, who attached it, before and after, and the config.
type use struct{ plugin, before, after, config string }

func newComparer(before, after *snapshot.Snapshot) *comparer {
	return &comparer{before: world(before), after: world(after), parts: map[use]bool{}, shared: map[string]bool{}}
}

func world(s *snapshot.Snapshot) *mechanism.World {
	index, _ := consumer.New(s)
	maps := make(map[string]*corev1.ConfigMap, len(s.ConfigMaps))
	for _, m := range s.ConfigMaps {
		maps[m.Namespace+"/"+m.Name] = m
	}
	return &mechanism.World{Builtins: catalog.Find, Consumers: index, Services: registry.New(s), ConfigMaps: maps}
}

// differs says in what a step does something else than before.
func (c *comparer) differs(before, after resolve.Step, skipped bool) []Aspect {
	var out []Aspect
	add := func(aspect Aspect, differs bool) {
		if differs {
			out = append(out, aspect)
		}
	}
	was, is := before.Plugin.Spec, after.Plugin.Spec
	add(Type, typeOf(before) != typeOf(after))
	add(Config, !explain.SameConfig(before, after))
	add(Module, !reflect.DeepEqual(was.Wasm, is.Wasm))
	add(FailurePolicy, policyOf(before) != policyOf(after))
	add(Skipped, skipped)
	switch {
	case was.Lua != nil && is.Lua != nil:
		add(Source, sourceOf(build(c.before, before)) != sourceOf(build(c.after, after)))
	case len(out) == 0:
		add(References, !c.same(before, after))
	}
	return out
}

// same says whether the parts of two steps are the same that have the same Plugin and config.
func (c *comparer) same(before, after resolve.Step) bool {
	key := use{before.Plugin.ID, userOf(before), userOf(after), string(after.Config().JSON())}
	known, ok := c.parts[key]
	if !ok {
		known = slices.EqualFunc(build(c.before, before), build(c.after, after), c.samePart)
		c.parts[key] = known
	}
	return known
}

func (c *comparer) samePart(before, after part.Part) bool {
	switch is := after.(type) {
	case part.Native:
		was, ok := before.(part.Native)
		return ok && was.State == is.State && proto.Equal(was.Config, is.Config)
	case part.Lua:
		was, ok := before.(part.Lua)
		return ok && was.Source == is.Source && lua.Chain([]lua.Entry{lua.EntryOf(was)}) == lua.Chain([]lua.Entry{lua.EntryOf(is)}) && c.sameShared(was, is)
	}
	return reflect.DeepEqual(before, after)
}

// sameShared compares the tables that two parts share with others, each once.
func (c *comparer) sameShared(before, after part.Lua) bool {
	return slices.EqualFunc(lua.NewProgram(before).Shared, lua.NewProgram(after).Shared, func(was, is part.Shared) bool {
		known, ok := c.shared[is.Name]
		if !ok {
			known = reflect.DeepEqual(was.Table, is.Table)
			c.shared[is.Name] = known
		}
		return was.Name == is.Name && known
	})
}

func sourceOf(parts []part.Part) string {
	for _, p := range parts {
		if l, ok := p.(part.Lua); ok {
			return l.Source
		}
	}
	return ""
}

// build makes the parts of a step; none if it is unavailable.
func build(w *mechanism.World, s resolve.Step) []part.Part {
	p := s.Plugin
	parts, _ := w.Build(mechanism.Use{
		Identity: p.ID, Name: p.Name, Spec: p.Spec, Namespace: p.Namespace, User: userOf(s), Config: s.Config(),
		Secrets: mechanism.Secrets{Sources: p.Secrets, Wrong: p.Wrong, Public: s.Public},
	})
	return parts
}

// userOf is the namespace of who attached a step.
func userOf(s resolve.Step) string { return s.Entry.Level.Object.Namespace }

func typeOf(s resolve.Step) string { return mechanism.Type(s.Plugin.Spec) }

func policyOf(s resolve.Step) string {
	if s.Plugin.FailOpen() {
		return string(pluginsv1alpha1.FailOpen)
	}
	return string(pluginsv1alpha1.FailClosed)
}
